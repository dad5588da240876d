// Heads of system images: what is written is read, everything else has its error.
#include "storage/fields.h"
#include "storage/os_image.h"
#include "unit/storage/expect.h"

static const uint8_t hash[KB_OS_PARTS][KB_OS_HASH] = {{1}, {2}, {3}};

static struct kb_os_image sample(void)
{
	struct kb_os_image m = {.board = {"qemu-x86_64", 11}, .version = 7};
	for (int i = 0; i < KB_OS_PARTS; i++)
		m.part[i] = (struct kb_os_part){.bytes = 5000u * (unsigned)(i + 1), .sha256 = hash[i]};
	return m;
}

#define PAYLOAD (4096u + 8192u + 12288u + 15000u) // head, and the parts, each on a border but the last one's end

static void written_is_read(void **state)
{
	uint8_t block[KB_OS_HEAD], again[KB_OS_HEAD];
	struct kb_os_image m = sample(), n;
	struct kb_err err = {0};
	(void)state;
	assert_int_equal(kb_os_image_write(&m, &err, block), KB_OK);
	assert_int_equal(kb_os_image_parse(block, PAYLOAD, &err, &n), KB_OK);
	assert_int_equal(n.version, 7);
	assert_int_equal(n.board.len, 11);
	assert_memory_equal(n.board.data, "qemu-x86_64", 11);
	assert_int_equal(n.part[KB_OS_ROOT].offset, 4096);
	assert_int_equal(n.part[KB_OS_KERNEL_A].offset, 4096 + 8192);
	assert_int_equal(n.part[KB_OS_KERNEL_B].offset, 4096 + 8192 + 12288);
	assert_memory_equal(n.part[KB_OS_KERNEL_B].sha256, hash[2], KB_OS_HASH);
	assert_int_equal(kb_os_image_write(&n, &err, again), KB_OK);
	assert_memory_equal(again, block, sizeof block);
}

static void refuses_what_cannot_be(void **state)
{
	uint8_t block[KB_OS_HEAD], good[KB_OS_HEAD];
	struct kb_os_image m = sample(), n;
	struct kb_err err = {0};
	(void)state;
	assert_int_equal(kb_os_image_write(&m, &err, good), KB_OK);
	assert_int_equal(kb_os_image_parse(good, PAYLOAD + 1, &err, &n), KB_EBAD);
	assert_int_equal(kb_os_image_parse(good, PAYLOAD - 1, &err, &n), KB_EBAD);
	const size_t len = 16 + (size_t)kb_field_get(good + 8, 4);
	// Any bit of what counts: another version or hash is read, nothing else is.
	for (size_t bit = 0; bit < 8 * len; bit++) {
		memcpy(block, good, sizeof block);
		block[bit / 8] ^= (uint8_t)(1u << bit % 8);
		int r = kb_os_image_parse(block, PAYLOAD, &err, &n);
		assert_true(r == KB_OK || r == KB_EBAD || r == KB_EUNSUPPORTED);
	}
	for (size_t cut = 0; cut < len - 16; cut++) {
		memcpy(block, good, sizeof block);
		kb_field_put(block + 8, cut, 4);
		assert_int_equal(kb_os_image_parse(block, PAYLOAD, &err, &n), KB_EBAD);
	}
	struct kb_os_image wrong[5];
	for (int i = 0; i < 5; i++)
		wrong[i] = sample();
	wrong[0].board = (struct kb_str){"../x", 4};
	wrong[1].version = 0;
	wrong[2].part[KB_OS_ROOT].bytes = 0;
	wrong[3].part[KB_OS_KERNEL_A].bytes = KB_OS_KERNEL_MAX + 1;
	wrong[4].part[KB_OS_ROOT].bytes = UINT64_MAX - 4096;
	for (int i = 0; i < 5; i++)
		assert_int_equal(kb_os_image_write(&wrong[i], &err, block), KB_EARG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_is_read),
		cmocka_unit_test(refuses_what_cannot_be),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
