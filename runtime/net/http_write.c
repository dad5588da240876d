// Writing HTTP answers and server-sent events. See http.h.
#include "net/http.h"

#include <inttypes.h>
#include <stdio.h>

const char *kb_http_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} rows[] = {
		{100, "Continue"},
		{200, "OK"},
		{201, "Created"},
		{206, "Partial Content"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{411, "Length Required"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{416, "Range Not Satisfiable"},
		{417, "Expectation Failed"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{503, "Service Unavailable"},
		{505, "HTTP Version Not Supported"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].status == status)
			return rows[i].reason;
	return "Unknown";
}

int kb_http_put_head(struct kb_buf *out, const struct kb_http_head *head)
{
	int r = kb_buf_printf(out, "HTTP/1.1 %d %s\r\n", head->status, kb_http_reason(head->status));
	if (r == 0 && head->content_type)
		r = kb_buf_printf(out, "Content-Type: %s\r\n", head->content_type);
	if (r == 0 && head->is_chunked)
		r = kb_buf_puts(out, "Transfer-Encoding: chunked\r\n");
	else if (r == 0 && head->content_length >= 0)
		r = kb_buf_printf(out, "Content-Length: %lld\r\n", (long long)head->content_length);
	if (r == 0 && head->request_id)
		r = kb_buf_printf(out, "x-request-id: %s\r\n", head->request_id);
	if (r == 0 && head->retry_after_s > 0)
		r = kb_buf_printf(out, "Retry-After: %d\r\n", head->retry_after_s);
	if (r == 0 && head->allow)
		r = kb_buf_printf(out, "Allow: %s\r\n", head->allow);
	if (r == 0 && head->status == 401)
		r = kb_buf_puts(out, "WWW-Authenticate: Bearer\r\n");
	if (r == 0)
		r = kb_buf_puts(out, "Cache-Control: no-store\r\n");
	if (r == 0 && head->has_ranges)
		r = kb_buf_puts(out, "Accept-Ranges: bytes\r\n");
	if (r == 0 && head->status == 206)
		r = kb_buf_printf(out, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", head->range_first,
			head->range_first + (uint64_t)head->content_length - 1, head->range_total);
	if (r == 0 && head->status == 416)
		r = kb_buf_printf(out, "Content-Range: bytes */%" PRIu64 "\r\n", head->range_total);
	if (r == 0 && head->is_close)
		r = kb_buf_puts(out, "Connection: close\r\n");
	return r ? r : kb_buf_puts(out, "\r\n");
}

int kb_http_put_chunk(struct kb_buf *out, const void *data, size_t len)
{
	int r = kb_buf_reserve(out, len + 32);
	if (r == 0)
		r = kb_buf_printf(out, "%zx\r\n", len);
	if (r == 0)
		r = kb_buf_append(out, data, len);
	return r ? r : kb_buf_puts(out, "\r\n");
}

int kb_http_put_last_chunk(struct kb_buf *out)
{
	return kb_buf_puts(out, "0\r\n\r\n");
}

int kb_sse_put(struct kb_buf *out, const char *data, size_t len)
{
	int r = kb_buf_puts(out, "data: ");
	if (r == 0)
		r = kb_buf_append(out, data, len);
	return r ? r : kb_buf_puts(out, "\n\n");
}
