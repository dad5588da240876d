// Whole reads and writes at a place of a file, for the files of this room.
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

// what: the file, for messages. KB_ECORRUPT: it ends before. KB_EIO.
KB_MUST_CHECK int kb__read_at(int fd, uint8_t *ret, size_t len, uint64_t at, const char *what, struct kb_err *err);
// KB_ENOSPACE and other errors of the disk.
KB_MUST_CHECK int kb__write_at(
	int fd, const uint8_t *from, size_t len, uint64_t at, const char *what, struct kb_err *err);
