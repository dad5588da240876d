#include "storage/verity.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20) // at once from a file

static uint64_t up(uint64_t n, uint64_t d)
{
	return n / d + (n % d != 0);
}

/* see verity.h */
void kb_verity_shape(uint64_t size, struct kb_verity_shape *ret)
{
	*ret = (struct kb_verity_shape){.size = size, .stream_bytes = size};
	ret->blocks[0] = up(size, KB_VERITY_BLOCK);
	while (ret->blocks[ret->levels] > 1 && ret->levels < KB_VERITY_LEVELS_MAX) {
		ret->levels++;
		ret->blocks[ret->levels] = up(ret->blocks[ret->levels - 1], KB_VERITY_FANOUT);
		ret->stream_bytes += ret->blocks[ret->levels] * KB_VERITY_BLOCK;
	}
}

// SHA-256 of `len` bytes and zeros up to a whole block.
static void hash_block(const uint8_t *bytes, size_t len, uint8_t ret[static KB_VERITY_HASH])
{
	static const uint8_t zeros[KB_VERITY_BLOCK];
	struct sha256_ctx sha;
	sha256_init(&sha);
	sha256_update(&sha, len, bytes);
	sha256_update(&sha, KB_VERITY_BLOCK - len, zeros);
	sha256_digest(&sha, KB_VERITY_HASH, ret);
}

/* see verity.h */
void kb_verity_digest(uint64_t size, const uint8_t root[static KB_VERITY_HASH], uint8_t ret[static KB_VERITY_HASH])
{
	// struct fsverity_descriptor: version, hash algorithm (1: SHA-256), log2 of the block size, salt size, 4 bytes of
	// zeros, size (little-endian), root hash (64 bytes), salt (32), 144 bytes of zeros.
	uint8_t d[256] = {1, 1, 12, 0};
	struct sha256_ctx sha;
	for (int i = 0; i < 8; i++)
		d[8 + i] = (uint8_t)(size >> 8 * i);
	memcpy(d + 16, root, KB_VERITY_HASH);
	sha256_init(&sha);
	sha256_update(&sha, sizeof d, d);
	sha256_digest(&sha, KB_VERITY_HASH, ret);
}

/* see verity.h */
void kb_verity_build(struct kb_verity_builder *b, uint64_t size)
{
	memset(b, 0, sizeof *b);
	kb_verity_shape(size, &b->shape);
}

// A block of `level` is whole (or the last): its hash goes a level up, which may be whole then too.
static int close_block(struct kb_verity_builder *b, uint32_t level, const uint8_t *bytes, size_t len)
{
	for (;; level++) {
		if (level > 0 && b->emit) {
			int r = b->emit(b->ctx, level, (b->n[level] - 1) / KB_VERITY_FANOUT, bytes);
			if (r)
				return r;
		}
		if (level == b->shape.levels) {
			hash_block(bytes, len, b->block[0]); // the root; no data will come any more
			return 0;
		}
		uint8_t *above = b->block[level + 1];
		uint64_t at = b->n[level + 1]++ % KB_VERITY_FANOUT;
		if (at == 0)
			memset(above, 0, KB_VERITY_BLOCK);
		hash_block(bytes, len, above + at * KB_VERITY_HASH);
		if (at + 1 < KB_VERITY_FANOUT && b->n[level + 1] < b->shape.blocks[level])
			return 0;
		bytes = above;
		len = KB_VERITY_BLOCK;
	}
}

/* see verity.h */
int kb_verity_add(struct kb_verity_builder *b, const void *bytes, size_t len, struct kb_err *err)
{
	const uint8_t *p = bytes;
	if (len > b->shape.size - b->done)
		return kb_fail(err, KB_EARG, "more than the %" PRIu64 " bytes announced", b->shape.size);
	while (len) {
		size_t at = b->done % KB_VERITY_BLOCK, n = KB_VERITY_BLOCK - at;
		n = n < len ? n : len;
		const uint8_t *block = p; // a whole block is hashed where it lies
		if (at || n < KB_VERITY_BLOCK) {
			memcpy(b->block[0] + at, p, n);
			block = b->block[0];
		}
		b->done += n;
		p += n;
		len -= n;
		if (at + n == KB_VERITY_BLOCK || b->done == b->shape.size) {
			int r = close_block(b, 0, block, at + n);
			if (r)
				return r;
		}
	}
	return KB_OK;
}

/* see verity.h */
int kb_verity_root(struct kb_verity_builder *b, struct kb_err *err, uint8_t ret[static KB_VERITY_HASH])
{
	if (b->done != b->shape.size)
		return kb_fail(err, KB_EARG, "%" PRIu64 " bytes of the %" PRIu64 " announced", b->done, b->shape.size);
	memset(ret, 0, KB_VERITY_HASH); // the root of nothing
	if (b->shape.size)
		memcpy(ret, b->block[0], KB_VERITY_HASH);
	return KB_OK;
}

static int add_file(struct kb_verity_builder *b, int fd, const char *path, const struct kb_progress *progress,
	uint8_t *piece, struct kb_err *err)
{
	for (;;) {
		ssize_t n = read(fd, piece, READ_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_fail(err, KB_EIO, "%s: reading at byte %" PRIu64 ": %s", path, b->done, strerror(errno));
		if (n == 0)
			return KB_OK;
		if (kb_verity_add(b, piece, (size_t)n, err))
			return kb_fail(err, KB_ECORRUPT, "%s: it grew while it was read", path);
		if (kb_progress_step(progress, b->done, b->shape.size, path))
			return kb_fail(err, KB_ECANCELLED, "stopped on request");
	}
}

/* see verity.h */
int kb_verity_file(
	const char *path, const struct kb_progress *progress, struct kb_err *err, uint8_t ret_digest[static KB_VERITY_HASH])
{
	uint8_t root[KB_VERITY_HASH];
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		int e = errno;
		if (fd >= 0)
			close(fd);
		return kb_fail(err, e == ENOENT ? KB_ENOTFOUND : KB_EIO, "%s: %s", path, strerror(e));
	}
	struct kb_verity_builder *b = malloc(sizeof *b);
	uint8_t *piece = malloc(READ_BYTES);
	int rc = b && piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	if (rc == KB_OK) {
		kb_verity_build(b, (uint64_t)st.st_size);
		rc = add_file(b, fd, path, progress, piece, err);
	}
	if (rc == KB_OK && kb_verity_root(b, err, root))
		rc = kb_fail(err, KB_ECORRUPT, "%s: it shrank while it was read", path);
	if (rc == KB_OK)
		kb_verity_digest((uint64_t)st.st_size, root, ret_digest);
	free(piece);
	free(b);
	close(fd);
	return rc;
}

/* see verity.h */
void kb_verity_hashes(const uint8_t *data, size_t len, uint8_t ret[static KB_VERITY_BLOCK])
{
	memset(ret, 0, KB_VERITY_BLOCK);
	for (size_t at = 0; at < len; at += KB_VERITY_BLOCK)
		hash_block(data + at, len - at < KB_VERITY_BLOCK ? len - at : KB_VERITY_BLOCK,
			ret + at / KB_VERITY_BLOCK * KB_VERITY_HASH);
}

/* see verity.h */
void kb_verity_group(const uint8_t *data, size_t len, bool is_only, uint8_t ret[static KB_VERITY_HASH])
{
	uint8_t block[KB_VERITY_BLOCK];
	if (is_only && len <= KB_VERITY_BLOCK) {
		hash_block(data, len, ret);
		return;
	}
	kb_verity_hashes(data, len, block);
	hash_block(block, sizeof block, ret);
}

/* see verity.h */
void kb_verity_top(uint8_t *hashes, uint64_t n, uint8_t ret[static KB_VERITY_HASH])
{
	while (n > 1) {
		uint64_t blocks = up(n, KB_VERITY_FANOUT);
		for (uint64_t i = 0; i < blocks; i++) { // writes at or before where it reads
			uint64_t first = i * KB_VERITY_FANOUT, here = n - first < KB_VERITY_FANOUT ? n - first : KB_VERITY_FANOUT;
			uint8_t hash[KB_VERITY_HASH];
			hash_block(hashes + first * KB_VERITY_HASH, (size_t)here * KB_VERITY_HASH, hash);
			memcpy(hashes + i * KB_VERITY_HASH, hash, sizeof hash);
		}
		n = blocks;
	}
	memcpy(ret, hashes, KB_VERITY_HASH);
}

/* see verity.h */
bool kb_verity_after(const struct kb_verity_shape *s, uint32_t *level, uint64_t *index)
{
	if (*level > 0) { // down to the first that it has hashes of
		(*level)--;
		*index *= KB_VERITY_FANOUT;
		return true;
	}
	uint64_t next = *index + 1;
	if (next >= s->blocks[0])
		return false;
	// The tree's block of this and the blocks before it that begin here too.
	while (next % KB_VERITY_FANOUT == 0 && *level < s->levels) {
		next /= KB_VERITY_FANOUT;
		(*level)++;
	}
	*index = next;
	return true;
}

/* see verity.h */
size_t kb_verity_at(const struct kb_verity_shape *s, uint64_t offset, uint32_t *ret_level, uint64_t *ret_index)
{
	uint64_t under[KB_VERITY_LEVELS_MAX + 1] = {1}; // blocks of a whole subtree, its top counted
	uint64_t block = offset / KB_VERITY_BLOCK, index = 0;
	uint32_t level = s->levels;
	for (uint32_t i = 1; i < level; i++)
		under[i] = 1 + KB_VERITY_FANOUT * under[i - 1];
	// Only the last subtree of a level is not whole, and nothing comes behind it.
	for (; level > 0 && block > 0; level--) {
		block--;
		index = index * KB_VERITY_FANOUT + block / under[level - 1];
		block %= under[level - 1];
	}
	*ret_level = level;
	*ret_index = index;
	return (size_t)(offset % KB_VERITY_BLOCK);
}

/* see verity.h */
void kb_verity_read(struct kb_verity_reader *r, uint64_t size, const uint8_t root[static KB_VERITY_HASH])
{
	memset(r, 0, sizeof *r);
	kb_verity_shape(size, &r->shape);
	memcpy(r->root, root, KB_VERITY_HASH);
	r->level = r->shape.levels;
	r->is_over = size == 0;
}

/* see verity.h */
size_t kb_verity_next(const struct kb_verity_reader *r, uint64_t *ret_data)
{
	*ret_data = r->level ? KB_VERITY_TREE : r->index * KB_VERITY_BLOCK;
	if (r->is_over)
		return 0;
	uint64_t left = r->shape.size - r->index * KB_VERITY_BLOCK;
	return r->level || left > KB_VERITY_BLOCK ? KB_VERITY_BLOCK : (size_t)left;
}

/* see verity.h */
int kb_verity_take(struct kb_verity_reader *r, const uint8_t *block, struct kb_err *err)
{
	uint64_t data;
	uint8_t hash[KB_VERITY_HASH];
	size_t len = kb_verity_next(r, &data);
	if (!len)
		return kb_fail(err, KB_EARG, "a block behind the end");
	hash_block(block, len, hash);
	const uint8_t *expected =
		r->level == r->shape.levels ? r->root : r->block[r->level + 1] + r->index % KB_VERITY_FANOUT * KB_VERITY_HASH;
	if (memcmp(hash, expected, KB_VERITY_HASH) != 0)
		return kb_fail(err, KB_ECORRUPT,
			"block %" PRIu64 " of %s, at byte %" PRIu64 " of the stream, is not the signed one", r->index,
			r->level ? "the hash tree" : "the data", r->offset);
	if (r->level)
		memcpy(r->block[r->level], block, KB_VERITY_BLOCK);
	r->offset += len;
	r->is_over = !kb_verity_after(&r->shape, &r->level, &r->index);
	return KB_OK;
}
