#include "storage/file_io.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* see file_io.h */
int kb__read_at(int fd, uint8_t *ret, size_t len, uint64_t at, const char *what, struct kb_err *err)
{
	while (len) {
		ssize_t n = pread(fd, ret, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_fail(err, KB_EIO, "%s: reading at byte %" PRIu64 ": %s", what, at, strerror(errno));
		if (n == 0)
			return kb_fail(err, KB_ECORRUPT, "%s: it shrank while it was read", what);
		ret += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return KB_OK;
}

/* see file_io.h */
int kb__write_at(int fd, const uint8_t *from, size_t len, uint64_t at, const char *what, struct kb_err *err)
{
	while (len) {
		ssize_t n = pwrite(fd, from, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_fail(
				err, kb_err_from_errno(errno), "writing %s at byte %" PRIu64 ": %s", what, at, strerror(errno));
		from += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return KB_OK;
}
