/* see partial.h */
#include "storage/partial.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MARK ".partial-"

static int fail(struct kb_err *err, const char *doing, const char *path)
{
	int number = errno;
	return kb_fail(err, kb_err_from_errno(number), "%s %s: %s", doing, path, strerror(number));
}

// The directory of path, to be freed; NULL when out of memory.
static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static bool is_partial_name(const char *name)
{
	const char *mark = strstr(name, MARK);
	if (!mark || mark == name || !mark[sizeof MARK - 1])
		return false;
	for (const char *p = mark + sizeof MARK - 1; *p; p++)
		if (!isdigit((unsigned char)*p))
			return false;
	return true;
}

// A partial file that nobody holds locked is what a killed process left.
static void remove_if_stale(int directory, const char *name)
{
	struct stat st;
	int fd = directory < 0 ? -1 : openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlinkat(directory, name, 0);
	close(fd);
}

static int sweep(const char *directory, struct kb_err *err)
{
	DIR *d = opendir(directory);
	struct dirent *entry;
	if (!d)
		return fail(err, "opening the directory", directory);
	while ((entry = readdir(d)))
		if (is_partial_name(entry->d_name))
			remove_if_stale(dirfd(d), entry->d_name);
	closedir(d);
	return 0;
}

// Another process's sweep may remove the file between open and flock: then it is made again.
static int make_locked(const char *path, struct kb_err *err, int *ret_fd)
{
	struct stat st;
	for (int tries = 0; tries < 10; tries++) {
		int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0 && errno == EEXIST)
			return kb_fail(err, KB_EBUSY, "%s is being written already", path);
		if (fd < 0)
			return fail(err, "creating", path);
		if (flock(fd, LOCK_EX) == 0 && fstat(fd, &st) == 0 && st.st_nlink == 1) {
			*ret_fd = fd;
			return 0;
		}
		close(fd);
	}
	return kb_fail(err, KB_EBUSY, "%s was removed again and again while it was created", path);
}

int kb_partial_create(const char *final_path, struct kb_err *err, struct kb_partial *ret)
{
	struct kb_partial p = {.fd = -1};
	char *directory = directory_of(final_path);
	p.final_path = strdup(final_path);
	if (!directory || !p.final_path || asprintf(&p.path, "%s" MARK "%ld", final_path, (long)getpid()) < 0) {
		p.path = NULL;
		free(directory);
		free(p.final_path);
		return kb_fail(err, KB_ENOMEM, "no memory to create %s", final_path);
	}
	int r = sweep(directory, err);
	r = r ? r : make_locked(p.path, err, &p.fd);
	free(directory);
	if (r) {
		free(p.path);
		free(p.final_path);
		return r;
	}
	*ret = p;
	return 0;
}

static int sync_directory_of(const char *path, struct kb_err *err)
{
	char *directory = directory_of(path);
	if (!directory)
		return kb_fail(err, KB_ENOMEM, "no memory to finish %s", path);
	int r = 0, fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		r = fail(err, "writing the directory", directory);
	if (fd >= 0)
		close(fd);
	free(directory);
	return r;
}

int kb_partial_commit(struct kb_partial *p, bool replace, struct kb_err *err)
{
	if (fsync(p->fd) != 0)
		return fail(err, "writing", p->path);
	int rc = replace ? rename(p->path, p->final_path)
					 : renameat2(AT_FDCWD, p->path, AT_FDCWD, p->final_path, RENAME_NOREPLACE);
	if (rc != 0 && !replace && errno == EINVAL) { // a file system without RENAME_NOREPLACE
		rc = link(p->path, p->final_path);
		if (rc == 0)
			rc = unlink(p->path);
	}
	if (rc != 0 && errno == EEXIST)
		return kb_fail(err, KB_EEXISTS, "%s exists already", p->final_path);
	if (rc != 0)
		return fail(err, "creating", p->final_path);
	free(p->path);
	p->path = NULL;
	int r = sync_directory_of(p->final_path, err);
	kb_partial_abandon(p);
	return r;
}

void kb_partial_abandon(struct kb_partial *p)
{
	if (p->path)
		unlink(p->path);
	if (p->final_path)
		close(p->fd);
	free(p->path);
	free(p->final_path);
	*p = (struct kb_partial){.fd = -1};
}

int kb_partial_room(const char *path, struct kb_err *err, uint64_t *ret_bytes)
{
	struct statvfs fs;
	char *directory = directory_of(path);
	if (!directory)
		return kb_fail(err, KB_ENOMEM, "no memory to look at %s", path);
	int r = statvfs(directory, &fs) == 0 ? 0 : fail(err, "looking at the directory", directory);
	free(directory);
	if (!r)
		*ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return r;
}
