/* see file.h */
#include "firmware/api/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int kb_file_read(const char *path, size_t max, struct kb_buf *ret, struct kb_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	int r = kb_buf_reserve(ret, max);
	ssize_t n = r ? 0 : read(fd, ret->data, max);
	close(fd);
	if (r || n < 0 || (size_t)n == max)
		return kb_fail(err, KB_EIO, "%s cannot be read", path);
	ret->len = (size_t)n;
	return kb_buf_cstr(ret) ? 0 : kb_fail(err, KB_ENOMEM, "%s: out of memory", path);
}

int kb_file_replace(const char *path, const struct kb_buf *b, struct kb_err *err)
{
	char fresh[620], dir[620];
	snprintf(fresh, sizeof fresh, "%s.new", path);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", fresh, strerror(errno));
	bool is_good = write(fd, b->data, b->len) == (ssize_t)b->len && fsync(fd) == 0;
	is_good = close(fd) == 0 && is_good;
	if (!is_good || rename(fresh, path))
		return kb_fail(err, KB_EIO, "%s: %s", path, strerror(errno));
	snprintf(dir, sizeof dir, "%s", path);
	char *slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	int d = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d >= 0) {
		(void)fsync(d);
		close(d);
	}
	return 0;
}
