#include "base/buf.h"
#include "harness/kt.h"

static void grows_and_consumes(void **state)
{
	(void)state;
	struct kb_buf b = {0};
	for (int i = 0; i < 1000; i++)
		assert_int_equal(kb_buf_printf(&b, "%03d,", i), 0);
	assert_int_equal(b.len, 4000);
	kb_buf_consume(&b, 3996);
	assert_string_equal(kb_buf_cstr(&b), "999,");
	kb_buf_consume(&b, 99);
	assert_int_equal(b.len, 0);
	kb_buf_finish(&b);
}

static void refuses_past_its_ceiling(void **state)
{
	(void)state;
	struct kb_buf b = {.max = 8};
	assert_int_equal(kb_buf_append(&b, "12345678", 8), 0);
	assert_int_equal(kb_buf_append(&b, "9", 1), KB_ELIMIT);
	assert_int_equal(kb_buf_reserve(&b, SIZE_MAX), KB_ELIMIT);
	assert_int_equal(b.len, 8);
	kb_buf_finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grows_and_consumes),
		cmocka_unit_test(refuses_past_its_ceiling),
	};
	return cmocka_run_group_tests_name("base/buf", tests, NULL, NULL);
}
