// Small files of the daemon's state.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include <stddef.h>

// The whole file, NUL behind it; KB_EIO where it is larger than max - 1 bytes. ret's earlier content is gone.
KB_MUST_CHECK int kb_file_read(const char *path, size_t max, struct kb_buf *ret, struct kb_err *err);
// Whole or not at all: a new file (0600), synced, renamed over the old one.
KB_MUST_CHECK int kb_file_replace(const char *path, const struct kb_buf *b, struct kb_err *err);
