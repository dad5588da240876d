#include "storage/install.h"
#include "base/hex.h"
#include "storage/audit.h"
#include "storage/image.h"
#include "storage/models.h"
#include "storage/partial.h"
#include "storage/trust.h"
#include "storage/verity_kernel.h"
#include "storage/write_behind.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define INCOMING "incoming"
#define SAY_BYTES (1u << 20)    // between two reports of progress
#define SPARE_BYTES (16u << 20) // left free: the tables and the log must be written too
#define STORE_NAME_BYTES (2 * KB_VERITY_HASH + sizeof KB_MODEL_SUFFIX - 1)

struct kb_install {
	struct kb_install_options o;
	char *models, *incoming; // incoming/install
	int lock, base;          // base: the file that a delta copies from
	struct kb_bundle *bundle;
	struct kb_partial partial;
	bool has_partial;
	struct kb_manifest manifest; // points into the bundle's
	uint8_t digest[KB_VERITY_HASH];
	uint64_t now_s;
	bool was_active, is_root_expired;
	struct kb_write_behind *writer;
	uint64_t done, said; // bytes of the model that have come, and up to where that was said
	struct kb_err failed;
};

// --- the store -------------------------------------------------------------------------------------

static int make_directory(const char *models, const char *name, struct kb_err *err)
{
	char *path = NULL;
	if (asprintf(&path, "%s/%s", models, name) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int r = mkdir(path, 0755) && errno != EEXIST
				? kb_fail(err, kb_err_from_errno(errno), "making %s: %s", path, strerror(errno))
				: KB_OK;
	free(path);
	return r;
}

// "DIGEST.kbm" -> digest
static bool digest_of(const char *file, uint8_t ret[static KB_VERITY_HASH])
{
	char hex[2 * KB_VERITY_HASH + 1] = {0};
	if (strlen(file) != STORE_NAME_BYTES || strcmp(file + 2 * KB_VERITY_HASH, KB_MODEL_SUFFIX) != 0)
		return false;
	memcpy(hex, file, 2 * KB_VERITY_HASH);
	return kb_unhex(hex, ret, KB_VERITY_HASH) == KB_OK;
}

/* see install.h */
int kb_install_sweep(struct kb_state *s, const char *models, struct kb_err *err)
{
	uint8_t digest[KB_VERITY_HASH];
	struct dirent *entry;
	char *path = NULL;
	if (asprintf(&path, "%s/" KB_STORE, models) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	DIR *d = opendir(path);
	int r =
		d || errno == ENOENT ? KB_OK : kb_fail(err, kb_err_from_errno(errno), "opening %s: %s", path, strerror(errno));
	while (d && r == KB_OK && (entry = readdir(d))) {
		bool is_used = true;
		if (digest_of(entry->d_name, digest))
			r = kb_installed_is_used(s, digest, err, &is_used);
		char *garbage = r == KB_OK && !is_used ? kb_installed_path(models, digest) : NULL;
		if (garbage)
			unlink(garbage);
		free(garbage);
	}
	if (d)
		closedir(d);
	free(path);
	return r;
}

// --- beginning -------------------------------------------------------------------------------------

static int lock(struct kb_install *i, struct kb_err *err)
{
	char *path = NULL;
	if (asprintf(&path, "%s/" INCOMING "/lock", i->models) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	i->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int r = KB_OK;
	if (i->lock < 0)
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	else if (flock(i->lock, LOCK_EX | LOCK_NB))
		r = kb_fail(err, KB_EBUSY, "another model is being installed; try again when it is done");
	free(path);
	return r;
}

static int on_root(void *ctx, const struct kb_root *root, const struct kb_signed *signed_, struct kb_err *err)
{
	struct kb_install *i = ctx;
	(void)root;
	return kb_trust_advance(i->o.state, signed_, i->now_s, err);
}

static int on_base(void *ctx, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err);
static int on_copy(void *ctx, uint64_t offset, uint8_t *ret, size_t len, struct kb_err *err);
static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err);
static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err);

static int open_bundle(struct kb_install *i, struct kb_err *err)
{
	const struct kb_bundle_events events = {
		.ctx = i, .root = on_root, .manifest = on_manifest, .base = on_base, .copy = on_copy, .data = on_data};
	struct kb_buf root = {0};
	int r = kb_trust_root(i->o.state, err, &root);
	if (r == KB_OK)
		r = kb_bundle_create(&(struct kb_bundle_policy){.role = KB_ROLE_MODEL,
								 .root = root.data,
								 .root_len = root.len,
								 .allow_test = i->o.allow_test,
								 .firmware = i->o.firmware},
			&events, err, &i->bundle);
	kb_buf_finish(&root);
	return r == KB_ENOTFOUND ? KB_EDENIED : r;
}

static int begin(struct kb_install *i, struct kb_err *err)
{
	i->models = strdup(i->o.models);
	if (!i->models || asprintf(&i->incoming, "%s/" INCOMING "/install", i->models) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int r = make_directory(i->models, INCOMING, err);
	r = r ? r : make_directory(i->models, KB_STORE, err);
	r = r ? r : lock(i, err);
	r = r ? r : kb_install_sweep(i->o.state, i->models, err);
	r = r ? r : kb_trust_now(i->o.state, i->o.clock_s, err, &i->now_s);
	return r ? r : open_bundle(i, err);
}

/* see install.h */
int kb_install_begin(const struct kb_install_options *options, struct kb_err *err, struct kb_install **ret)
{
	struct kb_install *i = calloc(1, sizeof *i);
	if (!i)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	i->o = *options;
	i->lock = i->base = -1;
	int r = begin(i, err);
	if (r) {
		kb_install_destroy(i);
		return r;
	}
	*ret = i;
	return KB_OK;
}

/* see install.h */
void kb_install_destroy(struct kb_install *i)
{
	if (!i)
		return;
	kb_write_behind_destroy(i->writer);
	if (i->has_partial)
		kb_partial_abandon(&i->partial);
	kb_bundle_destroy(i->bundle);
	if (i->base >= 0)
		close(i->base);
	if (i->lock >= 0)
		close(i->lock);
	free(i->incoming);
	free(i->models);
	free(i);
}

// --- as it comes -----------------------------------------------------------------------------------

struct oldest {
	char name[KB_MAX_MODEL_NAME + 1];
	uint64_t since_s;
	const char *own; // the model that is being installed comes first
};

static int find_oldest(void *ctx, const struct kb_installed *m)
{
	struct oldest *o = ctx;
	bool is_own = strcmp(m->name, o->own) == 0;
	if (m->previous.version && (!o->name[0] || is_own || (m->since_s < o->since_s && strcmp(o->name, o->own) != 0))) {
		memcpy(o->name, m->name, sizeof o->name);
		o->since_s = m->since_s;
	}
	return KB_OK;
}

// Room for the file; previous versions go where the caller says that they may.
static int make_room(struct kb_install *i, const char *name, uint64_t need, struct kb_err *err)
{
	for (;;) {
		struct oldest oldest = {.own = name};
		uint64_t room;
		int r = kb_partial_room(i->incoming, err, &room);
		if (r || (room >= SPARE_BYTES && room - SPARE_BYTES >= need))
			return r;
		if (i->o.drop_why)
			r = kb_installed_each(i->o.state, find_oldest, &oldest, err);
		if (r)
			return r;
		if (!oldest.name[0])
			return kb_fail(err, KB_ENOSPACE,
				"%s needs %" PRIu64 " MB on the models' disk, %" PRIu64 " MB are free: remove a model (kotobako model "
				"remove NAME)",
				name, (need + SPARE_BYTES) / 1000000 + 1, room / 1000000);
		r = kb_installed_forget(i->o.state, oldest.name, i->now_s, i->o.drop_why, err);
		r = r ? r : kb_install_sweep(i->o.state, i->models, err);
		if (r)
			return r;
	}
}

// Before anything is written. Held open from here on: it may go while room is made.
static int on_base(void *ctx, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	struct kb_install *i = ctx;
	char *path = kb_installed_path(i->models, digest), hex[2 * KB_VERITY_HASH + 1];
	bool is_used = false;
	kb_hex(digest, KB_VERITY_HASH, hex);
	int r = path ? kb_installed_is_used(i->o.state, digest, err, &is_used) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == KB_OK && is_used)
		i->base = open(path, O_RDONLY | O_CLOEXEC);
	if (r == KB_OK && i->base < 0)
		r = kb_fail(err, KB_ENOTFOUND,
			"this is a delta for a box that has the model sha256:%s, which this one has not: install the whole image",
			hex);
	free(path);
	return r;
}

static int on_copy(void *ctx, uint64_t offset, uint8_t *ret, size_t len, struct kb_err *err)
{
	struct kb_install *i = ctx;
	while (len) {
		ssize_t n = pread(i->base, ret, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return kb_fail(err, n ? KB_EIO : KB_ECORRUPT, "reading the base at byte %" PRIu64 ": %s", offset,
				n ? strerror(errno) : "it ends there");
		ret += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return KB_OK;
}

static int look_at_root(struct kb_install *i, struct kb_err *err)
{
	struct kb_buf bytes = {0};
	struct kb_root root;
	int r = kb_trust_root(i->o.state, err, &bytes);
	r = r ? r : kb_root_parse(bytes.data, bytes.len, err, &root);
	if (r == KB_OK)
		i->is_root_expired = root.expires && root.expires < i->now_s;
	kb_buf_finish(&bytes);
	return r;
}

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	struct kb_install *i = ctx;
	char name[KB_MAX_MODEL_NAME + 1] = {0};
	memcpy(name, m->model.data, m->model.len); // the manifest's parser checked it
	i->manifest = *m;
	memcpy(i->digest, digest, sizeof i->digest);
	int r = look_at_root(i, err);
	r = r ? r : kb_installed_allow(i->o.state, m, digest, err);
	i->was_active = r == KB_EEXISTS;
	r = r ? r : make_room(i, name, m->payload_bytes, err);
	r = r ? r : kb_partial_create(i->incoming, err, &i->partial);
	if (r)
		return r;
	i->has_partial = true;
	r = kb_write_behind_begin(i->partial.fd, i->partial.path, err, &i->writer);
	if (r)
		return r;
	r = i->o.on_manifest ? i->o.on_manifest(i->o.ctx, m) : KB_OK;
	return r ? kb_fail(err, r, "stopped on request") : KB_OK;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct kb_install *i = ctx;
	int r = kb_write_behind_put(i->writer, bytes, len, err);
	i->done = offset + len;
	if (r == KB_OK && i->o.on_data && (i->done - i->said >= SAY_BYTES || i->done == i->manifest.payload_bytes)) {
		i->said = i->done;
		i->o.on_data(i->o.ctx, i->done, i->manifest.payload_bytes);
	}
	return r;
}

static int say_failure(struct kb_install *i)
{
	struct kb_audit_entry e = {.time_s = i->now_s, .event = "install refused", .version = i->manifest.version};
	struct kb_err ignored;
	if (i->manifest.model.len)
		snprintf(e.subject, sizeof e.subject, "%.*s", (int)i->manifest.model.len, i->manifest.model.data);
	snprintf(e.detail, sizeof e.detail, "%s", i->failed.text);
	memcpy(e.digest, i->digest, sizeof e.digest);
	return kb_audit_append(i->o.state, &e, &ignored);
}

static int failed(struct kb_install *i, struct kb_err *err)
{
	if (err)
		*err = i->failed;
	return i->failed.code;
}

/* see install.h */
int kb_install_feed(struct kb_install *i, const void *bytes, size_t len, struct kb_err *err)
{
	if (i->failed.code)
		return failed(i, err);
	int r = kb_bundle_feed(i->bundle, bytes, len, &i->failed);
	if (r == KB_OK)
		return KB_OK;
	i->failed.code = r;
	if (r != KB_EEXISTS && r != KB_ECANCELLED)
		(void)say_failure(i); // where the log cannot be written, the first error is the one to be told
	return failed(i, err);
}

/* see install.h */
bool kb_install_is_proven(const struct kb_install *i)
{
	return i->has_partial;
}

// --- the end ---------------------------------------------------------------------------------------

static int put_in_place(struct kb_install *i, struct kb_err *err, bool *ret_has_verity)
{
	struct kb_image *image = NULL;
	char *path = kb_installed_path(i->models, i->digest);
	int r = path ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == KB_OK)
		r = kb_write_behind_end(i->writer, err);
	if (r == KB_OK) {
		r = kb_image_open(i->partial.path, err, &image); // signed, but is it a model?
		kb_image_close(image);
		if (r)
			kb_err_wrap(err, "it is signed, but no model that this firmware can open: ");
	}
	if (r == KB_OK) {
		free(i->partial.final_path);
		i->partial.final_path = path;
		path = NULL;
		r = kb_partial_commit(&i->partial, true, err);
	}
	if (r == KB_OK) {
		path = kb_installed_path(i->models, i->digest);
		r = path ? kb_verity_enable(path, i->digest, err, ret_has_verity) : kb_fail(err, KB_ENOMEM, "out of memory");
	}
	free(path);
	return r;
}

static int finish(struct kb_install *i, struct kb_err *err, struct kb_install_result *ret)
{
	struct kb_signed image;
	int r = kb_bundle_end(i->bundle, err);
	r = r ? r : put_in_place(i, err, &ret->has_verity);
	if (r)
		return r;
	kb_bundle_signed(i->bundle, &image);
	r = kb_installed_commit(i->o.state, &image, &i->manifest, i->digest, i->now_s, err);
	return r ? r : kb_install_sweep(i->o.state, i->models, err);
}

/* see install.h */
int kb_install_finish(struct kb_install *i, struct kb_err *err, struct kb_install_result *ret)
{
	struct kb_install_result result = {.was_active = i->was_active, .is_root_expired = i->is_root_expired};
	if (i->failed.code && !i->was_active)
		return failed(i, err);
	int r = i->was_active ? KB_OK : finish(i, &i->failed, &result);
	if (r) {
		i->failed.code = r;
		(void)say_failure(i);
		return failed(i, err);
	}
	memcpy(result.model, i->manifest.model.data, i->manifest.model.len);
	result.version = i->manifest.version;
	memcpy(result.digest, i->digest, sizeof result.digest);
	*ret = result;
	return KB_OK;
}
