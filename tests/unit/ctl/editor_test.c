// History and plain reading; editing itself is tested on a terminal by tests/e2e/cli_test.py.
#include "firmware/ctl/common.c"
#include "firmware/ctl/editor.c"
#include "firmware/ctl/files.c"
#include "harness/kt.h"

#include <locale.h>
#include <sys/stat.h>

static char *scratch(const char *name)
{
	const char *directory = getenv("KB_TMP");
	assert_non_null(directory);
	char *path = kb_ctl_path(directory, name);
	assert_non_null(path);
	return path;
}

static void lines_come_as_they_are(void **state)
{
	(void)state;
	char *path = scratch("lines");
	struct kb_err err;
	struct kb_ctl_editor *e;
	struct kb_buf line = {0};
	static const char text[] = "one\n\n \xe8\xa8\x80\xe7\xae\xb1\r\nlast";
	assert_int_equal(kb_ctl_write_file(path, text, sizeof text - 1, 0600, &err), 0);
	assert_non_null(freopen(path, "r", stdin));
	assert_int_equal(kb_ctl_editor_create(false, NULL, &e, &err), 0);
	static const char *const want[] = {"one", "", " \xe8\xa8\x80\xe7\xae\xb1", "last"};
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(kb_ctl_editor_read(e, "> ", &line), 0);
		assert_string_equal((const char *)line.data, want[i]);
	}
	assert_int_equal(kb_ctl_editor_read(e, "> ", &line), KB_ECLOSED);
	kb_ctl_editor_remember(e, "not kept without a terminal");
	kb_ctl_editor_destroy(e);
	kb_buf_finish(&line);
	free(path);
}

static void history_outlives_the_program(void **state)
{
	(void)state;
	char *path = scratch("history");
	struct kb_err err;
	struct kb_ctl_editor *e;
	for (int round = 0; round < 2; round++) {
		assert_int_equal(kb_ctl_editor_create(true, path, &e, &err), 0);
		HistEvent event;
		assert_int_equal(history(e->history, &event, H_GETSIZE), 0);
		assert_int_equal(event.num, round * 2);
		if (round == 1) {
			assert_int_equal(history(e->history, &event, H_FIRST), 0); // the newest
			assert_string_equal(event.str, "two \xe8\xa8\x80\xe7\xae\xb1");
		} else {
			kb_ctl_editor_remember(e, "one");
			kb_ctl_editor_remember(e, "two \xe8\xa8\x80\xe7\xae\xb1");
			kb_ctl_editor_remember(e, "two \xe8\xa8\x80\xe7\xae\xb1"); // once is enough
			kb_ctl_editor_remember(e, "");
		}
		kb_ctl_editor_destroy(e);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	free(path);
}

static void a_damaged_history_starts_empty(void **state)
{
	(void)state;
	char *path = scratch("damaged");
	struct kb_err err;
	struct kb_ctl_editor *e;
	assert_int_equal(kb_ctl_write_file(path, "\xff\xfe\0garbage\n", 11, 0600, &err), 0);
	assert_int_equal(kb_ctl_editor_create(true, path, &e, &err), 0);
	kb_ctl_editor_destroy(e);
	free(path);
}

int main(void)
{
	setlocale(LC_CTYPE, "C.UTF-8");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_come_as_they_are),
		cmocka_unit_test(history_outlives_the_program),
		cmocka_unit_test(a_damaged_history_starts_empty),
	};
	return cmocka_run_group_tests_name("ctl/editor", tests, NULL, NULL);
}
