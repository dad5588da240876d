// kotobako image verify: reads an image as a box does, from its first byte to its last, and installs nothing.
#include "base/clock.h"
#include "base/hex.h"
#include "base/version.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/progress.h"
#include "storage/bundle.h"
#include "storage/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

struct seen {
	char name[128];
	uint64_t version;
	uint8_t digest[KB_VERITY_HASH];
	struct kb_ctl_progress progress;
	uint64_t size;
};

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	struct seen *s = ctx;
	(void)err;
	snprintf(s->name, sizeof s->name, "%.*s", (int)m->model.len, m->model.data);
	s->version = m->version;
	s->size = m->payload_bytes;
	memcpy(s->digest, digest, sizeof s->digest);
	return KB_OK;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct seen *s = ctx;
	(void)bytes;
	kb_ctl_progress_step(&s->progress, offset + len, s->size, "verifying", kb_clock_ms());
	return kb_ctl_interrupted ? kb_fail(err, KB_ECANCELLED, "stopped") : KB_OK;
}

static int feed(int fd, struct kb_bundle *b, struct kb_err *err)
{
	uint8_t *piece = malloc(READ_BYTES);
	ssize_t n = 1;
	int r = piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	while (r == 0 && n != 0) {
		n = read(fd, piece, READ_BYTES);
		if (n > 0)
			r = kb_bundle_feed(b, piece, (size_t)n, err);
		else if (n < 0 && errno != EINTR)
			r = kb_fail(err, KB_EIO, "reading the image: %s", strerror(errno));
	}
	free(piece);
	return r ? r : kb_bundle_end(b, err);
}

static int verify(const char *path, const struct kb_bundle_policy *policy, struct seen *s, struct kb_err *err)
{
	const struct kb_bundle_events events = {.ctx = s, .manifest = on_manifest, .data = on_data};
	const bool is_input = strcmp(path, "-") == 0;
	struct kb_bundle *b = NULL;
	int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	int r = kb_bundle_create(policy, &events, err, &b);
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&s->progress, stderr, kb_ctl_is_terminal(2), "verifying", kb_clock_ms());
	r = r ? r : feed(fd, b, err);
	kb_ctl_progress_end(&s->progress);
	kb_bundle_destroy(b);
	if (!is_input)
		close(fd);
	return r;
}

// Whom to trust: the newest root of --roots, else the box's own.
static int find_root(struct kb_ctl *ctl, const char *roots, struct kb_err *err, struct kb_buf *ret)
{
	struct kb_chain *chain = calloc(1, sizeof *chain);
	struct kb_state *state = NULL;
	struct kb_buf bytes = {0};
	int r = chain ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == 0 && !roots) {
		r = kb_ctl_state(ctl, true, err, &state);
		r = r ? r : state ? kb_trust_root(state, err, ret) : kb_fail(err, KB_EARG, "--roots is wanted: whom to trust");
		kb_state_close(state);
	} else if (r == 0) {
		r = kb_ctl_chain_read(roots, err, &bytes, chain);
		r = r ? r : kb_chain_check(chain, KB_ALLOW_TEST_KEYS, err);
		if (r == 0 && kb_buf_append(ret, chain->roots[chain->n - 1].bytes, chain->roots[chain->n - 1].len))
			r = kb_fail(err, KB_ENOMEM, "out of memory");
	}
	kb_buf_finish(&bytes);
	free(chain);
	return r;
}

// Whose signatures it must have: a file says which kind it is, a pipe is a model's. What is wrong with it is said
// later, when it is read.
static enum kb_role find_role(const char *path)
{
	enum kb_role role = KB_ROLE_MODEL;
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_err ignored;
	int fd = -1;
	if (strcmp(path, "-") == 0 || kb_ctl_image_open(path, O_RDONLY, &ignored, &fd, &bytes, &h))
		return role;
	if (kb_ctl_image_role(h, &ignored, &role))
		role = KB_ROLE_MODEL;
	close(fd);
	kb_buf_finish(&bytes);
	free(h);
	return role;
}

int kb_ctl_image_verify(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_buf root = {0};
	struct kb_err err = {0};
	struct seen s = {0};
	char hex[2 * KB_VERITY_HASH + 1];
	int r = find_root(ctl, args->option[KB_IMAGE_ROOTS].text, &err, &root);
	if (r == 0)
		r = verify(args->arg[1],
			&(struct kb_bundle_policy){.role = find_role(args->arg[1]),
				.root = root.data,
				.root_len = root.len,
				.allow_test = KB_ALLOW_TEST_KEYS,
				.firmware = KB_FIRMWARE},
			&s, &err);
	kb_buf_finish(&root);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped");
	if (r)
		return kb_ctl_fail(r == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	kb_hex(s.digest, sizeof s.digest, hex);
	printf("%s: %s version %" PRIu64 ", signed and intact, sha256:%s\n", args->arg[1], s.name, s.version, hex);
	return KB_OK;
}
