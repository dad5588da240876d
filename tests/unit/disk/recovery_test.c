// Recovery keys as text: what is printed is read back, however it was typed; nothing else is taken.
#include "firmware/disk/disk.h"
#include "harness/kt.h"

#include <string.h>

static void reads_what_it_prints(void **state)
{
	unsigned char key[KB_RECOVERY_BYTES];
	char text[KB_RECOVERY_TEXT], again[KB_RECOVERY_TEXT], typed[4 * KB_RECOVERY_TEXT] = "\n ";
	(void)state;
	for (unsigned i = 0; i < sizeof key; i++)
		key[i] = (unsigned char)(i * 37 + 5);
	kb_recovery_print(key, text);
	assert_int_equal(strlen(text), KB_RECOVERY_TEXT - 1);
	assert_int_equal(strspn(text, "cbdefghijklnrtuv-"), KB_RECOVERY_TEXT - 1);
	assert_true(kb_recovery_read(text, strlen(text), again));
	assert_string_equal(text, again);
	for (size_t i = 0, n = strlen(typed); text[i]; i++) { // capitals, blanks, no dashes
		if (text[i] == '-')
			continue;
		typed[n++] = (char)(text[i] - ('a' - 'A'));
		typed[n++] = i % 5 ? ' ' : '\r';
	}
	assert_true(kb_recovery_read(typed, strlen(typed), again));
	assert_string_equal(text, again);
}

static void takes_nothing_else(void **state)
{
	unsigned char key[KB_RECOVERY_BYTES] = {0};
	char text[KB_RECOVERY_TEXT + 2], again[KB_RECOVERY_TEXT];
	(void)state;
	kb_recovery_print(key, text);
	const size_t len = strlen(text);
	assert_false(kb_recovery_read(text, len - 1, again)); // a letter short
	text[len] = 'c';
	assert_false(kb_recovery_read(text, len + 1, again)); // one too many
	text[len] = 0;
	text[3] = 'a'; // not one of the sixteen
	assert_false(kb_recovery_read(text, len, again));
	text[3] = 0;
	assert_false(kb_recovery_read(text, len, again));
	assert_false(kb_recovery_read("", 0, again));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_it_prints),
		cmocka_unit_test(takes_nothing_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
