// The audit log: what was written is read in order, and whatever is changed, taken out or put in is found.
#include "storage/audit.h"
#include "storage/state_db.h"
#include "unit/storage/state_dir.h"
#include <nettle/sha2.h>
#include <string.h>

#define ENTRIES 5u

static void add(struct kb_state *s, uint32_t n)
{
	struct kb_audit_entry e = {.time_s = 1000 + n, .version = n, .event = "model installed"};
	struct kb_err err = {0};
	snprintf(e.subject, sizeof e.subject, "model-%u", n);
	snprintf(e.detail, sizeof e.detail, "%.*s", (int)(n * 7), "by hand, on a day like any other");
	memset(e.digest, (int)n, sizeof e.digest);
	assert_int_equal(kb_audit_append(s, &e, &err), KB_OK);
}

static int see(void *ctx, const struct kb_audit_entry *e)
{
	uint64_t *next = ctx;
	char subject[32];
	assert_int_equal(e->sequence, *next);
	snprintf(subject, sizeof subject, "model-%llu", (unsigned long long)*next);
	assert_string_equal(e->subject, subject);
	assert_string_equal(e->event, "model installed");
	assert_int_equal(e->time_s, 1000 + *next);
	assert_int_equal(e->version, *next);
	assert_int_equal(e->digest[31], (uint8_t)*next);
	++*next;
	return 0;
}

static struct kb_state *filled(void)
{
	struct kb_state *s = fresh_state();
	for (uint32_t i = 1; i <= ENTRIES; i++)
		add(s, i);
	return s;
}

static void entries_come_in_order(void **state)
{
	struct kb_audit_entry last, none;
	struct kb_err err = {0};
	uint64_t next = 1, from = 4;
	(void)state;
	struct kb_state *s = fresh_state();
	assert_int_equal(kb_audit_each(s, 1, NULL, NULL, &err, &none), KB_OK);
	assert_int_equal(none.sequence, 0);
	kb_state_close(s);
	s = filled();
	kb_state_close(s);
	s = open_state();
	assert_int_equal(kb_audit_each(s, 1, see, &next, &err, &last), KB_OK);
	assert_int_equal(next, ENTRIES + 1);
	assert_int_equal(last.sequence, ENTRIES);
	assert_int_equal(kb_audit_each(s, 4, see, &from, &err, NULL), KB_OK);
	assert_int_equal(from, ENTRIES + 1);
	kb_state_close(s);
}

// The first hash, made here from the definition in audit.h.
static void the_chain_is_the_documented_one(void **state)
{
	static const char domain[] = "kotobako audit 1";
	uint8_t zeros[32] = {0}, sequence[8] = {0, 0, 0, 0, 0, 0, 0, 1}, hash[32];
	uint8_t head[52] = {0xe9, 3, 0, 0, 0, 0, 0, 0, 1}, event[32] = "model installed";
	struct kb_audit_entry last;
	struct kb_err err = {0};
	struct sha256_ctx sha;
	(void)state;
	struct kb_state *s = fresh_state();
	add(s, 1);
	memset(head + 16, 1, 32);
	head[48] = 7;
	head[50] = 7;
	sha256_init(&sha);
	sha256_update(&sha, sizeof domain, (const uint8_t *)domain);
	sha256_update(&sha, sizeof zeros, zeros);
	sha256_update(&sha, sizeof sequence, sequence);
	sha256_update(&sha, sizeof head, head);
	sha256_update(&sha, sizeof event, event);
	sha256_update(&sha, 14, (const uint8_t *)"model-1by hand");
	sha256_digest(&sha, sizeof hash, hash);
	assert_int_equal(kb_audit_each(s, 1, NULL, NULL, &err, &last), KB_OK);
	assert_memory_equal(last.hash, hash, sizeof hash);
	kb_state_close(s);
}

// Changes a record behind the log's back: bit < 0 takes it out.
static void tamper(struct kb_state *s, uint8_t sequence, int bit)
{
	uint8_t key[8] = {0, 0, 0, 0, 0, 0, 0, sequence}, copy[2048];
	MDB_val k = {8, key}, v;
	MDB_txn *txn;
	assert_int_equal(mdb_txn_begin(s->env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_get(txn, s->audit, &k, &v), 0);
	memcpy(copy, v.mv_data, v.mv_size);
	if (bit < 0) {
		assert_int_equal(mdb_del(txn, s->audit, &k, NULL), 0);
	} else {
		assert_true((size_t)bit < 8 * v.mv_size);
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
		v.mv_data = copy;
		assert_int_equal(mdb_put(txn, s->audit, &k, &v, 0), 0);
	}
	assert_int_equal(mdb_txn_commit(txn), 0);
}

static void nothing_can_be_changed(void **state)
{
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = filled();
	for (int bit = 0; bit < 8 * (32 + 52 + 32 + 7); bit++) {
		tamper(s, 3, bit);
		if (kb_audit_each(s, 1, NULL, NULL, &err, NULL) != KB_ECORRUPT)
			fail_msg("bit %d of an entry was turned, and nobody noticed", bit);
		assert_non_null(strstr(err.text, "entry 3"));
		tamper(s, 3, bit);
	}
	assert_int_equal(kb_audit_each(s, 1, NULL, NULL, &err, NULL), KB_OK);
	tamper(s, 2, -1);
	assert_int_equal(kb_audit_each(s, 1, NULL, NULL, &err, NULL), KB_ECORRUPT);
	add(s, ENTRIES + 1); // it goes on, and the gap stays found
	assert_int_equal(kb_audit_each(s, 1, NULL, NULL, &err, NULL), KB_ECORRUPT);
	kb_state_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_come_in_order),
		cmocka_unit_test(the_chain_is_the_documented_one),
		cmocka_unit_test(nothing_can_be_changed),
	};
	return cmocka_run_group_tests_name("storage/audit", tests, NULL, NULL);
}
