// What the box's own screen says: state, addresses, how to claim it. Pure; `kotobako console` draws it.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include <yyjson.h>

// status: the daemon's answer to GET /admin/status, or NULL: it does not answer. system: to GET /admin/system, or NULL.
// name: of this machine. Lines of ASCII, at most KB_SCREEN_COLUMNS wide, appended; ret_code gets what a QR code beside
// them would say ("" for none).
#define KB_SCREEN_COLUMNS 78u // a text console has 80
#define KB_SCREEN_CODE_MAX 128u
KB_MUST_CHECK int kb_screen_text(
	yyjson_val *status, yyjson_val *system, const char *name, struct kb_buf *ret, char ret_code[KB_SCREEN_CODE_MAX]);

// text as a QR code for a terminal with a dark or a light background: black on white by ANSI colours, two rows of
// modules a line by half blocks, four modules of white around (ISO/IEC 18004, 6.3.8). KB_EARG: too long for one.
KB_MUST_CHECK int kb_screen_qr(const char *text, struct kb_buf *ret);
