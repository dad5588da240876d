// Models on the Vulkan backend, with the validation layers on: all families, on each set of kernels.
#include "op/op_vk.h"
#include "unit/model/agree.h"

static uint32_t messages;

static void count_message(void *ctx, const char *text)
{
	(void)ctx;
	messages++;
	print_message("# validation: %s\n", text);
}

static struct kb_backend *vulkan(enum kb_op_vk_path path)
{
	struct kb_backend *b = NULL;
	struct kb_err err = {0};
	struct kb_op_vk_options o = {
		.device = getenv("KB_DEVICE"), .path = path, .validate = true, .message = count_message};
	if (kb_op_vk_create(&o, &err, &b))
		fail_msg("%s", err.text);
	return b;
}

static struct kb_backend *chosen(void)
{
	return vulkan(KB_OP_VK_AUTO);
}

static struct kb_backend *stream(void)
{
	return vulkan(KB_OP_VK_STREAM);
}

static struct kb_backend *universal(void)
{
	return vulkan(KB_OP_VK_UNIVERSAL);
}

static void chosen_matches_llama_cpp(void **state)
{
	(void)state;
	every_family_matches_llama_cpp(chosen);
}

static void universal_matches_llama_cpp(void **state)
{
	(void)state;
	every_family_matches_llama_cpp(universal);
}

static void stream_matches_llama_cpp(void **state)
{
	(void)state;
	every_family_matches_llama_cpp(stream);
}

static void chosen_steps_agree(void **state)
{
	(void)state;
	steps_of_any_size_agree(chosen);
	company_changes_nothing(chosen);
}

static void universal_steps_agree(void **state)
{
	(void)state;
	steps_of_any_size_agree(universal);
	company_changes_nothing(universal);
}

static void stream_steps_agree(void **state)
{
	(void)state;
	steps_of_any_size_agree(stream);
	company_changes_nothing(stream);
}

static void validation_was_silent(void **state)
{
	(void)state;
	assert_int_equal(messages, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chosen_matches_llama_cpp),
		cmocka_unit_test(universal_matches_llama_cpp),
		cmocka_unit_test(stream_matches_llama_cpp),
		cmocka_unit_test(chosen_steps_agree),
		cmocka_unit_test(universal_steps_agree),
		cmocka_unit_test(stream_steps_agree),
		cmocka_unit_test(validation_was_silent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
