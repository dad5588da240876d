// JSON in and out. In: yyjson behind a depth check. Out: a writer whose first failure sticks.
#pragma once
#include "base/buf.h"
#include "base/meta.h"
#include <stdbool.h>
#include <yyjson.h>

// Parses strict JSON (RFC 8259) of at most KB_JSON_DEPTH_MAX levels; NULL, with why, for anything else.
// The document is the caller's: yyjson_doc_free().
yyjson_doc *kb_json_parse(const void *text, size_t len, struct kb_err *err);

struct kb_json {
	struct kb_buf *out;
	int error; // the first failure (KB_ENOMEM, KB_ELIMIT); 0
};
void kb_json_raw(struct kb_json *j, const char *text);
void kb_json_printf(struct kb_json *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
// A quoted string: control characters escaped, bytes that are not UTF-8 replaced by U+FFFD.
void kb_json_str(struct kb_json *j, const char *data, size_t len);
void kb_json_cstr(struct kb_json *j, const char *text);
// A number; infinities become -9999 (as OpenAI does), NaN 0.
void kb_json_float(struct kb_json *j, double v);
struct kb_daemon;
// "addresses":[...]: where this box is to be reached (names.c).
void kb_print_addresses(const struct kb_daemon *d, struct kb_json *j);
struct kb_client;
// A new client's name, certificate, authority, fingerprint and serial; the brace is left open (admin.c).
void kb_print_client(
	const struct kb_daemon *d, const struct kb_client *client, const struct kb_buf *cert, struct kb_json *j);
// Bytes as whole UTF-8 with U+FFFD in place of others; *ret_chars code points.
KB_MUST_CHECK int kb_utf8_clean(struct kb_buf *out, const char *data, size_t len, size_t *ret_chars);
