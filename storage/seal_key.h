// The keys of seal.h: what seal.c and unseal.c share. Not for others.
#pragma once
#include "storage/seal.h"
#include <psa/crypto.h>

#define KB_SEAL_HEAD 16u // magic, u32 receivers, u32 zero
#define KB_SEAL_ROW 184u // of each: key id, curve, 3 zeros, ephemeral point (97, zeros behind 65), 3 zeros, wrapped key
#define KB_SEAL_KEY 32u
#define KB_SEAL_TAG 16u
#define KB_SEAL_HEAD_MAX (KB_SEAL_HEAD + KB_SEAL_RECEIVERS_MAX * KB_SEAL_ROW)

enum { KB_ROW_ID = 0, KB_ROW_CURVE = 32, KB_ROW_POINT = 36, KB_ROW_WRAPPED = 136 };

// A key for AES-256-GCM; psa_destroy_key() it.
KB_MUST_CHECK int kb__seal_aes(const uint8_t key[static KB_SEAL_KEY], struct kb_err *err, psa_key_id_t *ret);
// One row for a receiver, with a fresh ephemeral key.
KB_MUST_CHECK int kb__seal_wrap(const struct kb_public_key *to, const uint8_t key[static KB_SEAL_KEY],
	struct kb_err *err, uint8_t ret_row[static KB_SEAL_ROW]);
// The content key out of a row that is for this private key. KB_ECORRUPT.
KB_MUST_CHECK int kb__seal_unwrap(psa_key_id_t secret, const struct kb_public_key *own,
	const uint8_t row[static KB_SEAL_ROW], struct kb_err *err, uint8_t ret_key[static KB_SEAL_KEY]);
// Nonce of a chunk: three zeros, its number (big-endian), 1 where it is the last one.
void kb__seal_nonce(uint64_t chunk, bool is_last, uint8_t ret[static 12]);
