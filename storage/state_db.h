// The daemon's environment from inside, for the files of this room that keep tables in it. Not for others.
//
// Tables: "clients", "bearers", "settings" (state.c); "trust" (trust.c); "models", "images", "floors" (installed.c);
// "audit" (audit.c).
#pragma once
#include "storage/audit.h"
#include "storage/catalog.h"
#include "storage/root.h"
#include "storage/state.h"
#include <lmdb.h>

struct kb_epoch;

struct kb_state {
	MDB_env *env;
	struct kb_epoch *epoch; // NULL: changes are not counted
	MDB_dbi clients, bearers, settings, trust, models, images, floors, audit;
};

// What LMDB said, as an error of ours.
int kb__state_fail(struct kb_err *err, const char *what, int r);
// flags: 0 or MDB_RDONLY.
KB_MUST_CHECK int kb__state_begin(
	struct kb_state *s, unsigned flags, const char *what, struct kb_err *err, MDB_txn **ret);
// Commits where rc is KB_OK, else aborts and returns rc.
KB_MUST_CHECK int kb__state_end(MDB_txn *txn, int rc, const char *what, struct kb_err *err);
// epoch.c: the same for a change that must not be taken back. Each begin has its end.
KB_MUST_CHECK int kb__epoch_begin(struct kb_state *s, const char *what, struct kb_err *err, MDB_txn **ret);
KB_MUST_CHECK int kb__epoch_end(struct kb_state *s, MDB_txn *txn, int rc, const char *what, struct kb_err *err);
void kb__epoch_free(struct kb_state *s);
// KB_ENOTFOUND without a text. The value is LMDB's, valid until the transaction's end or its next write.
KB_MUST_CHECK int kb__state_get(
	MDB_txn *txn, MDB_dbi table, const void *key, size_t len, struct kb_err *err, MDB_val *ret);
KB_MUST_CHECK int kb__state_put(
	MDB_txn *txn, MDB_dbi table, const void *key, size_t len, const void *value, size_t value_len, struct kb_err *err);
// Nothing to delete is fine.
KB_MUST_CHECK int kb__state_del(MDB_txn *txn, MDB_dbi table, const void *key, size_t len, struct kb_err *err);
// audit.c: an entry as part of a transaction, so that what is done and that it is said go together.
KB_MUST_CHECK int kb__audit_put(struct kb_state *s, MDB_txn *txn, const struct kb_audit_entry *e, struct kb_err *err);
// trust.c: it is at least this late.
KB_MUST_CHECK int kb__trust_time(struct kb_state *s, MDB_txn *txn, uint64_t at_s, struct kb_err *err);
// box_catalog.c. KB_ENOTFOUND without a text: there is none. ret points into the transaction's memory.
KB_MUST_CHECK int kb__catalog_get(struct kb_state *s, MDB_txn *txn, struct kb_err *err, struct kb_catalog *ret);
// A new root is trusted: a catalog that its keys have not signed goes.
KB_MUST_CHECK int kb__catalog_recheck(struct kb_state *s, MDB_txn *txn, uint64_t now_s, struct kb_err *err);
// KB_ENOTFOUND without a text: nobody is trusted. ret points into ret_bytes.
KB_MUST_CHECK int kb__trust_get(
	struct kb_state *s, MDB_txn *txn, struct kb_err *err, MDB_val *ret_bytes, struct kb_root *ret);
