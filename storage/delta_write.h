// Making a delta of two signed images: the second one without what lies in the first one's model already. No key is
// needed: manifest and signatures stay what they are. What a damaged file gives is refused by the box.
#pragma once
#include "storage/progress.h"
#include "storage/verity.h"

struct kb_delta_report {
	uint64_t model_bytes, changed_bytes, delta_bytes; // changed: blocks that the base does not have
	uint8_t base[KB_VERITY_HASH];                     // digest of the base
};

// Writes `path`, whole or not at all. Both images must be whole ones. Memory: 40 bytes a block of the first one.
KB_MUST_CHECK int kb_delta_write(const char *old_path, const char *new_path, const char *path, bool replace,
	const struct kb_progress *progress, struct kb_err *err, struct kb_delta_report *ret);
