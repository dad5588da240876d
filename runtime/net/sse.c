// Reading server-sent events. See http_client.h; format: https://html.spec.whatwg.org/multipage/server-sent-events.html
#include "net/http_client.h"

#include <string.h>

static int end_of_line(struct kb_sse_reader *r, int (*on_data)(void *ctx, const char *data, size_t len), void *ctx)
{
	struct kb_str line = {(const char *)r->line.data, r->line.len};
	if (line.len && line.data[line.len - 1] == '\r')
		line.len--;
	int result = 0;
	if (line.len == 0 && r->data.len > 0) {
		r->data.len--; // the line break after the last data line
		const char *text = kb_buf_cstr(&r->data);
		result = text ? on_data(ctx, text, r->data.len) : KB_ENOMEM;
		r->data.len = 0;
	} else if (line.len >= 5 && memcmp(line.data, "data:", 5) == 0) {
		size_t skip = line.len > 5 && line.data[5] == ' ' ? 6 : 5;
		result = kb_buf_append(&r->data, line.data + skip, line.len - skip);
		if (result == 0)
			result = kb_buf_puts(&r->data, "\n");
	}
	r->line.len = 0;
	return result;
}

int kb_sse_feed(struct kb_sse_reader *r, const char *data, size_t len,
	int (*on_data)(void *ctx, const char *data, size_t len), void *ctx)
{
	r->line.max = r->data.max = KB_HTTP_BODY_MAX;
	while (len > 0) {
		const char *end = memchr(data, '\n', len);
		size_t n = end ? (size_t)(end - data) : len;
		int result = kb_buf_append(&r->line, data, n);
		if (result == 0 && end)
			result = end_of_line(r, on_data, ctx);
		if (result)
			return result;
		data += n + (end ? 1 : 0);
		len -= n + (end ? 1 : 0);
	}
	return 0;
}

void kb_sse_finish(struct kb_sse_reader *r)
{
	kb_buf_finish(&r->line);
	kb_buf_finish(&r->data);
}
