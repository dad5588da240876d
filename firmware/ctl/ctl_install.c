/* see ctl_install.h */
#include "firmware/ctl/ctl_install.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/version.h"
#include "firmware/ctl/box.h"
#include "firmware/ctl/progress.h"
#include "net/x509.h"
#include "storage/install.h"
#include "storage/seal.h"
#include "storage/store.h"
#include "storage/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)
#define ROOM_REASON "to make room for another image"

/* see ctl.h */
int kb_ctl_model_path(const struct kb_ctl *ctl, const char *name, struct kb_err *err, char **ret)
{
	struct kb_state *state = NULL;
	int r = kb_ctl_state(ctl, true, err, &state);
	r = r ? r : kb_store_find(state, ctl->models, name, err, ret);
	kb_state_close(state);
	return r;
}

// A daemon that runs takes the change at once; without one there is nothing to tell.
static void tell_daemon(const struct kb_ctl *ctl)
{
	struct kb_http_client *admin = NULL;
	yyjson_doc *doc = NULL;
	char *path = kb_ctl_path(ctl->state, "admin.sock");
	if (path && access(path, F_OK) == 0 && kb_ctl_admin_open(ctl, &admin) == 0 &&
		kb_ctl_call(admin, "POST", "/admin/reload", NULL, &doc) == 0)
		yyjson_doc_free(doc);
	kb_http_client_destroy(admin);
	free(path);
}

static int on_manifest(void *ctx, const struct kb_manifest *m)
{
	(void)ctx;
	fprintf(stderr, "%.*s version %" PRIu64 ", %.*s, licence %.*s\n", (int)m->model.len, m->model.data, m->version,
		(int)m->family.len, m->family.data, (int)m->licence.len, m->licence.data);
	return KB_OK;
}

static void on_data(void *ctx, uint64_t done, uint64_t total)
{
	kb_ctl_progress_step(ctx, done, total, "installing", kb_clock_ms());
}

// What comes in: an image, or a sealed one that is opened on the way.
struct source {
	int fd;
	const char *path, *key_path; // key_path: of the key that opens what is sealed
	struct kb_install *install;
	struct kb_unseal *unseal; // NULL: not sealed
};

static int on_unsealed(void *ctx, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct source *s = ctx;
	return kb_install_feed(s->install, bytes, len, err);
}

// Its first bytes say whether it is sealed.
static int look(struct source *s, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct kb_buf pem = {0};
	if (!kb_seal_is(bytes, len))
		return KB_OK;
	int r = kb_ctl_read_file(s->key_path, &pem, err);
	if (r)
		return kb_err_wrap(err, "it is sealed, and there is no key to open it (--key): ");
	r = kb_unseal_begin((const char *)pem.data, on_unsealed, s, err, &s->unseal);
	kb_wipe(&pem);
	return r;
}

static ssize_t read_first(int fd, uint8_t *piece, size_t len)
{
	size_t have = 0;
	ssize_t n = 1;
	while (n != 0 && have < len) {
		n = read(fd, piece + have, len - have);
		if (n < 0 && errno != EINTR)
			return -1;
		have += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)have;
}

static int feed(struct source *s, struct kb_err *err)
{
	uint8_t *piece = malloc(READ_BYTES);
	int r = piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	ssize_t n = r == KB_OK ? read_first(s->fd, piece, 8) : 0; // a pipe may give less at first
	r = r || n <= 0 ? r : look(s, piece, (size_t)n, err);
	while (r == KB_OK && n != 0) {
		if (kb_ctl_interrupted)
			r = kb_fail(err, KB_ECANCELLED, "stopped");
		else if (n > 0)
			r = s->unseal ? kb_unseal_feed(s->unseal, piece, (size_t)n, err)
						  : kb_install_feed(s->install, piece, (size_t)n, err);
		else if (n < 0 && errno != EINTR)
			r = kb_fail(err, KB_EIO, "reading %s: %s", s->path, strerror(errno));
		if (r == KB_OK)
			n = read(s->fd, piece, READ_BYTES);
	}
	free(piece);
	if (r == KB_OK && s->unseal)
		r = kb_unseal_end(s->unseal, err);
	kb_unseal_destroy(s->unseal);
	return r;
}

static void say(const struct kb_install_result *done)
{
	char hex[2 * KB_VERITY_HASH + 1];
	kb_hex(done->digest, sizeof done->digest, hex);
	printf("%s version %" PRIu64 " is %s, sha256:%s\n", done->model, done->version,
		done->was_active ? "active already" : "installed and active", hex);
	if (!done->was_active)
		fprintf(stderr, done->has_verity
							? "the kernel proves each page of it when it is read (fs-verity)\n"
							: "this file system has no fs-verity: the engine proves it when it loads it\n");
	if (done->is_root_expired)
		fprintf(stderr, "note: the root that this box trusts has expired; its keepers should have made a new one\n");
}

static int install(struct kb_ctl *ctl, const struct kb_ctl_args *args, struct kb_state *state, struct kb_err *err)
{
	const char *path = args->arg[1];
	const bool is_input = strcmp(path, "-") == 0;
	struct kb_ctl_progress progress;
	struct kb_install *i = NULL;
	struct kb_install_result done;
	const struct kb_install_options options = {.state = state,
		.models = ctl->models,
		.allow_test = KB_ALLOW_TEST_KEYS,
		.firmware = KB_FIRMWARE,
		.clock_s = (uint64_t)time(NULL),
		.drop_why = args->option[KB_MODEL_KEEP].is_set ? NULL : ROOM_REASON,
		.on_manifest = on_manifest,
		.on_data = on_data,
		.ctx = &progress};
	int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "installing", kb_clock_ms());
	int r = kb_install_begin(&options, err, &i);
	char *own_key = kb_ctl_path(ctl->state, "unseal.pem");
	const char *key = args->option[KB_MODEL_KEY].is_set ? args->option[KB_MODEL_KEY].text : own_key;
	if (r == KB_OK && !key)
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	r = r ? r : feed(&(struct source){.fd = fd, .path = path, .key_path = key, .install = i}, err);
	free(own_key);
	if (r == KB_OK || r == KB_EEXISTS)
		r = kb_install_finish(i, err, &done);
	kb_ctl_progress_end(&progress);
	kb_install_destroy(i);
	if (!is_input)
		close(fd);
	if (r == KB_OK)
		say(&done);
	return r;
}

int kb_ctl_install(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_state *state = NULL;
	struct kb_err err = {0};
	int r = kb_ctl_state(ctl, false, &err, &state);
	r = r ? r : kb_ctl_make_directory(ctl->models, &err);
	r = r ? r : install(ctl, args, state, &err);
	kb_state_close(state);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; nothing was changed");
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	tell_daemon(ctl);
	return KB_CTL_OK;
}

int kb_ctl_rollback(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_installed now;
	struct kb_state *state = NULL;
	struct kb_err err = {0};
	uint64_t now_s = 0;
	int r = kb_ctl_state(ctl, false, &err, &state);
	r = r ? r : kb_trust_now(state, (uint64_t)time(NULL), &err, &now_s);
	r = r ? r : kb_installed_rollback(state, args->arg[1], KB_ALLOW_TEST_KEYS, now_s, "by hand", &err);
	r = r ? r : kb_installed_get(state, args->arg[1], &err, &now);
	kb_state_close(state);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	printf("%s version %" PRIu64 " is active again; version %" PRIu64 " stays until the next install\n", now.name,
		now.active.version, now.previous.version);
	tell_daemon(ctl);
	return KB_CTL_OK;
}

/* see ctl_install.h */
int kb_ctl_remove_installed(struct kb_ctl *ctl, struct kb_state *state, const char *name, struct kb_err *err)
{
	uint64_t now_s = 0;
	int r = kb_trust_now(state, (uint64_t)time(NULL), err, &now_s);
	r = r ? r : kb_installed_remove(state, name, now_s, err);
	r = r ? r : kb_install_sweep(state, ctl->models, err);
	if (r == KB_OK)
		tell_daemon(ctl);
	return r;
}
