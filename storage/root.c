#include "storage/root.h"
#include "storage/fields.h"
#include <inttypes.h>
#include <string.h>

#define MAGIC "KBROOT01"
#define MAGIC_BYTES 8u
#define KEY_HEAD 4u // curve, flags, zero, zero
#define KEY_IS_TEST 1u
#define ROLE_HEAD 4u // role, threshold, keys, zero

const char *const kb_role_names[KB_ROLES] = {"root", "model", "os", "catalog"};

// Tags, once and for all.
enum tag { FLEET = 1, VERSION = 3, CREATED = 5, EXPIRES = 6, KEYS = 7, ROLES = 9, REVOKED = 11 };

static int bad(struct kb_err *err, const struct kb_field *f, const char *what)
{
	return kb_fail(err, KB_EBAD, "root: field %" PRIu32 " at byte %zu: %s", f->tag, f->at, what);
}

static int read_keys(const struct kb_field *f, struct kb_err *err, struct kb_root *r)
{
	for (size_t at = 0; at < f->len;) {
		const uint8_t *p = f->value + at;
		size_t n = f->len - at < KEY_HEAD ? 0 : kb_key_point_bytes((enum kb_curve)p[0]);
		if (!n || n > f->len - at - KEY_HEAD || (p[1] & ~KEY_IS_TEST) || p[2] || p[3])
			return bad(err, f, "not a list of keys");
		if (r->n_keys == KB_ROOT_KEYS_MAX)
			return kb_fail(err, KB_ELIMIT, "root: more than %u keys", KB_ROOT_KEYS_MAX);
		struct kb_public_key *key = &r->keys[r->n_keys];
		key->curve = (enum kb_curve)p[0];
		memcpy(key->point, p + KEY_HEAD, n);
		for (uint32_t i = 0; i < r->n_keys; i++)
			if (r->keys[i].curve == key->curve && memcmp(r->keys[i].point, key->point, n) == 0)
				return bad(err, f, "a key that is listed twice");
		r->is_test[r->n_keys++] = p[1] & KEY_IS_TEST;
		at += KEY_HEAD + n;
	}
	return KB_OK;
}

static int read_roles(const struct kb_field *f, struct kb_err *err, struct kb_root *r)
{
	int last = -1;
	for (size_t at = 0; at < f->len;) {
		const uint8_t *p = f->value + at;
		if (f->len - at < ROLE_HEAD || p[2] > f->len - at - ROLE_HEAD || p[3] || p[0] >= KB_ROLES || p[0] <= last)
			return bad(err, f, "not a list of roles in their order");
		if (p[1] == 0 || p[1] > p[2])
			return bad(err, f, "a threshold that cannot be reached, or is none");
		uint32_t seen = 0;
		for (uint32_t i = 0; i < p[2]; i++) {
			uint8_t k = p[ROLE_HEAD + i];
			if (k >= r->n_keys || (seen >> k & 1))
				return bad(err, f, "a role's key that is not there or comes twice");
			seen |= 1u << k;
			r->roles[p[0]].key[i] = k;
		}
		r->roles[p[0]].threshold = p[1];
		r->roles[p[0]].n = p[2];
		last = p[0];
		at += ROLE_HEAD + p[2];
	}
	return KB_OK;
}

static int read_number(const struct kb_field *f, struct kb_err *err, uint64_t *ret)
{
	if (f->len != 8)
		return bad(err, f, "a number has 8 bytes");
	*ret = kb_field_get(f->value, 8);
	return *ret > INT64_MAX ? bad(err, f, "too large a number") : KB_OK;
}

static int read_field(const struct kb_fields *walk, const struct kb_field *f, struct kb_err *err, struct kb_root *r)
{
	switch (f->tag) {
	case FLEET:
		r->fleet = f->value;
		return f->len == KB_ROOT_FLEET ? KB_OK : bad(err, f, "a fleet's name has 16 bytes");
	case VERSION:
		return read_number(f, err, &r->version);
	case CREATED:
		return read_number(f, err, &r->created);
	case EXPIRES:
		return read_number(f, err, &r->expires);
	case KEYS:
		return read_keys(f, err, r);
	case ROLES:
		return read_roles(f, err, r);
	case REVOKED:
		r->revoked = f->value;
		r->n_revoked = (uint32_t)(f->len / KB_KEY_ID);
		return f->len % KB_KEY_ID || r->n_revoked > KB_ROOT_REVOKED_MAX
				   ? bad(err, f, "not a list of at most 1024 hashes")
				   : KB_OK;
	default:
		return kb_fields_unknown(walk, f, err);
	}
}

/* see root.h */
int kb_root_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_root *ret)
{
	struct kb_root r = {0};
	struct kb_field f;
	int rc;
	if (len > KB_ROOT_MAX)
		return kb_fail(err, KB_ELIMIT, "root: %zu bytes, at most %u", len, KB_ROOT_MAX);
	if (len < MAGIC_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
		return kb_fail(err, KB_EBAD, "root: it does not begin as one");
	struct kb_fields walk = {.what = "root", .bytes = bytes, .len = len, .at = MAGIC_BYTES};
	while ((rc = kb_fields_next(&walk, err, &f)) == KB_OK) {
		rc = read_field(&walk, &f, err, &r);
		if (rc != KB_OK)
			return rc;
	}
	if (rc != KB_ENOTFOUND)
		return rc;
	if (!r.fleet || !r.version || !r.created || !r.roles[KB_ROLE_ROOT].n)
		return kb_fail(err, KB_EBAD, "root: fleet, version, date or who may sign the next one is missing");
	*ret = r;
	return KB_OK;
}

static int put_field(struct kb_buf *to, uint32_t tag, const void *value, size_t len)
{
	uint8_t head[KB_FIELD_HEAD];
	kb_field_put(head, tag, 2);
	kb_field_put(head + 2, 0, 2);
	kb_field_put(head + 4, len, 4);
	int rc = kb_buf_append(to, head, sizeof head);
	return rc ? rc : kb_buf_append(to, value, len);
}

static int put_number(struct kb_buf *to, uint32_t tag, uint64_t n)
{
	uint8_t value[8];
	kb_field_put(value, n, 8);
	return put_field(to, tag, value, sizeof value);
}

static int put_keys(struct kb_buf *to, const struct kb_root *r)
{
	uint8_t value[KB_ROOT_KEYS_MAX * (KEY_HEAD + KB_KEY_POINT_MAX)];
	size_t at = 0;
	for (uint32_t i = 0; i < r->n_keys; i++) {
		size_t n = kb_key_point_bytes(r->keys[i].curve);
		memcpy(value + at, (const uint8_t[KEY_HEAD]){(uint8_t)r->keys[i].curve, r->is_test[i] ? KEY_IS_TEST : 0},
			KEY_HEAD);
		memcpy(value + at + KEY_HEAD, r->keys[i].point, n);
		at += KEY_HEAD + n;
	}
	return put_field(to, KEYS, value, at);
}

static int put_roles(struct kb_buf *to, const struct kb_root *r)
{
	uint8_t value[KB_ROLES * (ROLE_HEAD + KB_ROOT_KEYS_MAX)];
	size_t at = 0;
	for (int i = 0; i < KB_ROLES; i++) {
		const uint32_t n = r->roles[i].n;
		if (n == 0)
			continue;
		memcpy(
			value + at, (const uint8_t[ROLE_HEAD]){(uint8_t)i, (uint8_t)r->roles[i].threshold, (uint8_t)n}, ROLE_HEAD);
		memcpy(value + at + ROLE_HEAD, r->roles[i].key, n);
		at += ROLE_HEAD + n;
	}
	return put_field(to, ROLES, value, at);
}

/* see root.h */
int kb_root_write(const struct kb_root *r, struct kb_err *err, struct kb_buf *ret)
{
	struct kb_root again;
	struct kb_buf b = {0};
	if (!r->fleet || r->n_keys > KB_ROOT_KEYS_MAX)
		return kb_fail(err, KB_EARG, "root: no fleet, or too many keys");
	int rc = kb_buf_append(&b, MAGIC, MAGIC_BYTES);
	rc = rc ? rc : put_field(&b, FLEET, r->fleet, KB_ROOT_FLEET);
	rc = rc ? rc : put_number(&b, VERSION, r->version);
	rc = rc ? rc : put_number(&b, CREATED, r->created);
	rc = rc || !r->expires ? rc : put_number(&b, EXPIRES, r->expires);
	rc = rc ? rc : put_keys(&b, r);
	rc = rc ? rc : put_roles(&b, r);
	rc = rc || !r->n_revoked ? rc : put_field(&b, REVOKED, r->revoked, (size_t)r->n_revoked * KB_KEY_ID);
	rc = rc ? kb_fail(err, KB_ENOMEM, "out of memory") : kb_root_parse(b.data, b.len, err, &again);
	if (rc == KB_OK)
		rc = kb_buf_append(ret, b.data, b.len);
	kb_buf_finish(&b);
	return rc == KB_EBAD ? KB_EARG : rc;
}

/* see root.h */
bool kb_root_is_revoked(const struct kb_root *r, const uint8_t hash[static KB_KEY_ID])
{
	for (uint32_t i = 0; i < r->n_revoked; i++)
		if (memcmp(r->revoked + (size_t)i * KB_KEY_ID, hash, KB_KEY_ID) == 0)
			return true;
	return false;
}

/* see root.h */
int kb_root_signed(const struct kb_root *r, enum kb_role role, const char *domain, const uint8_t *bytes, size_t len,
	const struct kb_signatures *signatures, bool allow_test, struct kb_err *err)
{
	struct kb_public_key keys[KB_ROOT_KEYS_MAX];
	uint32_t n = 0, threshold = r->roles[role].threshold;
	for (uint32_t i = 0; i < r->roles[role].n; i++) {
		uint8_t k = r->roles[role].key[i], id[KB_KEY_ID];
		kb_key_id(&r->keys[k], id);
		if ((allow_test || !r->is_test[k]) && !kb_root_is_revoked(r, id))
			keys[n++] = r->keys[k];
	}
	if (!threshold || n < threshold)
		return kb_fail(err, KB_EDENIED, "root %" PRIu64 ": it names %u usable keys for the role %s, %u are needed",
			r->version, n, kb_role_names[role], threshold ? threshold : 1);
	return kb_signatures_check(domain, bytes, len, signatures, keys, n, threshold, err);
}

/* see root.h */
int kb_root_follows(const struct kb_root *r, const struct kb_root *next, const uint8_t *bytes, size_t len,
	const struct kb_signatures *signatures, bool allow_test, struct kb_err *err)
{
	if (memcmp(r->fleet, next->fleet, KB_ROOT_FLEET) != 0)
		return kb_fail(err, KB_EDENIED, "root %" PRIu64 ": it is another fleet's", next->version);
	if (next->version != r->version + 1)
		return kb_fail(err, KB_EDENIED, "root %" PRIu64 " does not follow root %" PRIu64, next->version, r->version);
	int rc = kb_root_signed(r, KB_ROLE_ROOT, KB_DOMAIN_ROOT, bytes, len, signatures, allow_test, err);
	if (rc == KB_OK)
		rc = kb_root_signed(next, KB_ROLE_ROOT, KB_DOMAIN_ROOT, bytes, len, signatures, allow_test, err);
	if (rc != KB_OK && err)
		kb_err_wrap(err, "root %" PRIu64 ": ", next->version);
	return rc;
}
