// See json.h.
#include "firmware/api/json.h"
#include "firmware/api/limits.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Brackets outside strings: cheap, and before the parser builds anything.
static bool is_shallow(const char *text, size_t len)
{
	unsigned depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > KB_JSON_DEPTH_MAX)
				return false;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}

yyjson_doc *kb_json_parse(const void *text, size_t len, struct kb_err *err)
{
	yyjson_read_err e;
	if (!is_shallow(text, len)) {
		kb_fail(err, KB_ELIMIT, "the JSON is nested deeper than %u levels", KB_JSON_DEPTH_MAX);
		return NULL;
	}
	yyjson_doc *doc = yyjson_read_opts((char *)text, len, 0, NULL, &e);
	if (!doc)
		kb_fail(err, KB_EBAD, "the body is not JSON: %s at byte %zu", e.msg, e.pos);
	return doc;
}

static void keep(struct kb_json *j, int r)
{
	if (j->error == 0)
		j->error = r;
}

void kb_json_raw(struct kb_json *j, const char *text)
{
	keep(j, kb_buf_puts(j->out, text));
}

void kb_json_printf(struct kb_json *j, const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	keep(j, n < 0 || (size_t)n >= sizeof text ? KB_ELIMIT : kb_buf_append(j->out, text, (size_t)n));
}

// Length of the well-formed UTF-8 character at s (n bytes left), 0 where there is none (Unicode 15, table 3-7).
static size_t character(const unsigned char *s, size_t n)
{
	unsigned char c = s[0];
	if (c < 0x80)
		return 1;
	size_t len = c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
	if (len == 0 || len > n)
		return 0;
	unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
	unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

static const char replacement[] = "\xef\xbf\xbd";

int kb_utf8_clean(struct kb_buf *out, const char *data, size_t len, size_t *ret_chars)
{
	size_t chars = 0;
	int r = 0;
	for (size_t i = 0; r == 0 && i < len; chars++) {
		size_t n = character((const unsigned char *)data + i, len - i);
		r = n ? kb_buf_append(out, data + i, n) : kb_buf_append(out, replacement, 3);
		i += n ? n : 1;
	}
	*ret_chars = chars;
	return r;
}

void kb_json_str(struct kb_json *j, const char *data, size_t len)
{
	size_t start = 0;
	kb_json_raw(j, "\"");
	for (size_t i = 0; i < len && j->error == 0;) {
		unsigned char c = (unsigned char)data[i];
		size_t n = character((const unsigned char *)data + i, len - i);
		if (n && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
			i += n;
			continue;
		}
		keep(j, kb_buf_append(j->out, data + start, i - start));
		if (n == 0)
			kb_json_raw(j, replacement);
		else if (c == '"' || c == '\\')
			kb_json_printf(j, "\\%c", c);
		else if (c == '\n')
			kb_json_raw(j, "\\n");
		else
			kb_json_printf(j, "\\u%04x", c);
		start = ++i;
	}
	if (j->error == 0)
		keep(j, kb_buf_append(j->out, data + start, len - start));
	kb_json_raw(j, "\"");
}

void kb_json_cstr(struct kb_json *j, const char *text)
{
	kb_json_str(j, text, strlen(text));
}

void kb_json_float(struct kb_json *j, double v)
{
	if (isnan(v))
		v = 0;
	else if (isinf(v))
		v = v > 0 ? 9999 : -9999;
	kb_json_printf(j, "%.9g", v);
}
