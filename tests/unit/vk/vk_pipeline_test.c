// The pipeline cache file: kept, and ignored where it is foreign or damaged.
#include "harness/kt.h"
#include "op/spv.h"
#include "vk/vk_pipeline.h"
#include <stdio.h>
#include <sys/stat.h>

static char path[512];

static struct kb_vk *open_device(void)
{
	struct kb_err err = {0};
	struct kb_vk *vk;
	struct kb_vk_options o = {.device = getenv("KB_DEVICE"), .validate = true, .cache_path = path};
	if (kb_vk_create(&o, &err, &vk) != KB_OK)
		fail_msg("%s", err.text);
	return vk;
}

static size_t loaded(void)
{
	struct kb_vk *vk = open_device();
	size_t n = vk->cache_loaded;
	assert_int_equal(vk->messages, 0);
	kb_vk_destroy(vk);
	return n;
}

// Makes one pipeline and saves the cache.
static void save(void)
{
	struct kb_err err = {0};
	struct kb_vk *vk = open_device();
	VkPipeline pipeline;
	struct kb_vk_pipeline_desc d = {
		.name = "rows", .spirv = kb_spv_rows, .spirv_bytes = kb_spv_rows_size, .n_spec = 1, .spec = {3}};
	assert_int_equal(kb_vk_pipeline_create(vk, &d, &err, &pipeline), KB_OK);
	assert_int_equal(kb_vk_cache_save(vk, &err), KB_OK);
	vkDestroyPipeline(vk->device, pipeline, NULL);
	assert_int_equal(vk->messages, 0);
	kb_vk_destroy(vk);
}

static size_t read_file(uint8_t *ret, size_t max)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	size_t n = fread(ret, 1, max, f);
	fclose(f);
	return n;
}

static void write_file(const uint8_t *data, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	fclose(f);
}

static void kept(void **state)
{
	(void)state;
	remove(path);
	assert_int_equal(loaded(), 0); // a missing file is an empty cache
	save();
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_true(loaded() > 0);
	assert_int_equal(loaded(), (size_t)st.st_size - 48); // all behind the head
}

static void damaged(void **state)
{
	static uint8_t data[1 << 20];
	(void)state;
	save();
	size_t n = read_file(data, sizeof data);
	assert_true(n > 60 && n < sizeof data);
	for (size_t at = 0; at < n; at += at < 64 ? 1 : n / 16 + 1) { // each byte of the head, some of the rest
		data[at] ^= 0x40;
		write_file(data, n);
		assert_int_equal(loaded(), 0);
		data[at] ^= 0x40;
	}
	for (size_t cut = 0; cut < n; cut += cut < 64 ? 7 : n / 4 + 1) {
		write_file(data, cut);
		assert_int_equal(loaded(), 0);
	}
	data[n] = 0;
	write_file(data, n + 1); // longer than it says
	assert_int_equal(loaded(), 0);
	write_file(data, n);
	assert_true(loaded() > 0);
}

// The device works without its cache.
static void cannot_be_opened(void **state)
{
	struct kb_err err = {0};
	char keep[sizeof path];
	(void)state;
	memcpy(keep, path, sizeof path);
	snprintf(path, sizeof path, "/nonexistent/directory/cache");
	struct kb_vk *vk = open_device();
	assert_int_equal(vk->cache_loaded, 0);
	assert_int_equal(kb_vk_cache_save(vk, &err), KB_OK);
	kb_vk_destroy(vk);
	memcpy(path, keep, sizeof path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kept),
		cmocka_unit_test(damaged),
		cmocka_unit_test(cannot_be_opened),
	};
	snprintf(path, sizeof path, "%s/pipelines", getenv("KB_TMP") ? getenv("KB_TMP") : "/tmp");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
