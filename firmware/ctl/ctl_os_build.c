// kotobako os build: a system image of a root and the kernels that start it, not signed yet.
#include "base/clock.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/ctl_os.h"
#include "firmware/ctl/progress.h"
#include "storage/bundle_write.h"
#include "storage/file_io.h"
#include "storage/os_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)
static const int part_options[KB_OS_PARTS] = {KB_OS_ROOT_IMAGE, KB_OS_KERNEL_A_FILE, KB_OS_KERNEL_B_FILE};

struct part {
	int fd;
	uint8_t hash[KB_OS_HASH];
};

static int read_part(const char *path, struct part *p, struct kb_os_part *ret, struct kb_err *err)
{
	struct sha256_ctx sha;
	struct stat st = {0};
	uint8_t *piece = malloc(READ_BYTES);
	ssize_t n = 0;
	sha256_init(&sha);
	p->fd = piece ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	int r = !piece ? kb_fail(err, KB_ENOMEM, "out of memory") : KB_OK;
	if (r == 0 && (p->fd < 0 || fstat(p->fd, &st)))
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	while (r == 0 && (n = read(p->fd, piece, READ_BYTES)) > 0) {
		sha256_update(&sha, (size_t)n, piece);
		ret->bytes += (uint64_t)n;
	}
	if (r == 0 && (n < 0 || ret->bytes != (uint64_t)st.st_size))
		r = kb_fail(err, KB_EIO, "%s: it cannot be read whole", path);
	free(piece);
	sha256_digest(&sha, sizeof p->hash, p->hash);
	ret->sha256 = p->hash;
	return r;
}

static int copy_part(const struct part *p, const struct kb_os_part *part, int out, struct kb_err *err)
{
	uint8_t *piece = malloc(READ_BYTES);
	int r = piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	for (uint64_t at = 0; piece && r == 0 && at < part->bytes;) {
		const size_t n = part->bytes - at < READ_BYTES ? (size_t)(part->bytes - at) : READ_BYTES;
		r = kb__read_at(p->fd, piece, n, at, "a part of the system", err);
		r = r ? r : kb__write_at(out, piece, n, part->offset + at, "the payload", err);
		at += n;
	}
	free(piece);
	return r;
}

// Head and parts in one file, which has no name any more; *ret_path names it as long as this process lives.
static int make_payload(struct part *parts, struct kb_os_image *image, struct kb_err *err, int *ret_fd)
{
	uint8_t head[KB_OS_HEAD];
	const char *given = getenv("TMPDIR"), *folder = given ? given : "/var/tmp";
	int r = kb_os_image_write(image, err, head);
	int fd = r ? -1 : open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (r == 0 && fd < 0)
		r = kb_fail(err, kb_err_from_errno(errno), "a temporary file in %s: %s", folder, strerror(errno));
	r = r ? r : kb__write_at(fd, head, sizeof head, 0, "the payload", err);
	for (int i = 0; r == 0 && i < KB_OS_PARTS; i++)
		r = copy_part(&parts[i], &image->part[i], fd, err);
	*ret_fd = fd;
	return r;
}

static int step(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
	return kb_ctl_interrupted;
}

static int write_image(const struct kb_ctl_args *args, const struct kb_os_image *image, int payload, struct kb_err *err)
{
	const struct kb_ctl_value *o = args->option;
	struct kb_bundle_parts *b = calloc(1, sizeof *b);
	struct kb_ctl_progress progress;
	struct kb_buf roots = {0};
	char path[64], name[80];
	int r =
		b ? kb_ctl_chain_read(o[KB_OS_ROOTS].text, err, &roots, &b->chain) : kb_fail(err, KB_ENOMEM, "out of memory");
	r = r ? r : kb_chain_check(&b->chain, true, err);
	if (r == 0) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", payload);
		snprintf(name, sizeof name, "system-%.*s", (int)image->board.len, image->board.data);
		b->manifest = (struct kb_manifest){.model = {name, strlen(name)},
			.version = image->version,
			.kind = KB_MANIFEST_OS,
			.created = kb_ctl_now(),
			.family = image->board,
			.licence = {"various", 7}, // the bill of materials says whose is what
			.floor = o[KB_OS_FLOOR].is_set ? o[KB_OS_FLOOR].count : 0};
		b->payload = path;
		b->replace = o[KB_OS_REPLACE].is_set;
		kb_ctl_catch_interrupt(true);
		kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "building", kb_clock_ms());
		r = kb_bundle_write(b, args->arg[1], &(struct kb_progress){.step = step, .ctx = &progress}, err);
		kb_ctl_progress_end(&progress);
	}
	kb_buf_finish(&roots);
	free(b);
	return r;
}

int kb_ctl_os_build(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_value *o = args->option;
	struct part parts[KB_OS_PARTS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};
	struct kb_os_image image = {.version = o[KB_OS_VERSION].count};
	struct kb_err err = {0};
	int fd = -1, r = 0;
	(void)ctl;
	if (!o[KB_OS_BOARD].is_set || !o[KB_OS_VERSION].is_set || !o[KB_OS_ROOTS].is_set)
		r = kb_fail(&err, KB_EARG, "--board, --version and --roots are wanted");
	for (int i = 0; r == 0 && i < KB_OS_PARTS; i++)
		r = o[part_options[i]].is_set ? read_part(o[part_options[i]].text, &parts[i], &image.part[i], &err)
									  : kb_fail(&err, KB_EARG, "--root, --kernel-a and --kernel-b are wanted");
	if (r == 0)
		image.board = (struct kb_str){o[KB_OS_BOARD].text, strlen(o[KB_OS_BOARD].text)};
	r = r ? r : make_payload(parts, &image, &err, &fd);
	r = r ? r : write_image(args, &image, fd, &err);
	for (int i = 0; i < KB_OS_PARTS; i++)
		if (parts[i].fd >= 0)
			close(parts[i].fd);
	if (fd >= 0)
		close(fd);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; nothing was kept");
	if (r)
		return kb_ctl_fail(r == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	printf("%s: system version %" PRIu64 " for %s, to be signed (kotobako image sign)\n", args->arg[1], image.version,
		o[KB_OS_BOARD].text);
	return KB_CTL_OK;
}
