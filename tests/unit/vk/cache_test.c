// The pipeline cache file: what was saved comes back; what is damaged does not; saving needs no opening of files.
#include "harness/kt.h"
#include "vk/vk_pipeline.h"
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[4096];

static struct kb_vk *open_device(void)
{
	const struct kb_vk_options o = {.cache_path = path};
	struct kb_err err = {0};
	struct kb_vk *vk;
	if (kb_vk_create(&o, &err, &vk))
		fail_msg("%s", err.text);
	return vk;
}

static size_t loaded(void)
{
	struct kb_vk *vk = open_device();
	size_t n = vk->cache_loaded;
	kb_vk_destroy(vk);
	return n;
}

static void flip(long at)
{
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
	int c = fgetc(f);
	assert_int_not_equal(c, EOF);
	fseek(f, -1, SEEK_CUR);
	fputc(c ^ 1, f);
	fclose(f);
}

static void saved_cache_comes_back_and_damage_does_not(void **state)
{
	(void)state;
	struct kb_err err = {0};
	struct stat st;
	unlink(path);
	assert_int_equal(loaded(), 0);
	struct kb_vk *vk = open_device();
	assert_int_equal(kb_vk_cache_save(vk, &err), 0);
	kb_vk_destroy(vk);
	size_t n = loaded();
	assert_true(n > 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	const long places[] = {0, 20, 40, -1}; // magic, driver version, checksum, the driver's bytes
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		flip(places[i]);
		assert_int_equal(loaded(), 0);
		flip(places[i]);
		assert_int_equal(loaded(), n);
	}
	assert_int_equal(truncate(path, st.st_size - 1), 0);
	assert_int_equal(loaded(), 0);
}

static void saving_opens_nothing(void **state)
{
	(void)state;
	struct kb_err err = {0};
	char moved[4200];
	unlink(path);
	struct kb_vk *vk = open_device();
	snprintf(moved, sizeof moved, "%s.moved", path);
	assert_int_equal(rename(path, moved), 0);
	assert_int_equal(kb_vk_cache_save(vk, &err), 0);
	kb_vk_destroy(vk);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rename(moved, path), 0);
	assert_true(loaded() > 0);
}

static void missing_directory_is_no_failure(void **state)
{
	(void)state;
	struct kb_err err = {0};
	const struct kb_vk_options o = {.cache_path = "/nonexistent/cache"};
	struct kb_vk *vk;
	assert_int_equal(kb_vk_create(&o, &err, &vk), 0);
	assert_int_equal(kb_vk_cache_save(vk, &err), 0);
	kb_vk_destroy(vk);
}

int main(void)
{
	const char *scratch = getenv("KB_TMP");
	snprintf(path, sizeof path, "%s/cache", scratch ? scratch : "/tmp");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(saved_cache_comes_back_and_damage_does_not),
		cmocka_unit_test(saving_opens_nothing),
		cmocka_unit_test(missing_directory_is_no_failure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
