// Buffers: zeroed, limited, imported in place and copied.
#include "harness/kt.h"
#include "vk/vk_memory.h"
#include <stdio.h>
#include <sys/mman.h>

static void on_message(void *ctx, const char *text)
{
	(void)ctx;
	print_error("validation: %s\n", text);
}

static int set_up(void **state)
{
	struct kb_err err = {0};
	struct kb_vk_options o = {.device = getenv("KB_DEVICE"), .validate = true, .import = true, .message = on_message};
	if (kb_vk_create(&o, &err, (struct kb_vk **)state) != KB_OK)
		fail_msg("%s", err.text);
	return 0;
}

static int tear_down(void **state)
{
	struct kb_vk *vk = *state;
	int bad = vk->messages != 0;
	kb_vk_destroy(vk);
	return bad;
}

static void buffers_are_zeroed(void **state)
{
	struct kb_err err = {0};
	struct kb_vk_buffer b;
	for (int place = KB_VK_HOST; place <= KB_VK_DEVICE; place++)
		for (int round = 0; round < 2; round++) {
			assert_int_equal(kb_vk_buffer_create(*state, (enum kb_vk_place)place, 70001, "test", &err, &b), KB_OK);
			assert_true(b.address != 0 && b.address % 16 == 0 && b.size >= 70001);
			uint8_t *p = b.host;
			assert_true(place == KB_VK_DEVICE || p);
			for (size_t i = 0; p && i < 70001; i++)
				assert_int_equal(p[i], 0);
			if (p)
				memset(p, 0xa5, 70001); // what a second one may get back
			kb_vk_buffer_destroy(*state, &b);
		}
}

static void sizes_are_limited(void **state)
{
	struct kb_err err = {0};
	struct kb_vk_buffer b = {.size = 7};
	assert_int_equal(
		kb_vk_buffer_create(*state, KB_VK_DEVICE, KB_VK_ALLOCATION_MAX + 1, "the cache", &err, &b), KB_ELIMIT);
	assert_non_null(strstr(err.text, "the cache"));
	assert_int_equal(kb_vk_buffer_create(*state, KB_VK_DEVICE, 0, "nothing", &err, &b), KB_EARG);
	assert_int_equal(b.size, 7); // untouched on failure
}

// Read-only pages of a file, as a model image is mapped.
static uint8_t *map_file(size_t size)
{
	char path[512];
	snprintf(path, sizeof path, "%s/weights", getenv("KB_TMP") ? getenv("KB_TMP") : "/tmp");
	FILE *f = fopen(path, "w+b");
	assert_non_null(f);
	for (size_t i = 0; i < size; i++)
		fputc((int)(i * 31 % 251), f);
	fflush(f);
	uint8_t *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fileno(f), 0);
	fclose(f);
	assert_true(p != MAP_FAILED);
	return p;
}

static void imports_or_says_why_not(void **state)
{
	struct kb_vk *vk = *state;
	struct kb_err err = {0};
	struct kb_vk_buffer b;
	size_t size = 3 * 4096 + 100; // ends inside a page
	uint8_t *p = map_file(size);
	int rc = kb_vk_buffer_import(vk, p, size, &err, &b);
	if (vk->caps.import) {
		assert_int_equal(rc, KB_OK);
		assert_true(b.in_place && b.address && b.host == p);
		kb_vk_buffer_destroy(vk, &b);
		assert_int_equal(kb_vk_buffer_import(vk, p + 64, 4096, &err, &b), KB_EUNSUPPORTED); // not aligned
	} else {
		assert_int_equal(rc, KB_EUNSUPPORTED);
	}
	munmap(p, size);
}

static void copies_in_chunks(void **state)
{
	struct kb_err err = {0};
	struct kb_vk_buffer b;
	size_t size = (33u << 20) + 12345;
	uint8_t *p = map_file(size);
	assert_int_equal(kb_vk_buffer_create(*state, KB_VK_DEVICE, size, "weights", &err, &b), KB_OK);
	assert_int_equal(kb_vk_buffer_write(*state, &b, p, size, &err), KB_OK);
	if (b.host)
		assert_memory_equal(b.host, p, size); // and the source is still readable
	assert_int_equal(kb_vk_buffer_write(*state, &b, p, b.size + 1, &err), KB_EARG);
	kb_vk_buffer_destroy(*state, &b);
	munmap(p, size);
}

// Anonymous bytes must survive the pages being given back.
static void copying_leaves_the_source(void **state)
{
	struct kb_err err = {0};
	struct kb_vk_buffer b;
	uint8_t *p = aligned_alloc(4096, 65536);
	memset(p, 0x5a, 65536);
	assert_int_equal(kb_vk_buffer_create(*state, KB_VK_HOST, 65536, "weights", &err, &b), KB_OK);
	assert_int_equal(kb_vk_buffer_write(*state, &b, p, 65536, &err), KB_OK);
	for (int i = 0; i < 65536; i++)
		assert_int_equal(p[i], 0x5a);
	kb_vk_buffer_destroy(*state, &b);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_are_zeroed),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(imports_or_says_why_not),
		cmocka_unit_test(copies_in_chunks),
		cmocka_unit_test(copying_leaves_the_source),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
