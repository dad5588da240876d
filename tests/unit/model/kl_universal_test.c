// Both real models against llama.cpp, on the kernels that any Vulkan 1.3 device runs.
#include "unit/model/kl.h"

static void smollm2(void **state)
{
	(void)state;
	kl_check("build/models/smollm2-135m-instruct.kbm", "tests/golden/kl_smollm2.bin", KB_OP_VK_UNIVERSAL, 2048);
}

static void gemma3(void **state)
{
	(void)state;
	kl_check("build/models/gemma-3-270m.kbm", "tests/golden/kl_gemma3.bin", KB_OP_VK_UNIVERSAL, 2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(smollm2),
		cmocka_unit_test(gemma3),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
