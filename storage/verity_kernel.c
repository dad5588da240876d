#include "storage/verity_kernel.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fsverity.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS_MAX 16u                                      // beyond that it is the disk that is waited for
#define GROUP ((uint64_t)KB_VERITY_FANOUT * KB_VERITY_BLOCK) // data under one block of level 1

// KB_OK, KB_EUNSUPPORTED: not watched by the kernel. Without a text.
static int measure(int fd, uint8_t ret[static KB_VERITY_HASH])
{
	_Alignas(struct fsverity_digest) uint8_t room[sizeof(struct fsverity_digest) + 64];
	struct fsverity_digest *d = (void *)room;
	d->digest_size = 64;
	if (ioctl(fd, FS_IOC_MEASURE_VERITY, d))
		return KB_EUNSUPPORTED;
	if (d->digest_algorithm != FS_VERITY_HASH_ALG_SHA256 || d->digest_size != KB_VERITY_HASH)
		return KB_EUNSUPPORTED;
	memcpy(ret, d->digest, KB_VERITY_HASH);
	return KB_OK;
}

static int open_file(const char *path, struct kb_err *err, int *ret_fd, uint64_t *ret_size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		int e = errno;
		if (fd >= 0)
			close(fd);
		return kb_fail(err, kb_err_from_errno(e), "%s: %s", path, strerror(e));
	}
	*ret_fd = fd;
	*ret_size = (uint64_t)st.st_size;
	return KB_OK;
}

/* see verity_kernel.h */
int kb_verity_enable(const char *path, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err, bool *ret_is_on)
{
	const struct fsverity_enable_arg arg = {
		.version = 1, .hash_algorithm = FS_VERITY_HASH_ALG_SHA256, .block_size = KB_VERITY_BLOCK};
	uint8_t measured[KB_VERITY_HASH];
	uint64_t size = 0;
	int fd = -1, r = open_file(path, err, &fd, &size);
	if (r)
		return r;
	int done = ioctl(fd, FS_IOC_ENABLE_VERITY, &arg), e = errno;
	if (done && e != EEXIST && e != EOPNOTSUPP && e != ENOTTY && e != ENOSYS && e != EINVAL && e != EPERM)
		r = kb_fail(err, kb_err_from_errno(e), "%s: enabling fs-verity: %s", path, strerror(e));
	*ret_is_on = r == KB_OK && measure(fd, measured) == KB_OK;
	if (*ret_is_on && memcmp(measured, digest, sizeof measured) != 0)
		r = kb_fail(err, KB_ECORRUPT, "%s: the kernel measures another digest than the signed one", path);
	close(fd);
	return r;
}

// --- by reading ------------------------------------------------------------------------------------

struct work {
	int fd;
	uint64_t size, groups;
	uint8_t *hashes; // of each block of level 1, then of each level above in place
	_Atomic uint64_t next;
	_Atomic int error; // errno, or -1: it is shorter than it was
};

// 0, errno, or -1: it is shorter than it was.
static int read_all(int fd, uint8_t *to, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? errno : -1;
		to += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

static void *hash_groups(void *ctx)
{
	struct work *w = ctx;
	uint8_t *piece = malloc(GROUP);
	uint64_t g;
	if (!piece)
		atomic_store(&w->error, ENOMEM);
	while (piece && !atomic_load(&w->error) && (g = atomic_fetch_add(&w->next, 1)) < w->groups) {
		uint64_t at = g * GROUP;
		size_t len = w->size - at < GROUP ? (size_t)(w->size - at) : GROUP;
		int e = read_all(w->fd, piece, len, at);
		if (e)
			atomic_store(&w->error, e);
		else
			kb_verity_group(piece, len, w->groups == 1, w->hashes + g * KB_VERITY_HASH);
	}
	free(piece);
	return NULL;
}

static void run(struct work *w, unsigned threads)
{
	pthread_t all[THREADS_MAX];
	unsigned n = 0;
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	if (!threads)
		threads = processors > 0 ? (unsigned)processors : 1;
	if (threads > THREADS_MAX)
		threads = THREADS_MAX;
	while (n + 1 < threads && n + 1 < w->groups && pthread_create(&all[n], NULL, hash_groups, w) == 0)
		n++;
	hash_groups(w);
	while (n > 0)
		pthread_join(all[--n], NULL);
}

static int digest_of(
	int fd, uint64_t size, unsigned threads, const char *path, struct kb_err *err, uint8_t ret[static KB_VERITY_HASH])
{
	struct work w = {.fd = fd, .size = size, .groups = size / GROUP + (size % GROUP != 0)};
	uint8_t root[KB_VERITY_HASH] = {0};
	w.hashes = malloc((size_t)(w.groups + 1) * KB_VERITY_HASH);
	if (!w.hashes)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	run(&w, threads);
	int e = atomic_load(&w.error), r = KB_OK;
	if (e)
		r = kb_fail(err, e < 0 ? KB_ECORRUPT : kb_err_from_errno(e), "%s: reading: %s", path,
			e < 0 ? "it shrank meanwhile" : strerror(e));
	if (r == KB_OK && size)
		kb_verity_top(w.hashes, w.groups, root);
	if (r == KB_OK)
		kb_verity_digest(size, root, ret);
	free(w.hashes);
	return r;
}

/* see verity_kernel.h */
int kb_verity_check(const char *path, const uint8_t digest[static KB_VERITY_HASH], unsigned threads, struct kb_err *err,
	bool *ret_by_kernel)
{
	uint8_t found[KB_VERITY_HASH] = {0};
	uint64_t size = 0;
	int fd = -1, r = open_file(path, err, &fd, &size);
	if (r)
		return r;
	bool by_kernel = measure(fd, found) == KB_OK;
	if (!by_kernel)
		r = digest_of(fd, size, threads, path, err, found);
	if (r == KB_OK && memcmp(found, digest, sizeof found) != 0)
		r = kb_fail(err, KB_ECORRUPT,
			"%s is not the file that was signed: install it again (kotobako model verify says where it differs)", path);
	if (r == KB_OK && ret_by_kernel)
		*ret_by_kernel = by_kernel;
	close(fd);
	return r;
}
