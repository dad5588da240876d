// The daemon's environment. See state.h.
#include "storage/state.h"
#include "storage/state_db.h"
#include "storage/state_record.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	size_t place; // of its handle
} tables[] = {
	{"clients", offsetof(struct kb_state, clients)},
	{"bearers", offsetof(struct kb_state, bearers)},
	{"settings", offsetof(struct kb_state, settings)},
	{"trust", offsetof(struct kb_state, trust)}, // from here on: schema 2
	{"models", offsetof(struct kb_state, models)},
	{"images", offsetof(struct kb_state, images)},
	{"floors", offsetof(struct kb_state, floors)},
	{"audit", offsetof(struct kb_state, audit)},
};
#define TABLES (sizeof tables / sizeof *tables)
#define TABLES_MAX 16u // room for those of later releases, which are not opened but may be there

/* see state_db.h */
int kb__state_fail(struct kb_err *err, const char *what, int r)
{
	int code = r == MDB_NOTFOUND                                                                    ? KB_ENOTFOUND
			   : r == MDB_MAP_FULL                                                                  ? KB_ENOSPACE
			   : r == MDB_CORRUPTED || r == MDB_INVALID || r == MDB_PAGE_NOTFOUND || r == MDB_PANIC ? KB_ECORRUPT
			   : r > 0 ? kb_err_from_errno(r)
					   : KB_EIO;
	return kb_fail(err, code, "state.mdb: %s: %s", what, mdb_strerror(r));
}

/* see state_db.h */
int kb__state_begin(struct kb_state *s, unsigned flags, const char *what, struct kb_err *err, MDB_txn **ret)
{
	int r = mdb_txn_begin(s->env, NULL, flags, ret);
	return r ? kb__state_fail(err, what, r) : KB_OK;
}

/* see state_db.h */
int kb__state_end(MDB_txn *txn, int rc, const char *what, struct kb_err *err)
{
	if (rc != KB_OK) {
		mdb_txn_abort(txn);
		return rc;
	}
	int r = mdb_txn_commit(txn);
	return r ? kb__state_fail(err, what, r) : KB_OK;
}

/* see state_db.h */
int kb__state_get(MDB_txn *txn, MDB_dbi table, const void *key, size_t len, struct kb_err *err, MDB_val *ret)
{
	MDB_val k = {len, (void *)(uintptr_t)key};
	int r = mdb_get(txn, table, &k, ret);
	return r == 0 ? KB_OK : r == MDB_NOTFOUND ? KB_ENOTFOUND : kb__state_fail(err, "reading", r);
}

/* see state_db.h */
int kb__state_put(
	MDB_txn *txn, MDB_dbi table, const void *key, size_t len, const void *value, size_t value_len, struct kb_err *err)
{
	MDB_val k = {len, (void *)(uintptr_t)key}, v = {value_len, (void *)(uintptr_t)value};
	int r = mdb_put(txn, table, &k, &v, 0);
	return r ? kb__state_fail(err, "writing", r) : KB_OK;
}

/* see state_db.h */
int kb__state_del(MDB_txn *txn, MDB_dbi table, const void *key, size_t len, struct kb_err *err)
{
	MDB_val k = {len, (void *)(uintptr_t)key};
	int r = mdb_del(txn, table, &k, NULL);
	return r == 0 || r == MDB_NOTFOUND ? KB_OK : kb__state_fail(err, "deleting", r);
}

static int open_tables(struct kb_state *s, MDB_txn *txn)
{
	int r = 0;
	for (size_t i = 0; i < TABLES && r == 0; i++)
		r = mdb_dbi_open(txn, tables[i].name, MDB_CREATE, (MDB_dbi *)(void *)((char *)s + tables[i].place));
	return r;
}

static int write_schema(struct kb_state *s, MDB_txn *txn, struct kb_err *err)
{
	char text[12];
	int n = snprintf(text, sizeof text, "%u", KB_STATE_SCHEMA);
	return kb__state_put(txn, s->settings, "schema", 6, text, (size_t)n, err);
}

// The version is the text of a number under "schema", so that any later build can read it.
static int check_schema(struct kb_state *s, MDB_txn *txn, struct kb_err *err)
{
	char text[12];
	MDB_val key = {6, (void *)"schema"}, value;
	int r = mdb_get(txn, s->settings, &key, &value);
	if (r == MDB_NOTFOUND)
		return write_schema(s, txn, err);
	if (r)
		return kb__state_fail(err, "reading the schema's version", r);
	snprintf(text, sizeof text, "%.*s", (int)(value.mv_size < 11 ? value.mv_size : 11), (const char *)value.mv_data);
	char *end;
	unsigned long version = strtoul(text, &end, 10);
	if (*end || end == text)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: its schema's version is not a number");
	if (version > KB_STATE_SCHEMA)
		return kb_fail(err, KB_EUNSUPPORTED,
			"state.mdb has schema %lu, this build knows %u: it was written by a newer release; use that one", version,
			KB_STATE_SCHEMA);
	// Schema 1 had no tables for signed images; they are there by now, empty.
	return version < KB_STATE_SCHEMA ? write_schema(s, txn, err) : 0;
}

int kb_state_open(const char *path, struct kb_state **ret, struct kb_err *err)
{
	MDB_txn *txn = NULL;
	int dead = 0;
	struct kb_state *s = calloc(1, sizeof *s);
	if (!s)
		return kb_fail(err, KB_ENOMEM, "state.mdb: out of memory");
	int r = mdb_env_create(&s->env);
	if (r == 0)
		r = mdb_env_set_mapsize(s->env, KB_STATE_MAP_BYTES);
	if (r == 0)
		r = mdb_env_set_maxdbs(s->env, TABLES_MAX);
	// Never WRITEMAP (a stray write would damage it) and never NOSYNC.
	if (r == 0)
		r = mdb_env_open(s->env, path, MDB_NOSUBDIR | MDB_NOTLS, 0600);
	if (r == 0)
		(void)mdb_reader_check(s->env, &dead); // slots of processes that were killed
	if (r == 0)
		r = mdb_txn_begin(s->env, NULL, 0, &txn);
	if (r == 0)
		r = open_tables(s, txn);
	int code = r ? kb__state_fail(err, path, r) : check_schema(s, txn, err);
	if (code == 0) {
		r = mdb_txn_commit(txn);
		code = r ? kb__state_fail(err, "creating the tables", r) : 0;
	} else {
		mdb_txn_abort(txn);
	}
	if (code) {
		kb_state_close(s);
		return code;
	}
	*ret = s;
	return 0;
}

void kb_state_close(struct kb_state *s)
{
	if (!s)
		return;
	kb__epoch_free(s);
	if (s->env)
		mdb_env_close(s->env);
	free(s);
}

static int get(MDB_txn *txn, MDB_dbi table, const uint8_t fingerprint[32], struct kb_client *ret)
{
	MDB_val key = {32, (void *)fingerprint}, value;
	int r = mdb_get(txn, table, &key, &value);
	if (r)
		return r == MDB_NOTFOUND ? KB_ENOTFOUND : KB_EIO;
	return kb_client_unpack(fingerprint, value.mv_data, value.mv_size, ret);
}

int kb_state_get_client(struct kb_state *s, const uint8_t fingerprint[32], struct kb_client *ret)
{
	MDB_txn *txn;
	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn))
		return KB_EIO;
	int r = get(txn, s->clients, fingerprint, ret);
	mdb_txn_abort(txn);
	return r;
}

int kb_state_find_bearer(struct kb_state *s, const uint8_t hash[32], struct kb_client *ret)
{
	MDB_txn *txn;
	MDB_val key = {32, (void *)hash}, value;
	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn))
		return KB_EIO;
	int r = mdb_get(txn, s->bearers, &key, &value);
	if (r == 0 && value.mv_size == 32)
		r = get(txn, s->clients, value.mv_data, ret);
	else
		r = r == 0 ? KB_ECORRUPT : r == MDB_NOTFOUND ? KB_ENOTFOUND : KB_EIO;
	mdb_txn_abort(txn);
	return r == 0 && ret->revoked_s ? KB_ENOTFOUND : r;
}

static int walk(MDB_txn *txn, MDB_dbi table, int (*each)(void *ctx, const struct kb_client *c), void *ctx)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	if (mdb_cursor_open(txn, table, &cursor))
		return KB_EIO;
	int r = 0, m;
	while (r == 0 && (m = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		struct kb_client c;
		r = key.mv_size == 32 ? kb_client_unpack(key.mv_data, value.mv_data, value.mv_size, &c) : KB_ECORRUPT;
		if (r == 0)
			r = each(ctx, &c);
	}
	mdb_cursor_close(cursor);
	return r ? r : m == MDB_NOTFOUND ? 0 : KB_EIO;
}

int kb_state_each_client(
	struct kb_state *s, int (*each)(void *ctx, const struct kb_client *c), void *ctx, struct kb_err *err)
{
	MDB_txn *txn;
	int r = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
	if (r)
		return kb__state_fail(err, "reading the clients", r);
	r = walk(txn, s->clients, each, ctx);
	mdb_txn_abort(txn);
	return r ? kb_fail(err, r, "state.mdb: reading the clients: %s", kb_err_message(r)) : 0;
}

struct search {
	const char *name;
	struct kb_client *found;
};

static int is_named(void *ctx, const struct kb_client *c)
{
	struct search *search = ctx;
	if (c->revoked_s || strcmp(c->name, search->name) != 0)
		return 0;
	*search->found = *c;
	return KB_EEXISTS;
}

int kb_state_find_client(struct kb_state *s, const char *name, struct kb_client *ret)
{
	struct kb_client found;
	struct search search = {name, &found};
	struct kb_err err;
	int r = kb_state_each_client(s, is_named, &search, &err);
	if (r != KB_EEXISTS)
		return r ? r : KB_ENOTFOUND;
	*ret = found;
	return 0;
}

static int put(struct kb_state *s, MDB_txn *txn, const struct kb_client *c, unsigned flags)
{
	uint8_t record[KB_CLIENT_RECORD_LEN];
	kb_client_pack(c, record);
	MDB_val key = {32, (void *)c->fingerprint}, value = {sizeof record, record};
	return mdb_put(txn, s->clients, &key, &value, flags);
}

int kb_state_add_client(struct kb_state *s, const struct kb_client *c, struct kb_err *err)
{
	MDB_txn *txn;
	MDB_stat stat;
	struct kb_client found;
	int r = kb_state_find_client(s, c->name, &found);
	if (r == 0)
		return kb_fail(
			err, KB_EEXISTS, "a client \"%s\" is paired already: revoke it first, or take another name", c->name);
	if (r != KB_ENOTFOUND)
		return kb_fail(err, r, "state.mdb: reading the clients: %s", kb_err_message(r));
	r = mdb_txn_begin(s->env, NULL, 0, &txn);
	if (r)
		return kb__state_fail(err, "adding a client", r);
	r = mdb_stat(txn, s->clients, &stat);
	if (r == 0 && stat.ms_entries >= KB_STATE_CLIENTS_MAX) {
		mdb_txn_abort(txn);
		return kb_fail(err, KB_ELIMIT, "there are %u clients already, the most this box keeps", KB_STATE_CLIENTS_MAX);
	}
	if (r == 0)
		r = put(s, txn, c, MDB_NOOVERWRITE);
	if (r == 0)
		r = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	if (r == MDB_KEYEXIST)
		return kb_fail(err, KB_EEXISTS, "this certificate is known already");
	return r ? kb__state_fail(err, "adding a client", r) : 0;
}

// Reads a client inside a write transaction, lets change() alter it, stores it.
static int change_client(struct kb_state *s, const uint8_t fingerprint[32],
	int (*change)(struct kb_state *s, MDB_txn *txn, struct kb_client *c, const void *arg), const void *arg,
	struct kb_err *err)
{
	MDB_txn *txn;
	struct kb_client c;
	int r = kb__epoch_begin(s, "changing a client", err, &txn);
	if (r)
		return r;
	int code = get(txn, s->clients, fingerprint, &c);
	if (code == 0)
		code = change(s, txn, &c, arg);
	if (code) {
		code = kb_fail(err, code, "client: %s", kb_err_message(code));
	} else {
		r = put(s, txn, &c, 0);
		code = r ? kb__state_fail(err, "changing a client", r) : 0;
	}
	return kb__epoch_end(s, txn, code, "changing a client", err);
}

static int drop_bearer(struct kb_state *s, MDB_txn *txn, struct kb_client *c)
{
	MDB_val key = {32, c->bearer_hash};
	if (!c->has_bearer)
		return 0;
	int r = mdb_del(txn, s->bearers, &key, NULL);
	c->has_bearer = false;
	memset(c->bearer_hash, 0, 32);
	return r == 0 || r == MDB_NOTFOUND ? 0 : KB_EIO;
}

static int revoke(struct kb_state *s, MDB_txn *txn, struct kb_client *c, const void *arg)
{
	if (c->revoked_s == 0)
		memcpy(&c->revoked_s, arg, sizeof c->revoked_s);
	return drop_bearer(s, txn, c);
}

int kb_state_revoke(struct kb_state *s, const uint8_t fingerprint[32], int64_t now_s, struct kb_err *err)
{
	int64_t when = now_s > 0 ? now_s : 1;
	return change_client(s, fingerprint, revoke, &when, err);
}

static int set_bearer(struct kb_state *s, MDB_txn *txn, struct kb_client *c, const void *arg)
{
	if (c->revoked_s)
		return KB_EDENIED;
	int r = drop_bearer(s, txn, c);
	if (r)
		return r;
	memcpy(c->bearer_hash, arg, 32);
	c->has_bearer = true;
	MDB_val key = {32, c->bearer_hash}, value = {32, c->fingerprint};
	r = mdb_put(txn, s->bearers, &key, &value, MDB_NOOVERWRITE);
	return r == 0 ? 0 : r == MDB_KEYEXIST ? KB_EEXISTS : KB_EIO;
}

int kb_state_set_bearer(struct kb_state *s, const uint8_t fingerprint[32], const uint8_t hash[32], struct kb_err *err)
{
	return change_client(s, fingerprint, set_bearer, hash, err);
}

int kb_state_get_setting(struct kb_state *s, const char *name, struct kb_buf *ret)
{
	MDB_txn *txn;
	MDB_val key = {strlen(name), (void *)name}, value;
	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn))
		return KB_EIO;
	int r = mdb_get(txn, s->settings, &key, &value);
	r = r == 0 ? kb_buf_append(ret, value.mv_data, value.mv_size) : r == MDB_NOTFOUND ? KB_ENOTFOUND : KB_EIO;
	mdb_txn_abort(txn);
	return r;
}

int kb_state_set_setting(struct kb_state *s, const char *name, const void *value, size_t len, struct kb_err *err)
{
	MDB_txn *txn;
	size_t name_len = strlen(name);
	if (name_len == 0 || name_len > 255 || len > KB_STATE_SETTING_MAX)
		return kb_fail(
			err, KB_EARG, "a setting has a name of 1 to 255 bytes and at most %u bytes", KB_STATE_SETTING_MAX);
	int r = mdb_txn_begin(s->env, NULL, 0, &txn);
	if (r)
		return kb__state_fail(err, "writing a setting", r);
	MDB_val k = {name_len, (void *)name}, v = {len, (void *)value};
	r = mdb_put(txn, s->settings, &k, &v, 0);
	if (r == 0)
		r = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	return r ? kb__state_fail(err, "writing a setting", r) : 0;
}
