// The health check must see a device that computes wrongly: a backend in the middle spoils results.
#include "firmware/engine/ping.c"
#include "harness/kt.h"

static void reference_backend_is_healthy(void **state)
{
	(void)state;
	struct kb_backend *b;
	struct kb_ping *p;
	struct kb_err err = {0};
	uint32_t us = UINT32_MAX;
	assert_int_equal(kb_op_ref_create(&err, &b), 0);
	assert_int_equal(kb_ping_create(b, &err, &p), 0);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(kb_ping_run(p, &err, &us), 0);
	assert_true(us < 1000000);
	kb_ping_destroy(p);
	b->ops->destroy(b);
}

static int (*good_run)(struct kb_backend *b, struct kb_graph *g, struct kb_err *err);
static struct kb_ping *spoiled;
static enum { NOTHING_RUNS, ONE_BIT, STALE } fault;

static int bad_run(struct kb_backend *b, struct kb_graph *g, struct kb_err *err)
{
	struct ping_memory *m = spoiled->mem.host;
	struct ping_memory before = *m;
	if (fault == NOTHING_RUNS)
		return 0;
	int rc = good_run(b, g, err);
	if (fault == ONE_BIT)
		m->z[ROWS - 1] += 1;
	else if (fault == STALE)
		memcpy(m->z, before.z, sizeof m->z);
	return rc;
}

static void wrong_results_are_seen(void **state)
{
	(void)state;
	struct kb_backend *b;
	struct kb_err err = {0};
	uint32_t us = 77;
	assert_int_equal(kb_op_ref_create(&err, &b), 0);
	assert_int_equal(kb_ping_create(b, &err, &spoiled), 0);
	struct kb_backend_ops ops = *b->ops;
	const struct kb_backend_ops *saved = b->ops;
	good_run = ops.graph_run;
	ops.graph_run = bad_run;
	b->ops = &ops;
	for (fault = NOTHING_RUNS; fault <= STALE; fault++) {
		assert_int_equal(kb_ping_run(spoiled, &err, &us), KB_EDEVICE);
		assert_non_null(strstr(err.text, "computed"));
		assert_int_equal(us, 77);
	}
	b->ops = saved;
	assert_int_equal(kb_ping_run(spoiled, &err, &us), 0);
	kb_ping_destroy(spoiled);
	b->ops->destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reference_backend_is_healthy),
		cmocka_unit_test(wrong_results_are_seen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
