#include "storage/installed.h"
#include "base/hex.h"
#include "storage/fields.h"
#include "storage/models.h"
#include "storage/state_db.h"
#include "storage/verity.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH KB_MANIFEST_HASH
// "models": active version, digest, previous version, digest, since, kind, bytes. "floors": version, digest.
// "images": since, length of the manifest, length of the signatures (u32 each), both.
#define MODEL_BYTES (2 * (8u + HASH) + 24u)
#define FLOOR_BYTES (8u + HASH)
#define IMAGE_HEAD 16u

/* see installed.h */
char *kb_installed_path(const char *models, const uint8_t digest[static HASH])
{
	char *path = NULL, hex[2 * HASH + 1];
	kb_hex(digest, HASH, hex);
	return asprintf(&path, "%s/" KB_STORE "/%s" KB_MODEL_SUFFIX, models, hex) < 0 ? NULL : path;
}

static int unpack(const MDB_val *k, const MDB_val *v, struct kb_err *err, struct kb_installed *ret)
{
	const uint8_t *p = v->mv_data;
	struct kb_installed m = {0};
	if (v->mv_size != MODEL_BYTES || k->mv_size == 0 || k->mv_size > KB_MAX_MODEL_NAME)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: the record of a model is damaged");
	memcpy(m.name, k->mv_data, k->mv_size);
	m.active.version = kb_field_get(p, 8);
	memcpy(m.active.digest, p + 8, HASH);
	m.previous.version = kb_field_get(p + 8 + HASH, 8);
	memcpy(m.previous.digest, p + 16 + HASH, HASH);
	m.since_s = kb_field_get(p + 16 + 2 * HASH, 8);
	m.kind = kb_field_get(p + 24 + 2 * HASH, 8);
	m.bytes = kb_field_get(p + 32 + 2 * HASH, 8);
	*ret = m;
	return KB_OK;
}

static int put_model(struct kb_state *s, MDB_txn *txn, const struct kb_installed *m, struct kb_err *err)
{
	uint8_t p[MODEL_BYTES];
	kb_field_put(p, m->active.version, 8);
	memcpy(p + 8, m->active.digest, HASH);
	kb_field_put(p + 8 + HASH, m->previous.version, 8);
	memcpy(p + 16 + HASH, m->previous.digest, HASH);
	kb_field_put(p + 16 + 2 * HASH, m->since_s, 8);
	kb_field_put(p + 24 + 2 * HASH, m->kind, 8);
	kb_field_put(p + 32 + 2 * HASH, m->bytes, 8);
	return kb__state_put(txn, s->models, m->name, strlen(m->name), p, sizeof p, err);
}

// KB_ENOTFOUND without a text.
static int get_model(struct kb_state *s, MDB_txn *txn, const char *name, struct kb_err *err, struct kb_installed *ret)
{
	MDB_val k = {strlen(name), (void *)(uintptr_t)name}, v;
	if (!kb_model_name_valid(name))
		return KB_ENOTFOUND;
	int r = kb__state_get(txn, s->models, name, k.mv_size, err, &v);
	return r ? r : unpack(&k, &v, err, ret);
}

static int each_model(struct kb_state *s, MDB_txn *txn, int (*each)(void *ctx, const struct kb_installed *m), void *ctx,
	struct kb_err *err)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = KB_OK, m = mdb_cursor_open(txn, s->models, &cursor);
	if (m)
		return kb__state_fail(err, "reading the models", m);
	while (rc == KB_OK && (m = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		struct kb_installed model;
		rc = unpack(&k, &v, err, &model);
		rc = rc ? rc : each(ctx, &model);
	}
	mdb_cursor_close(cursor);
	return rc || m == MDB_NOTFOUND ? rc : kb__state_fail(err, "reading the models", m);
}

/* see installed.h */
int kb_installed_each(
	struct kb_state *s, int (*each)(void *ctx, const struct kb_installed *m), void *ctx, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "reading the models", err, &txn);
	if (r)
		return r;
	r = each_model(s, txn, each, ctx, err);
	mdb_txn_abort(txn);
	return r;
}

/* see installed.h */
int kb_installed_get(struct kb_state *s, const char *name, struct kb_err *err, struct kb_installed *ret)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "reading the models", err, &txn);
	if (r)
		return r;
	r = get_model(s, txn, name, err, ret);
	mdb_txn_abort(txn);
	return r == KB_ENOTFOUND ? kb_fail(err, KB_ENOTFOUND, "there is no installed model '%.80s'", name) : r;
}

static int get_image(
	struct kb_state *s, MDB_txn *txn, const uint8_t digest[static HASH], struct kb_err *err, struct kb_signed *ret)
{
	MDB_val v;
	int r = kb__state_get(txn, s->images, digest, HASH, err, &v);
	if (r)
		return r == KB_ENOTFOUND ? kb_fail(err, KB_ENOTFOUND, "there is no such image on this box") : r;
	const uint8_t *p = v.mv_data;
	if (v.mv_size < IMAGE_HEAD)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: the record of an image is damaged");
	ret->len = kb_field_get(p + 8, 4);
	ret->signatures_len = kb_field_get(p + 12, 4);
	if (v.mv_size != IMAGE_HEAD + ret->len + ret->signatures_len)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: the record of an image is damaged");
	ret->bytes = p + IMAGE_HEAD;
	ret->signatures = ret->bytes + ret->len;
	return KB_OK;
}

/* see installed.h */
int kb_installed_signed(struct kb_state *s, const uint8_t digest[static HASH], struct kb_err *err,
	struct kb_buf *ret_bytes, struct kb_signed *ret)
{
	struct kb_signed image;
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "reading an image's manifest", err, &txn);
	if (r)
		return r;
	r = get_image(s, txn, digest, err, &image);
	if (r == KB_OK && (kb_buf_append(ret_bytes, image.bytes, image.len) ||
						  kb_buf_append(ret_bytes, image.signatures, image.signatures_len)))
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	mdb_txn_abort(txn);
	if (r == KB_OK)
		*ret = (struct kb_signed){ret_bytes->data, ret_bytes->data + image.len, image.len, image.signatures_len};
	return r;
}

// Keys that have just left a root do not take their images along; keys that were revoked do, unless enough others have
// signed too.
static int may_run(
	struct kb_state *s, MDB_txn *txn, const uint8_t digest[static HASH], bool allow_test, struct kb_err *err)
{
	struct kb_signatures signatures;
	struct kb_signed image;
	struct kb_root root;
	MDB_val bytes;
	bool is_tainted = false;
	int r = kb__trust_get(s, txn, err, &bytes, &root);
	if (r == KB_ENOTFOUND)
		return kb_fail(err, KB_EDENIED, "this box trusts nobody");
	r = r ? r : get_image(s, txn, digest, err, &image);
	r = r ? r : kb_signatures_parse(image.signatures, image.signatures_len, err, &signatures);
	if (r)
		return r;
	if (kb_root_is_revoked(&root, digest))
		return kb_fail(err, KB_EDENIED, "this image was revoked by root %" PRIu64, root.version);
	for (uint32_t i = 0; i < signatures.n; i++)
		is_tainted |= kb_root_is_revoked(&root, signatures.list[i].key_id);
	if (is_tainted &&
		kb_root_signed(&root, KB_ROLE_MODEL, KB_DOMAIN_MODEL, image.bytes, image.len, &signatures, allow_test, err))
		return kb_fail(err, KB_EDENIED, "a key that signed this image was revoked by root %" PRIu64, root.version);
	return KB_OK;
}

/* see installed.h */
int kb_installed_may_run(struct kb_state *s, const uint8_t digest[static HASH], bool allow_test, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "looking at an image", err, &txn);
	if (r)
		return r;
	r = may_run(s, txn, digest, allow_test, err);
	mdb_txn_abort(txn);
	return r;
}

struct search {
	const uint8_t *digest;
	bool is_found;
};

static bool has(const struct kb_installed_version *v, const uint8_t *digest)
{
	return v->version && memcmp(v->digest, digest, HASH) == 0;
}

static int is_it(void *ctx, const struct kb_installed *m)
{
	struct search *search = ctx;
	search->is_found |= has(&m->active, search->digest) || has(&m->previous, search->digest);
	return KB_OK;
}

/* see installed.h */
int kb_installed_is_used(struct kb_state *s, const uint8_t digest[static HASH], struct kb_err *err, bool *ret)
{
	struct search search = {digest, false};
	int r = kb_installed_each(s, is_it, &search, err);
	if (r == KB_OK)
		*ret = search.is_found;
	return r;
}

/* see installed.h */
uint64_t kb_installed_generation(struct kb_state *s)
{
	MDB_envinfo info;
	return mdb_env_info(s->env, &info) ? 0 : info.me_last_txnid;
}

// --- changes ---------------------------------------------------------------------------------------

// What the box's catalog says to a version.
static int allow_by_catalog(struct kb_state *s, MDB_txn *txn, const struct kb_manifest *m,
	const uint8_t digest[static HASH], struct kb_err *err)
{
	struct kb_catalog c;
	struct kb_catalog_image listed;
	int r = kb__catalog_get(s, txn, err, &c);
	if (r)
		return r == KB_ENOTFOUND ? KB_OK : r;
	if (!kb_catalog_find(&c, m->model, &listed))
		return KB_OK;
	if (m->version < listed.version)
		return kb_fail(err, KB_EDENIED,
			"%.*s version %" PRIu64 " is older than version %" PRIu64 ", which catalog %" PRIu64 " of this box lists",
			(int)m->model.len, m->model.data, m->version, listed.version, c.version);
	if (m->version == listed.version && memcmp(listed.digest, digest, HASH) != 0)
		return kb_fail(err, KB_EDENIED,
			"%.*s version %" PRIu64 " is another image than the one that catalog %" PRIu64 " lists", (int)m->model.len,
			m->model.data, m->version, c.version);
	return KB_OK;
}

static int allow(struct kb_state *s, MDB_txn *txn, const struct kb_manifest *m, const uint8_t digest[static HASH],
	struct kb_err *err)
{
	char name[KB_MAX_MODEL_NAME + 1] = {0};
	struct search base = {m->base, false};
	struct kb_installed now = {0};
	MDB_val v;
	memcpy(name, m->model.data, m->model.len < KB_MAX_MODEL_NAME ? m->model.len : KB_MAX_MODEL_NAME);
	int r = m->base ? each_model(s, txn, is_it, &base, err) : KB_OK;
	if (r == KB_OK && m->base && !base.is_found)
		return kb_fail(err, KB_ENOTFOUND, "%s is an adapter, and the model that it belongs to is not installed", name);
	r = r ? r : get_model(s, txn, name, err, &now);
	if (r != KB_OK && r != KB_ENOTFOUND)
		return r;
	if (has(&now.active, digest) && now.active.version == m->version)
		return kb_fail(err, KB_EEXISTS, "%s version %" PRIu64 " is installed and active already", name, m->version);
	r = allow_by_catalog(s, txn, m, digest, err);
	r = r ? r : kb__state_get(txn, s->floors, name, strlen(name), err, &v);
	if (r)
		return r == KB_ENOTFOUND ? KB_OK : r;
	if (v.mv_size != FLOOR_BYTES)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: the version floor of %s is damaged", name);
	const uint64_t floor = kb_field_get(v.mv_data, 8);
	if (m->version < floor)
		return kb_fail(err, KB_EDENIED,
			"%s version %" PRIu64 " is older than version %" PRIu64 ", which this box had already: it does not go back",
			name, m->version, floor);
	if (m->version == floor && memcmp((const uint8_t *)v.mv_data + 8, digest, HASH) != 0)
		return kb_fail(err, KB_EDENIED, "%s version %" PRIu64 " is another image than the one this box had before",
			name, m->version);
	return KB_OK;
}

/* see installed.h */
int kb_installed_allow(
	struct kb_state *s, const struct kb_manifest *m, const uint8_t digest[static HASH], struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__state_begin(s, MDB_RDONLY, "looking at the versions", err, &txn);
	if (r)
		return r;
	r = allow(s, txn, m, digest, err);
	mdb_txn_abort(txn);
	return r;
}

static int put_image(struct kb_state *s, MDB_txn *txn, const struct kb_signed *image, const uint8_t digest[static HASH],
	uint64_t now_s, struct kb_err *err)
{
	struct kb_buf b = {0};
	uint8_t head[IMAGE_HEAD];
	kb_field_put(head, now_s, 8);
	kb_field_put(head + 8, image->len, 4);
	kb_field_put(head + 12, image->signatures_len, 4);
	int r = kb_buf_append(&b, head, sizeof head);
	r = r ? r : kb_buf_append(&b, image->bytes, image->len);
	r = r ? r : kb_buf_append(&b, image->signatures, image->signatures_len);
	r = r ? kb_fail(err, KB_ENOMEM, "out of memory") : kb__state_put(txn, s->images, digest, HASH, b.data, b.len, err);
	kb_buf_finish(&b);
	return r;
}

// The record of an image that no model has any more.
static int drop_image(struct kb_state *s, MDB_txn *txn, const struct kb_installed_version *v, struct kb_err *err)
{
	struct search search = {v->digest, false};
	int r = v->version ? each_model(s, txn, is_it, &search, err) : KB_OK;
	return r || !v->version || search.is_found ? r : kb__state_del(txn, s->images, v->digest, HASH, err);
}

static int say(struct kb_state *s, MDB_txn *txn, const char *event, const char *name,
	const struct kb_installed_version *v, uint64_t now_s, const char *why, struct kb_err *err)
{
	struct kb_audit_entry e = {.time_s = now_s, .version = v->version};
	snprintf(e.event, sizeof e.event, "%s", event);
	snprintf(e.subject, sizeof e.subject, "%s", name);
	snprintf(e.detail, sizeof e.detail, "%s", why ? why : "");
	memcpy(e.digest, v->digest, HASH);
	return kb__audit_put(s, txn, &e, err);
}

static int commit(struct kb_state *s, MDB_txn *txn, const struct kb_signed *image, const struct kb_manifest *m,
	const uint8_t digest[static HASH], uint64_t now_s, struct kb_err *err)
{
	uint8_t floor[FLOOR_BYTES];
	struct kb_installed model = {0};
	int r = allow(s, txn, m, digest, err);
	if (r)
		return r;
	memcpy(model.name, m->model.data, m->model.len);
	r = get_model(s, txn, model.name, err, &model);
	if (r != KB_OK && r != KB_ENOTFOUND)
		return r;
	const struct kb_installed_version gone = model.previous;
	model.previous = model.active;
	model.active.version = m->version;
	memcpy(model.active.digest, digest, HASH);
	if (has(&model.previous, digest)) // the same file under a new version
		model.previous = gone;
	model.since_s = now_s;
	model.kind = m->kind;
	model.bytes = m->payload_bytes;
	kb_field_put(floor, m->version, 8);
	memcpy(floor + 8, digest, HASH);
	r = put_image(s, txn, image, digest, now_s, err);
	r = r ? r : put_model(s, txn, &model, err);
	r = r ? r : drop_image(s, txn, &gone, err);
	r = r ? r : kb__state_put(txn, s->floors, model.name, strlen(model.name), floor, sizeof floor, err);
	r = r ? r : kb__trust_time(s, txn, m->created, err);
	return r ? r : say(s, txn, "model installed", model.name, &model.active, now_s, NULL, err);
}

/* see installed.h */
int kb_installed_commit(struct kb_state *s, const struct kb_signed *signed_, const struct kb_manifest *m,
	const uint8_t digest[static HASH], uint64_t now_s, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__epoch_begin(s, "installing", err, &txn);
	return r ? r : kb__epoch_end(s, txn, commit(s, txn, signed_, m, digest, now_s, err), "installing", err);
}

static int rollback(struct kb_state *s, MDB_txn *txn, const char *name, bool allow_test, uint64_t now_s,
	const char *why, struct kb_err *err)
{
	struct kb_installed m;
	struct kb_signed image;
	struct kb_manifest manifest;
	int r = get_model(s, txn, name, err, &m);
	if (r == KB_ENOTFOUND)
		return kb_fail(err, r, "there is no installed model '%.80s'", name);
	if (r == KB_OK && !m.previous.version)
		return kb_fail(err, KB_ENOTFOUND, "%s has no version before %" PRIu64 " on this box", name, m.active.version);
	r = r ? r : may_run(s, txn, m.previous.digest, allow_test, err);
	r = r ? r : get_image(s, txn, m.previous.digest, err, &image);
	r = r ? r : kb_manifest_parse(image.bytes, image.len, err, &manifest);
	if (r)
		return r;
	const struct kb_installed_version now = m.active;
	m.active = m.previous;
	m.previous = now;
	m.since_s = now_s;
	m.kind = manifest.kind;
	m.bytes = manifest.payload_bytes;
	r = put_model(s, txn, &m, err);
	return r ? r : say(s, txn, "model rolled back", name, &m.active, now_s, why, err);
}

/* see installed.h */
int kb_installed_rollback(
	struct kb_state *s, const char *name, bool allow_test, uint64_t now_s, const char *why, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__epoch_begin(s, "rolling back", err, &txn);
	return r ? r : kb__epoch_end(s, txn, rollback(s, txn, name, allow_test, now_s, why, err), "rolling back", err);
}

static int remove_model(struct kb_state *s, MDB_txn *txn, const char *name, uint64_t now_s, struct kb_err *err)
{
	struct kb_installed m;
	int r = get_model(s, txn, name, err, &m);
	if (r)
		return r == KB_ENOTFOUND ? kb_fail(err, r, "there is no installed model '%.80s'", name) : r;
	r = kb__state_del(txn, s->models, name, strlen(name), err);
	r = r ? r : drop_image(s, txn, &m.active, err);
	r = r ? r : drop_image(s, txn, &m.previous, err);
	return r ? r : say(s, txn, "model removed", name, &m.active, now_s, NULL, err);
}

/* see installed.h */
int kb_installed_remove(struct kb_state *s, const char *name, uint64_t now_s, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__epoch_begin(s, "removing a model", err, &txn);
	return r ? r : kb__epoch_end(s, txn, remove_model(s, txn, name, now_s, err), "removing a model", err);
}

static int forget(
	struct kb_state *s, MDB_txn *txn, const char *name, uint64_t now_s, const char *why, struct kb_err *err)
{
	struct kb_installed m;
	int r = get_model(s, txn, name, err, &m);
	if (r == KB_ENOTFOUND || (r == KB_OK && !m.previous.version))
		return kb_fail(err, KB_ENOTFOUND, "%.80s has no previous version on this box", name);
	if (r)
		return r;
	const struct kb_installed_version gone = m.previous;
	m.previous = (struct kb_installed_version){0};
	r = put_model(s, txn, &m, err);
	r = r ? r : drop_image(s, txn, &gone, err);
	return r ? r : say(s, txn, "previous version dropped", name, &gone, now_s, why, err);
}

/* see installed.h */
int kb_installed_forget(struct kb_state *s, const char *name, uint64_t now_s, const char *why, struct kb_err *err)
{
	MDB_txn *txn;
	int r = kb__epoch_begin(s, "dropping a version", err, &txn);
	return r ? r : kb__epoch_end(s, txn, forget(s, txn, name, now_s, why, err), "dropping a version", err);
}
