#include "storage/bundle_write.h"
#include "storage/file_io.h"
#include "storage/partial.h"
#include "storage/tree_file.h"
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
	int in;
	struct kb_tree_file tree;
	uint64_t at; // in the image
	struct kb_verity_reader reader;
	uint8_t piece[READ_BYTES];
	uint64_t piece_at, piece_len; // which part of the payload it holds
};

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
		int rc = kb__read_at(w->in, w->piece, (size_t)w->piece_len, at, w->payload, err);
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
		int rc = data == KB_VERITY_TREE ? kb_tree_file_read(&w->tree, w->reader.level, w->reader.index, err, tree)
										: data_block(w, data, len, err, &block);
		if (rc == KB_OK && kb_verity_take(&w->reader, block, err))
			rc = kb_fail(err, KB_ECORRUPT, "%s: it changed while it was read", w->payload);
		if (rc == KB_OK && !is_zero(block, len)) // holes stay holes
			rc = kb__write_at(w->out.fd, block, len, w->at, "the image", err);
		if (rc != KB_OK)
			return rc;
		w->at += len;
		if (data != KB_VERITY_TREE && (data & (READ_BYTES - 1)) == 0 &&
			kb_progress_step(w->progress, w->reader.shape.size + data, 2 * w->reader.shape.size, "writing"))
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
		rc = kb__write_at(w->out.fd, b.data, b.len, 0, "the image", err);
	w->at = b.len;
	kb_buf_finish(&b);
	free(manifest);
	free(h);
	return rc;
}

static int write_image(struct writer *w, const struct kb_bundle_parts *parts, const char *path, struct kb_err *err)
{
	struct kb_manifest m = parts->manifest;
	uint8_t root[KB_VERITY_HASH];
	struct stat st;
	if (fstat(w->in, &st) || !S_ISREG(st.st_mode) || st.st_size == 0)
		return kb_fail(err, KB_EBAD, "%s: not a file with something in it", w->payload);
	m.payload_bytes = (uint64_t)st.st_size;
	int rc = kb_tree_file_make(
		w->in, w->payload, m.payload_bytes, path, w->progress, 2 * m.payload_bytes, err, &w->tree, root);
	if (rc != KB_OK)
		return rc;
	m.payload_root = root;
	rc = write_head(w, parts, &m, err);
	kb_verity_read(&w->reader, m.payload_bytes, root);
	if (rc == KB_OK)
		rc = write_payload(w, err);
	return rc == KB_OK ? kb_partial_commit(&w->out, parts->replace, err) : rc;
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
	w->tree.fd = -1;
	w->in = open(parts->payload, O_RDONLY | O_CLOEXEC);
	int rc = w->in < 0 ? kb_fail(err, kb_err_from_errno(errno), "%s: %s", parts->payload, strerror(errno)) : KB_OK;
	if (rc == KB_OK)
		rc = kb_partial_create(path, err, &w->out);
	if (rc == KB_OK)
		rc = write_image(w, parts, path, err);
	kb_partial_abandon(&w->out);
	kb_tree_file_close(&w->tree);
	if (w->in >= 0)
		close(w->in);
	free(w);
	return rc;
}
