#include "storage/box_catalog.h"
#include "storage/fields.h"
#include "storage/state_db.h"
#include "storage/trust.h"
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CATALOG "catalog"
#define KEPT_HEAD 8u // u64: when it came

static int get(struct kb_state *s, MDB_txn *txn, struct kb_err *err, struct kb_signed *ret)
{
	size_t at = KEPT_HEAD;
	MDB_val v;
	int r = kb__state_get(txn, s->trust, CATALOG, sizeof CATALOG - 1, err, &v);
	if (r)
		return r;
	if (v.mv_size < KEPT_HEAD || kb_signed_parse(v.mv_data, v.mv_size, &at, KB_CATALOG_MAX, CATALOG, err, ret) ||
		at != v.mv_size)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: the catalog is damaged");
	return KB_OK;
}

/* see state_db.h */
int kb__catalog_get(struct kb_state *s, MDB_txn *txn, struct kb_err *err, struct kb_catalog *ret)
{
	struct kb_signed kept;
	int r = get(s, txn, err, &kept);
	return r ? r : kb_catalog_parse(kept.bytes, kept.len, err, ret);
}

static int put(struct kb_state *s, MDB_txn *txn, const struct kb_signed *catalog, uint64_t now_s, struct kb_err *err)
{
	struct kb_buf b = {0};
	uint8_t head[KEPT_HEAD];
	kb_field_put(head, now_s, KEPT_HEAD);
	int r = kb_buf_append(&b, head, sizeof head) ? kb_fail(err, KB_ENOMEM, "out of memory") : KB_OK;
	r = r ? r : kb_signed_write(catalog, err, &b);
	r = r ? r : kb__state_put(txn, s->trust, CATALOG, sizeof CATALOG - 1, b.data, b.len, err);
	kb_buf_finish(&b);
	return r;
}

static int say(struct kb_state *s, MDB_txn *txn, const char *event, const struct kb_signed *catalog, uint64_t version,
	const char *why, uint64_t now_s, struct kb_err *err)
{
	struct kb_audit_entry e = {.time_s = now_s, .version = version};
	struct sha256_ctx sha;
	snprintf(e.event, sizeof e.event, "%s", event);
	snprintf(e.subject, sizeof e.subject, "catalog");
	snprintf(e.detail, sizeof e.detail, "%s", why);
	sha256_init(&sha);
	sha256_update(&sha, catalog->len, catalog->bytes);
	sha256_digest(&sha, sizeof e.digest, e.digest);
	return kb__audit_put(s, txn, &e, err);
}

static int check_signed(
	const struct kb_root *root, const struct kb_signed *catalog, bool allow_test, struct kb_err *err)
{
	struct kb_signatures signatures;
	int r = kb_signatures_parse(catalog->signatures, catalog->signatures_len, err, &signatures);
	return r ? r
			 : kb_root_signed(root, KB_ROLE_CATALOG, KB_DOMAIN_CATALOG, catalog->bytes, catalog->len, &signatures,
				   allow_test, err);
}

/* see state_db.h */
int kb__catalog_recheck(struct kb_state *s, MDB_txn *txn, uint64_t now_s, struct kb_err *err)
{
	struct kb_signed kept;
	struct kb_catalog c;
	struct kb_root root;
	MDB_val bytes;
	struct kb_err why = {0};
	int r = get(s, txn, err, &kept);
	if (r)
		return r == KB_ENOTFOUND ? KB_OK : r;
	r = kb__trust_get(s, txn, err, &bytes, &root);
	r = r ? r : kb_catalog_parse(kept.bytes, kept.len, err, &c);
	// Test keys count here: whether they did was asked when it came.
	if (r || check_signed(&root, &kept, true, &why) == KB_OK)
		return r;
	r = say(s, txn, "catalog dropped", &kept, c.version, "the new root's keys have not signed it", now_s, err);
	return r ? r : kb__state_del(txn, s->trust, CATALOG, sizeof CATALOG - 1, err);
}

// Whether a catalog, signed by whom it must be, may take the place of the one that is there.
static int allow(struct kb_state *s, MDB_txn *txn, const struct kb_root *root, const struct kb_signed *catalog,
	const struct kb_catalog *c, struct kb_err *err)
{
	struct kb_signed kept;
	struct kb_catalog now = {0};
	if (memcmp(c->fleet, root->fleet, KB_ROOT_FLEET) != 0)
		return kb_fail(err, KB_EDENIED, "the catalog is for another fleet of boxes");
	int r = get(s, txn, err, &kept);
	r = r ? r : kb_catalog_parse(kept.bytes, kept.len, err, &now);
	if (r && r != KB_ENOTFOUND)
		return r;
	if (r == KB_OK && c->version == now.version)
		return kept.len == catalog->len && memcmp(kept.bytes, catalog->bytes, kept.len) == 0
				   ? kb_fail(err, KB_EEXISTS, "catalog %" PRIu64 " is here already", c->version)
				   : kb_fail(
						 err, KB_EDENIED, "catalog %" PRIu64 " is another one than the one that is here", c->version);
	if (c->version < now.version)
		return kb_fail(err, KB_EDENIED, "catalog %" PRIu64 " is older than catalog %" PRIu64 ", which this box has",
			c->version, now.version);
	if (c->version - now.version > KB_CATALOG_JUMP_MAX)
		return kb_fail(err, KB_EDENIED, "catalog %" PRIu64 " is too far ahead of %" PRIu64 ": at most %u at once",
			c->version, now.version, KB_CATALOG_JUMP_MAX);
	return KB_OK;
}

static int accept(struct kb_state *s, MDB_txn *txn, const struct kb_signed *catalog, bool allow_test, uint64_t now_s,
	struct kb_err *err, uint64_t *ret_version)
{
	struct kb_root root;
	struct kb_catalog c;
	MDB_val bytes;
	int r = kb__trust_get(s, txn, err, &bytes, &root);
	r = r ? r : check_signed(&root, catalog, allow_test, err); // before a byte of it is looked at
	r = r ? r : kb_catalog_parse(catalog->bytes, catalog->len, err, &c);
	if (r)
		return r;
	*ret_version = c.version;
	r = allow(s, txn, &root, catalog, &c, err);
	r = r ? r : put(s, txn, catalog, now_s, err);
	r = r ? r : kb__trust_time(s, txn, c.created, err);
	return r ? r : say(s, txn, "catalog accepted", catalog, c.version, "", now_s, err);
}

static void say_refused(
	struct kb_state *s, const struct kb_signed *catalog, uint64_t version, const char *why, uint64_t now_s)
{
	struct kb_err err = {0};
	MDB_txn *txn;
	if (kb__state_begin(s, 0, "refusing a catalog", &err, &txn) == KB_OK)
		(void)!kb__state_end(txn, say(s, txn, "catalog refused", catalog, version, why, now_s, &err), "refusing", &err);
}

/* see box_catalog.h */
int kb_box_catalog_accept(struct kb_state *s, const uint8_t *bytes, size_t len, bool allow_test, uint64_t now_s,
	struct kb_err *err, uint64_t *ret_version)
{
	struct kb_catalog_file *f = calloc(1, sizeof *f);
	struct kb_buf trusted = {0};
	MDB_txn *txn;
	*ret_version = 0;
	int r = f ? kb_trust_root(s, err, &trusted) : kb_fail(err, KB_ENOMEM, "out of memory"); // never the first on trust
	r = r ? r : kb_catalog_file_parse(bytes, len, err, f);
	const bool is_one = r == KB_OK;
	r = r ? r : kb_trust_set(s, &f->chain, allow_test, now_s, err);
	if (r == KB_OK) {
		r = kb__epoch_begin(s, "taking a catalog", err, &txn);
		if (r == KB_OK) {
			r = accept(s, txn, &f->catalog, allow_test, now_s, err, ret_version);
			r = kb__epoch_end(s, txn, r, "taking a catalog", err);
		}
	}
	if (r && r != KB_EEXISTS && is_one)
		say_refused(s, &f->catalog, *ret_version, err->text, now_s);
	kb_buf_finish(&trusted);
	free(f);
	return r;
}

// Appends the catalog's bytes, then its signatures.
static int copy_kept(struct kb_state *s, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_signed *ret)
{
	struct kb_signed kept;
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "reading the catalog", err, &txn);
	if (r)
		return r;
	r = get(s, txn, err, &kept);
	if (r == KB_ENOTFOUND)
		r = kb_fail(err, r, "this box has no catalog");
	else if (r == KB_OK && (kb_buf_append(ret_bytes, kept.bytes, kept.len) ||
							   kb_buf_append(ret_bytes, kept.signatures, kept.signatures_len)))
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	mdb_txn_abort(txn);
	if (r == KB_OK)
		*ret = (struct kb_signed){ret_bytes->data, ret_bytes->data + kept.len, kept.len, kept.signatures_len};
	return r;
}

/* see box_catalog.h */
int kb_box_catalog_get(struct kb_state *s, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_catalog *ret)
{
	struct kb_signed kept;
	int r = copy_kept(s, err, ret_bytes, &kept);
	return r ? r : kb_catalog_parse(kept.bytes, kept.len, err, ret);
}

/* see box_catalog.h */
int kb_box_catalog_file(struct kb_state *s, struct kb_err *err, struct kb_buf *ret)
{
	struct kb_catalog_file *f = calloc(1, sizeof *f);
	struct kb_buf roots = {0}, kept = {0};
	int r = f ? copy_kept(s, err, &kept, &f->catalog) : kb_fail(err, KB_ENOMEM, "out of memory");
	r = r ? r : kb_trust_chain(s, err, &roots, &f->chain);
	r = r ? r : kb_catalog_file_write(f, err, ret);
	kb_buf_finish(&roots);
	kb_buf_finish(&kept);
	free(f);
	return r;
}
