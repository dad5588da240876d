// kotobako os install FILE | DIR: a signed system image into the slot that does not run.
#include "base/clock.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/ctl_os.h"
#include "firmware/ctl/progress.h"
#include "storage/os_install.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

// What an image says of itself decides nothing but which one is tried.
static bool says(const char *path, const char *board, uint64_t *ret_version)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_manifest m;
	struct kb_err ignored;
	int fd = -1;
	if (kb_ctl_image_open(path, O_RDONLY, &ignored, &fd, &bytes, &h))
		return false;
	const bool is_one = kb_manifest_parse(h->manifest.bytes, h->manifest.len, &ignored, &m) == 0 &&
						m.kind == KB_MANIFEST_OS && m.family.len == strlen(board) &&
						memcmp(m.family.data, board, m.family.len) == 0;
	if (is_one)
		*ret_version = m.version;
	close(fd);
	kb_buf_finish(&bytes);
	free(h);
	return is_one;
}

// The newest one for this board; free() it. NULL: there is none.
static char *find(const char *folder, const char *board)
{
	DIR *d = opendir(folder);
	uint64_t best = 0, version;
	char *ret = NULL;
	for (struct dirent *e; d && (e = readdir(d));) {
		char *path = e->d_name[0] == '.' ? NULL : kb_ctl_path(folder, e->d_name);
		if (path && says(path, board, &version) && version > best) {
			free(ret);
			ret = path;
			path = NULL;
			best = version;
		}
		free(path);
	}
	if (d)
		closedir(d);
	return ret;
}

static void on_progress(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
}

static int feed(int fd, const char *path, struct kb_os_install *i, struct kb_err *err)
{
	uint8_t *piece = malloc(READ_BYTES);
	ssize_t n = 1;
	int r = piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	while (r == 0 && n != 0) {
		n = read(fd, piece, READ_BYTES);
		if (kb_ctl_interrupted)
			r = kb_fail(err, KB_ECANCELLED, "stopped");
		else if (n > 0)
			r = kb_os_install_feed(i, piece, (size_t)n, err);
		else if (n < 0 && errno != EINTR)
			r = kb_fail(err, KB_EIO, "reading %s: %s", path, strerror(errno));
	}
	free(piece);
	return r;
}

static int install(
	struct kb_os_install_options *options, const char *path, struct kb_err *err, struct kb_os_install_result *ret)
{
	struct kb_ctl_progress progress;
	struct kb_os_install *i = NULL;
	const bool is_input = strcmp(path, "-") == 0;
	int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	options->ctx = &progress;
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "installing", kb_clock_ms());
	int r = kb_os_install_begin(options, err, &i);
	r = r ? r : feed(fd, path, i, err);
	r = r ? r : kb_os_install_finish(i, err, ret);
	kb_ctl_progress_end(&progress);
	kb_os_install_destroy(i);
	if (!is_input)
		close(fd);
	return r;
}

int kb_ctl_os_install(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state journal = {0};
	struct kb_state *state;
	struct kb_err err = {0};
	struct stat st;
	struct kb_os_install_result done = {0};
	const char *path = args->arg[1];
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &journal);
	if (status)
		return status;
	char *stage = kb_ctl_path(ctl->state, KB_OS_STAGE), *found = NULL;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		path = found = find(args->arg[1], boot.board);
	int r = stage ? KB_OK : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r == 0 && !path)
		r = kb_fail(&err, KB_ENOTFOUND, "%s holds no system image for the board %s", args->arg[1], boot.board);
	r = r ? r
		  : install(&(struct kb_os_install_options){.state = state,
						.boot = &boot,
						.stage = stage,
						.allow_test = KB_ALLOW_TEST_KEYS,
						.again = args->option[KB_OS_AGAIN].is_set,
						.clock_s = (uint64_t)time(NULL),
						.on_progress = on_progress},
				path, &err, &done);
	kb_state_close(state);
	free(stage);
	free(found);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; what runs was not changed");
	if (r == KB_EEXISTS) {
		printf("%s\n", err.text);
		return KB_CTL_OK;
	}
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	printf("system version %" PRIu64 " is written and read back; the box restarts to try it\n", done.version);
	return KB_CTL_OK;
}
