// Writing a file in order by a thread of its own, so that what proves the next piece need not wait for the disk. Two
// pieces of KB_WRITE_BEHIND bytes, one of which is being written while the other is filled. Pieces of zeros are left
// out: holes stay holes. Where the file system can, it goes past the kernel's cache; else the disk is told to begin as
// the file grows. Either way the final fsync is short.
#pragma once
#include "base/err.h"
#include <stdint.h>

#define KB_WRITE_BEHIND (1u << 20)

struct kb_write_behind;

// fd: empty, and the caller's; path is for messages and copied.
KB_MUST_CHECK int kb_write_behind_begin(int fd, const char *path, struct kb_err *err, struct kb_write_behind **ret);
// Appends at most KB_WRITE_BEHIND bytes. An error of a write before is given here or by end, once and for all.
KB_MUST_CHECK int kb_write_behind_put(struct kb_write_behind *w, const uint8_t *bytes, size_t len, struct kb_err *err);
// Everything is written, not synced; the file has its length, holes at its end too.
KB_MUST_CHECK int kb_write_behind_end(struct kb_write_behind *w, struct kb_err *err);
// Waits for the thread and frees; NULL is fine.
void kb_write_behind_destroy(struct kb_write_behind *w);
