#include "firmware/ctl/input.c"
#include "harness/kt.h"

// Feeds lines; the messages that come out, each in [], and "+" at the end where something is open.
static void assert_messages(const char *const *lines, const char *want)
{
	struct kb_ctl_input in = {0};
	struct kb_buf got = {0};
	for (; *lines; lines++) {
		bool is_done = true;
		assert_int_equal(kb_ctl_input_line(&in, *lines, &is_done), 0);
		if (!is_done)
			continue;
		assert_false(in.is_open);
		assert_int_equal(strlen((const char *)in.text.data), in.text.len);
		assert_int_equal(kb_buf_printf(&got, "[%s]", (const char *)in.text.data), 0);
		kb_ctl_input_reset(&in);
	}
	if (kb_ctl_input_end(&in))
		assert_int_equal(kb_buf_printf(&got, "+%s", (const char *)in.text.data), 0);
	assert_non_null(kb_buf_cstr(&got));
	assert_string_equal((const char *)got.data, want);
	kb_buf_finish(&got);
	kb_buf_finish(&in.text);
}
#define MESSAGES(want, ...) assert_messages((const char *const[]){__VA_ARGS__, NULL}, want)

static void a_line_is_a_message(void **state)
{
	(void)state;
	MESSAGES("[one][][ two ]", "one", "", " two ");
	MESSAGES("[a \"quoted\" word]", "a \"quoted\" word");
	MESSAGES("[mid \"\"\" dle]", "mid \"\"\" dle");
}

static void a_backslash_goes_on(void **state)
{
	(void)state;
	MESSAGES("[one\ntwo\n\nfour][five]", "one\\", "two\\", "\\", "four", "five");
	MESSAGES("[back\\slash]", "back\\slash");
	MESSAGES("+one\n", "one\\");
	MESSAGES("[one\n\"\"\"x]", "one\\", "\"\"\"x"); // a fence begins a message, nowhere else
}

static void fences_bracket_a_block(void **state)
{
	(void)state;
	MESSAGES("[one\n\n  two\\]", "\"\"\"", "one", "", "  two\\", "\"\"\"");
	MESSAGES("[one\ntwo][three]", "  \"\"\"one", "two\"\"\"  ", "three");
	MESSAGES("[one]", "\"\"\"one\"\"\"");
	MESSAGES("[]", "\"\"\"\"\"\"");
	MESSAGES("[/quit\nx]", "\"\"\"", "/quit", "x", "\"\"\"");
	MESSAGES("+one\ntwo", "\"\"\"one", "two");
	MESSAGES("", "\"\"\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_a_message),
		cmocka_unit_test(a_backslash_goes_on),
		cmocka_unit_test(fences_bracket_a_block),
	};
	return cmocka_run_group_tests_name("ctl/input", tests, NULL, NULL);
}
