/* see text.h */
#include "firmware/ctl/text.h"

#include <stdint.h>
#include <string.h>

// Bytes of the well-formed character at p[0, n), 0 where there is none (Unicode 15, table 3-7).
static size_t character(const uint8_t *p, size_t n, uint32_t *ret)
{
	static const struct {
		uint8_t first_min, first_max, second_min, second_max, len;
	} rows[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},
		{0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	*ret = p[0];
	if (p[0] < 0x80)
		return 1;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (p[0] < rows[i].first_min || p[0] > rows[i].first_max)
			continue;
		if (n < rows[i].len || p[1] < rows[i].second_min || p[1] > rows[i].second_max)
			return 0;
		uint32_t c = p[0] & (0x7fu >> rows[i].len);
		for (size_t k = 1; k < rows[i].len; k++) {
			if ((p[k] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (p[k] & 0x3fu);
		}
		*ret = c;
		return rows[i].len;
	}
	return 0;
}

/* see text.h */
int kb_ctl_text_clean(struct kb_buf *out, const char *text, size_t len)
{
	const uint8_t *p = (const uint8_t *)text;
	int r = 0;
	for (size_t at = 0; at < len && r == 0;) {
		uint32_t c;
		size_t n = character(p + at, len - at, &c);
		bool is_control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
		if (n == 0)
			r = kb_buf_puts(out, "\xef\xbf\xbd");
		else if (!is_control)
			r = kb_buf_append(out, p + at, n);
		at += n ? n : 1;
	}
	return r;
}

/* see text.h */
int kb_ctl_text_write(FILE *f, const char *text, size_t len, bool is_terminal)
{
	struct kb_buf clean = {0};
	if (is_terminal) {
		int r = kb_ctl_text_clean(&clean, text, len);
		if (r) {
			kb_buf_finish(&clean);
			return r;
		}
		text = (const char *)clean.data;
		len = clean.len;
	}
	bool is_written = (len == 0 || fwrite(text, 1, len, f) == len) && fflush(f) == 0;
	kb_buf_finish(&clean);
	return is_written ? 0 : KB_ECLOSED;
}

/* see text.h */
void kb_ctl_text_line(const char *text, size_t len, size_t max)
{
	struct kb_buf clean = {0};
	size_t n = len < max ? len : max;
	while (n < len && n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80)
		n--; // a whole character
	if (kb_ctl_text_clean(&clean, text, n) == 0) {
		for (size_t i = 0; i < clean.len; i++)
			putchar(clean.data[i] == '\n' || clean.data[i] == '\t' ? ' ' : clean.data[i]);
		if (n < len)
			printf("... (%zu bytes)", len);
	}
	kb_buf_finish(&clean);
}
