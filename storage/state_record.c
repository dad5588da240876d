// See state_record.h.
#include "storage/state_record.h"

#include <string.h>

enum {
	VERSION = 1,
	FLAG_BEARER = 1,
	FLAG_ADMIN = 2,
	AT_CREATED = 8,
	AT_REVOKED = 16,
	AT_NAME = 24,
	AT_SERIAL = 88,
	AT_HASH = 120
};
_Static_assert(AT_HASH + 32 == KB_CLIENT_RECORD_LEN, "the record's fields fill it");

static void put_i64(uint8_t *p, int64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)((uint64_t)v >> (8 * i));
}

static int64_t get_i64(const uint8_t *p)
{
	uint64_t v = 0;
	for (int i = 0; i < 8; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return (int64_t)v;
}

void kb_client_pack(const struct kb_client *c, uint8_t ret[KB_CLIENT_RECORD_LEN])
{
	memset(ret, 0, KB_CLIENT_RECORD_LEN);
	ret[0] = VERSION;
	ret[1] = (uint8_t)((c->has_bearer ? FLAG_BEARER : 0) | (c->is_admin ? FLAG_ADMIN : 0));
	put_i64(ret + AT_CREATED, c->created_s);
	put_i64(ret + AT_REVOKED, c->revoked_s);
	memcpy(ret + AT_NAME, c->name, strnlen(c->name, KB_CLIENT_NAME_MAX));
	memcpy(ret + AT_SERIAL, c->serial, strnlen(c->serial, 32));
	memcpy(ret + AT_HASH, c->bearer_hash, 32);
}

int kb_client_unpack(const uint8_t fingerprint[32], const uint8_t *record, size_t len, struct kb_client *ret)
{
	if (len != KB_CLIENT_RECORD_LEN || record[0] != VERSION || (record[1] & ~(FLAG_BEARER | FLAG_ADMIN)))
		return KB_ECORRUPT;
	memset(ret, 0, sizeof *ret);
	memcpy(ret->fingerprint, fingerprint, 32);
	ret->has_bearer = record[1] & FLAG_BEARER;
	ret->is_admin = record[1] & FLAG_ADMIN;
	ret->created_s = get_i64(record + AT_CREATED);
	ret->revoked_s = get_i64(record + AT_REVOKED);
	memcpy(ret->name, record + AT_NAME, KB_CLIENT_NAME_MAX);
	memcpy(ret->serial, record + AT_SERIAL, 32);
	memcpy(ret->bearer_hash, record + AT_HASH, 32);
	return 0;
}
