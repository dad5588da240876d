#include "storage/write_behind.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYNC_BYTES (32u << 20) // written before the disk is told to begin with them, where it goes by the cache
#define DIRECT_BLOCK 4096u     // places and lengths of direct writes are multiples of it: no disk has larger sectors

struct kb_write_behind {
	int fd;
	char *path;
	pthread_t thread;
	bool has_thread, is_direct;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	// under the lock
	bool is_over, is_busy; // is_busy: the thread has piece[1 - filling]
	int error;             // errno of a write
	uint64_t error_at;
	// of whoever's turn it is
	uint8_t *piece[2];
	size_t len[2]; // of them
	int filling;
	uint64_t at, synced_at; // in the file: where the next piece goes
};

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

// Past the kernel's cache: a model that comes in is copied once less, and does not push out the one that is in use.
static void set_direct(struct kb_write_behind *w, bool is_direct)
{
	const int flags = fcntl(w->fd, F_GETFL);
	w->is_direct =
		flags >= 0 && fcntl(w->fd, F_SETFL, is_direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0 && is_direct;
}

// 0, or errno.
static int write_piece(struct kb_write_behind *w, const uint8_t *p, size_t len)
{
	uint64_t at = w->at;
	w->at += len;
	if (is_zero(p, len))
		return 0;
	while (len) {
		if (w->is_direct && (at % DIRECT_BLOCK || len % DIRECT_BLOCK))
			set_direct(w, false);
		ssize_t n = pwrite(w->fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && w->is_direct) { // not on this file system
			set_direct(w, false);
			continue;
		}
		if (n < 0)
			return errno;
		p += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	if (!w->is_direct && at - w->synced_at >= SYNC_BYTES) {
		(void)sync_file_range(w->fd, (off_t)w->synced_at, (off_t)(at - w->synced_at), SYNC_FILE_RANGE_WRITE);
		w->synced_at = at;
	}
	return 0;
}

static void *work(void *ctx)
{
	struct kb_write_behind *w = ctx;
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->is_busy && !w->is_over)
			pthread_cond_wait(&w->changed, &w->lock);
		if (!w->is_busy)
			break;
		const int mine = 1 - w->filling;
		const uint64_t at = w->at;
		pthread_mutex_unlock(&w->lock);
		int error = write_piece(w, w->piece[mine], w->len[mine]);
		pthread_mutex_lock(&w->lock);
		w->is_busy = false;
		if (error && !w->error) {
			w->error = error;
			w->error_at = at;
		}
		pthread_cond_signal(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* see write_behind.h */
int kb_write_behind_begin(int fd, const char *path, struct kb_err *err, struct kb_write_behind **ret)
{
	struct kb_write_behind *w = calloc(1, sizeof *w);
	if (!w)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	w->fd = fd;
	w->path = strdup(path);
	w->piece[0] = aligned_alloc(DIRECT_BLOCK, KB_WRITE_BEHIND);
	w->piece[1] = aligned_alloc(DIRECT_BLOCK, KB_WRITE_BEHIND);
	set_direct(w, true);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	if (w->path && w->piece[0] && w->piece[1])
		w->has_thread = pthread_create(&w->thread, NULL, work, w) == 0;
	if (!w->has_thread) {
		kb_write_behind_destroy(w);
		return kb_fail(err, KB_ENOMEM, "no memory, or no thread, to write %s", path);
	}
	*ret = w;
	return KB_OK;
}

// Until the thread is idle; what went wrong.
static int wait_idle(struct kb_write_behind *w, struct kb_err *err)
{
	while (w->is_busy)
		pthread_cond_wait(&w->changed, &w->lock);
	return w->error ? kb_fail(err, kb_err_from_errno(w->error), "writing %s at byte %" PRIu64 ": %s", w->path,
						  w->error_at, strerror(w->error))
					: KB_OK;
}

// Hands the piece that was filled to the thread.
static int hand_over(struct kb_write_behind *w, struct kb_err *err)
{
	if (w->len[w->filling] == 0)
		return KB_OK;
	pthread_mutex_lock(&w->lock);
	int rc = wait_idle(w, err);
	if (rc == KB_OK) {
		w->filling = 1 - w->filling;
		w->len[w->filling] = 0;
		w->is_busy = true;
		pthread_cond_signal(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* see write_behind.h */
int kb_write_behind_put(struct kb_write_behind *w, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	if (len > KB_WRITE_BEHIND)
		return kb_fail(err, KB_EARG, "too much at once");
	int rc = w->len[w->filling] + len > KB_WRITE_BEHIND ? hand_over(w, err) : KB_OK;
	if (rc != KB_OK)
		return rc;
	memcpy(w->piece[w->filling] + w->len[w->filling], bytes, len);
	w->len[w->filling] += len;
	return KB_OK;
}

/* see write_behind.h */
int kb_write_behind_end(struct kb_write_behind *w, struct kb_err *err)
{
	int rc = hand_over(w, err);
	if (rc != KB_OK)
		return rc;
	pthread_mutex_lock(&w->lock);
	rc = wait_idle(w, err);
	pthread_mutex_unlock(&w->lock);
	if (rc == KB_OK && ftruncate(w->fd, (off_t)w->at))
		rc = kb_fail(err, kb_err_from_errno(errno), "writing %s: %s", w->path, strerror(errno));
	return rc;
}

/* see write_behind.h */
void kb_write_behind_destroy(struct kb_write_behind *w)
{
	if (!w)
		return;
	if (w->has_thread) {
		pthread_mutex_lock(&w->lock);
		w->is_over = true;
		pthread_cond_signal(&w->changed);
		pthread_mutex_unlock(&w->lock);
		pthread_join(w->thread, NULL);
	}
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->changed);
	free(w->piece[0]);
	free(w->piece[1]);
	free(w->path);
	free(w);
}
