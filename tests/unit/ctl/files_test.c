#include "firmware/ctl/common.c"
#include "firmware/ctl/files.c"
#include "harness/kt.h"

#include <dirent.h>

static char *scratch(const char *name)
{
	char *path = kb_ctl_path(getenv("KB_TMP"), name);
	assert_non_null(path);
	return path;
}

static void written_is_what_is_read(void **state)
{
	(void)state;
	char *path = scratch("file");
	struct kb_err err;
	struct kb_buf got;
	struct stat st;
	static char large[200000];
	for (size_t i = 0; i < sizeof large; i++)
		large[i] = (char)(i * 7);
	assert_int_equal(kb_ctl_write_file(path, "old", 3, 0644, &err), 0);
	assert_int_equal(kb_ctl_write_file(path, large, sizeof large, 0600, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(kb_ctl_read_file(path, &got, &err), 0);
	assert_int_equal(got.len, sizeof large);
	assert_memory_equal(got.data, large, sizeof large);
	assert_int_equal(got.data[got.len], 0);
	kb_buf_finish(&got);
	free(path);
}

static void failures_leave_nothing_and_say_where(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_buf got = {0};
	char *path = scratch("no/such/file"), *directory = scratch("directory");
	assert_int_equal(kb_ctl_read_file(path, &got, &err), KB_ENOTFOUND);
	assert_non_null(strstr(err.text, "no/such/file"));
	assert_int_not_equal(kb_ctl_write_file(path, "x", 1, 0600, &err), 0);
	assert_non_null(strstr(err.text, "no/such/file"));
	// The name is taken by a directory: the file beside it is taken away again.
	assert_int_equal(kb_ctl_make_directory(directory, &err), 0);
	assert_int_not_equal(kb_ctl_write_file(directory, "x", 1, 0600, &err), 0);
	DIR *d = opendir(getenv("KB_TMP"));
	struct dirent *entry;
	while ((entry = readdir(d)))
		assert_false(strncmp(entry->d_name, "directory.", 10) == 0);
	closedir(d);
	assert_int_not_equal(kb_ctl_read_file(directory, &got, &err), 0);
	assert_null(got.data);
	free(path);
	free(directory);
}

static void directories_are_private(void **state)
{
	(void)state;
	struct kb_err err;
	struct stat st;
	char *path = scratch("a/b//c"), *file = scratch("plain");
	assert_int_equal(kb_ctl_make_directory(path, &err), 0);
	assert_int_equal(kb_ctl_make_directory(path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(kb_ctl_write_file(file, "", 0, 0600, &err), 0);
	assert_int_equal(kb_ctl_make_directory(file, &err), KB_EEXISTS);
	assert_int_equal(kb_ctl_make_directory("", &err), KB_EARG);
	free(path);
	free(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_is_what_is_read),
		cmocka_unit_test(failures_leave_nothing_and_say_where),
		cmocka_unit_test(directories_are_private),
	};
	return cmocka_run_group_tests_name("ctl/files", tests, NULL, NULL);
}
