// A file that appears under its name whole or not at all. It is written as NAME.partial-PID, locked while it is
// written; what a killed process left behind is not locked and is removed when the next one begins in that directory.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

struct kb_partial {
	char *path, *final_path; // owned; path is what to write to
	int fd;                  // of the empty file; holds the lock
};

// Removes stale partial files beside final_path, then makes ret->path. KB_EBUSY: this process is already writing it.
// On success, commit or abandon.
KB_MUST_CHECK int kb_partial_create(const char *final_path, struct kb_err *err, struct kb_partial *ret);
// To the disk, then under its final name, atomically. KB_EEXISTS where that is taken and replace is false.
// After a failure abandon() is still due.
KB_MUST_CHECK int kb_partial_commit(struct kb_partial *p, bool replace, struct kb_err *err);
// Removes the file; safe on a zeroed or committed struct.
void kb_partial_abandon(struct kb_partial *p);

// Bytes free for this user where path is or will be.
KB_MUST_CHECK int kb_partial_room(const char *path, struct kb_err *err, uint64_t *ret_bytes);
