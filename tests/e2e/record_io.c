// Preloaded into a program (LD_PRELOAD): what it does to files below $KB_RECORD_DIR is written down in $KB_RECORD, in
// order, for power_test.py to build from it what a disk could hold after a power cut. With $KB_KILL_AT=N the N-th such
// operation is done in part, as a write by $KB_KILL_PART thousandths, and the process ends by SIGKILL.
//
// A record: u32 kind, u32 length of path, u32 length of second path, u32 synchronous, u64 offset, u64 length of data,
// then both paths and the data; native byte order.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE = 2, SYNC = 3, RENAME = 4, UNLINK = 5 };

static int log_fd = -1;
static const char *directory;
static long kill_at, kill_part, n_done;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("KB_RECORD"), *kill = getenv("KB_KILL_AT"), *part = getenv("KB_KILL_PART");
	directory = getenv("KB_RECORD_DIR");
	kill_at = kill ? strtol(kill, NULL, 10) : 0;
	kill_part = part ? strtol(part, NULL, 10) : 0;
	if (path)
		log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

// The path of a descriptor if it lies in the directory; else false.
static int path_of(int fd, char *ret, size_t size)
{
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, ret, size - 1);
	if (n <= 0 || !directory || fd == log_fd)
		return 0;
	ret[n] = 0;
	return strncmp(ret, directory, strlen(directory)) == 0;
}

// True where this operation is the one to die in.
static int is_last(void)
{
	return kill_at && ++n_done == kill_at;
}

static void note(
	enum kind kind, const char *path, const char *second, int is_sync, uint64_t offset, const struct iovec *data, int n)
{
	struct {
		uint32_t kind, path, second, is_sync;
		uint64_t offset, len;
	} head = {kind, (uint32_t)strlen(path), (uint32_t)strlen(second), (uint32_t)is_sync, offset, 0};
	if (log_fd < 0)
		return;
	for (int i = 0; i < n; i++)
		head.len += data[i].iov_len;
	struct iovec out[3] = {
		{&head, sizeof head}, {(void *)(uintptr_t)path, head.path}, {(void *)(uintptr_t)second, head.second}};
	if (syscall(SYS_writev, log_fd, out, 3) < 0 || (n && syscall(SYS_writev, log_fd, data, n) < 0))
		_exit(99);
}

static int is_synchronous(int fd)
{
	return (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
}

static ssize_t write_at(int fd, const struct iovec *data, int n, int64_t offset, long number)
{
	char path[4096];
	if (path_of(fd, path, sizeof path)) {
		uint64_t at = (uint64_t)(offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset);
		note(WRITE, path, "", is_synchronous(fd), at, data, n);
		if (is_last()) {
			(void)!syscall(SYS_pwrite64, fd, data[0].iov_base, data[0].iov_len * (size_t)kill_part / 1000, at);
			raise(SIGKILL);
		}
	}
	if (number == SYS_pwrite64)
		return syscall(SYS_pwrite64, fd, data->iov_base, data->iov_len, offset);
	return number == SYS_write ? syscall(SYS_write, fd, data->iov_base, data->iov_len)
							   : syscall(SYS_writev, fd, data, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
	return write_at(fd, &(struct iovec){(void *)(uintptr_t)bytes, len}, 1, offset, SYS_pwrite64);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset)
{
	return pwrite(fd, bytes, len, offset);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
	return write_at(fd, &(struct iovec){(void *)(uintptr_t)bytes, len}, 1, -1, SYS_write);
}

ssize_t writev(int fd, const struct iovec *data, int n)
{
	return write_at(fd, data, n, -1, SYS_writev);
}

int ftruncate(int fd, off_t len)
{
	char path[4096];
	if (path_of(fd, path, sizeof path)) {
		note(TRUNCATE, path, "", 0, (uint64_t)len, NULL, 0);
		if (is_last())
			raise(SIGKILL);
	}
	return (int)syscall(SYS_ftruncate, fd, len);
}

int ftruncate64(int fd, off64_t len)
{
	return ftruncate(fd, len);
}

// The record comes after the deed: what follows it may rely on it.
static int sync_fd(int fd, long number)
{
	char path[4096];
	int is_ours = path_of(fd, path, sizeof path);
	if (is_ours && is_last())
		raise(SIGKILL);
	int r = (int)syscall(number, fd);
	if (is_ours && r == 0)
		note(SYNC, path, "", 1, 0, NULL, 0);
	return r;
}

int fsync(int fd)
{
	return sync_fd(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return sync_fd(fd, SYS_fdatasync);
}

static void note_rename(const char *from, const char *to)
{
	if (!directory || strncmp(from, directory, strlen(directory)) != 0)
		return;
	note(RENAME, from, to, 0, 0, NULL, 0);
	if (is_last())
		raise(SIGKILL);
}

int rename(const char *from, const char *to)
{
	note_rename(from, to);
	return (int)syscall(SYS_rename, from, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	note_rename(from, to);
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int unlink(const char *path)
{
	if (directory && strncmp(path, directory, strlen(directory)) == 0) {
		note(UNLINK, path, "", 0, 0, NULL, 0);
		if (is_last())
			raise(SIGKILL);
	}
	return (int)syscall(SYS_unlink, path);
}
