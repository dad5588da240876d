// Chained or apart: what is chosen as times change.
#include "op/op_vk_choice.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

// Runs n steps that take so long; returns how many of them were chained.
static uint32_t go(struct kb_choice *c, uint32_t n, double chained, double apart)
{
	uint32_t ret = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t kind = kb__choice_next(c);
		ret += kind == KB_RUN_CHAINED;
		kb__choice_ran(c, kind, kind == KB_RUN_CHAINED ? chained : apart);
	}
	return ret;
}

static void undisturbed_chains_are_all(void **state)
{
	(void)state;
	struct kb_choice c = {0};
	assert_int_equal(go(&c, 1000, 10, 5), 1000); // even if the other were better: it is not looked for
	for (uint32_t i = 0; i < 1000; i++)          // a context that grows is not a disturbance
		assert_int_equal(go(&c, 1, 10 + 0.01 * i, 5), 1);
}

static void disturbed_chains_give_way_and_come_back(void **state)
{
	(void)state;
	struct kb_choice c = {0};
	go(&c, 100, 10, 15);
	assert_in_range(go(&c, 400, 40, 20), 0, 60); // soon apart; a trial now and then
	assert_int_equal(c.now, KB_RUN_APART);
	assert_in_range(go(&c, 400, 10, 15), 300, 400); // and back when it is quiet
	assert_int_equal(c.now, KB_RUN_CHAINED);
}

static void no_better_no_change(void **state)
{
	(void)state;
	struct kb_choice c = {0};
	go(&c, 100, 10, 15);
	assert_in_range(go(&c, 480, 40, 39), 450, 480); // disturbed, but the other is no better: trials only
	assert_int_equal(c.now, KB_RUN_CHAINED);
}

static void one_slow_run_changes_nothing(void **state)
{
	(void)state;
	struct kb_choice c = {0};
	go(&c, 100, 10, 15);
	go(&c, 1, 200, 15);
	assert_int_equal(go(&c, 200, 10, 15), 200);
	assert_int_equal(c.now, KB_RUN_CHAINED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(undisturbed_chains_are_all),
		cmocka_unit_test(disturbed_chains_give_way_and_come_back),
		cmocka_unit_test(no_better_no_change),
		cmocka_unit_test(one_slow_run_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
