#include "storage/bundle_view.h"
#include "storage/bundle_head.h"
#include "storage/file_io.h"
#include "storage/tree_file.h"
#include "storage/trust.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kb_bundle_view {
	struct kb_buf head;
	int payload;
	struct kb_tree_file tree;
	char name[KB_MAX_MODEL_NAME + 1];
};

static int make_head(struct kb_bundle_view *v, struct kb_state *s, const struct kb_signed *manifest, struct kb_err *err)
{
	struct kb_bundle_head *h = calloc(1, sizeof *h);
	struct kb_buf roots = {0};
	int rc = h ? kb_trust_chain(s, err, &roots, &h->chain) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (rc == KB_OK) {
		h->encoding = KB_BUNDLE_WHOLE;
		h->manifest = *manifest;
		rc = kb_bundle_head_write(h, err, &v->head);
	}
	kb_buf_finish(&roots);
	free(h);
	return rc;
}

static int open_parts(struct kb_bundle_view *v, struct kb_state *s, const char *models, const struct kb_installed *m,
	const struct kb_progress *progress, struct kb_err *err)
{
	uint8_t root[KB_VERITY_HASH], digest[KB_VERITY_HASH];
	struct kb_signed manifest;
	struct kb_buf bytes = {0};
	char *path = kb_installed_path(models, m->active.digest);
	int rc = path ? kb_installed_signed(s, m->active.digest, err, &bytes, &manifest)
				  : kb_fail(err, KB_ENOMEM, "out of memory");
	rc = rc ? rc : make_head(v, s, &manifest, err);
	if (rc == KB_OK && (v->payload = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		rc = kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	rc = rc ? rc : kb_tree_file_make(v->payload, path, m->bytes, path, progress, m->bytes, err, &v->tree, root);
	if (rc == KB_OK) {
		kb_verity_digest(m->bytes, root, digest);
		if (memcmp(digest, m->active.digest, sizeof digest) != 0)
			rc = kb_fail(err, KB_ECORRUPT, "%s is damaged: its file is not the one that was signed", m->name);
	}
	kb_buf_finish(&bytes);
	free(path);
	return rc;
}

/* see bundle_view.h */
int kb_bundle_view_open(struct kb_state *s, const char *models, const struct kb_installed *m,
	const struct kb_progress *progress, struct kb_err *err, struct kb_bundle_view **ret)
{
	struct kb_bundle_view *v = calloc(1, sizeof *v);
	if (!v)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	v->payload = v->tree.fd = -1;
	memcpy(v->name, m->name, sizeof v->name);
	int rc = open_parts(v, s, models, m, progress, err);
	if (rc)
		kb_bundle_view_close(v);
	else
		*ret = v;
	return rc;
}

/* see bundle_view.h */
void kb_bundle_view_close(struct kb_bundle_view *v)
{
	if (!v)
		return;
	if (v->payload >= 0)
		close(v->payload);
	kb_tree_file_close(&v->tree);
	kb_buf_finish(&v->head);
	free(v);
}

/* see bundle_view.h */
uint64_t kb_bundle_view_bytes(const struct kb_bundle_view *v)
{
	return v->head.len + v->tree.shape.stream_bytes;
}

// From a place of the stream to the end of its block or, of data, of the blocks that follow it in the file too.
static int read_stream(
	const struct kb_bundle_view *v, uint64_t at, uint8_t *ret, size_t len, struct kb_err *err, size_t *ret_n)
{
	uint8_t block[KB_VERITY_BLOCK];
	uint64_t index;
	uint32_t level;
	size_t in = kb_verity_at(&v->tree.shape, at, &level, &index), most;
	if (level) {
		most = KB_VERITY_BLOCK - in;
		*ret_n = len < most ? len : most;
		int rc = kb_tree_file_read(&v->tree, level, index, err, block);
		if (rc == KB_OK)
			memcpy(ret, block + in, *ret_n);
		return rc;
	}
	// Behind the last block of a group comes a block of the tree, or the end.
	most = (size_t)(KB_VERITY_FANOUT - index % KB_VERITY_FANOUT) * KB_VERITY_BLOCK - in;
	*ret_n = len < most ? len : most;
	return kb__read_at(v->payload, ret, *ret_n, index * KB_VERITY_BLOCK + in, v->name, err);
}

/* see bundle_view.h */
int kb_bundle_view_read(const struct kb_bundle_view *v, uint64_t at, uint8_t *ret, size_t len, struct kb_err *err)
{
	const uint64_t bytes = kb_bundle_view_bytes(v);
	if (at > bytes || len > bytes - at)
		return kb_fail(err, KB_EARG, "%s: a piece behind the end", v->name);
	while (len) {
		size_t n;
		if (at < v->head.len) {
			n = v->head.len - at < len ? v->head.len - (size_t)at : len;
			memcpy(ret, v->head.data + at, n);
		} else {
			int rc = read_stream(v, at - v->head.len, ret, len, err, &n);
			if (rc)
				return rc;
		}
		at += n;
		ret += n;
		len -= n;
	}
	return KB_OK;
}
