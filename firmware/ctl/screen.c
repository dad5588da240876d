/* see screen.h */
#include "firmware/ctl/screen.h"

#include <errno.h>
#include <inttypes.h>
#include <qrencode.h>
#include <stdio.h>
#include <string.h>

enum { QUIET = 4 }; // modules around a QR code

static const char *text_in(yyjson_val *o, const char *key)
{
	const char *text = yyjson_get_str(yyjson_obj_get(o, key));
	return text ? text : "";
}

// A row "key  value" with what can be shown of the value.
static int row(struct kb_buf *b, const char *key, const char *value)
{
	char clean[KB_SCREEN_COLUMNS + 1];
	size_t n = 0;
	for (; *value && n + 16 < KB_SCREEN_COLUMNS; value++)
		clean[n++] = *value < ' ' || *value > '~' ? '?' : *value;
	clean[n] = 0;
	return kb_buf_printf(b, "  %-12s  %s\n", key, clean);
}

// "8443" of "0.0.0.0:8443".
static const char *port_of(yyjson_val *status)
{
	const char *colon = strrchr(text_in(status, "listen"), ':');
	return colon ? colon + 1 : "?";
}

static int addresses(yyjson_val *status, struct kb_buf *b)
{
	yyjson_val *v;
	size_t i, n;
	char line[128];
	int r = 0;
	yyjson_arr_foreach(yyjson_obj_get(status, "addresses"), i, n, v)
	{
		snprintf(line, sizeof line, "%.64s  port %.8s", yyjson_get_str(v) ? yyjson_get_str(v) : "?", port_of(status));
		r = r ? r : row(b, i ? "" : "address", line);
	}
	return r || yyjson_arr_size(yyjson_obj_get(status, "addresses")) ? r
																	 : row(b, "address", "none yet (is the cable in?)");
}

static int models(yyjson_val *status, struct kb_buf *b)
{
	yyjson_val *v;
	size_t i, n;
	int r = 0;
	yyjson_arr_foreach(yyjson_obj_get(status, "models"), i, n, v) r =
		r ? r : row(b, i ? "" : "models", yyjson_get_str(v) ? yyjson_get_str(v) : "?");
	if (r == 0 && yyjson_arr_size(yyjson_obj_get(status, "models")) == 0)
		r = row(b, "models", "none: bring one by stick, or by kotobako model upload");
	yyjson_arr_foreach(yyjson_obj_get(status, "engines"), i, n, v)
	{
		char line[160];
		snprintf(line, sizeof line, "%.64s: %.32s", text_in(v, "model"), text_in(v, "state"));
		r = r ? r : row(b, i ? "" : "engines", line);
	}
	return r;
}

static int system_rows(yyjson_val *system, struct kb_buf *b)
{
	char line[300];
	yyjson_val *failed = yyjson_obj_get(system, "last_failed");
	if (!system)
		return 0;
	snprintf(line, sizeof line, "version %" PRIu64 ", slot %.8s", yyjson_get_uint(yyjson_obj_get(system, "version")),
		text_in(system, "slot"));
	int r = row(b, "system", line);
	if (r == 0 && failed) {
		snprintf(line, sizeof line, "version %" PRIu64 " failed: %.200s",
			yyjson_get_uint(yyjson_obj_get(failed, "version")), text_in(failed, "reason"));
		r = row(b, "", line);
	}
	return r;
}

static int claim(yyjson_val *status, struct kb_buf *b, char ret_code[KB_SCREEN_CODE_MAX])
{
	yyjson_val *claim = yyjson_obj_get(status, "claim");
	const char *code = text_in(claim, "code");
	const char *address = yyjson_get_str(yyjson_arr_get_first(yyjson_obj_get(status, "addresses")));
	char box[80];
	if (strlen(code) != 8 || strspn(code, "0123456789") != 8)
		return 0;
	const bool is_usual = strcmp(port_of(status), "8443") == 0;
	snprintf(box, sizeof box, "%.64s%s%.8s", address ? address : "ADDRESS", is_usual ? "" : ":",
		is_usual ? "" : port_of(status));
	if (address)
		snprintf(ret_code, KB_SCREEN_CODE_MAX, "kotobako claim --box %s --code %s", box, code);
	return kb_buf_printf(b,
		"\n  This box has no client yet. On a computer in the same network:\n\n"
		"      kotobako claim --box %s\n\n"
		"  and the code       %.4s-%s       (for %" PRIu64 " more minutes)\n",
		box, code, code + 4, yyjson_get_uint(yyjson_obj_get(claim, "minutes_left")));
}

int kb_screen_text(
	yyjson_val *status, yyjson_val *system, const char *name, struct kb_buf *ret, char ret_code[KB_SCREEN_CODE_MAX])
{
	char local[80];
	ret_code[0] = 0;
	snprintf(local, sizeof local, "%.63s.local", name);
	int r = kb_buf_puts(ret, "\n  KOTOBAKO\n\n");
	r = r ? r : row(ret, "name", local);
	if (r == 0 && !status)
		return row(ret, "state", "starting, or not running: the log says why");
	r = r ? r : addresses(status, ret);
	r = r ? r : models(status, ret);
	r = r ? r : system_rows(system, ret);
	return r ? r : claim(status, ret, ret_code);
}

// Whether the module there is dark; what lies around the code is white.
static bool is_dark(const QRcode *q, int x, int y)
{
	return x >= 0 && y >= 0 && x < q->width && y < q->width && (q->data[y * q->width + x] & 1);
}

int kb_screen_qr(const char *text, struct kb_buf *ret)
{
	static const char *const blocks[] = {
		" ", "\xe2\x96\x80", "\xe2\x96\x84", "\xe2\x96\x88"}; // none, upper, lower, both
	QRcode *q = QRcode_encodeString(text, 0, QR_ECLEVEL_M, QR_MODE_8, 1);
	if (!q)
		return errno == ENOMEM ? KB_ENOMEM : KB_EARG;
	int r = 0;
	for (int y = -QUIET; r == 0 && y < q->width + QUIET; y += 2) {
		r = kb_buf_puts(ret, "  \033[30;47m");
		for (int x = -QUIET; r == 0 && x < q->width + QUIET; x++)
			r = kb_buf_puts(ret, blocks[is_dark(q, x, y) | is_dark(q, x, y + 1) << 1]);
		r = r ? r : kb_buf_puts(ret, "\033[0m\n");
	}
	QRcode_free(q);
	return r;
}
