#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kb_buf_finish(struct kb_buf *b)
{
	free(b->data);
	*b = (struct kb_buf){.max = b->max};
}

int kb_buf_reserve(struct kb_buf *b, size_t n)
{
	if (n > SIZE_MAX / 2 - b->len || (b->max && b->len + n > b->max))
		return KB_ELIMIT;
	size_t need = b->len + n;
	if (need <= b->cap)
		return 0;
	size_t cap = b->cap ? b->cap : 256;
	while (cap < need)
		cap *= 2;
	void *data = realloc(b->data, cap);
	if (!data)
		return KB_ENOMEM;
	b->data = data;
	b->cap = cap;
	return 0;
}

int kb_buf_append(struct kb_buf *b, const void *data, size_t n)
{
	int r = kb_buf_reserve(b, n);
	if (r)
		return r;
	if (n)
		memcpy(b->data + b->len, data, n);
	b->len += n;
	return 0;
}

int kb_buf_puts(struct kb_buf *b, const char *text)
{
	return kb_buf_append(b, text, strlen(text));
}

int kb_buf_printf(struct kb_buf *b, const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	int r = n < 0 ? KB_EARG : kb_buf_reserve(b, (size_t)n + 1);
	if (r == 0) {
		vsnprintf((char *)b->data + b->len, (size_t)n + 1, format, again);
		b->len += (size_t)n;
	}
	va_end(again);
	return r;
}

void kb_buf_consume(struct kb_buf *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

const char *kb_buf_cstr(struct kb_buf *b)
{
	if (kb_buf_reserve(b, 1))
		return NULL;
	b->data[b->len] = 0;
	return (const char *)b->data;
}
