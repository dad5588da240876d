// A real model against llama.cpp, on the kernels that GPUs run: with x in fixed point where weights are quantised. One
// is enough here: those kernels are slow on lavapipe, and what differs by family is tested on the others.
#include "unit/model/kl.h"

static void smollm2(void **state)
{
	(void)state;
	kl_check("build/models/smollm2-135m-instruct.kbm", "tests/golden/kl_smollm2.bin", KB_OP_VK_STREAM, 2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(smollm2),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
