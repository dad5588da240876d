// Keys, roots and chains for tests of signed images, made anew each time.
#pragma once
#include "storage/chain.h"
#include "storage/signing.h"
#include "unit/storage/expect.h"

static inline struct kb_signer *new_signer(enum kb_curve curve)
{
	struct kb_buf secret = {0}, public = {0};
	struct kb_err err = {0};
	struct kb_signer *s = NULL;
	assert_int_equal(kb_key_new(curve, &err, &secret, &public), KB_OK);
	assert_int_equal(kb_signer_open((const char *)secret.data, &err, &s), KB_OK);
	kb_buf_finish(&secret);
	kb_buf_finish(&public);
	return s;
}

// Signs into a block of that room.
static inline void put_signature(
	const struct kb_signer *s, const char *domain, const struct kb_buf *bytes, uint8_t *block, size_t room)
{
	uint8_t id[KB_KEY_ID], raw[KB_SIGNATURE_MAX];
	struct kb_err err = {0};
	size_t len = 0;
	kb_key_id(kb_signer_key(s), id);
	assert_int_equal(kb_signer_sign(s, domain, bytes->data, bytes->len, &err, raw, &len), KB_OK);
	assert_int_equal(kb_signatures_put(block, room, &(struct kb_signature){id, (uint32_t)len, raw}, &err), KB_OK);
}

// A root of one key for every role.
static inline void one_key_root(const struct kb_signer *s, uint64_t version, bool is_test, struct kb_buf *ret)
{
	static const uint8_t fleet[KB_ROOT_FLEET] = "fleet of tests";
	struct kb_root *r = calloc(1, sizeof *r);
	struct kb_err err = {0};
	assert_non_null(r);
	*r = (struct kb_root){.fleet = fleet, .version = version, .created = 1795651200, .n_keys = 1};
	r->keys[0] = *kb_signer_key(s);
	r->is_test[0] = is_test;
	for (int role = 0; role < KB_ROLES; role++)
		r->roles[role].threshold = r->roles[role].n = 1;
	assert_int_equal(kb_root_write(r, &err, ret), KB_OK);
	free(r);
}

static inline struct kb_signed signed_of(const struct kb_buf *bytes, const uint8_t *block, size_t room)
{
	return (struct kb_signed){bytes->data, block, bytes->len, room};
}
