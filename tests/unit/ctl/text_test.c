// What a model says must not steer a terminal. Which bytes are UTF-8: RFC 3629; which characters are controls: C0, DEL
// and C1 of ECMA-48.
#include "firmware/ctl/text.c"
#include "harness/kt.h"

#include <stdio.h>

#define FFFD "\xef\xbf\xbd"

static void assert_cleaned(const char *text, size_t len, const char *want)
{
	struct kb_buf out = {0};
	assert_int_equal(kb_ctl_text_clean(&out, text, len), 0);
	assert_non_null(kb_buf_cstr(&out));
	assert_string_equal((const char *)out.data, want);
	kb_buf_finish(&out);
}
#define CLEANED(text, want) assert_cleaned(text, sizeof(text) - 1, want)

static void text_passes(void **state)
{
	(void)state;
	CLEANED("", "");
	CLEANED("tab\tline\nend", "tab\tline\nend");
	CLEANED("\xe8\xa8\x80\xe7\xae\xb1 \xf0\x9f\x93\xa6 \xc3\xa9 \xc2\xa0",
		"\xe8\xa8\x80\xe7\xae\xb1 \xf0\x9f\x93\xa6 \xc3\xa9 \xc2\xa0");
	CLEANED("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf");
}

static void controls_are_left_out(void **state)
{
	(void)state;
	CLEANED("a\x1b[2Jb", "a[2Jb");
	CLEANED("\x1b]0;title\x07x", "]0;titlex");
	CLEANED("a\rb\bc\x7f"
			"d\0e",
		"abcde");
	CLEANED("\xc2\x9b"
			"2J",
		"2J"); // CSI as one character
	CLEANED("\xc2\x80\xc2\x9f.", ".");
	for (unsigned c = 0; c < 0x100; c++) {
		char byte = (char)c;
		bool is_text = (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t';
		char want[2] = {byte, 0};
		assert_cleaned(&byte, 1, is_text ? want : c < 0x80 ? "" : FFFD);
	}
}

static void what_is_not_utf8_is_replaced(void **state)
{
	(void)state;
	CLEANED("\x9b"
			"2J",
		FFFD "2J");
	CLEANED("\xc0\x9b", FFFD FFFD);          // overlong
	CLEANED("\xe0\x80\x9b", FFFD FFFD FFFD); // overlong
	CLEANED("\xed\xa0\x80", FFFD FFFD FFFD); // a surrogate
	CLEANED("\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD);
	CLEANED("\xe8\xa8", FFFD FFFD); // cut
	CLEANED("\xe8x", FFFD "x");
}

static void only_terminals_get_cleaned_text(void **state)
{
	(void)state;
	static const char text[] = "a\x1b[1mb";
	for (int is_terminal = 0; is_terminal < 2; is_terminal++) {
		char got[32] = {0};
		FILE *f = fmemopen(got, sizeof got, "w");
		assert_int_equal(kb_ctl_text_write(f, text, sizeof text - 1, is_terminal), 0);
		fclose(f);
		assert_string_equal(got, is_terminal ? "a[1mb" : text);
	}
	FILE *full = fopen("/dev/full", "w");
	assert_int_equal(kb_ctl_text_write(full, "x", 1, false), KB_ECLOSED);
	fclose(full);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_passes),
		cmocka_unit_test(controls_are_left_out),
		cmocka_unit_test(what_is_not_utf8_is_replaced),
		cmocka_unit_test(only_terminals_get_cleaned_text),
	};
	return cmocka_run_group_tests_name("ctl/text", tests, NULL, NULL);
}
