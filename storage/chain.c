#include "storage/chain.h"
#include "storage/fields.h"
#include <inttypes.h>
#include <string.h>

#define HEAD_BYTES 16u
#define PAIR_BYTES 8u

/* see chain.h */
int kb_signed_parse(const uint8_t *bytes, size_t len, size_t *at, size_t most, const char *what, struct kb_err *err,
	struct kb_signed *ret)
{
	if (len - *at < PAIR_BYTES)
		return kb_fail(err, KB_EBAD, "%s is cut at byte %zu", what, *at);
	ret->len = kb_field_get(bytes + *at, 4);
	ret->signatures_len = kb_field_get(bytes + *at + 4, 4);
	*at += PAIR_BYTES;
	if (ret->len > most || ret->signatures_len > KB_SIGNATURES_BYTES_MAX || ret->len + ret->signatures_len > len - *at)
		return kb_fail(err, KB_EBAD, "%s is cut at byte %zu, or what follows is too large", what, *at);
	ret->bytes = bytes + *at;
	ret->signatures = ret->bytes + ret->len;
	*at += ret->len + ret->signatures_len;
	return KB_OK;
}

/* see chain.h */
int kb_chain_take(const uint8_t *bytes, size_t len, size_t *at, uint64_t roots, const char *what, struct kb_err *err,
	struct kb_chain *ret)
{
	struct kb_root r;
	uint64_t version = 0;
	if (roots == 0 || roots > KB_CHAIN_ROOTS_MAX)
		return kb_fail(err, KB_EBAD, "%" PRIu64 " roots, 1 to %u are possible", roots, KB_CHAIN_ROOTS_MAX);
	ret->n = (uint32_t)roots;
	for (uint32_t i = 0; i < ret->n; i++) {
		int rc = kb_signed_parse(bytes, len, at, KB_ROOT_MAX, what, err, &ret->roots[i]);
		rc = rc ? rc : kb_root_parse(ret->roots[i].bytes, ret->roots[i].len, err, &r);
		if (rc != KB_OK)
			return rc;
		if (version && r.version != version + 1)
			return kb_fail(err, KB_EBAD, "root %" PRIu64 " comes behind root %" PRIu64, r.version, version);
		version = r.version;
	}
	return KB_OK;
}

/* see chain.h */
int kb_chain_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_chain *ret)
{
	size_t at = HEAD_BYTES;
	if (len < HEAD_BYTES || memcmp(bytes, KB_CHAIN_MAGIC, 8) != 0 || kb_field_get(bytes + 12, 4))
		return kb_fail(err, KB_EBAD, "this is no chain of roots");
	int rc = kb_chain_take(bytes, len, &at, kb_field_get(bytes + 8, 4), "the chain", err, ret);
	if (rc != KB_OK)
		return rc;
	return at == len ? KB_OK : kb_fail(err, KB_EBAD, "there is something behind the last root, at byte %zu", at);
}

static int check_one(const struct kb_root *before, const struct kb_root *r, const struct kb_signed *s, bool allow_test,
	struct kb_err *err)
{
	struct kb_signatures signatures;
	int rc = kb_signatures_parse(s->signatures, s->signatures_len, err, &signatures);
	if (rc != KB_OK)
		return rc;
	if (before)
		return kb_root_follows(before, r, s->bytes, s->len, &signatures, allow_test, err);
	return kb_root_signed(r, KB_ROLE_ROOT, KB_DOMAIN_ROOT, s->bytes, s->len, &signatures, allow_test, err);
}

/* see chain.h */
int kb_chain_check(const struct kb_chain *c, bool allow_test, struct kb_err *err)
{
	struct kb_root r[2];
	for (uint32_t i = 0; i < c->n; i++) {
		int rc = kb_root_parse(c->roots[i].bytes, c->roots[i].len, err, &r[i & 1]);
		if (rc == KB_OK)
			rc = check_one(i ? &r[(i & 1) ^ 1] : NULL, &r[i & 1], &c->roots[i], allow_test, err);
		if (rc != KB_OK)
			return rc;
	}
	return KB_OK;
}

/* see chain.h */
int kb_signed_write(const struct kb_signed *s, struct kb_err *err, struct kb_buf *ret)
{
	uint8_t head[PAIR_BYTES];
	kb_field_put(head, s->len, 4);
	kb_field_put(head + 4, s->signatures_len, 4);
	if (kb_buf_append(ret, head, sizeof head) || kb_buf_append(ret, s->bytes, s->len) ||
		kb_buf_append(ret, s->signatures, s->signatures_len))
		return kb_fail(err, KB_ENOMEM, "out of memory");
	return KB_OK;
}

/* see chain.h */
int kb_chain_write(const struct kb_chain *c, struct kb_err *err, struct kb_buf *ret)
{
	uint8_t head[HEAD_BYTES] = KB_CHAIN_MAGIC;
	kb_field_put(head + 8, c->n, 4);
	if (kb_buf_append(ret, head, sizeof head))
		return kb_fail(err, KB_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < c->n; i++) {
		int rc = kb_signed_write(&c->roots[i], err, ret);
		if (rc != KB_OK)
			return rc;
	}
	return KB_OK;
}
