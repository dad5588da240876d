// The Merkle tree of a file as Linux's fs-verity builds it, without a salt: SHA-256 over blocks of 4096 bytes, hashes
// packed 128 to a block, the last block of a level filled up with zeros, up to a level of one block. Its root and the
// file's size give the digest that the kernel measures. Source: Documentation/filesystems/fsverity.rst of the kernel,
// "Merkle tree" and "fs-verity descriptor".
//
// Levels count from the data up: level 0 is the data, level 1 the hashes of its blocks, level `levels` one block.
//
// In a stream, tree and data go together in pre-order: each block of the tree before the blocks that it has hashes of.
// So a reader can prove every block, by a hash that it has proven before, when it comes, keeping one block a level.
#pragma once
#include "base/err.h"
#include "storage/progress.h"
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_VERITY_BLOCK 4096u
#define KB_VERITY_HASH 32u
#define KB_VERITY_FANOUT 128u        // hashes of a block
#define KB_VERITY_LEVELS_MAX 8u      // 2^63 bytes are 2^51 blocks: 8 levels of 2^7
#define KB_VERITY_SIZE_MAX INT64_MAX // off_t

struct kb_verity_shape {
	uint64_t size; // bytes of data
	uint32_t levels;
	uint64_t blocks[KB_VERITY_LEVELS_MAX + 1]; // of each level
	uint64_t stream_bytes;                     // of the data with its tree, in a stream
};

// size: at most KB_VERITY_SIZE_MAX.
void kb_verity_shape(uint64_t size, struct kb_verity_shape *ret);

// What fs-verity measures (FS_IOC_MEASURE_VERITY), from root and size.
void kb_verity_digest(uint64_t size, const uint8_t root[static KB_VERITY_HASH], uint8_t ret[static KB_VERITY_HASH]);

// --- building, in one pass, with one block a level in memory ---------------------------------------

struct kb_verity_builder {
	struct kb_verity_shape shape;
	uint64_t done;                                            // bytes of data
	uint64_t n[KB_VERITY_LEVELS_MAX + 1];                     // hashes that a level has got
	uint8_t block[KB_VERITY_LEVELS_MAX + 1][KB_VERITY_BLOCK]; // what a level is filling; level 0: a block of data
	// Gets every finished block of the tree, of level 1 and up; may be NULL. Nonzero stops and is passed on.
	int (*emit)(void *ctx, uint32_t level, uint64_t index, const uint8_t block[static KB_VERITY_BLOCK]);
	void *ctx;
};

// The data's size is known beforehand: an image's is. Set emit and ctx afterwards.
void kb_verity_build(struct kb_verity_builder *b, uint64_t size);
// Data in order, in pieces of any size. KB_EARG: more than was announced.
KB_MUST_CHECK int kb_verity_add(struct kb_verity_builder *b, const void *bytes, size_t len, struct kb_err *err);
// KB_EARG: less than was announced.
KB_MUST_CHECK int kb_verity_root(struct kb_verity_builder *b, struct kb_err *err, uint8_t ret[static KB_VERITY_HASH]);

// Digest of a whole file, as `fsverity digest` gives it. KB_ECORRUPT: it changed its size meanwhile.
KB_MUST_CHECK int kb_verity_file(const char *path, const struct kb_progress *progress, struct kb_err *err,
	uint8_t ret_digest[static KB_VERITY_HASH]);

// For reading a file in parallel: the hash of the block of level 1 over at most KB_VERITY_FANOUT blocks of data, or,
// where the file has no other group and one block at most, of that block.
void kb_verity_group(const uint8_t *data, size_t len, bool is_only, uint8_t ret[static KB_VERITY_HASH]);
// The block of level 1 over at most KB_VERITY_FANOUT blocks of data.
void kb_verity_hashes(const uint8_t *data, size_t len, uint8_t ret[static KB_VERITY_BLOCK]);
// The root, of the n > 0 hashes of all groups in order. Overwrites them.
void kb_verity_top(uint8_t *hashes, uint64_t n, uint8_t ret[static KB_VERITY_HASH]);

// --- reading a stream ------------------------------------------------------------------------------

struct kb_verity_reader {
	struct kb_verity_shape shape;
	uint32_t level;  // of the next block
	uint64_t index;  // of it in its level
	uint64_t offset; // of it in the stream
	bool is_over;
	uint8_t root[KB_VERITY_HASH];
	uint8_t block[KB_VERITY_LEVELS_MAX + 1][KB_VERITY_BLOCK]; // proven; of level 1 and up
};

// root: trusted.
void kb_verity_read(struct kb_verity_reader *r, uint64_t size, const uint8_t root[static KB_VERITY_HASH]);
// Bytes of the next block: KB_VERITY_BLOCK, less where the data ends, 0 when all is read. ret_data: where in the data
// it belongs, or KB_VERITY_TREE for a block of the tree.
#define KB_VERITY_TREE UINT64_MAX
size_t kb_verity_next(const struct kb_verity_reader *r, uint64_t *ret_data);
// Proves the next block, which has as many bytes as kb_verity_next says. KB_ECORRUPT names its offset; the reader stays
// where it was, so that the block can be fetched again.
KB_MUST_CHECK int kb_verity_take(struct kb_verity_reader *r, const uint8_t *block, struct kb_err *err);

// The block of the stream that the byte at `offset` (less than stream_bytes) lies in; returns which byte of it.
size_t kb_verity_at(const struct kb_verity_shape *s, uint64_t offset, uint32_t *ret_level, uint64_t *ret_index);
// The stream's order, for a writer: the block after (level, index). false: there is none.
bool kb_verity_after(const struct kb_verity_shape *s, uint32_t *level, uint64_t *index);
