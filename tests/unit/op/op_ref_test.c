// Every op of the reference backend against small vectors worked out by hand or by the formulas of the papers
// (values with many digits: Python's math module, printed by the expressions beside them).
#include "base/half.h"
#include "harness/kt.h"
#include "op/op.h"

#include <math.h>

#define PAGES_PER_SEQ 3u

// One backend, the step arrays, and a bump of f32 memory.
struct bench {
	struct kb_backend *b;
	struct kb_mem arrays, floats, matrix, cache;
	struct kb_step_arrays step;
	struct kb_step_head *head;
	uint32_t *token, *position, *slot, *seq, *pages, *out_row;
	size_t used;
};

static struct kb_mem take(struct kb_backend *b, size_t size)
{
	struct kb_err err;
	struct kb_mem mem;
	assert_int_equal(b->ops->alloc(b, KB_MEM_HOST, size, "test", &err, &mem), 0);
	assert_int_equal(mem.addr % 256, 0);
	return mem;
}

static int set_up(void **state)
{
	static struct bench t;
	struct kb_err err;
	t = (struct bench){0};
	assert_int_equal(kb_op_ref_create(&err, &t.b), 0);
	t.arrays = take(t.b, 6 * 4096);
	t.floats = take(t.b, 1 << 20);
	t.matrix = take(t.b, 1 << 20);
	t.cache = take(t.b, 1 << 20);
	uint8_t *p = t.arrays.host;
	t.head = (void *)p;
	t.token = (void *)(p + 1 * 2048);
	t.position = (void *)(p + 2 * 2048);
	t.slot = (void *)(p + 3 * 2048);
	t.seq = (void *)(p + 4 * 2048);
	t.pages = (void *)(p + 5 * 2048);
	t.out_row = (void *)(p + 6 * 2048);
	t.head->pages_per_seq = PAGES_PER_SEQ;
	t.step = (struct kb_step_arrays){
		.head = t.arrays.addr,
		.token = t.arrays.addr + 1 * 2048,
		.position = t.arrays.addr + 2 * 2048,
		.slot = t.arrays.addr + 3 * 2048,
		.seq = t.arrays.addr + 4 * 2048,
		.page_table = t.arrays.addr + 5 * 2048,
		.out_row = t.arrays.addr + 6 * 2048,
	};
	*state = &t;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *t = *state;
	t->b->ops->free(t->b, &t->arrays);
	t->b->ops->free(t->b, &t->floats);
	t->b->ops->free(t->b, &t->matrix);
	t->b->ops->free(t->b, &t->cache);
	t->b->ops->destroy(t->b);
	return 0;
}

static float *put(struct bench *t, size_t n, const float *values)
{
	float *p = (float *)t->floats.host + t->used;
	t->used += n;
	if (values)
		memcpy(p, values, n * sizeof *p);
	return p;
}

static kb_addr at(const void *p)
{
	return (uintptr_t)p;
}

static int run_result(struct bench *t, const struct kb_node *node, uint32_t max_tokens, uint32_t max_out)
{
	struct kb_err err;
	struct kb_graph *g;
	struct kb_graph_desc desc = {
		.nodes = node, .n_nodes = 1, .step = t->step, .max_tokens = max_tokens, .max_out = max_out};
	assert_int_equal(t->b->ops->graph_create(t->b, &desc, &err, &g), 0);
	int r = t->b->ops->graph_run(t->b, g, &err);
	t->b->ops->graph_destroy(t->b, g);
	return r;
}

static void run(struct bench *t, struct kb_node node)
{
	assert_int_equal(run_result(t, &node, 8, 8), 0);
}

static void near(float got, double want, double tolerance)
{
	if (!(fabs((double)got - want) <= tolerance))
		fail_msg("%.9g instead of %.9g", (double)got, want);
}

// An f32 matrix of whole numbers: W[r][c] = r * 100 + c, or whatever f gives.
static struct kb_matrix matrix(struct bench *t, uint32_t rows, uint32_t cols, float (*f)(uint32_t r, uint32_t c))
{
	const struct kb_ggml_info *g = kb_ggml_find(KB_GGML_F32);
	float src[16 * 64];
	for (uint32_t panel = 0; panel * 16 < rows; panel++) {
		uint32_t n = rows - panel * 16 < 16 ? rows - panel * 16 : 16;
		for (uint32_t r = 0; r < n; r++)
			for (uint32_t c = 0; c < cols; c++)
				src[r * cols + c] = f(panel * 16 + r, c);
		uint8_t *to = (uint8_t *)t->matrix.host + panel * kb_format_panel_bytes(KB_FMT_F32, cols);
		kb_quant_pack_panel(g, src, cols * sizeof *src, n, cols, to);
	}
	return (struct kb_matrix){.format = KB_FMT_F32, .rows = rows, .cols = cols, .addr = t->matrix.addr};
}

static float digits(uint32_t r, uint32_t c)
{
	return (float)(r * 100 + c);
}

static void embed(void **state)
{
	struct bench *t = *state;
	float *out = put(t, 3 * 32, NULL);
	t->head->n_tokens = 2;
	t->token[0] = 17;
	t->token[1] = 4;
	out[64] = 7; // the third row must stay
	run(t, (struct kb_node){
			   .op = KB_OP_EMBED, .embed = {.table = matrix(t, 20, 32, digits), .out = at(out), .scale = 0.5f}});
	for (uint32_t c = 0; c < 32; c++) {
		near(out[c], (1700 + c) * 0.5, 0);
		near(out[32 + c], (400 + c) * 0.5, 0);
	}
	near(out[64], 7, 0);
}

static void norm_adds_and_groups(void **state)
{
	struct bench *t = *state;
	// Two groups (3, 4) and (0, 2): mean squares 12.5 and 2; with eps 0.5: sqrt(13), sqrt(2.5).
	float *x = put(t, 4, (float[]){1, 1, 1, 1});
	float *y = put(t, 4, (float[]){2, 3, -1, 1});
	float *w = put(t, 2, (float[]){1, 10});
	float *out = put(t, 4, NULL);
	t->head->n_tokens = 1;
	struct kb_node n = {.op = KB_OP_NORM,
		.norm = {.x = at(x), .add = at(y), .out = at(out), .weight = at(w), .width = 2, .groups = 2, .eps = 0.5f}};
	run(t, n);
	near(x[0], 3, 0);
	near(x[3], 2, 0);
	near(out[0], 3 / sqrt(13), 1e-6);
	near(out[1], 40 / sqrt(13), 1e-5);
	near(out[2], 0, 0);
	near(out[3], 20 / sqrt(2.5), 1e-5);
	// In place, without add, over the output rows: 2 of them.
	float *z = put(t, 4, (float[]){3, 4, 6, 8});
	t->head->n_out = 2;
	n.norm = (struct kb_node_norm){
		.x = at(z), .out = at(z), .weight = at(w), .width = 2, .groups = 1, .count = KB_COUNT_OUT};
	run(t, n);
	near(z[0], 3 / sqrt(12.5), 1e-6);
	near(z[3], 80 / sqrt(50), 1e-5);
}

static void matmul_with_bias(void **state)
{
	struct bench *t = *state;
	float *x = put(t, 64, NULL), *bias = put(t, 19, NULL), *y = put(t, 3 * 19, NULL);
	x[0] = 1;
	x[31] = 2; // row r: 100 r + 2 (100 r + 31) = 300 r + 62
	x[32 + 5] = -1;
	for (uint32_t r = 0; r < 19; r++)
		bias[r] = (float)r;
	y[38] = 5;
	t->head->n_tokens = 2;
	struct kb_node n = {.op = KB_OP_MATMUL, .matmul = {.w = matrix(t, 19, 32, digits), .x = at(x), .y = at(y)}};
	run(t, n);
	for (uint32_t r = 0; r < 19; r++) {
		near(y[r], 300.0 * r + 62, 0);
		near(y[19 + r], -100.0 * r - 5, 0);
	}
	n.matmul.bias = at(bias);
	run(t, n);
	near(y[3], 965, 0);
	near(y[19 + 18], -1787, 0);
	near(y[38], 5, 0);
	// Only output rows.
	t->head->n_out = 1;
	n.matmul.count = KB_COUNT_OUT;
	n.matmul.bias = 0;
	y[19] = 9;
	run(t, n);
	near(y[3], 962, 0);
	near(y[19], 9, 0);
}

static void rope_pairs_and_halves(void **state)
{
	struct bench *t = *state;
	// Head dim 6, of which 4 rotate; inverse frequencies 1 and 0.01 at position 3.
	const double c1 = cos(3.0), s1 = sin(3.0), c2 = cos(0.03), s2 = sin(0.03);
	float *freq = put(t, 2, (float[]){1, 0.01f});
	float *q = put(t, 12, (float[]){1, 2, 3, 4, 5, 6, 0, 0, 1, 0, 9, 9});
	float *k = put(t, 6, (float[]){1, 0, 0, 1, 7, 8});
	t->head->n_tokens = 1;
	t->position[0] = 3;
	struct kb_node n = {.op = KB_OP_ROPE,
		.rope = {.q = at(q),
			.k = at(k),
			.inv_freq = at(freq),
			.heads = 2,
			.kv_heads = 1,
			.head_dim = 6,
			.rot = 4,
			.mscale = 1,
			.kind = KB_ROPE_PAIRS}};
	run(t, n);
	near(q[0], 1 * c1 - 2 * s1, 1e-6);
	near(q[1], 1 * s1 + 2 * c1, 1e-6);
	near(q[2], 3 * c2 - 4 * s2, 1e-6);
	near(q[3], 3 * s2 + 4 * c2, 1e-6);
	near(q[4], 5, 0);
	near(q[8], c2, 1e-6);
	near(q[9], s2, 1e-6);
	near(q[10], 9, 0);
	near(k[0], -0.9899924966004454, 1e-6); // math.cos(3)
	near(k[1], 0.1411200080598672, 1e-6);  // math.sin(3)
	near(k[5], 8, 0);
	// Halves pair 0 with 2 and 1 with 3; mscale 2 doubles.
	memcpy(q, (float[]){1, 2, 3, 4, 5, 6}, 6 * sizeof *q);
	n.rope.kind = KB_ROPE_HALVES;
	n.rope.mscale = 2;
	run(t, n);
	near(q[0], 2 * (1 * c1 - 3 * s1), 1e-5);
	near(q[2], 2 * (1 * s1 + 3 * c1), 1e-5);
	near(q[1], 2 * (2 * c2 - 4 * s2), 1e-5);
	near(q[3], 2 * (2 * s2 + 4 * c2), 1e-5);
	near(q[5], 6, 0);
}

static void kv_write_rounds_and_skips(void **state)
{
	struct bench *t = *state;
	float *k = put(t, 4, (float[]){1.0f + 1.0f / 4096, -2, 5, 6}), *v = put(t, 4, (float[]){3, 4, 7, 8});
	uint16_t *kc = t->cache.host, *vc = kc + 1024;
	t->head->n_tokens = 2;
	t->slot[0] = 33;
	t->slot[1] = KB_NO_SLOT;
	run(t,
		(struct kb_node){.op = KB_OP_KV_WRITE,
			.kv_write = {.k = at(k), .v = at(v), .k_cache = at(kc), .v_cache = at(vc), .kv_heads = 1, .head_dim = 2}});
	assert_int_equal(kc[66], 0x3c00); // 1 + 2^-12 rounds to 1
	assert_int_equal(kc[67], 0xc000); // -2
	assert_int_equal(vc[66], 0x4200); // 3
	for (uint32_t i = 0; i < 1024; i++)
		assert_true(kc[i] == 0 || i == 66 || i == 67);
}

// K of kv head h at position p is (p + 1, h), V is (10 p + h, 1): scores and results can be told by hand.
static void fill_cache(struct bench *t, uint32_t seq, uint32_t n, uint16_t *kc, uint16_t *vc)
{
	for (uint32_t p = 0; p < n; p++)
		for (uint32_t h = 0; h < 2; h++) {
			size_t slot = (size_t)t->pages[seq * PAGES_PER_SEQ + p / 16] * 16 + p % 16;
			kc[(slot * 2 + h) * 2] = kb_f16_from_f32((float)(p + 1));
			kc[(slot * 2 + h) * 2 + 1] = kb_f16_from_f32((float)h);
			vc[(slot * 2 + h) * 2] = kb_f16_from_f32((float)(10 * p + h));
			vc[(slot * 2 + h) * 2 + 1] = kb_f16_from_f32(1);
		}
}

static void attention_maps_heads_pages_and_windows(void **state)
{
	struct bench *t = *state;
	uint16_t *kc = t->cache.host, *vc = kc + 8192;
	// Sequence 0 lies on pages 5, 2; sequence 1 on page 7. Two tokens: position 17 of sequence 0, 0 of sequence 1.
	memcpy(t->pages, (uint32_t[]){5, 2, 99, 7, 99, 99}, 24);
	fill_cache(t, 0, 18, kc, vc);
	fill_cache(t, 1, 1, kc, vc);
	t->head->n_tokens = 2;
	t->position[0] = 17;
	t->seq[0] = 0;
	t->position[1] = 0;
	t->seq[1] = 1;
	// Four query heads on two kv heads; head 0 looks along the position, head 1 at nothing, heads 2, 3 likewise.
	float *q = put(t, 16, (float[]){0.5f, 0, 0, 0, 0.5f, 3, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1});
	float *out = put(t, 16, NULL);
	struct kb_node n = {.op = KB_OP_ATTENTION,
		.attention = {.q = at(q),
			.out = at(out),
			.k_cache = at(kc),
			.v_cache = at(vc),
			.heads = 4,
			.kv_heads = 2,
			.head_dim = 2,
			.scale = 2}};
	run(t, n);
	double sum = 0, want = 0;
	for (int p = 0; p <= 17; p++) { // softmax over 2 * 0.5 * (p + 1)
		sum += exp(p - 17);
		want += exp(p - 17) * 10 * p;
	}
	near(out[0], want / sum, 1e-4);
	near(out[1], 1, 1e-6);
	near(out[2], 85, 1e-4);             // no preference: the mean of 0, 10 ... 170
	near(out[4], want / sum + 1, 1e-4); // kv head 1
	near(out[6], 86, 1e-4);
	near(out[8], 0, 0); // the other sequence has one position
	near(out[12], 1, 0);
	// A window of 3: positions 15, 16, 17.
	n.attention.window = 3;
	run(t, n);
	near(out[2], 160, 1e-4);
	near(out[0], (150 * exp(-2) + 160 * exp(-1) + 170) / (exp(-2) + exp(-1) + 1), 1e-4);
	near(out[8], 0, 0);
	// A window of one sees itself; one longer than the sequence sees all.
	n.attention.window = 1;
	run(t, n);
	near(out[0], 170, 0);
	n.attention.window = 18;
	run(t, n);
	near(out[2], 85, 1e-4);
	// Soft cap 4 after the scale: scores 4 tanh(s / 4).
	n.attention.window = 2;
	n.attention.softcap = 4;
	run(t, n);
	double a = exp(4 * tanh(17 / 4.0)), b = exp(4 * tanh(18 / 4.0));
	near(out[0], (160 * a + 170 * b) / (a + b), 1e-3);
}

static void glu_add_gather_softcap(void **state)
{
	struct bench *t = *state;
	// x / (1 + exp(-x)); 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); 0.5 x (1 + erf(x / sqrt(2)))
	static const double want[3][4] = {
		{-0.14227761953270035, -0.1887703343990727, 0.14054412522144952, 1.7615941559557646},
		{-0.0036373920817729943, -0.15428599017485606, 0.149675350701685, 1.954597694087775},
		{-0.00404969409489031, -0.15426876936299344, 0.14967658142073093, 1.9544997361036416},
	};
	t->head->n_tokens = 2;
	for (int act = KB_ACT_SILU; act <= KB_ACT_GELU_ERF; act++) {
		float *gate = put(t, 4, (float[]){-3, -0.5f, 0.25f, 2}), *up = put(t, 4, (float[]){1, 2, 1, -1});
		run(t, (struct kb_node){.op = KB_OP_GLU,
				   .glu = {.gate = at(gate), .up = at(up), .out = at(gate), .width = 2, .act = (enum kb_act)act}});
		near(gate[0], want[act][0], 1e-6);
		near(gate[1], 2 * want[act][1], 1e-6);
		near(gate[2], want[act][2], 1e-6);
		near(gate[3], -want[act][3], 1e-6);
	}
	float *x = put(t, 6, (float[]){1, 2, 3, 4, 5, 6}), *y = put(t, 4, (float[]){10, 20, 30, 40}), *z = put(t, 6, NULL);
	run(t, (struct kb_node){.op = KB_OP_ADD, .add = {.x = at(x), .y = at(y), .width = 2}});
	assert_memory_equal(x, ((float[]){11, 22, 33, 44, 5, 6}), 6 * sizeof *x);
	t->head->n_out = 3;
	memcpy(t->out_row, (uint32_t[]){1, 0, 1}, 12);
	run(t, (struct kb_node){.op = KB_OP_GATHER, .gather = {.x = at(x), .out = at(z), .width = 2}});
	assert_memory_equal(z, ((float[]){33, 44, 11, 22, 33, 44}), 6 * sizeof *z);
	t->head->n_out = 1;
	run(t,
		(struct kb_node){.op = KB_OP_SOFTCAP, .softcap = {.x = at(z), .width = 2, .cap = 30, .count = KB_COUNT_OUT}});
	near(z[0], 30 * tanh(1.1), 1e-5);
	near(z[1], 30 * tanh(44.0 / 30), 1e-5);
	near(z[2], 11, 0);
}

static void refuses_what_does_not_fit(void **state)
{
	struct bench *t = *state;
	struct kb_err err;
	struct kb_mem mem;
	struct kb_graph *g;
	float *x = put(t, 64, NULL);
	struct kb_node n = {.op = KB_OP_ADD, .add = {.x = at(x), .y = at(x), .width = 2}};
	t->head->n_tokens = 5;
	assert_int_equal(run_result(t, &n, 4, 4), KB_EARG);
	t->head->n_tokens = 4;
	assert_int_equal(run_result(t, &n, 4, 4), 0);
	t->head->n_out = 5;
	assert_int_equal(run_result(t, &n, 4, 4), KB_EARG);
	assert_int_equal(t->b->ops->import(t->b, (uint8_t *)t->matrix.host + 16, 64, &err, &mem), KB_EARG);
	assert_int_equal(t->b->ops->import(t->b, t->matrix.host, 64, &err, &mem), 0);
	assert_int_equal(mem.addr, t->matrix.addr);
	t->b->ops->free(t->b, &mem);
	assert_int_equal(t->b->ops->alloc(t->b, KB_MEM_HOST, 0, "nothing", &err, &mem), KB_EARG);
	struct kb_graph_desc desc = {.nodes = &n, .n_nodes = 1, .step = t->step, .max_tokens = KB_STEP_TOKENS_MAX + 1};
	assert_int_equal(t->b->ops->graph_create(t->b, &desc, &err, &g), KB_EARG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(embed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(norm_adds_and_groups, set_up, tear_down),
		cmocka_unit_test_setup_teardown(matmul_with_bias, set_up, tear_down),
		cmocka_unit_test_setup_teardown(rope_pairs_and_halves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(kv_write_rounds_and_skips, set_up, tear_down),
		cmocka_unit_test_setup_teardown(attention_maps_heads_pages_and_windows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(glu_add_gather_softcap, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refuses_what_does_not_fit, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
