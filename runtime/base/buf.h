// A growing byte buffer with a ceiling.
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

// Zero-initialise, set max (0 means no ceiling), then append. finish() frees; it is safe on a zeroed struct.
struct kb_buf {
	uint8_t *data;
	size_t len, cap, max;
};

void kb_buf_finish(struct kb_buf *b);
// Room for n more bytes. KB_ELIMIT past max, KB_ENOMEM.
KB_MUST_CHECK int kb_buf_reserve(struct kb_buf *b, size_t n);
KB_MUST_CHECK int kb_buf_append(struct kb_buf *b, const void *data, size_t n);
KB_MUST_CHECK int kb_buf_puts(struct kb_buf *b, const char *text);
KB_MUST_CHECK int kb_buf_printf(struct kb_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Drops the first n bytes.
void kb_buf_consume(struct kb_buf *b, size_t n);
// NUL-terminates without counting it in len; NULL when out of memory or at max.
const char *kb_buf_cstr(struct kb_buf *b);
