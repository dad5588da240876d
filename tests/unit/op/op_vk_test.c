// The Vulkan backend as its users meet it: memory, limits, faults, submissions, profiles. What ops compute is
// checkop's business.
#include "harness/kt.h"
#include "op/op_vk.h"
#include <stdio.h>

#define WIDTH 64u

struct room {
	struct kb_backend *b;
	struct kb_mem step, x;
	struct kb_graph *g;
};

static void on_message(void *ctx, const char *text)
{
	(void)ctx;
	print_error("validation: %s\n", text);
}

static struct kb_backend *open_backend(struct kb_op_vk_options o)
{
	struct kb_err err = {0};
	struct kb_backend *b;
	o.device = getenv("KB_DEVICE");
	o.validate = true;
	o.message = on_message;
	if (kb_op_vk_create(&o, &err, &b) != KB_OK)
		fail_msg("%s", err.text);
	return b;
}

// A graph that adds x to itself `n` times, each after the other.
static void open_room(struct room *r, struct kb_op_vk_options o, uint32_t n, uint32_t max_tokens)
{
	struct kb_err err = {0};
	struct kb_node nodes[16];
	r->b = open_backend(o);
	assert_int_equal(r->b->ops->alloc(r->b, KB_MEM_HOST, 4096, "step", &err, &r->step), KB_OK);
	assert_int_equal(r->b->ops->alloc(r->b, KB_MEM_HOST, 4 * WIDTH * 256, "x", &err, &r->x), KB_OK);
	for (uint32_t i = 0; i < n; i++)
		nodes[i] = (struct kb_node){.op = KB_OP_ADD, .name = "add", .add = {r->x.addr, r->x.addr, WIDTH}};
	kb_addr a = r->step.addr;
	struct kb_graph_desc d = {.nodes = nodes,
		.n_nodes = n,
		.step = {a, a + 64, a + 64, a + 64, a + 64, a + 64, a + 64},
		.max_tokens = max_tokens,
		.max_out = 1};
	if (r->b->ops->graph_create(r->b, &d, &err, &r->g) != KB_OK)
		fail_msg("%s", err.text);
}

static void close_room(struct room *r)
{
	assert_int_equal(kb_op_vk_messages(r->b), 0);
	r->b->ops->graph_destroy(r->b, r->g);
	r->b->ops->free(r->b, &r->x);
	r->b->ops->free(r->b, &r->step);
	r->b->ops->destroy(r->b);
}

static int run(struct room *r, uint32_t tokens, struct kb_err *err)
{
	uint32_t *head = r->step.host;
	head[0] = tokens;
	head[3] += 12345;
	return r->b->ops->graph_run(r->b, r->g, err);
}

// Barriers stand between dependent nodes: ten doublings in order.
static void runs_and_repeats(void **state)
{
	struct room r;
	struct kb_err err = {0};
	uint32_t counts[3];
	(void)state;
	open_room(&r, (struct kb_op_vk_options){0}, 10, 4);
	float *x = r.x.host;
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < WIDTH * 5; i++)
			x[i] = (float)i;
		assert_int_equal(run(&r, 4, &err), KB_OK);
		for (uint32_t i = 0; i < WIDTH * 5; i++)
			assert_true(x[i] == (i < WIDTH * 4 ? 1024.0f : 1.0f) * (float)i);
	}
	kb_op_vk_counts(r.g, counts);
	assert_int_equal(counts[0], 11); // with the canary's
	assert_int_equal(counts[1], 10);
	assert_int_equal(counts[2], 1);
	// Fewer tokens than the graph was made for, and none.
	for (uint32_t i = 0; i < WIDTH * 5; i++)
		x[i] = 1;
	assert_int_equal(run(&r, 1, &err), KB_OK);
	assert_true(x[WIDTH - 1] == 1024 && x[WIDTH] == 1);
	assert_int_equal(run(&r, 0, &err), KB_OK);
	assert_true(x[0] == 1024);
	close_room(&r);
}

static void refuses_larger_steps(void **state)
{
	struct room r;
	struct kb_err err = {0};
	(void)state;
	open_room(&r, (struct kb_op_vk_options){0}, 1, 4);
	assert_int_equal(run(&r, 5, &err), KB_EARG);
	assert_non_null(strstr(err.text, "5 tokens"));
	assert_int_equal(run(&r, 4, &err), KB_OK);
	close_room(&r);
}

static void injected_loss(void **state)
{
	struct room r;
	struct kb_err err = {0};
	(void)state;
	open_room(&r, (struct kb_op_vk_options){.fault_after = 2}, 1, 4);
	assert_int_equal(run(&r, 1, &err), KB_OK);
	assert_int_equal(run(&r, 1, &err), KB_OK);
	for (int i = 0; i < 3; i++) { // and it stays lost
		assert_int_equal(run(&r, 1, &err), KB_EDEVICE);
		assert_non_null(strstr(err.text, "lost"));
	}
	close_room(&r); // everything can still be given back
}

static void imports(void **state)
{
	struct kb_err err = {0};
	uint8_t *bytes = aligned_alloc(4096, 8192);
	(void)state;
	memset(bytes, 0x77, 8192);
	for (int no_import = 0; no_import < 2; no_import++) {
		struct kb_mem m;
		struct kb_backend *b = open_backend((struct kb_op_vk_options){.no_import = no_import});
		assert_true(!no_import || !b->imports_in_place);
		assert_int_equal(b->ops->import(b, bytes, 5000, &err, &m), KB_OK);
		assert_int_equal(b->bytes_imported, b->imports_in_place ? 5000 : 0);
		assert_int_equal(b->bytes_copied, b->imports_in_place ? 0 : 5000);
		if (m.host)
			assert_memory_equal(m.host, bytes, 5000);
		b->ops->free(b, &m);
		assert_int_equal(kb_op_vk_messages(b), 0);
		b->ops->destroy(b);
	}
	free(bytes);
}

static void profiles(void **state)
{
	struct room r;
	struct kb_err err = {0};
	struct kb_op_vk_profile p;
	(void)state;
	open_room(&r, (struct kb_op_vk_options){.profile = true}, 2, 4);
	assert_int_equal(run(&r, 4, &err), KB_OK);
	assert_int_equal(run(&r, 4, &err), KB_OK);
	assert_true(kb_op_vk_profile(r.g, 0, &p));
	assert_string_equal(p.name, "add");
	assert_int_equal(p.runs, 2);
	assert_true(p.ns_min > 0 && p.ns >= 2 * p.ns_min);
	assert_true(kb_op_vk_profile(r.g, 2, &p));
	assert_string_equal(p.name, "canary");
	assert_false(kb_op_vk_profile(r.g, 3, &p));
	close_room(&r);
}

// x[1] = 2 x[0], x[0] = 2 x[1], ...: a graph of `n` matmuls, each of which needs the one before.
struct doubler {
	struct kb_mem w, x[2], step;
	struct kb_graph *g;
	uint32_t counts[3];
};

static void open_doubler(struct doubler *r, struct kb_backend *b, uint32_t n, uint32_t width, uint32_t max_tokens)
{
	struct kb_err err = {0};
	struct kb_node nodes[8];
	assert_int_equal(b->ops->alloc(b, KB_MEM_HOST, 4ull * width * width, "w", &err, &r->w), KB_OK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(b->ops->alloc(b, KB_MEM_HOST, 4ull * width * max_tokens, "x", &err, &r->x[i]), KB_OK);
	assert_int_equal(b->ops->alloc(b, KB_MEM_HOST, 4096, "step", &err, &r->step), KB_OK);
	// Panels of an f32 identity, doubled: 16 rows of 32 columns a block.
	float *f = r->w.host;
	for (uint32_t i = 0; i < width; i++)
		f[(size_t)(i / 16) * 16 * width + i / 32 * 512 + i % 16 * 32 + i % 32] = 2;
	for (uint32_t i = 0; i < n; i++)
		nodes[i] = (struct kb_node){.op = KB_OP_MATMUL,
			.name = "matmul",
			.matmul = {.w = {KB_FMT_F32, width, width, r->w.addr}, .x = r->x[i % 2].addr, .y = r->x[1 - i % 2].addr}};
	kb_addr a = r->step.addr;
	struct kb_graph_desc d = {.nodes = nodes,
		.n_nodes = n,
		.step = {a, a + 64, a + 64, a + 64, a + 64, a + 64, a + 64},
		.max_tokens = max_tokens,
		.max_out = 1};
	assert_int_equal(b->ops->graph_create(b, &d, &err, &r->g), KB_OK);
	kb_op_vk_counts(r->g, r->counts);
}

static void close_doubler(struct doubler *r, struct kb_backend *b)
{
	b->ops->graph_destroy(b, r->g);
	b->ops->free(b, &r->w);
	b->ops->free(b, &r->x[0]);
	b->ops->free(b, &r->x[1]);
	b->ops->free(b, &r->step);
}

// A step that is estimated to take long becomes several submissions, with the same result.
static void long_steps_are_cut(void **state)
{
	enum { N = 8, ROWS = 1024 };
	struct kb_err err = {0};
	struct doubler r;
	(void)state;
	struct kb_backend *b = open_backend((struct kb_op_vk_options){0});
	open_doubler(&r, b, N, ROWS, 256);
	assert_true(r.counts[2] > 1 && r.counts[2] <= N + 1);
	float *x = r.x[0].host;
	for (uint32_t i = 0; i < ROWS * 2; i++)
		x[i] = (float)(i % 1000);
	uint32_t *head = r.step.host;
	head[0] = 2;
	head[3] = 99;
	assert_int_equal(b->ops->graph_run(b, r.g, &err), KB_OK);
	for (uint32_t i = 0; i < ROWS * 2; i++)
		assert_true(x[i] == 256.0f * (float)(i % 1000));
	close_doubler(&r, b);
	assert_int_equal(kb_op_vk_messages(b), 0);
	b->ops->destroy(b);
}

// y = 2 y, four times, as a graph of four matmuls. ret_dispatches: of the graph, with the canary's.
static int double_four_times(struct kb_backend *b, float *ret_y, uint32_t *ret_dispatches, struct kb_err *err)
{
	struct doubler r;
	open_doubler(&r, b, 4, WIDTH, 2);
	*ret_dispatches = r.counts[0];
	float *x = r.x[0].host;
	for (uint32_t i = 0; i < 2 * WIDTH; i++)
		x[i] = (float)i;
	uint32_t *head = r.step.host;
	head[0] = 2;
	int rc = KB_OK;
	for (head[3] = 1; head[3] < 4 && rc == KB_OK; head[3]++) // and again: nothing is left over from a run
		rc = b->ops->graph_run(b, r.g, err);
	memcpy(ret_y, x, 4ull * WIDTH * 2);
	close_doubler(&r, b);
	return rc;
}

static void is_doubled(struct kb_op_vk_options o, uint32_t most_residents)
{
	float y[2 * WIDTH];
	uint32_t n;
	struct kb_err err = {0};
	struct kb_backend *b = open_backend(o);
	assert_true(b->residents <= most_residents);
	if (double_four_times(b, y, &n, &err) != KB_OK)
		fail_msg("%s", err.text);
	assert_int_equal(n, b->residents ? 2 : 5);
	for (uint32_t i = 0; i < 2 * WIDTH; i++)
		assert_true(y[i] == 4096 * (float)i);
	assert_int_equal(kb_op_vk_messages(b), 0);
	b->ops->destroy(b);
}

// On lavapipe the four become one dispatch, of as many groups as it has threads; elsewhere they stay four.
static void chains(void **state)
{
	(void)state;
	struct kb_backend *b = open_backend((struct kb_op_vk_options){0});
	bool is_cpu = kb_op_vk_caps(b)->type == KB_VK_CPU && !strcmp(kb_op_vk_caps(b)->path, "tuned");
	assert_true(is_cpu == (b->residents > 0));
	b->ops->destroy(b);
	is_doubled((struct kb_op_vk_options){0}, UINT32_MAX);
	is_doubled((struct kb_op_vk_options){.no_chains = true}, 0);
	is_doubled((struct kb_op_vk_options){.path = KB_OP_VK_UNIVERSAL}, 0);
	setenv("LP_NUM_THREADS", "1", 1);
	is_doubled((struct kb_op_vk_options){0}, is_cpu ? 1 : UINT32_MAX);
	unsetenv("LP_NUM_THREADS");
}

// Groups that wait for one that never starts give up, and the run fails.
static void groups_that_do_not_meet(void **state)
{
	float y[2 * WIDTH];
	uint32_t n;
	struct kb_err err = {0};
	(void)state;
	setenv("LP_NUM_THREADS", "1", 1);
	struct kb_backend *b = open_backend((struct kb_op_vk_options){.residents = 2});
	unsetenv("LP_NUM_THREADS");
	if (kb_op_vk_caps(b)->type != KB_VK_CPU || strcmp(kb_op_vk_caps(b)->path, "tuned") != 0) {
		b->ops->destroy(b);
		skip();
	}
	assert_int_equal(double_four_times(b, y, &n, &err), KB_EDEVICE);
	assert_non_null(strstr(err.text, "did not meet"));
	b->ops->destroy(b);
}

static void refuses_bad_nodes(void **state)
{
	struct kb_err err = {0};
	struct kb_mem m;
	struct kb_graph *g = NULL;
	(void)state;
	struct kb_backend *b = open_backend((struct kb_op_vk_options){0});
	assert_int_equal(b->ops->alloc(b, KB_MEM_HOST, 65536, "all", &err, &m), KB_OK);
	struct kb_node nodes[] = {
		{.op = KB_OP_MATMUL, .name = "no_columns", .matmul = {.w = {KB_FMT_Q4_K, 16, 32, m.addr}}},
		{.op = KB_OP_ROPE, .name = "odd_rot", .rope = {.q = m.addr, .heads = 1, .head_dim = 64, .rot = 31}},
		{.op = KB_OP_ATTENTION, .name = "wide", .attention = {.heads = 1, .kv_heads = 1, .head_dim = 258}},
		{.op = KB_OP_ATTENTION, .name = "uneven", .attention = {.heads = 4, .kv_heads = 3, .head_dim = 64}},
		{.op = KB_OPS, .name = "no_such_op"},
	};
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		struct kb_graph_desc d = {
			.nodes = &nodes[i], .n_nodes = 1, .step = {.head = m.addr}, .max_tokens = 1, .max_out = 1};
		int rc = b->ops->graph_create(b, &d, &err, &g);
		assert_true(rc == KB_EARG || rc == KB_EUNSUPPORTED);
		assert_non_null(strstr(err.text, nodes[i].name));
		assert_null(g);
	}
	// The head must be where the host can read it; a step has a limit.
	struct kb_graph_desc d = {.nodes = nodes, .n_nodes = 1, .step = {.head = 64}, .max_tokens = 1, .max_out = 1};
	assert_int_equal(b->ops->graph_create(b, &d, &err, &g), KB_EARG);
	d.step.head = m.addr;
	d.max_tokens = KB_STEP_TOKENS_MAX + 1;
	assert_int_equal(b->ops->graph_create(b, &d, &err, &g), KB_EARG);
	b->ops->free(b, &m);
	b->ops->destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_and_repeats),
		cmocka_unit_test(refuses_larger_steps),
		cmocka_unit_test(injected_loss),
		cmocka_unit_test(imports),
		cmocka_unit_test(profiles),
		cmocka_unit_test(long_steps_are_cut),
		cmocka_unit_test(chains),
		cmocka_unit_test(groups_that_do_not_meet),
		cmocka_unit_test(refuses_bad_nodes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
