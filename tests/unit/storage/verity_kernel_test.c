// Files proven in parallel: the same digest as one after the other, at every size where something changes, and every
// turned bit is found.
#include "storage/verity_kernel.h"
#include "unit/storage/expect.h"
#include <unistd.h>

static char path[512];

static void make(uint64_t size)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	for (uint64_t i = 0; i < size; i++)
		putc((int)(i * 2654435761u >> 15 & 255), f);
	assert_int_equal(fclose(f), 0);
}

static void the_same_at_every_size(void **state)
{
	static const uint64_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 524287, 524288, 524289, 1048576, 1048577, 3000001};
	uint8_t digest[KB_VERITY_HASH];
	struct kb_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		make(sizes[i]);
		assert_int_equal(kb_verity_file(path, NULL, &err, digest), KB_OK);
		for (unsigned threads = 0; threads <= 5; threads++)
			if (kb_verity_check(path, digest, threads, &err, NULL))
				fail_msg("%llu bytes, %u threads: %s", (unsigned long long)sizes[i], threads, err.text);
	}
	unlink(path);
}

// More than 128 groups, so that there are three levels: a sparse file of 100 MiB with something at its end.
static void large_files(void **state)
{
	uint8_t digest[KB_VERITY_HASH];
	struct kb_err err = {0};
	(void)state;
	make(10000);
	assert_int_equal(truncate(path, 100 << 20), 0);
	FILE *f = fopen(path, "ab");
	assert_non_null(f);
	assert_true(fputs("the end", f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(kb_verity_file(path, NULL, &err, digest), KB_OK);
	assert_int_equal(kb_verity_check(path, digest, 0, &err, NULL), KB_OK);
	unlink(path);
}

static void a_turned_bit_is_found(void **state)
{
	uint8_t digest[KB_VERITY_HASH];
	struct kb_err err = {0};
	(void)state;
	make(1200000);
	assert_int_equal(kb_verity_file(path, NULL, &err, digest), KB_OK);
	for (long at = 0; at < 1200000; at += 39999) {
		FILE *f = fopen(path, "r+b");
		assert_non_null(f);
		assert_int_equal(fseek(f, at, SEEK_SET), 0);
		int c = getc(f);
		for (int turn = 1; turn >= 0; turn--) {
			assert_int_equal(fseek(f, at, SEEK_SET), 0);
			putc(c ^ turn << at % 8, f);
			fflush(f);
			assert_int_equal(kb_verity_check(path, digest, 2, &err, NULL), turn ? KB_ECORRUPT : KB_OK);
		}
		fclose(f);
	}
	assert_int_equal(truncate(path, 1199999), 0);
	assert_int_equal(kb_verity_check(path, digest, 2, &err, NULL), KB_ECORRUPT);
	assert_non_null(strstr(err.text, path));
	unlink(path);
	assert_int_equal(kb_verity_check(path, digest, 2, &err, NULL), KB_ENOTFOUND);
}

// Whether the kernel helps depends on the file system; what it says must agree either way.
static void enabling_is_harmless(void **state)
{
	uint8_t digest[KB_VERITY_HASH], other[KB_VERITY_HASH] = {1};
	struct kb_err err = {0};
	bool is_on = true, by_kernel = true;
	(void)state;
	make(5000);
	assert_int_equal(kb_verity_file(path, NULL, &err, digest), KB_OK);
	assert_int_equal(kb_verity_enable(path, digest, &err, &is_on), KB_OK);
	assert_int_equal(kb_verity_check(path, digest, 1, &err, &by_kernel), KB_OK);
	assert_int_equal(is_on, by_kernel);
	assert_int_equal(kb_verity_check(path, other, 1, &err, NULL), KB_ECORRUPT);
	print_message("# fs-verity by the kernel: %s\n", is_on ? "yes" : "not on this file system");
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_at_every_size),
		cmocka_unit_test(large_files),
		cmocka_unit_test(a_turned_bit_is_found),
		cmocka_unit_test(enabling_is_harmless),
	};
	const char *dir = getenv("KB_TMP");
	snprintf(path, sizeof path, "%s/file", dir ? dir : ".");
	return cmocka_run_group_tests_name("storage/verity_kernel", tests, NULL, NULL);
}
