#include "storage/bundle_write.h"
#include "storage/partial.h"
#include "storage/verity.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

struct writer {
	const char *payload;
	const struct kb_progress *progress;
	struct kb_partial out;
	int in, tree; // tree: blocks of level 1, then of level 2 and so on
	uint64_t level_at[KB_VERITY_LEVELS_MAX + 1];
	uint64_t at; // in the image
	struct kb_verity_builder builder;
	struct kb_verity_reader reader;
	uint8_t piece[READ_BYTES];
	uint64_t piece_at, piece_len; // which part of the payload it holds
};

static int read_at(int fd, uint8_t *to, size_t len, uint64_t at, const char *what, struct kb_err *err)
{
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_fail(err, KB_EIO, "%s: reading at byte %" PRIu64 ": %s", what, at, strerror(errno));
		if (n == 0)
			return kb_fail(err, KB_ECORRUPT, "%s: it shrank while it was read", what);
		to += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return KB_OK;
}

static int write_at(int fd, const uint8_t *from, size_t len, uint64_t at, struct kb_err *err)
{
	while (len) {
		ssize_t n = pwrite(fd, from, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_fail(
				err, kb_err_from_errno(errno), "writing the image at byte %" PRIu64 ": %s", at, strerror(errno));
		from += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return KB_OK;
}

static int keep(void *ctx, uint32_t level, uint64_t index, const uint8_t block[static KB_VERITY_BLOCK])
{
	struct writer *w = ctx;
	return write_at(w->tree, block, KB_VERITY_BLOCK, w->level_at[level] + index * KB_VERITY_BLOCK, NULL);
}

// Reads all of the payload once: its tree, and with it the root.
static int measure(struct writer *w, uint64_t size, struct kb_err *err, uint8_t ret_root[static KB_VERITY_HASH])
{
	uint64_t tree = 0;
	kb_verity_build(&w->builder, size);
	for (uint32_t level = 1; level <= w->builder.shape.levels; level++) {
		w->level_at[level] = tree;
		tree += w->builder.shape.blocks[level] * KB_VERITY_BLOCK;
	}
	w->builder.emit = keep;
	w->builder.ctx = w;
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < READ_BYTES ? (size_t)(size - at) : READ_BYTES;
		int rc = read_at(w->in, w->piece, n, at, w->payload, err);
		if (rc == KB_OK && kb_verity_add(&w->builder, w->piece, n, err))
			rc = kb_fail(err, KB_EIO, "%s: writing its hash tree failed", w->payload);
		if (rc != KB_OK)
			return rc;
		at += n;
		if (kb_progress_step(w->progress, at / 2, size, "reading"))
			return kb_fail(err, KB_ECANCELLED, "stopped on request");
	}
	return kb_verity_root(&w->builder, err, ret_root);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

// A block of the payload, out of the piece that was read last.
static int data_block(struct writer *w, uint64_t at, size_t len, struct kb_err *err, const uint8_t **ret)
{
	const uint64_t size = w->reader.shape.size;
	if (at < w->piece_at || at + len > w->piece_at + w->piece_len) {
		w->piece_at = at;
		w->piece_len = size - at < READ_BYTES ? size - at : READ_BYTES;
		int rc = read_at(w->in, w->piece, (size_t)w->piece_len, at, w->payload, err);
		if (rc != KB_OK)
			return rc;
	}
	*ret = w->piece + (at - w->piece_at);
	return KB_OK;
}

// The payload in its order. Every block is proven as a box will prove it, so what changed meanwhile is found.
static int write_payload(struct writer *w, struct kb_err *err)
{
	uint8_t tree[KB_VERITY_BLOCK];
	uint64_t data;
	size_t len;
	while ((len = kb_verity_next(&w->reader, &data))) {
		const uint8_t *block = tree;
		int rc = data == KB_VERITY_TREE
					 ? read_at(w->tree, tree, len, w->level_at[w->reader.level] + w->reader.index * KB_VERITY_BLOCK,
						   "the hash tree", err)
					 : data_block(w, data, len, err, &block);
		if (rc == KB_OK && kb_verity_take(&w->reader, block, err))
			rc = kb_fail(err, KB_ECORRUPT, "%s: it changed while it was read", w->payload);
		if (rc == KB_OK && !is_zero(block, len)) // holes stay holes
			rc = write_at(w->out.fd, block, len, w->at, err);
		if (rc != KB_OK)
			return rc;
		w->at += len;
		if (data != KB_VERITY_TREE && (data & (READ_BYTES - 1)) == 0 &&
			kb_progress_step(w->progress, (w->reader.shape.size + data) / 2, w->reader.shape.size, "writing"))
			return kb_fail(err, KB_ECANCELLED, "stopped on request");
	}
	return ftruncate(w->out.fd, (off_t)w->at) ? kb_fail(err, KB_EIO, "writing the image: %s", strerror(errno)) : KB_OK;
}

static int write_head(
	struct writer *w, const struct kb_bundle_parts *parts, const struct kb_manifest *m, struct kb_err *err)
{
	struct kb_bundle_head *h = calloc(1, sizeof *h);
	uint8_t *manifest = malloc(KB_MANIFEST_MAX);
	struct kb_buf b = {0};
	int rc = h && manifest ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	if (rc == KB_OK)
		rc = kb_manifest_write(m, KB_MANIFEST_MAX, err, manifest, &h->manifest.len);
	if (rc == KB_OK) {
		h->encoding = KB_BUNDLE_WHOLE;
		h->chain = parts->chain;
		h->manifest.bytes = manifest;
		h->manifest.signatures = (const uint8_t *)KB_SIGNATURES_NONE;
		h->manifest.signatures_len = sizeof KB_SIGNATURES_NONE - 1;
		rc = kb_bundle_head_write(h, err, &b);
	}
	if (rc == KB_OK)
		rc = write_at(w->out.fd, b.data, b.len, 0, err);
	w->at = b.len;
	kb_buf_finish(&b);
	free(manifest);
	free(h);
	return rc;
}

static int write_image(struct writer *w, const struct kb_bundle_parts *parts, struct kb_err *err)
{
	struct kb_manifest m = parts->manifest;
	uint8_t root[KB_VERITY_HASH];
	struct stat st;
	if (fstat(w->in, &st) || !S_ISREG(st.st_mode) || st.st_size == 0)
		return kb_fail(err, KB_EBAD, "%s: not a file with something in it", w->payload);
	m.payload_bytes = (uint64_t)st.st_size;
	int rc = measure(w, m.payload_bytes, err, root);
	if (rc != KB_OK)
		return rc;
	m.payload_root = root;
	rc = write_head(w, parts, &m, err);
	kb_verity_read(&w->reader, m.payload_bytes, root);
	if (rc == KB_OK)
		rc = write_payload(w, err);
	return rc == KB_OK ? kb_partial_commit(&w->out, parts->replace, err) : rc;
}

// A file without a name beside the image.
static int open_tree(const char *beside, struct kb_err *err, int *ret)
{
	char *path = NULL;
	if (asprintf(&path, "%s.tree-XXXXXX", beside) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	*ret = mkostemp(path, O_CLOEXEC);
	int rc = *ret < 0 ? kb_fail(err, kb_err_from_errno(errno), "creating %s: %s", path, strerror(errno)) : KB_OK;
	if (rc == KB_OK)
		unlink(path);
	free(path);
	return rc;
}

/* see bundle_write.h */
int kb_bundle_write(
	const struct kb_bundle_parts *parts, const char *path, const struct kb_progress *progress, struct kb_err *err)
{
	struct writer *w = calloc(1, sizeof *w);
	if (!w)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	w->payload = parts->payload;
	w->progress = progress;
	w->tree = -1;
	w->in = open(parts->payload, O_RDONLY | O_CLOEXEC);
	int rc = w->in < 0 ? kb_fail(err, kb_err_from_errno(errno), "%s: %s", parts->payload, strerror(errno)) : KB_OK;
	if (rc == KB_OK)
		rc = kb_partial_create(path, err, &w->out);
	if (rc == KB_OK)
		rc = open_tree(path, err, &w->tree);
	if (rc == KB_OK)
		rc = write_image(w, parts, err);
	kb_partial_abandon(&w->out);
	if (w->tree >= 0)
		close(w->tree);
	if (w->in >= 0)
		close(w->in);
	free(w);
	return rc;
}
