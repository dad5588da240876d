#include "storage/trust.h"
#include "storage/fields.h"
#include "storage/state_db.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT "root"
#define TIME "time"
#define SIGNED "signed"
#define SIGNED_KEY (sizeof SIGNED - 1 + 8)

/* see state_db.h */
int kb__trust_time(struct kb_state *s, MDB_txn *txn, uint64_t at_s, struct kb_err *err)
{
	uint8_t bytes[8];
	MDB_val v;
	int r = kb__state_get(txn, s->trust, TIME, 4, err, &v);
	if (r != KB_OK && r != KB_ENOTFOUND)
		return r;
	if (r == KB_OK && v.mv_size == 8 && kb_field_get(v.mv_data, 8) >= at_s)
		return KB_OK;
	kb_field_put(bytes, at_s, 8);
	return kb__state_put(txn, s->trust, TIME, 4, bytes, 8, err);
}

/* see state_db.h */
int kb__trust_get(struct kb_state *s, MDB_txn *txn, struct kb_err *err, MDB_val *ret_bytes, struct kb_root *ret)
{
	int r = kb__state_get(txn, s->trust, ROOT, 4, err, ret_bytes);
	return r ? r : kb_root_parse(ret_bytes->mv_data, ret_bytes->mv_size, err, ret);
}

static void signed_key(uint64_t version, uint8_t ret[static SIGNED_KEY])
{
	memcpy(ret, SIGNED, sizeof SIGNED - 1);
	for (unsigned i = 0; i < 8; i++)
		ret[sizeof SIGNED - 1 + i] = (uint8_t)(version >> (56 - 8 * i));
}

static int put_signed(
	struct kb_state *s, MDB_txn *txn, uint64_t version, const struct kb_signed *root, struct kb_err *err)
{
	uint8_t key[SIGNED_KEY];
	struct kb_buf b = {0};
	signed_key(version, key);
	int r = kb_signed_write(root, err, &b);
	r = r ? r : kb__state_put(txn, s->trust, key, sizeof key, b.data, b.len, err);
	kb_buf_finish(&b);
	return r;
}

static int keep(struct kb_state *s, MDB_txn *txn, const struct kb_signed *root, uint64_t now_s, struct kb_err *err)
{
	struct kb_audit_entry e = {.event = "root trusted", .time_s = now_s};
	struct kb_root parsed;
	int r = kb_root_parse(root->bytes, root->len, err, &parsed);
	r = r ? r : kb__state_put(txn, s->trust, ROOT, 4, root->bytes, root->len, err);
	r = r ? r : put_signed(s, txn, parsed.version, root, err);
	r = r ? r : kb__trust_time(s, txn, parsed.created, err);
	if (r)
		return r;
	e.version = parsed.version;
	snprintf(e.subject, sizeof e.subject, "%.16s", (const char *)parsed.fleet);
	r = kb__audit_put(s, txn, &e, err);
	return r ? r : kb__catalog_recheck(s, txn, now_s, err);
}

/* see trust.h */
int kb_trust_root(struct kb_state *s, struct kb_err *err, struct kb_buf *ret)
{
	MDB_txn *txn;
	MDB_val v;
	int r = kb__state_begin(s, MDB_RDONLY, "reading the trusted root", err, &txn);
	if (r)
		return r;
	r = kb__state_get(txn, s->trust, ROOT, 4, err, &v);
	if (r == KB_ENOTFOUND)
		r = kb_fail(err, KB_ENOTFOUND, "this box trusts nobody yet: kotobako root trust CHAIN says whom");
	else if (r == KB_OK && kb_buf_append(ret, v.mv_data, v.mv_size))
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	mdb_txn_abort(txn);
	return r;
}

// From the trusted root to the chain's newest, one by one.
static int follow(const struct kb_root *trusted, const MDB_val *bytes, const struct kb_chain *chain, bool allow_test,
	struct kb_err *err, const struct kb_signed **ret_newest)
{
	struct kb_root r[2] = {*trusted};
	int at = 0;
	*ret_newest = NULL;
	for (uint32_t i = 0; i < chain->n; i++) {
		const struct kb_signed *s = &chain->roots[i];
		struct kb_signatures signatures;
		struct kb_root *next = &r[at ^ 1];
		int rc = kb_root_parse(s->bytes, s->len, err, next);
		if (rc)
			return rc;
		if (memcmp(next->fleet, trusted->fleet, KB_ROOT_FLEET) != 0)
			return kb_fail(err, KB_EDENIED, "the chain is another fleet's than this box's");
		if (next->version == trusted->version &&
			(s->len != bytes->mv_size || memcmp(s->bytes, bytes->mv_data, s->len) != 0))
			return kb_fail(err, KB_EDENIED, "its root %" PRIu64 " is not the one that this box trusts", next->version);
		if (next->version <= trusted->version)
			continue;
		rc = kb_signatures_parse(s->signatures, s->signatures_len, err, &signatures);
		rc = rc ? rc : kb_root_follows(&r[at], next, s->bytes, s->len, &signatures, allow_test, err);
		if (rc)
			return rc;
		*ret_newest = s;
		at ^= 1;
	}
	return KB_OK;
}

// A root of a chain that was proven: those before the trusted one were not.
static int keep_older(
	struct kb_state *s, MDB_txn *txn, const struct kb_signed *root, uint64_t trusted, struct kb_err *err)
{
	struct kb_root parsed;
	int r = kb_root_parse(root->bytes, root->len, err, &parsed);
	return r || parsed.version <= trusted ? r : put_signed(s, txn, parsed.version, root, err);
}

static int set(
	struct kb_state *s, MDB_txn *txn, const struct kb_chain *chain, bool allow_test, uint64_t now_s, struct kb_err *err)
{
	const struct kb_signed *newest = &chain->roots[chain->n - 1];
	struct kb_root trusted;
	MDB_val bytes;
	int r = kb__trust_get(s, txn, err, &bytes, &trusted);
	const bool is_first = r == KB_ENOTFOUND;
	if (is_first)
		r = kb_chain_check(chain, allow_test, err);
	else if (r == KB_OK)
		r = follow(&trusted, &bytes, chain, allow_test, err, &newest);
	for (uint32_t i = 0; r == KB_OK && newest && &chain->roots[i] != newest; i++) // those on the way to it
		r = keep_older(s, txn, &chain->roots[i], is_first ? 0 : trusted.version, err);
	return r || !newest ? r : keep(s, txn, newest, now_s, err);
}

/* see trust.h */
int kb_trust_set(struct kb_state *s, const struct kb_chain *chain, bool allow_test, uint64_t now_s, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__epoch_begin(s, "trusting a root", err, &txn);
	return r ? r : kb__epoch_end(s, txn, set(s, txn, chain, allow_test, now_s, err), "trusting a root", err);
}

/* see trust.h */
int kb_trust_advance(struct kb_state *s, const struct kb_signed *root, uint64_t now_s, struct kb_err *err)
{
	struct kb_root trusted, next;
	MDB_txn *txn;
	MDB_val v;
	int r = kb_root_parse(root->bytes, root->len, err, &next);
	r = r ? r : kb__epoch_begin(s, "trusting a root", err, &txn);
	if (r)
		return r;
	r = kb__trust_get(s, txn, err, &v, &trusted);
	if (r == KB_OK && trusted.version < next.version)
		r = keep(s, txn, root, now_s, err);
	return kb__epoch_end(s, txn, r, "trusting a root", err);
}

// Appends the newest roots as a chain's file has them, oldest first.
static int put_chain(struct kb_state *s, MDB_txn *txn, struct kb_err *err, struct kb_buf *ret)
{
	struct kb_root trusted;
	uint8_t key[SIGNED_KEY], count[4];
	MDB_val bytes, v;
	uint64_t first;
	int r = kb__trust_get(s, txn, err, &bytes, &trusted);
	if (r)
		return r == KB_ENOTFOUND ? kb_fail(err, r, "this box trusts nobody yet: kotobako root trust CHAIN says whom")
								 : r;
	for (first = trusted.version; first && trusted.version - first < KB_CHAIN_ROOTS_MAX; first--) {
		signed_key(first, key);
		r = kb__state_get(txn, s->trust, key, sizeof key, err, &v);
		if (r)
			break;
	}
	if (r && r != KB_ENOTFOUND)
		return r;
	const uint64_t n = trusted.version - first;
	kb_field_put(count, n ? n : 1, 4);
	r = kb_buf_append(ret, KB_CHAIN_MAGIC, 8);
	r = r ? r : kb_buf_append(ret, count, 4);
	r = r ? r : kb_buf_append(ret, "\0\0\0", 4);
	for (uint64_t i = first + 1; r == KB_OK && i <= trusted.version; i++) {
		signed_key(i, key);
		r = kb__state_get(txn, s->trust, key, sizeof key, err, &v);
		r = r ? r : kb_buf_append(ret, v.mv_data, v.mv_size);
	}
	const struct kb_signed bare = {bytes.mv_data, (const uint8_t *)KB_SIGNATURES_NONE, bytes.mv_size, 8};
	return r || n ? r : kb_signed_write(&bare, err, ret);
}

/* see trust.h */
int kb_trust_chain(struct kb_state *s, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_chain *ret)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "reading the roots", err, &txn);
	if (r)
		return r;
	r = put_chain(s, txn, err, ret_bytes);
	mdb_txn_abort(txn);
	if (r == KB_ENOMEM)
		return kb_fail(err, r, "out of memory");
	return r ? r : kb_chain_parse(ret_bytes->data, ret_bytes->len, err, ret);
}

/* see trust.h */
int kb_trust_now(struct kb_state *s, uint64_t clock_s, struct kb_err *err, uint64_t *ret)
{
	MDB_txn *txn;
	MDB_val v;
	int r = kb__state_begin(s, MDB_RDONLY, "reading the time", err, &txn);
	if (r)
		return r;
	r = kb__state_get(txn, s->trust, TIME, 4, err, &v);
	uint64_t floor_s = r == KB_OK && v.mv_size == 8 ? kb_field_get(v.mv_data, 8) : 0;
	mdb_txn_abort(txn);
	if (r != KB_OK && r != KB_ENOTFOUND)
		return r;
	*ret = clock_s > floor_s ? clock_s : floor_s;
	return KB_OK;
}
