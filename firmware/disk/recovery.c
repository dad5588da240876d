/* see disk.h */
#include "firmware/disk/disk.h"

#include <ctype.h>
#include <string.h>

static const char letters[] = "cbdefghijklnrtuv";
#define GROUP 8u

static void put(char *text, size_t i, char c)
{
	text[i + i / GROUP] = c;
}

static void finish(char *text)
{
	for (size_t i = GROUP; i < KB_RECOVERY_TEXT - 1; i += GROUP + 1)
		text[i] = '-';
	text[KB_RECOVERY_TEXT - 1] = 0;
}

void kb_recovery_print(const unsigned char key[static KB_RECOVERY_BYTES], char ret[static KB_RECOVERY_TEXT])
{
	for (size_t i = 0; i < 2 * KB_RECOVERY_BYTES; i++)
		put(ret, i, letters[i % 2 ? key[i / 2] & 15 : key[i / 2] >> 4]);
	finish(ret);
}

bool kb_recovery_read(const char *text, size_t len, char ret[static KB_RECOVERY_TEXT])
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		const char c = (char)tolower((unsigned char)text[i]);
		if (isspace((unsigned char)c) || c == '-')
			continue;
		if (!c || !strchr(letters, c) || n == 2 * (size_t)KB_RECOVERY_BYTES)
			return false;
		put(ret, n++, c);
	}
	finish(ret);
	return n == 2 * (size_t)KB_RECOVERY_BYTES;
}
