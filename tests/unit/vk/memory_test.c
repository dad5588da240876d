// Fresh buffers are zeros, also where the memory was used before; and zeros cost no memory on lavapipe.
#include "harness/kt.h"
#include "vk/vk_memory.h"
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = (8 << 20) + 1000 };

static void used_memory_comes_back_as_zeros(void **state)
{
	struct kb_vk *vk = *state;
	struct kb_err err = {0};
	for (int round = 0; round < 4; round++) {
		struct kb_vk_buffer a, b;
		assert_int_equal(kb_vk_buffer_create(vk, KB_VK_HOST, SIZE, "a", &err, &a), 0);
		assert_int_equal(kb_vk_buffer_create(vk, KB_VK_HOST, SIZE, "b", &err, &b), 0);
		assert_true(a.size >= SIZE);
		const unsigned char *at = a.host;
		for (size_t i = 0; i < a.size; i++)
			if (at[i])
				fail_msg("round %d: byte %zu is %u", round, i, at[i]);
		memset(b.host, 0x5a, b.size); // a neighbour's bytes must survive
		kb_vk_buffer_destroy(vk, &a);
		assert_int_equal(kb_vk_buffer_create(vk, KB_VK_HOST, SIZE, "c", &err, &a), 0);
		memset(a.host, 0xff, a.size);
		at = b.host;
		for (size_t i = 0; i < b.size; i++)
			if (at[i] != 0x5a)
				fail_msg("round %d: a neighbour's byte %zu became %u", round, i, at[i]);
		kb_vk_buffer_destroy(vk, &a);
		kb_vk_buffer_destroy(vk, &b);
	}
}

static void zeros_are_not_resident(void **state)
{
	struct kb_vk *vk = *state;
	struct kb_vk_buffer a;
	struct kb_err err = {0};
	if (vk->caps.type != KB_VK_CPU)
		skip();
	assert_int_equal(kb_vk_buffer_create(vk, KB_VK_DEVICE, SIZE, "a", &err, &a), 0);
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (a.size + page - 1) / page, n_resident = 0;
	unsigned char *resident = calloc(n, 1);
	assert_int_equal(mincore((void *)((uintptr_t)a.host & ~(page - 1)), a.size, resident), 0);
	for (size_t i = 0; i < n; i++)
		n_resident += resident[i] & 1;
	free(resident);
	assert_true(n_resident < n / 10);
	kb_vk_buffer_destroy(vk, &a);
}

static int open_device(void **state)
{
	struct kb_err err = {0};
	const struct kb_vk_options o = {.validate = true};
	return kb_vk_create(&o, &err, (struct kb_vk **)state);
}

static int close_device(void **state)
{
	struct kb_vk *vk = *state;
	int n = (int)vk->messages;
	kb_vk_destroy(vk);
	return n; // validation messages
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(used_memory_comes_back_as_zeros),
		cmocka_unit_test(zeros_are_not_resident),
	};
	return cmocka_run_group_tests(tests, open_device, close_device);
}
