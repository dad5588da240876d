#include "storage/audit.h"
#include "storage/fields.h"
#include "storage/state_db.h"
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>

#define DOMAIN "kotobako audit 1"
#define FIXED (8u + 8u + 32u + 2u + 2u + KB_AUDIT_EVENT_MAX)
#define RECORD_MAX (KB_AUDIT_HASH + FIXED + KB_AUDIT_SUBJECT_MAX + KB_AUDIT_DETAIL_MAX)

static void put_sequence(uint64_t n, uint8_t ret[static 8])
{
	for (int i = 0; i < 8; i++)
		ret[i] = (uint8_t)(n >> (56 - 8 * i));
}

static uint64_t get_sequence(const uint8_t *p)
{
	uint64_t n = 0;
	for (int i = 0; i < 8; i++)
		n = n << 8 | p[i];
	return n;
}

static void chain(const uint8_t before[static KB_AUDIT_HASH], const uint8_t sequence[static 8], const uint8_t *content,
	size_t len, uint8_t ret[static KB_AUDIT_HASH])
{
	struct sha256_ctx sha;
	sha256_init(&sha);
	sha256_update(&sha, sizeof DOMAIN, (const uint8_t *)DOMAIN);
	sha256_update(&sha, KB_AUDIT_HASH, before);
	sha256_update(&sha, 8, sequence);
	sha256_update(&sha, len, content);
	sha256_digest(&sha, KB_AUDIT_HASH, ret);
}

static size_t pack(const struct kb_audit_entry *e, uint8_t *ret)
{
	const size_t subject = strnlen(e->subject, KB_AUDIT_SUBJECT_MAX), detail = strnlen(e->detail, KB_AUDIT_DETAIL_MAX);
	uint8_t *p = ret;
	kb_field_put(p, e->time_s, 8);
	kb_field_put(p + 8, e->version, 8);
	memcpy(p + 16, e->digest, 32);
	kb_field_put(p + 48, subject, 2);
	kb_field_put(p + 50, detail, 2);
	memset(p + 52, 0, KB_AUDIT_EVENT_MAX);
	memcpy(p + 52, e->event, strnlen(e->event, KB_AUDIT_EVENT_MAX));
	memcpy(p + FIXED, e->subject, subject);
	memcpy(p + FIXED + subject, e->detail, detail);
	return FIXED + subject + detail;
}

static int unpack(const uint8_t *p, size_t len, struct kb_audit_entry *ret)
{
	if (len < FIXED)
		return KB_ECORRUPT;
	const size_t subject = kb_field_get(p + 48, 2), detail = kb_field_get(p + 50, 2);
	if (subject > KB_AUDIT_SUBJECT_MAX || detail > KB_AUDIT_DETAIL_MAX || len != FIXED + subject + detail)
		return KB_ECORRUPT;
	ret->time_s = kb_field_get(p, 8);
	ret->version = kb_field_get(p + 8, 8);
	memcpy(ret->digest, p + 16, 32);
	memcpy(ret->event, p + 52, KB_AUDIT_EVENT_MAX);
	memcpy(ret->subject, p + FIXED, subject);
	memcpy(ret->detail, p + FIXED + subject, detail);
	return KB_OK;
}

/* see state_db.h */
int kb__audit_put(struct kb_state *s, MDB_txn *txn, const struct kb_audit_entry *e, struct kb_err *err)
{
	uint8_t record[RECORD_MAX], key[8], before[KB_AUDIT_HASH] = {0};
	uint64_t sequence = 1;
	MDB_cursor *cursor;
	MDB_val k, v;
	int r = mdb_cursor_open(txn, s->audit, &cursor);
	if (r)
		return kb__state_fail(err, "writing the audit log", r);
	r = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
	if (r == 0 && (k.mv_size != 8 || v.mv_size < KB_AUDIT_HASH)) {
		mdb_cursor_close(cursor);
		return kb_fail(err, KB_ECORRUPT, "state.mdb: the audit log's last entry is damaged");
	}
	if (r == 0) {
		sequence = get_sequence(k.mv_data) + 1;
		memcpy(before, v.mv_data, KB_AUDIT_HASH);
	}
	mdb_cursor_close(cursor);
	if (r && r != MDB_NOTFOUND)
		return kb__state_fail(err, "writing the audit log", r);
	put_sequence(sequence, key);
	size_t len = pack(e, record + KB_AUDIT_HASH);
	chain(before, key, record + KB_AUDIT_HASH, len, record);
	return kb__state_put(txn, s->audit, key, sizeof key, record, KB_AUDIT_HASH + len, err);
}

/* see audit.h */
int kb_audit_append(struct kb_state *s, const struct kb_audit_entry *e, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, 0, "writing the audit log", err, &txn);
	if (r)
		return r;
	return kb__state_end(txn, kb__audit_put(s, txn, e, err), "writing the audit log", err);
}

// One record proven against the hash before it; that becomes its own.
static int prove(const MDB_val *k, const MDB_val *v, uint64_t sequence, uint8_t before[static KB_AUDIT_HASH],
	struct kb_audit_entry *ret)
{
	const uint8_t *record = v->mv_data;
	uint8_t hash[KB_AUDIT_HASH];
	if (k->mv_size != 8 || get_sequence(k->mv_data) != sequence || v->mv_size < KB_AUDIT_HASH)
		return KB_ECORRUPT;
	chain(before, k->mv_data, record + KB_AUDIT_HASH, v->mv_size - KB_AUDIT_HASH, hash);
	if (memcmp(hash, record, sizeof hash) != 0)
		return KB_ECORRUPT;
	memcpy(before, hash, sizeof hash);
	memcpy(ret->hash, hash, sizeof hash);
	ret->sequence = sequence;
	return unpack(record + KB_AUDIT_HASH, v->mv_size - KB_AUDIT_HASH, ret);
}

/* see audit.h */
int kb_audit_each(struct kb_state *s, uint64_t from, int (*each)(void *ctx, const struct kb_audit_entry *e), void *ctx,
	struct kb_err *err, struct kb_audit_entry *ret_last)
{
	uint8_t before[KB_AUDIT_HASH] = {0};
	struct kb_audit_entry e = {0};
	uint64_t sequence = 0;
	MDB_cursor *cursor;
	MDB_val k, v;
	MDB_txn *txn;
	int m, r = kb__state_begin(s, MDB_RDONLY, "reading the audit log", err, &txn);
	if (r)
		return r;
	m = mdb_cursor_open(txn, s->audit, &cursor);
	if (m) {
		mdb_txn_abort(txn);
		return kb__state_fail(err, "reading the audit log", m);
	}
	while (r == KB_OK && (m = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		e = (struct kb_audit_entry){0};
		sequence++;
		if (prove(&k, &v, sequence, before, &e))
			r = kb_fail(err, KB_ECORRUPT,
				"the audit log: entry %" PRIu64 " is not what was written, or one before it is missing", sequence);
		else if (each && sequence >= from)
			r = each(ctx, &e);
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	if (r == KB_OK && m != MDB_NOTFOUND)
		r = kb__state_fail(err, "reading the audit log", m);
	if (r == KB_OK && ret_last)
		*ret_last = e;
	return r;
}
