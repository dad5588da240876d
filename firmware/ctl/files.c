/* Files and paths of the command line; see ctl.h */
#include "firmware/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *kb_ctl_path(const char *directory, const char *name)
{
	char *path = NULL;
	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

/* see ctl.h */
int kb_ctl_read_file(const char *path, struct kb_buf *ret, struct kb_err *err)
{
	bool is_input = strcmp(path, "-") == 0;
	int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	struct kb_buf b = {.max = KB_CTL_FILE_MAX};
	ssize_t n = 1;
	int r = 0;
	while (r == 0 && n != 0) {
		r = kb_buf_reserve(&b, b.len < KB_CTL_FILE_MAX - 65536 ? 65536 : KB_CTL_FILE_MAX - b.len);
		if (r == 0 && b.len == KB_CTL_FILE_MAX)
			r = KB_ELIMIT;
		if (r)
			break;
		n = read(fd, b.data + b.len, b.cap - b.len < 65536 ? b.cap - b.len : 65536);
		if (n < 0 && errno == EINTR && kb_ctl_interrupted)
			r = kb_fail(err, KB_ECANCELLED, "stopped");
		else if (n < 0 && errno != EINTR)
			r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
		else if (n > 0)
			b.len += (size_t)n;
	}
	if (r == KB_ELIMIT)
		kb_fail(err, r, "%s: larger than %u MiB", path, KB_CTL_FILE_MAX >> 20);
	if (r == 0 && !kb_buf_cstr(&b))
		r = kb_fail(err, KB_ENOMEM, "%s: out of memory", path);
	if (!is_input)
		close(fd);
	if (r) {
		kb_buf_finish(&b);
		return r;
	}
	*ret = b;
	return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return fsync(fd);
}

/* see ctl.h */
int kb_ctl_write_file(const char *path, const void *data, size_t len, unsigned mode, struct kb_err *err)
{
	char *beside = NULL;
	if (asprintf(&beside, "%s.XXXXXX", path) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int fd = mkostemp(beside, O_CLOEXEC); // 0600
	int r = 0;
	if (fd < 0 || write_all(fd, data, len) || fchmod(fd, (mode_t)mode))
		r = kb_fail(err, kb_err_from_errno(errno), "writing %s: %s", path, strerror(errno));
	if (fd >= 0 && close(fd) && r == 0)
		r = kb_fail(err, kb_err_from_errno(errno), "writing %s: %s", path, strerror(errno));
	if (r == 0 && rename(beside, path))
		r = kb_fail(err, kb_err_from_errno(errno), "writing %s: %s", path, strerror(errno));
	if (r && fd >= 0)
		unlink(beside);
	free(beside);
	return r;
}

/* see ctl.h */
int kb_ctl_make_directory(const char *path, struct kb_err *err)
{
	if (!path[0])
		return kb_fail(err, KB_EARG, "the name of a directory is empty");
	char *copy = strdup(path);
	if (!copy)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int r = 0;
	for (char *at = copy + 1; r == 0; at++) {
		if (*at != '/' && *at != 0)
			continue;
		bool is_last = *at == 0;
		*at = 0;
		if (mkdir(copy, 0700) && errno != EEXIST)
			r = kb_fail(err, kb_err_from_errno(errno), "making the directory %s: %s", copy, strerror(errno));
		if (is_last)
			break;
		*at = '/';
	}
	struct stat st;
	if (r == 0 && (stat(path, &st) || !S_ISDIR(st.st_mode)))
		r = kb_fail(err, KB_EEXISTS, "%s is no directory", path);
	free(copy);
	return r;
}
