#include "storage/tree_file.h"
#include "storage/file_io.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

struct maker {
	struct kb_tree_file tree;
	struct kb_verity_builder builder;
	uint8_t piece[READ_BYTES];
};

static int keep(void *ctx, uint32_t level, uint64_t index, const uint8_t block[static KB_VERITY_BLOCK])
{
	struct maker *m = ctx;
	return kb__write_at(
		m->tree.fd, block, KB_VERITY_BLOCK, m->tree.level_at[level] + index * KB_VERITY_BLOCK, "the hash tree", NULL);
}

static int open_beside(const char *beside, struct kb_err *err, int *ret)
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

static int measure(struct maker *m, int payload, const char *what, uint64_t size, const struct kb_progress *progress,
	uint64_t total, struct kb_err *err, uint8_t ret_root[static KB_VERITY_HASH])
{
	uint64_t at_tree = 0;
	kb_verity_build(&m->builder, size);
	m->tree.shape = m->builder.shape;
	for (uint32_t level = 1; level <= m->tree.shape.levels; level++) {
		m->tree.level_at[level] = at_tree;
		at_tree += m->tree.shape.blocks[level] * KB_VERITY_BLOCK;
	}
	m->builder.emit = keep;
	m->builder.ctx = m;
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < READ_BYTES ? (size_t)(size - at) : READ_BYTES;
		int rc = kb__read_at(payload, m->piece, n, at, what, err);
		if (rc == KB_OK && kb_verity_add(&m->builder, m->piece, n, err))
			rc = kb_fail(err, KB_EIO, "%s: writing its hash tree failed", what);
		if (rc != KB_OK)
			return rc;
		at += n;
		if (kb_progress_step(progress, at, total, "reading"))
			return kb_fail(err, KB_ECANCELLED, "stopped on request");
	}
	return kb_verity_root(&m->builder, err, ret_root);
}

/* see tree_file.h */
int kb_tree_file_make(int payload, const char *what, uint64_t size, const char *beside,
	const struct kb_progress *progress, uint64_t total, struct kb_err *err, struct kb_tree_file *ret,
	uint8_t ret_root[static KB_VERITY_HASH])
{
	struct maker *m = calloc(1, sizeof *m);
	if (!m)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int rc = open_beside(beside, err, &m->tree.fd);
	if (rc == KB_OK) {
		rc = measure(m, payload, what, size, progress, total, err, ret_root);
		if (rc == KB_OK)
			*ret = m->tree;
		else
			close(m->tree.fd);
	}
	free(m);
	return rc;
}

/* see tree_file.h */
int kb_tree_file_read(const struct kb_tree_file *t, uint32_t level, uint64_t index, struct kb_err *err,
	uint8_t ret[static KB_VERITY_BLOCK])
{
	return kb__read_at(t->fd, ret, KB_VERITY_BLOCK, t->level_at[level] + index * KB_VERITY_BLOCK, "the hash tree", err);
}

/* see tree_file.h */
void kb_tree_file_close(struct kb_tree_file *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}
