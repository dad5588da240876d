// HTTP/1.1 messages: a push parser over llhttp (strict, no lenient flag) with limits, and writers.
// Pure: no sockets, no clock. The same parser reads requests (server) and answers (client).
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "base/meta.h"
#include "net/limits.h"
#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>

struct kb_http_span {
	uint32_t at, len; // into kb_http.text
};

// Zero-initialise by kb_http_init(). Not movable while in use: llhttp points back to it.
struct kb_http {
	llhttp_t ll;
	llhttp_settings_t settings;
	size_t body_max;
	// Body pieces as they come; NULL: they are collected in body. Non-zero ends parsing with that value.
	int (*on_body)(void *ctx, const char *data, size_t len);
	void *ctx;

	// The message so far.
	struct kb_buf text, body; // text: the URL, then header names (lower case) and values
	struct kb_http_span url, name[KB_HTTP_HEADERS_MAX], value[KB_HTTP_HEADERS_MAX];
	uint32_t n_headers;
	size_t head_bytes, extra_bytes;
	bool is_begun;       // its first byte was seen
	bool is_head_done;   // method, URL, headers are there
	bool is_done;        // the body too
	bool wants_continue; // Expect: 100-continue, and nothing of the body has come yet
	bool is_keep_alive;  // valid once is_head_done
	bool is_in_value;    // private from here on
	bool is_in_trailer;
	int failed;        // the code of the failure that ended parsing
	int failed_status; // HTTP status that says so: 400, 411, 413, 414, 417, 431, 505
	const char *failed_text;
};

void kb_http_init(struct kb_http *h, bool is_request, size_t body_max);
void kb_http_finish(struct kb_http *h);
// Ready for the next message of the same connection; keeps its buffers.
void kb_http_next(struct kb_http *h);

// Parses up to the end of one message: *ret_used of len bytes are taken (all of them, unless h->is_done).
// A failure is final; h->failed_status says what to answer. KB_EBAD, KB_ELIMIT, KB_EUNSUPPORTED, KB_ENOMEM, or
// what on_body returned.
KB_MUST_CHECK int kb_http_feed(struct kb_http *h, const void *data, size_t len, size_t *ret_used, struct kb_err *err);
// The connection has ended: completes an answer that lasts until then; KB_ECLOSED where it was cut short.
KB_MUST_CHECK int kb_http_feed_end(struct kb_http *h, struct kb_err *err);

// Valid until the next feed. A header that came several times: the first.
struct kb_str kb_http_url(const struct kb_http *h);
struct kb_str kb_http_path(const struct kb_http *h); // the URL up to "?"
const char *kb_http_method(const struct kb_http *h);
bool kb_http_header(const struct kb_http *h, const char *lower_case_name, struct kb_str *ret_value);

// Range: bytes=A-B, A- or -N (RFC 9110, 14.1.2) of something that has `total` bytes. KB_ENOTFOUND: it is not one range
// of bytes, so the whole is to be sent; KB_ELIMIT: there is nothing of it (416).
KB_MUST_CHECK int kb_http_range(struct kb_str value, uint64_t total, uint64_t *ret_first, uint64_t *ret_len);

// %XX -> bytes. KB_EBAD on a broken escape, on NUL, or where it does not fit size with its NUL.
KB_MUST_CHECK int kb_http_unescape(struct kb_str s, char *ret, size_t size);

// --- writers: append to out; KB_ENOMEM or KB_ELIMIT of the buffer
struct kb_http_head {
	int status;
	const char *content_type;
	int64_t content_length; // -1: chunked (HTTP/1.1) or until the connection ends (is_close without chunks)
	bool is_chunked, is_close;
	const char *request_id; // may be NULL
	int retry_after_s;      // 0: none
	const char *allow;      // for 405; may be NULL
	bool has_ranges;        // says that parts may be asked for
	// of 206: content_length bytes from range_first on; of 206 and 416: of how many
	uint64_t range_first, range_total;
};
KB_MUST_CHECK int kb_http_put_head(struct kb_buf *out, const struct kb_http_head *head);
const char *kb_http_reason(int status);
KB_MUST_CHECK int kb_http_put_chunk(struct kb_buf *out, const void *data, size_t len); // len > 0
KB_MUST_CHECK int kb_http_put_last_chunk(struct kb_buf *out);
// One server-sent event: "data: " + line + blank line. data has no line breaks (JSON on one line).
KB_MUST_CHECK int kb_sse_put(struct kb_buf *out, const char *data, size_t len);
