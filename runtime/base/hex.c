/* see hex.h */
#include "base/hex.h"

#include <string.h>

void kb_hex(const uint8_t *data, size_t len, char *ret)
{
	for (size_t i = 0; i < len; i++) {
		ret[2 * i] = "0123456789abcdef"[data[i] >> 4];
		ret[2 * i + 1] = "0123456789abcdef"[data[i] & 15];
	}
	ret[2 * len] = 0;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int kb_unhex(const char *text, uint8_t *ret, size_t len)
{
	if (strlen(text) != 2 * len)
		return KB_EBAD;
	for (size_t i = 0; i < 2 * len; i++)
		if (nibble(text[i]) < 0)
			return KB_EBAD;
	for (size_t i = 0; i < len; i++)
		ret[i] = (uint8_t)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
	return 0;
}
