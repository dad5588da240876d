// Sealing: a file that only a fleet's boxes can read, so that a lost stick leaks nothing. An outer coat around a signed
// image; the signatures inside say whose it is, the coat says nothing about that.
//
// A content key is drawn for each file and wrapped for each receiver (P-256 or P-384): ECDH of an ephemeral key with
// the receiver's (NIST SP 800-56A), HKDF-SHA-256 (RFC 5869), AES-256-GCM (NIST SP 800-38D). The file follows in chunks
// of KB_SEAL_CHUNK bytes under AES-256-GCM, each with its number and whether it is the last one in the nonce, so that
// nothing can be cut, reordered or appended (the STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO
// 2015), and with the hash of the header, so that no receiver can be changed. docs/images.md has the bytes.
#pragma once
#include "storage/signature.h"
#include <stdbool.h>

#define KB_SEAL_MAGIC "KBSEAL01"
#define KB_SEAL_CHUNK 65536u
#define KB_SEAL_RECEIVERS_MAX 32u

// Gets what is sealed, or opened, in order. Nonzero stops, and is what feed returns.
typedef int (*kb_seal_sink)(void *ctx, const uint8_t *bytes, size_t len, struct kb_err *err);

struct kb_seal;
KB_MUST_CHECK int kb_seal_begin(
	const struct kb_public_key *to, uint32_t n, kb_seal_sink sink, void *ctx, struct kb_err *err, struct kb_seal **ret);
KB_MUST_CHECK int kb_seal_feed(struct kb_seal *s, const uint8_t *bytes, size_t len, struct kb_err *err);
KB_MUST_CHECK int kb_seal_end(struct kb_seal *s, struct kb_err *err); // that was all
void kb_seal_destroy(struct kb_seal *s);                              // NULL is fine

// Whether a file begins as a sealed one; len may be less than the magic's.
bool kb_seal_is(const uint8_t *bytes, size_t len);

struct kb_unseal;
// pem: the receiver's private key, NUL-terminated.
KB_MUST_CHECK int kb_unseal_begin(
	const char *pem, kb_seal_sink sink, void *ctx, struct kb_err *err, struct kb_unseal **ret);
// Hands on a chunk when its tag was found right, never before. KB_EDENIED: it is sealed for others. KB_ECORRUPT names
// the chunk. After an error every further call gives it again.
KB_MUST_CHECK int kb_unseal_feed(struct kb_unseal *u, const uint8_t *bytes, size_t len, struct kb_err *err);
KB_MUST_CHECK int kb_unseal_end(struct kb_unseal *u, struct kb_err *err); // KB_EBAD: it was cut
void kb_unseal_destroy(struct kb_unseal *u);
