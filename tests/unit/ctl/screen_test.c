#include "firmware/ctl/screen.c"
#include "harness/kt.h"

#include <stdlib.h>
#include <string.h>

static char *screen(const char *status, const char *system, char code[KB_SCREEN_CODE_MAX])
{
	struct kb_buf b = {0};
	yyjson_doc *s = status ? yyjson_read(status, strlen(status), 0) : NULL,
			   *t = system ? yyjson_read(system, strlen(system), 0) : NULL;
	assert_int_equal(kb_screen_text(yyjson_doc_get_root(s), yyjson_doc_get_root(t), "branch-7", &b, code), 0);
	char *text = strdup(kb_buf_cstr(&b));
	for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
		assert_in_range(end - line, 0, KB_SCREEN_COLUMNS);
	for (const char *c = text; *c; c++)
		assert_true(*c == '\n' || (*c >= ' ' && *c <= '~'));
	kb_buf_finish(&b);
	yyjson_doc_free(s);
	yyjson_doc_free(t);
	return text;
}

static void a_box_that_is_new(void **state)
{
	(void)state;
	char code[KB_SCREEN_CODE_MAX];
	char *text = screen(
		"{\"listen\":\"0.0.0.0:8443\",\"addresses\":[\"192.0.2.7\",\"198.51.100.1\"],\"models\":[],\"engines\":[],"
		"\"claim\":{\"code\":\"01234567\",\"minutes_left\":29}}",
		NULL, code);
	assert_non_null(strstr(text, "branch-7.local"));
	assert_non_null(strstr(text, "192.0.2.7  port 8443\n"));
	assert_non_null(strstr(text, "198.51.100.1  port 8443\n"));
	assert_non_null(strstr(text, "kotobako claim --box 192.0.2.7\n"));
	assert_non_null(strstr(text, "0123-4567       (for 29 more minutes)"));
	assert_non_null(strstr(text, "none: bring one"));
	assert_string_equal(code, "kotobako claim --box 192.0.2.7 --code 01234567");
	free(text);
	text = screen("{\"listen\":\"0.0.0.0:9000\",\"addresses\":[],\"claim\":{\"code\":\"01234567\",\"minutes_left\":1}}",
		NULL, code);
	assert_non_null(strstr(text, "none yet (is the cable in?)"));
	assert_non_null(strstr(text, "--box ADDRESS:9000\n"));
	assert_string_equal(code, ""); // it would not say where
	free(text);
}

static void a_box_that_is_somebodys(void **state)
{
	(void)state;
	char code[KB_SCREEN_CODE_MAX];
	char *text = screen("{\"listen\":\"0.0.0.0:8443\",\"addresses\":[\"192.0.2.7\"],\"models\":[\"office\"],"
						"\"engines\":[{\"model\":\"office\",\"state\":\"ready\"}]}",
		"{\"version\":3,\"slot\":\"b\",\"last_failed\":{\"version\":4,\"reason\":\"its kernel panicked\"}}", code);
	assert_non_null(strstr(text, "office: ready\n"));
	assert_non_null(strstr(text, "version 3, slot b\n"));
	assert_non_null(strstr(text, "version 4 failed: its kernel panicked\n"));
	assert_null(strstr(text, "claim"));
	assert_string_equal(code, "");
	free(text);
	text = screen(NULL, NULL, code);
	assert_non_null(strstr(text, "starting, or not running"));
	free(text);
}

// Whatever the daemon says, the screen keeps its form.
static void odd_answers(void **state)
{
	(void)state;
	char code[KB_SCREEN_CODE_MAX];
	static const char *const rows[] = {"[]", "5", "{}", "{\"addresses\":[5,null],\"models\":[{}],\"engines\":[7]}",
		"{\"claim\":{\"code\":\"1234-567\"}}", "{\"claim\":{\"code\":12345678}}",
		"{\"models\":[\"\\u001b[2J\\u65e5\\u672c"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]}"};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		free(screen(rows[i], rows[i], code));
		assert_string_equal(code, "");
	}
}

static void a_code_too_long(void **state)
{
	(void)state;
	struct kb_buf b = {0};
	char text[4000];
	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = 0;
	assert_int_equal(kb_screen_qr(text, &b), KB_EARG);
	assert_int_equal(kb_screen_qr("a", &b), 0); // version 1: 21 modules and the white around, two a line
	size_t lines = 0;
	for (const char *c = kb_buf_cstr(&b); *c; c++)
		lines += *c == '\n';
	assert_int_equal(lines, (21 + 8 + 1) / 2);
	kb_buf_finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_box_that_is_new),
		cmocka_unit_test(a_box_that_is_somebodys),
		cmocka_unit_test(odd_answers),
		cmocka_unit_test(a_code_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
