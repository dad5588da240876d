#include "base/err.h"
#include "harness/kt.h"

#include <errno.h>

static void describes_and_wraps(void **state)
{
	(void)state;
	struct kb_err err = {0};
	assert_int_equal(kb_fail(&err, KB_EBAD, "tensor %s at offset %d", "q", 7), KB_EBAD);
	assert_int_equal(kb_err_wrap(&err, "importing %s: ", "x.gguf"), KB_EBAD);
	assert_string_equal(err.text, "importing x.gguf: tensor q at offset 7");
	assert_int_equal(kb_fail(NULL, KB_EIO, "nobody listens"), KB_EIO);
}

static void names_every_code(void **state)
{
	(void)state;
#define XX(name, value, message)                         \
	assert_string_equal(kb_err_name(KB_E##name), #name); \
	assert_string_equal(kb_err_message(-(value)), message);
	KB_ERR_MAP(XX)
#undef XX
	assert_string_equal(kb_err_name(-9999), "UNKNOWN");
	assert_int_equal(kb_err_from_errno(ENOSPC), KB_ENOSPACE);
	assert_int_equal(kb_err_from_errno(EPIPE), KB_EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(describes_and_wraps),
		cmocka_unit_test(names_every_code),
	};
	return cmocka_run_group_tests_name("base/err", tests, NULL, NULL);
}
