// A client as bytes in the "clients" table: version, flags, times (little-endian), texts padded with NUL, hash.
#pragma once
#include "storage/state.h"

#define KB_CLIENT_RECORD_LEN (1 + 1 + 6 + 8 + 8 + 64 + 32 + 32)

void kb_client_pack(const struct kb_client *c, uint8_t ret[KB_CLIENT_RECORD_LEN]);
// KB_ECORRUPT for a record that pack() did not make.
KB_MUST_CHECK int kb_client_unpack(
	const uint8_t fingerprint[32], const uint8_t *record, size_t len, struct kb_client *ret);
