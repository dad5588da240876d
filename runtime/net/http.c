// Requests and answers by llhttp. See http.h.
#include "net/http.h"

#include <string.h>

static int refuse(struct kb_http *h, int code, int status, const char *text)
{
	h->failed = code;
	h->failed_status = status;
	h->failed_text = text;
	return HPE_USER;
}

static struct kb_http *self(llhttp_t *ll)
{
	return ll->data;
}

static int keep(struct kb_http *h, struct kb_http_span *span, const char *data, size_t len, bool lower)
{
	if (span->len == 0)
		span->at = (uint32_t)h->text.len;
	int r = kb_buf_append(&h->text, data, len);
	if (r)
		return refuse(h, r, 431, "the headers are too large");
	if (lower)
		for (size_t i = h->text.len - len; i < h->text.len; i++)
			if (h->text.data[i] >= 'A' && h->text.data[i] <= 'Z')
				h->text.data[i] += 'a' - 'A';
	span->len += (uint32_t)len;
	return 0;
}

static int on_begin(llhttp_t *ll)
{
	self(ll)->is_begun = true;
	return 0;
}

static int on_url(llhttp_t *ll, const char *at, size_t len)
{
	struct kb_http *h = self(ll);
	if (h->url.len + len > KB_HTTP_URL_MAX)
		return refuse(h, KB_ELIMIT, 414, "the URL is too long");
	return keep(h, &h->url, at, len, false);
}

// Chunk extensions and trailers: read, counted and dropped. A trailer never becomes a header.
static int drop(struct kb_http *h, size_t len)
{
	h->extra_bytes += len;
	if (h->extra_bytes > KB_HTTP_CHUNK_EXTENSION_MAX)
		return refuse(h, KB_ELIMIT, 413, "too many chunk extensions or trailers");
	return 0;
}

static int on_extension(llhttp_t *ll, const char *at, size_t len)
{
	(void)at;
	return drop(self(ll), len);
}

static int on_field(llhttp_t *ll, const char *at, size_t len)
{
	struct kb_http *h = self(ll);
	if (h->is_head_done)
		return drop(h, len + 1);
	if (h->is_in_value || h->n_headers == 0) {
		if (h->n_headers == KB_HTTP_HEADERS_MAX)
			return refuse(h, KB_ELIMIT, 431, "too many headers");
		h->name[h->n_headers] = h->value[h->n_headers] = (struct kb_http_span){0};
		h->n_headers++;
		h->is_in_value = false;
	}
	return keep(h, &h->name[h->n_headers - 1], at, len, true);
}

static int on_value(llhttp_t *ll, const char *at, size_t len)
{
	struct kb_http *h = self(ll);
	if (h->is_head_done)
		return drop(h, len);
	h->is_in_value = true;
	return keep(h, &h->value[h->n_headers - 1], at, len, false);
}

static int on_value_complete(llhttp_t *ll)
{
	self(ll)->is_in_value = true; // an empty value has no on_value
	return 0;
}

static int check_request(struct kb_http *h)
{
	struct kb_str v;
	if (h->ll.http_major != 1 || h->ll.http_minor > 1)
		return refuse(h, KB_EUNSUPPORTED, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
	if (h->ll.method == HTTP_CONNECT)
		return refuse(h, KB_EUNSUPPORTED, 400, "this is not a proxy");
	uint32_t hosts = 0;
	for (uint32_t i = 0; i < h->n_headers; i++)
		hosts += h->name[i].len == 4 && memcmp(h->text.data + h->name[i].at, "host", 4) == 0;
	if (hosts > 1 || (hosts == 0 && h->ll.http_minor == 1))
		return refuse(h, KB_EBAD, 400, "an HTTP/1.1 request has exactly one Host header");
	if (kb_http_header(h, "content-encoding", &v) && !(v.len == 8 && strncasecmp(v.data, "identity", 8) == 0))
		return refuse(h, KB_EUNSUPPORTED, 400, "compressed bodies are not accepted");
	if (kb_http_header(h, "expect", &v)) {
		if (v.len != 12 || strncasecmp(v.data, "100-continue", 12) != 0)
			return refuse(h, KB_EUNSUPPORTED, 417, "unknown expectation");
		h->wants_continue = h->ll.http_minor == 1;
	}
	return 0;
}

static int on_head(llhttp_t *ll)
{
	struct kb_http *h = self(ll);
	if (h->ll.type == HTTP_REQUEST && check_request(h))
		return -1;
	if ((ll->flags & F_CONTENT_LENGTH) && ll->content_length > h->body_max) {
		(void)refuse(h, KB_ELIMIT, 413, "the body is too large");
		return -1;
	}
	ll->upgrade = 0; // an offer that a server may ignore (RFC 9110, 7.8)
	h->is_head_done = true;
	h->is_keep_alive = llhttp_should_keep_alive(ll);
	return 0;
}

static int on_body(llhttp_t *ll, const char *at, size_t len)
{
	struct kb_http *h = self(ll);
	h->wants_continue = false;
	if (h->on_body) {
		int r = h->on_body(h->ctx, at, len);
		return r ? refuse(h, r, 400, "the reader of the body gave up") : 0;
	}
	if (len > h->body_max || h->body.len > h->body_max - len)
		return refuse(h, KB_ELIMIT, 413, "the body is too large");
	if (kb_buf_append(&h->body, at, len))
		return refuse(h, KB_ENOMEM, 503, "out of memory");
	return 0;
}

static int on_done(llhttp_t *ll)
{
	self(ll)->is_done = true;
	return HPE_PAUSED; // what follows is the next message
}

void kb_http_init(struct kb_http *h, bool is_request, size_t body_max)
{
	memset(h, 0, sizeof *h);
	h->body_max = body_max;
	h->text.max = KB_HTTP_HEADER_BYTES_MAX + KB_HTTP_URL_MAX;
	llhttp_settings_init(&h->settings);
	h->settings.on_message_begin = on_begin;
	h->settings.on_url = on_url;
	h->settings.on_header_field = on_field;
	h->settings.on_header_value = on_value;
	h->settings.on_header_value_complete = on_value_complete;
	h->settings.on_headers_complete = on_head;
	h->settings.on_chunk_extension_name = on_extension;
	h->settings.on_chunk_extension_value = on_extension;
	h->settings.on_body = on_body;
	h->settings.on_message_complete = on_done;
	llhttp_init(&h->ll, is_request ? HTTP_REQUEST : HTTP_RESPONSE, &h->settings);
	h->ll.data = h;
}

void kb_http_finish(struct kb_http *h)
{
	kb_buf_finish(&h->text);
	kb_buf_finish(&h->body);
}

void kb_http_next(struct kb_http *h)
{
	h->text.len = 0;
	if (h->body.cap > 65536) // a large one was an exception
		kb_buf_finish(&h->body);
	h->body.len = 0;
	h->url = (struct kb_http_span){0};
	h->n_headers = 0;
	h->head_bytes = h->extra_bytes = 0;
	h->is_begun = h->is_head_done = h->is_done = h->wants_continue = h->is_in_value = false;
	if (llhttp_get_errno(&h->ll) == HPE_PAUSED)
		llhttp_resume(&h->ll);
}

int kb_http_feed(struct kb_http *h, const void *data, size_t len, size_t *ret_used, struct kb_err *err)
{
	if (h->failed)
		return kb_fail(err, h->failed, "%s", h->failed_text);
	if (h->is_done || len == 0) {
		*ret_used = 0;
		return 0;
	}
	bool in_head = !h->is_head_done;
	llhttp_errno_t e = llhttp_execute(&h->ll, data, len);
	if (h->is_done && e == HPE_PAUSED) {
		*ret_used = (size_t)(llhttp_get_error_pos(&h->ll) - (const char *)data);
		return 0;
	}
	if (e != HPE_OK && !h->failed)
		(void)refuse(h, KB_EBAD, 400, "the message is not valid HTTP/1.1");
	h->head_bytes += in_head ? len : 0;
	// Bytes that are stored nowhere (blanks around values) count too.
	if (!h->failed && !h->is_head_done && h->head_bytes > 2 * KB_HTTP_HEADER_BYTES_MAX)
		(void)refuse(h, KB_ELIMIT, 431, "the headers are too large");
	if (h->failed)
		return kb_fail(err, h->failed, "%s%s%s", h->failed_text, e == HPE_USER || e == HPE_OK ? "" : ": ",
			e == HPE_USER || e == HPE_OK ? "" : llhttp_get_error_reason(&h->ll));
	*ret_used = len;
	return 0;
}

int kb_http_feed_end(struct kb_http *h, struct kb_err *err)
{
	if (!h->is_done && !h->failed)
		(void)llhttp_finish(&h->ll);
	return h->is_done ? 0 : kb_fail(err, KB_ECLOSED, "the connection ended in the middle of a message");
}

static struct kb_str slice(const struct kb_http *h, struct kb_http_span s)
{
	return (struct kb_str){s.len ? (const char *)h->text.data + s.at : "", s.len};
}

struct kb_str kb_http_url(const struct kb_http *h)
{
	return slice(h, h->url);
}

struct kb_str kb_http_path(const struct kb_http *h)
{
	struct kb_str s = slice(h, h->url);
	const char *end = memchr(s.data, '?', s.len);
	return (struct kb_str){s.data, end ? (size_t)(end - s.data) : s.len};
}

const char *kb_http_method(const struct kb_http *h)
{
	return llhttp_method_name((llhttp_method_t)h->ll.method);
}

bool kb_http_header(const struct kb_http *h, const char *lower_case_name, struct kb_str *ret_value)
{
	size_t len = strlen(lower_case_name);
	for (uint32_t i = 0; i < h->n_headers; i++) {
		struct kb_str name = slice(h, h->name[i]);
		if (name.len != len || memcmp(name.data, lower_case_name, len) != 0)
			continue;
		*ret_value = slice(h, h->value[i]);
		while (ret_value->len &&
			   (ret_value->data[ret_value->len - 1] == ' ' || ret_value->data[ret_value->len - 1] == '\t'))
			ret_value->len--;
		return true;
	}
	return false;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int kb_http_unescape(struct kb_str s, char *ret, size_t size)
{
	size_t n = 0;
	for (size_t i = 0; i < s.len; i++) {
		int c = (unsigned char)s.data[i];
		if (c == '%') {
			if (s.len - i < 3 || digit(s.data[i + 1]) < 0 || digit(s.data[i + 2]) < 0)
				return KB_EBAD;
			c = digit(s.data[i + 1]) << 4 | digit(s.data[i + 2]);
			i += 2;
		}
		if (c == 0 || n + 1 >= size)
			return KB_EBAD;
		ret[n++] = (char)c;
	}
	ret[n] = 0;
	return 0;
}
