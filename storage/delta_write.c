#include "storage/delta_write.h"
#include "storage/bundle_head.h"
#include "storage/delta.h"
#include "storage/fields.h"
#include "storage/partial.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENCODING_AT 12u        // in the image's head
#define STEP_BLOCKS (1u << 12) // between two reports of progress

// A signed image.
struct side {
	const char *path;
	int fd;
	struct kb_buf bytes; // what head points into
	struct kb_bundle_head *head;
	struct kb_manifest m;
	struct kb_verity_shape shape;
	uint8_t *leaves; // hash of each block of data
};

struct maker {
	struct side old, new;
	struct kb_partial out;
	uint64_t at;                 // written so far
	uint64_t *table, table_mask; // 1 + a block of the old one, by its hash
	struct kb_buf runs;
	struct kb_delta delta;
	const struct kb_progress *progress;
	uint64_t changed_bytes;
};

// Where a block of the tree or of the data lies in the stream: behind all data before the first that it covers, and
// behind the tree's blocks before it (pre-order, verity.h).
static uint64_t place(const struct kb_verity_shape *s, uint32_t level, uint64_t index)
{
	uint64_t data = index << (7 * level), before = data;
	for (uint32_t l = 1; l <= s->levels; l++)
		before += (data >> (7 * l)) + (l > level);
	return before * KB_VERITY_BLOCK;
}
_Static_assert(KB_VERITY_FANOUT == 1u << 7, "place shifts");

static int read_block(
	const struct side *s, uint32_t level, uint64_t index, size_t len, uint8_t *ret, struct kb_err *err)
{
	off_t at = (off_t)(s->head->len + place(&s->shape, level, index));
	while (len) {
		ssize_t n = pread(s->fd, ret, len, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return kb_fail(err, n ? KB_EIO : KB_EBAD, "%s: reading at byte %lld: %s", s->path, (long long)at,
				n ? strerror(errno) : "it ends there");
		ret += n;
		at += n;
		len -= (size_t)n;
	}
	return KB_OK;
}

static int read_leaves(struct side *s, struct kb_err *err)
{
	const uint64_t blocks = s->shape.blocks[0];
	uint8_t tree[KB_VERITY_BLOCK];
	s->leaves = malloc((size_t)blocks * KB_VERITY_HASH);
	if (!s->leaves)
		return kb_fail(err, KB_ENOMEM, "no memory for the hashes of %" PRIu64 " blocks", blocks);
	if (s->shape.levels == 0) {
		memcpy(s->leaves, s->m.payload_root, KB_VERITY_HASH);
		return KB_OK;
	}
	for (uint64_t i = 0; i < s->shape.blocks[1]; i++) {
		uint64_t first = i * KB_VERITY_FANOUT,
				 n = blocks - first < KB_VERITY_FANOUT ? blocks - first : KB_VERITY_FANOUT;
		int rc = read_block(s, 1, i, sizeof tree, tree, err);
		if (rc != KB_OK)
			return rc;
		memcpy(s->leaves + first * KB_VERITY_HASH, tree, (size_t)n * KB_VERITY_HASH);
	}
	return KB_OK;
}

static int open_side(struct side *s, const char *path, struct kb_err *err)
{
	s->path = path;
	s->head = calloc(1, sizeof *s->head);
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = KB_OK;
	if (!s->head)
		rc = kb_fail(err, KB_ENOMEM, "out of memory");
	else if (s->fd < 0)
		rc = kb_fail(err, kb_err_from_errno(errno), "%s", strerror(errno));
	rc = rc ? rc : kb_bundle_head_read(s->fd, err, &s->bytes, s->head);
	rc = rc ? rc : kb_manifest_parse(s->head->manifest.bytes, s->head->manifest.len, err, &s->m);
	if (rc == KB_OK && s->head->encoding != KB_BUNDLE_WHOLE)
		rc = kb_fail(err, KB_EBAD, "it is a delta itself: whole images are compared");
	if (rc != KB_OK)
		return kb_err_wrap(err, "%s: ", path);
	kb_verity_shape(s->m.payload_bytes, &s->shape);
	return read_leaves(s, err);
}

static void close_side(struct side *s)
{
	if (s->fd >= 0)
		close(s->fd);
	kb_buf_finish(&s->bytes);
	free(s->head);
	free(s->leaves);
}

static const uint8_t *leaf(const struct side *s, uint64_t block)
{
	return s->leaves + block * KB_VERITY_HASH;
}

// Blocks that are whole: the last one may not be.
static uint64_t whole_blocks(const struct side *s)
{
	return s->m.payload_bytes / KB_VERITY_BLOCK;
}

static int index_old(struct maker *m, struct kb_err *err)
{
	uint64_t size = 16, n = whole_blocks(&m->old);
	while (size < 2 * n)
		size *= 2;
	m->table_mask = size - 1;
	m->table = calloc(size, sizeof *m->table);
	if (!m->table)
		return kb_fail(err, KB_ENOMEM, "no memory for an index of %" PRIu64 " blocks", n);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = kb_field_get(leaf(&m->old, i), 8) & m->table_mask;
		while (m->table[at] && memcmp(leaf(&m->old, m->table[at] - 1), leaf(&m->old, i), KB_VERITY_HASH) != 0)
			at = (at + 1) & m->table_mask;
		if (!m->table[at]) // of equal ones the first
			m->table[at] = i + 1;
	}
	return KB_OK;
}

static bool find_old(const struct maker *m, const uint8_t *hash, uint64_t *ret)
{
	uint64_t at = kb_field_get(hash, 8) & m->table_mask;
	for (; m->table[at]; at = (at + 1) & m->table_mask)
		if (memcmp(leaf(&m->old, m->table[at] - 1), hash, KB_VERITY_HASH) == 0) {
			*ret = m->table[at] - 1;
			return true;
		}
	return false;
}

static int put_run(struct maker *m, const struct kb_delta_run *run, struct kb_err *err)
{
	uint8_t bytes[KB_DELTA_RUN];
	if (run->count == 0)
		return KB_OK;
	kb_delta_put(run, bytes);
	return kb_buf_append(&m->runs, bytes, sizeof bytes) ? kb_fail(err, KB_ENOMEM, "out of memory") : KB_OK;
}

// Runs of blocks that the base has; where one could go on or begin anew elsewhere, it goes on.
static int find_runs(struct maker *m, struct kb_err *err)
{
	const uint64_t n = whole_blocks(&m->new), n_old = whole_blocks(&m->old);
	struct kb_delta_run run = {0};
	int rc = KB_OK;
	for (uint64_t i = 0; i < n && rc == KB_OK; i++) {
		const uint8_t *hash = leaf(&m->new, i);
		uint64_t next = run.source + run.count, source;
		if (run.count && next < n_old && memcmp(leaf(&m->old, next), hash, KB_VERITY_HASH) == 0) {
			run.count++;
			continue;
		}
		rc = put_run(m, &run, err);
		run.count = 0;
		if (find_old(m, hash, &source))
			run = (struct kb_delta_run){.target = i, .count = 1, .source = source};
	}
	return rc ? rc : put_run(m, &run, err);
}

// Where there are more than a reader holds, the shortest are sent instead.
static void drop_short_runs(struct maker *m)
{
	for (uint64_t least = 2; m->runs.len / KB_DELTA_RUN > KB_DELTA_RUNS_MAX; least *= 2) {
		size_t to = 0;
		for (size_t at = 0; at < m->runs.len; at += KB_DELTA_RUN) {
			if (kb_field_get(m->runs.data + at + 8, 8) < least)
				continue;
			memmove(m->runs.data + to, m->runs.data + at, KB_DELTA_RUN);
			to += KB_DELTA_RUN;
		}
		m->runs.len = to;
	}
}

static int write_all(struct maker *m, const uint8_t *p, size_t len, struct kb_err *err)
{
	while (len) {
		ssize_t n = pwrite(m->out.fd, p, len, (off_t)m->at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_fail(
				err, kb_err_from_errno(errno), "writing the delta at byte %" PRIu64 ": %s", m->at, strerror(errno));
		p += n;
		m->at += (uint64_t)n;
		len -= (size_t)n;
	}
	return KB_OK;
}

static int write_head(struct maker *m, const uint8_t base[static KB_VERITY_HASH], struct kb_err *err)
{
	uint8_t head[KB_DELTA_HEAD];
	m->delta = (struct kb_delta){.n = (uint32_t)(m->runs.len / KB_DELTA_RUN), .runs = m->runs.data};
	kb_field_put(m->new.bytes.data + ENCODING_AT, KB_BUNDLE_DELTA, 4);
	kb_delta_put_head(base, m->delta.n, head);
	int rc = write_all(m, m->new.bytes.data, m->new.head->len, err);
	rc = rc ? rc : write_all(m, head, sizeof head, err);
	return rc || !m->runs.len ? rc : write_all(m, m->runs.data, m->runs.len, err);
}

// The stream of the new image without what take_copied of bundle.c does not want.
static int write_blocks(struct maker *m, struct kb_err *err)
{
	const struct kb_verity_shape *s = &m->new.shape;
	uint32_t level = s->levels;
	uint64_t index = 0, n_seen = 0;
	uint8_t block[KB_VERITY_BLOCK];
	do {
		const uint64_t first = level ? index * KB_VERITY_FANOUT : index, left = s->blocks[0] - first;
		const uint64_t n = !level ? 1 : left < KB_VERITY_FANOUT ? left : KB_VERITY_FANOUT;
		const uint64_t bytes = s->size - index * KB_VERITY_BLOCK; // of data, from here
		const size_t len = level || bytes > KB_VERITY_BLOCK ? KB_VERITY_BLOCK : (size_t)bytes;
		if (++n_seen % STEP_BLOCKS == 0 && kb_progress_step(m->progress, first * KB_VERITY_BLOCK, s->size, "writing"))
			return kb_fail(err, KB_ECANCELLED, "stopped on request");
		if (level <= 1 && kb_delta_has_all(&m->delta, first, n))
			continue;
		int rc = read_block(&m->new, level, index, len, block, err);
		rc = rc ? rc : write_all(m, block, len, err);
		if (rc != KB_OK)
			return rc;
		m->changed_bytes += level ? 0 : len;
		uint64_t source; // moves the cursor along
		(void)kb_delta_find(&m->delta, first, &source);
	} while (kb_verity_after(s, &level, &index));
	return KB_OK;
}

static int make(struct maker *m, bool replace, struct kb_err *err, struct kb_delta_report *ret)
{
	int rc = index_old(m, err);
	rc = rc ? rc : find_runs(m, err);
	if (rc != KB_OK)
		return rc;
	drop_short_runs(m);
	kb_verity_digest(m->old.m.payload_bytes, m->old.m.payload_root, ret->base);
	rc = write_head(m, ret->base, err);
	rc = rc ? rc : write_blocks(m, err);
	rc = rc ? rc : kb_partial_commit(&m->out, replace, err);
	ret->model_bytes = m->new.m.payload_bytes;
	ret->changed_bytes = m->changed_bytes;
	ret->delta_bytes = m->at;
	return rc;
}

/* see delta_write.h */
int kb_delta_write(const char *old_path, const char *new_path, const char *path, bool replace,
	const struct kb_progress *progress, struct kb_err *err, struct kb_delta_report *ret)
{
	struct maker *m = calloc(1, sizeof *m);
	struct kb_delta_report report = {0};
	if (!m)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	m->old.fd = m->new.fd = -1;
	m->progress = progress;
	int rc = open_side(&m->old, old_path, err);
	rc = rc ? rc : open_side(&m->new, new_path, err);
	if (rc == KB_OK)
		rc = kb_partial_create(path, err, &m->out);
	if (rc == KB_OK) {
		rc = make(m, replace, err, &report);
		kb_partial_abandon(&m->out);
	}
	if (rc == KB_OK)
		*ret = report;
	close_side(&m->old);
	close_side(&m->new);
	kb_buf_finish(&m->runs);
	free(m->table);
	free(m);
	return rc;
}
