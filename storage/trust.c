#include "storage/trust.h"
#include "storage/fields.h"
#include "storage/state_db.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT "root"
#define TIME "time"

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

static int keep(struct kb_state *s, MDB_txn *txn, const uint8_t *bytes, size_t len, uint64_t now_s, struct kb_err *err)
{
	struct kb_audit_entry e = {.event = "root trusted", .time_s = now_s};
	struct kb_root root;
	int r = kb_root_parse(bytes, len, err, &root);
	r = r ? r : kb__state_put(txn, s->trust, ROOT, 4, bytes, len, err);
	r = r ? r : kb__trust_time(s, txn, root.created, err);
	if (r)
		return r;
	e.version = root.version;
	snprintf(e.subject, sizeof e.subject, "%.16s", (const char *)root.fleet);
	return kb__audit_put(s, txn, &e, err);
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

static int set(
	struct kb_state *s, MDB_txn *txn, const struct kb_chain *chain, bool allow_test, uint64_t now_s, struct kb_err *err)
{
	const struct kb_signed *newest = &chain->roots[chain->n - 1];
	struct kb_root trusted;
	MDB_val bytes;
	int r = kb__trust_get(s, txn, err, &bytes, &trusted);
	if (r == KB_ENOTFOUND)
		r = kb_chain_check(chain, allow_test, err);
	else if (r == KB_OK)
		r = follow(&trusted, &bytes, chain, allow_test, err, &newest);
	return r || !newest ? r : keep(s, txn, newest->bytes, newest->len, now_s, err);
}

/* see trust.h */
int kb_trust_set(struct kb_state *s, const struct kb_chain *chain, bool allow_test, uint64_t now_s, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, 0, "trusting a root", err, &txn);
	return r ? r : kb__state_end(txn, set(s, txn, chain, allow_test, now_s, err), "trusting a root", err);
}

/* see trust.h */
int kb_trust_advance(struct kb_state *s, const uint8_t *bytes, size_t len, uint64_t now_s, struct kb_err *err)
{
	struct kb_root trusted, next;
	MDB_txn *txn;
	MDB_val v;
	int r = kb_root_parse(bytes, len, err, &next);
	r = r ? r : kb__state_begin(s, 0, "trusting a root", err, &txn);
	if (r)
		return r;
	r = kb__trust_get(s, txn, err, &v, &trusted);
	if (r == KB_OK && trusted.version < next.version)
		r = keep(s, txn, bytes, len, now_s, err);
	return kb__state_end(txn, r, "trusting a root", err);
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
