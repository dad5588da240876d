// The hash tree of a file (verity.h) in a file without a name: blocks of level 1, then of level 2 and so on. For who
// reads tree and data in another order than that in which the tree comes into being; memory does not grow with it.
#pragma once
#include "storage/verity.h"

struct kb_tree_file {
	int fd; // -1: none
	struct kb_verity_shape shape;
	uint64_t level_at[KB_VERITY_LEVELS_MAX + 1];
};

// Reads all of payload, `size` bytes of a file that messages call `what`. The tree's file lies where `beside` does.
// Progress goes from 0 to size, of total. Close it where this succeeded.
KB_MUST_CHECK int kb_tree_file_make(int payload, const char *what, uint64_t size, const char *beside,
	const struct kb_progress *progress, uint64_t total, struct kb_err *err, struct kb_tree_file *ret,
	uint8_t ret_root[static KB_VERITY_HASH]);
// A block of level 1 and up. Processes may read side by side.
KB_MUST_CHECK int kb_tree_file_read(const struct kb_tree_file *t, uint32_t level, uint64_t index, struct kb_err *err,
	uint8_t ret[static KB_VERITY_BLOCK]);
void kb_tree_file_close(struct kb_tree_file *t);
