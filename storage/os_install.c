#include "storage/os_install.h"
#include "storage/audit.h"
#include "storage/file_io.h"
#include "storage/trust.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAY_BYTES (1u << 20) // between two reports of progress
#define READ_BYTES (1u << 20)

// Where a part goes.
struct target {
	char *path;
	int fd;
	enum kb_os_part_kind part;
};

struct kb_os_install {
	struct kb_os_install_options o;
	struct kb_os_boot boot;
	struct kb_bundle *bundle;
	struct kb_os_state journal;
	struct kb_manifest manifest; // points into the bundle's
	uint8_t digest[KB_VERITY_HASH], head[KB_OS_HEAD];
	struct kb_os_image image; // points into head
	struct target root, kernel;
	int lock;
	uint64_t now_s, said;
	struct kb_err failed;
};

static char *path_in(const char *stage, const char *name)
{
	char *path = NULL;
	return asprintf(&path, "%s/%s", stage, name) < 0 ? NULL : path;
}

static char *stage_path(const struct kb_os_install *i, const char *name)
{
	return path_in(i->o.stage, name);
}

static int make_stage(const char *stage, struct kb_err *err)
{
	return mkdir(stage, 0700) && errno != EEXIST
			   ? kb_fail(err, kb_err_from_errno(errno), "making %s: %s", stage, strerror(errno))
			   : KB_OK;
}

/* see os_install.h */
int kb_os_stage_arm(const char *stage, struct kb_err *err)
{
	char *path = path_in(stage, KB_OS_ARM);
	int r = path ? make_stage(stage, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	int folder = r ? -1 : open(stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = r ? -1 : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (r == KB_OK && (fd < 0 || folder < 0 || write(fd, "1", 1) != 1 || fsync(fd) || fsync(folder)))
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", stage, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (folder >= 0)
		close(folder);
	free(path);
	return r;
}

/* see os_install.h */
void kb_os_stage_clear(const char *stage)
{
	static const char *const names[] = {KB_OS_ARM, KB_OS_STAGED_KERNEL};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *path = path_in(stage, names[i]);
		if (path)
			unlink(path);
		free(path);
	}
}

/* see os_install.h */
int kb_os_stage_roll_back(struct kb_state *state, const struct kb_os_boot *boot, const char *stage, uint64_t now_s,
	struct kb_err *err, uint64_t *ret_version)
{
	struct kb_audit_entry e = {.time_s = now_s, .event = "system rollback", .subject = "system", .detail = "by hand"};
	struct kb_os_state s;
	int r = kb_os_load(state, err, &s);
	r = r ? r : kb_os_roll_back(&s, boot, err);
	if (r)
		return r;
	e.version = *ret_version = s.slot[1 - boot->slot].version;
	kb_os_stage_clear(stage); // of an install that did not end
	r = kb_os_store(state, &s, err);
	r = r ? r : kb_audit_append(state, &e, err);
	return r ? r : kb_os_stage_arm(stage, err);
}

// --- beginning -------------------------------------------------------------------------------------

static int lock(struct kb_os_install *i, struct kb_err *err)
{
	char *path = stage_path(i, "lock");
	if (!path)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int r = make_stage(i->o.stage, err);
	if (r == KB_OK)
		i->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r == KB_OK && i->lock < 0)
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	else if (r == KB_OK && flock(i->lock, LOCK_EX | LOCK_NB))
		r = kb_fail(err, KB_EBUSY, "another system is being installed; try again when it is done");
	free(path);
	return r;
}

static int on_root(void *ctx, const struct kb_root *root, const struct kb_signed *signed_, struct kb_err *err)
{
	struct kb_os_install *i = ctx;
	(void)root;
	return kb_trust_advance(i->o.state, signed_, i->now_s, err);
}

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err);
static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err);

static int begin(struct kb_os_install *i, struct kb_err *err)
{
	struct kb_buf root = {0};
	int r = lock(i, err);
	r = r ? r : kb_trust_now(i->o.state, i->o.clock_s, err, &i->now_s);
	r = r ? r : kb_os_load(i->o.state, err, &i->journal);
	r = r ? r : kb_trust_root(i->o.state, err, &root);
	r = r == KB_ENOTFOUND ? KB_EDENIED : r;
	// firmware: a system image is what brings a newer one
	r = r ? r
		  : kb_bundle_create(&(struct kb_bundle_policy){.role = KB_ROLE_OS,
								 .root = root.data,
								 .root_len = root.len,
								 .allow_test = i->o.allow_test,
								 .firmware = UINT64_MAX},
				&(struct kb_bundle_events){.ctx = i, .root = on_root, .manifest = on_manifest, .data = on_data}, err,
				&i->bundle);
	kb_buf_finish(&root);
	return r;
}

/* see os_install.h */
int kb_os_install_begin(const struct kb_os_install_options *options, struct kb_err *err, struct kb_os_install **ret)
{
	struct kb_os_install *i = calloc(1, sizeof *i);
	if (!i)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	i->o = *options;
	i->boot = *options->boot;
	i->lock = i->root.fd = i->kernel.fd = -1;
	int r = begin(i, err);
	if (r) {
		kb_os_install_destroy(i);
		return r;
	}
	*ret = i;
	return KB_OK;
}

static void drop(struct target *t)
{
	if (t->fd >= 0)
		close(t->fd);
	free(t->path);
	*t = (struct target){.fd = -1};
}

/* see os_install.h */
void kb_os_install_destroy(struct kb_os_install *i)
{
	if (!i)
		return;
	drop(&i->root);
	drop(&i->kernel);
	kb_bundle_destroy(i->bundle);
	if (i->lock >= 0)
		close(i->lock);
	free(i);
}

// --- as it comes -----------------------------------------------------------------------------------

static struct kb_os_slot *slot(struct kb_os_install *i)
{
	return &i->journal.slot[1 - i->boot.slot];
}

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	struct kb_os_install *i = ctx;
	char board[sizeof i->boot.board] = "";
	if (m->family.len < sizeof board)
		memcpy(board, m->family.data, m->family.len);
	i->manifest = *m;
	memcpy(i->digest, digest, sizeof i->digest);
	return kb_os_allow(&i->journal, &i->boot, board, m->version, digest, i->o.again, err);
}

// The slot is open, and large enough; a file stands in for it where there is no box.
static int open_root(struct kb_os_install *i, struct kb_err *err)
{
	struct target *t = &i->root;
	t->part = KB_OS_ROOT;
	t->path = strdup(i->boot.device);
	t->fd = t->path ? open(t->path, O_RDWR | O_CLOEXEC) : -1;
	if (t->fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "the other slot, %s: %s", i->boot.device, strerror(errno));
	const off_t room = lseek(t->fd, 0, SEEK_END);
	if (room < 0 || (uint64_t)room < i->image.part[KB_OS_ROOT].bytes)
		return kb_fail(err, KB_ENOSPACE, "its root has %" PRIu64 " bytes, the slot %s %lld",
			i->image.part[KB_OS_ROOT].bytes, i->boot.device, (long long)room);
	return KB_OK;
}

static int open_kernel(struct kb_os_install *i, struct kb_err *err)
{
	struct target *t = &i->kernel;
	char *arm = stage_path(i, KB_OS_ARM);
	t->part = i->boot.slot ? KB_OS_KERNEL_A : KB_OS_KERNEL_B;
	t->path = stage_path(i, KB_OS_STAGED_KERNEL);
	if (arm)
		unlink(arm);
	free(arm);
	t->fd = t->path ? open(t->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	return t->fd < 0 ? kb_fail(err, kb_err_from_errno(errno), "%s: %s", t->path ? t->path : "", strerror(errno))
					 : KB_OK;
}

// The first block: what lies where. Only now is the slot touched, and the journal says so before.
static int take_head(struct kb_os_install *i, const uint8_t *bytes, struct kb_err *err)
{
	memcpy(i->head, bytes, sizeof i->head);
	int r = kb_os_image_parse(i->head, i->manifest.payload_bytes, err, &i->image);
	if (r == KB_OK && (i->image.version != i->manifest.version || i->image.board.len != i->manifest.family.len ||
						  memcmp(i->image.board.data, i->manifest.family.data, i->image.board.len) != 0))
		r = kb_fail(err, KB_EBAD, "system image: its head and its manifest do not agree on board and version");
	r = r ? r : open_root(i, err);
	r = r ? r : open_kernel(i, err);
	if (r)
		return r;
	*slot(i) = (struct kb_os_slot){.phase = KB_OS_WRITING, .version = i->manifest.version, .floor = i->manifest.floor};
	memcpy(slot(i)->digest, i->digest, KB_OS_DIGEST);
	return kb_os_store(i->o.state, &i->journal, err);
}

static int put(struct kb_os_install *i, const struct target *t, uint64_t offset, const uint8_t *bytes, size_t len,
	struct kb_err *err)
{
	const struct kb_os_part *p = &i->image.part[t->part];
	if (offset < p->offset || offset >= p->offset + p->bytes)
		return KB_OK;
	const uint64_t left = p->offset + p->bytes - offset; // the rest of a part's last block is padding
	return kb__write_at(t->fd, bytes, len < left ? len : (size_t)left, offset - p->offset, t->path, err);
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct kb_os_install *i = ctx;
	if (offset == 0)
		return len == KB_OS_HEAD ? take_head(i, bytes, err) : kb_fail(err, KB_EBAD, "system image: it has no head");
	int r = put(i, &i->root, offset, bytes, len, err);
	r = r ? r : put(i, &i->kernel, offset, bytes, len, err);
	if (r == KB_OK && i->o.on_progress && offset + len - i->said >= SAY_BYTES) {
		i->said = offset + len;
		i->o.on_progress(i->o.ctx, i->said, i->manifest.payload_bytes, "writing");
	}
	return r;
}

static int failed(struct kb_os_install *i, int code, struct kb_err *err)
{
	struct kb_audit_entry e = {
		.time_s = i->now_s, .event = "system refused", .subject = "system", .version = i->manifest.version};
	struct kb_err ignored;
	i->failed.code = code;
	snprintf(e.detail, sizeof e.detail, "%s", i->failed.text);
	memcpy(e.digest, i->digest, sizeof e.digest);
	if (code != KB_EEXISTS && code != KB_EBUSY)
		(void)(kb_audit_append(i->o.state, &e, &ignored) == KB_OK); // the first error is the one to be told
	*err = i->failed;
	return code;
}

/* see os_install.h */
int kb_os_install_feed(struct kb_os_install *i, const void *bytes, size_t len, struct kb_err *err)
{
	if (i->failed.code) {
		*err = i->failed;
		return err->code;
	}
	int r = kb_bundle_feed(i->bundle, bytes, len, &i->failed);
	return r ? failed(i, r, err) : KB_OK;
}

// --- the end ---------------------------------------------------------------------------------------

// Synced, out of the kernel's memory, and read again from the disk.
static int read_back(struct kb_os_install *i, const struct target *t, struct kb_err *err)
{
	const struct kb_os_part *p = &i->image.part[t->part];
	struct sha256_ctx sha;
	uint8_t hash[SHA256_DIGEST_SIZE], *piece = malloc(READ_BYTES);
	int r = piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == KB_OK && (fsync(t->fd) || posix_fadvise(t->fd, 0, 0, POSIX_FADV_DONTNEED)))
		r = kb_fail(err, KB_EIO, "%s: %s", t->path, strerror(errno));
	sha256_init(&sha);
	for (uint64_t at = 0; r == KB_OK && at < p->bytes;) {
		const size_t n = p->bytes - at < READ_BYTES ? (size_t)(p->bytes - at) : READ_BYTES;
		r = kb__read_at(t->fd, piece, n, at, t->path, err);
		if (r == KB_OK)
			sha256_update(&sha, n, piece);
		at += n;
		if (i->o.on_progress)
			i->o.on_progress(i->o.ctx, at, p->bytes, "reading back");
	}
	free(piece);
	sha256_digest(&sha, sizeof hash, hash);
	if (r == KB_OK && memcmp(hash, p->sha256, sizeof hash) != 0)
		r = kb_fail(err, KB_ECORRUPT, "%s: what was read back is not what was written: the disk is failing", t->path);
	return r;
}

static int finish(struct kb_os_install *i, struct kb_err *err)
{
	struct kb_audit_entry e = {
		.time_s = i->now_s, .event = "system written", .subject = "system", .version = i->manifest.version};
	int r = kb_bundle_end(i->bundle, err);
	r = r ? r : read_back(i, &i->root, err);
	r = r ? r : read_back(i, &i->kernel, err);
	if (r)
		return r;
	snprintf(e.detail, sizeof e.detail, "to slot %c", 'a' + (1 - i->boot.slot));
	memcpy(e.digest, i->digest, sizeof e.digest);
	slot(i)->phase = KB_OS_WRITTEN;
	r = kb_os_store(i->o.state, &i->journal, err);
	r = r ? r : kb_audit_append(i->o.state, &e, err);
	return r ? r : kb_os_stage_arm(i->o.stage, err); // last
}

/* see os_install.h */
bool kb_os_install_is_proven(const struct kb_os_install *i)
{
	return i->manifest.payload_bytes != 0;
}

/* see os_install.h */
int kb_os_install_finish(struct kb_os_install *i, struct kb_err *err, struct kb_os_install_result *ret)
{
	if (i->failed.code) {
		*err = i->failed;
		return err->code;
	}
	int r = finish(i, &i->failed);
	if (r)
		return failed(i, r, err);
	ret->version = i->manifest.version;
	memcpy(ret->digest, i->digest, sizeof ret->digest);
	return KB_OK;
}
