// The cases. Bounds: an f32 sum of n products has a rounding error that grows like sqrt(n) * 2^-24 of its terms'
// root sum square, so its NMSE is at most about n * 2^-48; each bound says what it adds to that.
#include "base/half.h"
#include "unit/op/checkop.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPS 5.9604644775390625e-08 // 2^-24
#define COUNT(a) (sizeof(a) / sizeof *(a))

static void sum_bounds(struct op_case *c, double n)
{
	c->nmse_max = 4 * (n + 16) * EPS * EPS;
	c->error_max = 16 * sqrt(n + 16) * EPS;
}

static int add_floats(struct op_case *c, uint64_t rows, uint64_t width, float scale, bool by_token, bool out)
{
	int i = c->n_bufs++;
	c->bufs[i] = (struct buf){.row_bytes = by_token ? 4 * width : 0, .bytes = 4 * rows * width, .out = out};
	if (scale > 0 && (c->init[i] = malloc(c->bufs[i].bytes)))
		fill_floats(c->init[i], rows * width, scale);
	return i;
}

static void random_steps(struct op_case *c, uint32_t tokens, uint32_t position_max)
{
	c->tokens = tokens;
	for (uint32_t t = 0; t < tokens; t++) {
		c->position[t] = (uint32_t)(rng_next() >> 33) % (position_max + 1);
		c->slot[t] = t;
	}
}

// --- matmul and embed ----------------------------------------------------------

static enum kb_format bound_format;
static uint32_t bound_rows, bound_cols;

static struct kb_matrix bound_matrix(kb_addr addr)
{
	return (struct kb_matrix){.format = bound_format, .rows = bound_rows, .cols = bound_cols, .addr = addr};
}

static void bind_matmul(struct kb_node *n, const kb_addr *a)
{
	n->matmul.w = bound_matrix(a[0]);
	n->matmul.x = a[1];
	n->matmul.y = a[2];
	n->matmul.bias = a[3];
}

static void bind_matmul_plain(struct kb_node *n, const kb_addr *a)
{
	bind_matmul(n, a);
	n->matmul.bias = 0;
}

static bool add_matrix(struct op_case *c, enum kb_format f, uint32_t rows, uint32_t cols)
{
	bound_format = f;
	bound_rows = rows;
	bound_cols = cols;
	c->init[0] = random_panels(f, rows, cols, &c->bufs[0].bytes);
	c->n_bufs = 1;
	return c->init[0] != NULL;
}

static void matmul_case(struct checkop *o, enum kb_format f, const uint32_t shape[3], bool outs, struct score *s)
{
	struct op_case *c = calloc(1, sizeof *c);
	// A weight has up to 2^-11 of relative spread in its scales only: both sides decode the same bits.
	uint32_t block = 32u * kb_formats[f].super_blocks, cols = (shape[1] + block - 1) / block * block;
	snprintf(c->label, sizeof c->label, "%u x %u, %u tokens%s", shape[0], cols, shape[2], outs ? ", outputs" : "");
	if (add_matrix(c, f, shape[0], cols)) {
		random_steps(c, shape[2], 10);
		c->outs = outs ? shape[2] : 0;
		add_floats(c, shape[2], cols, 1, true, false);
		add_floats(c, shape[2], shape[0], 0, true, true);
		add_floats(c, 1, shape[0], 1, false, false);
		c->node = (struct kb_node){.op = KB_OP_MATMUL, .name = "matmul"};
		c->node.matmul.count = outs ? KB_COUNT_OUT : KB_COUNT_TOKENS;
		c->bind = shape[2] % 2 ? bind_matmul : bind_matmul_plain;
		sum_bounds(c, cols);
		// Offsets (q - 8, minima) are summed apart from the rest: terms up to 8 times the weight.
		c->nmse_max *= 64;
		c->error_max *= 8;
		// x in fixed point (shaders/fixed.glsl) errs by up to 2^-15 of about the largest of a block, here near 1, of
		// which the root mean square is a third; y, of which bounds are parts, is small where its terms cancel each
		// other.
		if (f > KB_FMT_BF16 && !strcmp(kb_op_vk_caps(o->vk)->path, "stream")) {
			c->nmse_max += 512 * 0x1p-30;
			c->error_max += 32 * 0x1p-15;
		}
		run_case(o, c, s);
	}
	free(c);
}

static void check_matmul(struct checkop *o)
{
	static const uint32_t shapes[][3] = {{1, 32, 1}, {15, 64, 2}, {16, 96, 3}, {17, 256, 7}, {49, 576, 8}, {40, 640, 9},
		{64, 1536, 1}, {33, 576, 33}, {16, 5184, 16}, {20, 8192, 3}, {24, 512, 256}, {100, 2048, 1}, {130, 320, 5}};
	for (int f = 0; f < KB_FMTS; f++) {
		struct score s = {0};
		char what[48];
		for (size_t i = 0; i < COUNT(shapes); i++)
			if (!o->quick || i % 3 == 0)
				matmul_case(o, (enum kb_format)f, shapes[i], i == 5, &s);
		snprintf(what, sizeof what, "matmul %s", kb_formats[f].name);
		report(o, what, &s);
	}
}

static void bind_embed(struct kb_node *n, const kb_addr *a)
{
	n->embed.table = bound_matrix(a[0]);
	n->embed.out = a[1];
}

static void check_embed(struct checkop *o)
{
	static const uint32_t shapes[][3] = {{50, 576, 3}, {17, 2304, 33}, {300, 768, 256}, {16, 32, 1}};
	struct score s = {0};
	for (int f = 0; f < KB_FMTS; f++)
		for (size_t i = 0; i < COUNT(shapes); i++) {
			struct op_case *c = calloc(1, sizeof *c);
			uint32_t block = 32u * kb_formats[f].super_blocks, cols = (shapes[i][1] + block - 1) / block * block;
			snprintf(c->label, sizeof c->label, "%s %u x %u, %u tokens", kb_formats[f].name, shapes[i][0], cols,
				shapes[i][2]);
			if (add_matrix(c, (enum kb_format)f, shapes[i][0], cols)) {
				random_steps(c, shapes[i][2], 10);
				for (uint32_t t = 0; t < c->tokens; t++)
					c->token[t] = (uint32_t)(rng_next() >> 33) % shapes[i][0];
				add_floats(c, shapes[i][2], cols, 0, true, true);
				c->node = (struct kb_node){.op = KB_OP_EMBED, .name = "embed", .embed.scale = i % 2 ? 25.5f : 1.0f};
				c->bind = bind_embed;
				sum_bounds(c, 1); // one weight, one scale
				run_case(o, c, &s);
			}
			free(c);
		}
	report(o, "embed", &s);
}

// --- norm, rope, kv_write --------------------------------------------------------

static void bind_norm(struct kb_node *n, const kb_addr *a)
{
	n->norm.x = a[0];
	n->norm.out = a[1];
	n->norm.weight = a[2];
	n->norm.add = a[3];
}

static void bind_norm_in_place(struct kb_node *n, const kb_addr *a)
{
	n->norm.x = a[0];
	n->norm.out = a[0];
	n->norm.weight = a[2];
}

static void check_norm(struct checkop *o)
{
	static const uint32_t shapes[][3] = {// width, groups, tokens
		{576, 1, 1}, {64, 9, 7}, {80, 3, 3}, {2048, 1, 9}, {5184, 1, 2}, {256, 4, 33}, {31, 1, 2}, {640, 1, 256}};
	struct score s = {0};
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int kind = 0; kind < 4; kind++) {
			struct op_case *c = calloc(1, sizeof *c);
			uint32_t width = shapes[i][0], groups = shapes[i][1], tokens = shapes[i][2];
			snprintf(c->label, sizeof c->label, "width %u x %u, %u tokens, kind %d", width, groups, tokens, kind);
			random_steps(c, tokens, 10);
			add_floats(c, tokens, width * groups, 3, true, kind != 2);
			add_floats(c, tokens, width * groups, 0, true, kind != 1);
			add_floats(c, 1, width, 1, false, false);
			add_floats(c, tokens, width * groups, 2, true, false);
			c->outs = kind == 3 ? tokens : 0;
			c->node = (struct kb_node){.op = KB_OP_NORM, .name = "norm"};
			c->node.norm.width = width;
			c->node.norm.groups = groups;
			c->node.norm.eps = 1e-5f;
			c->node.norm.count = kind == 3 ? KB_COUNT_OUT : KB_COUNT_TOKENS;
			c->bind = kind == 1 ? bind_norm_in_place : bind_norm;
			sum_bounds(c, width / 16.0 + 8); // sums of squares err together: the scale, not the vector
			run_case(o, c, &s);
			free(c);
		}
	report(o, "norm", &s);
}

static void bind_rope(struct kb_node *n, const kb_addr *a)
{
	n->rope.q = a[0];
	n->rope.k = a[1];
	n->rope.inv_freq = a[2];
}

static void check_rope(struct checkop *o)
{
	static const uint32_t shapes[][5] = {// heads, kv heads, head_dim, rot, tokens
		{9, 3, 64, 64, 3}, {4, 1, 256, 256, 7}, {8, 8, 80, 80, 1}, {2, 2, 96, 32, 33}, {5, 5, 160, 80, 2},
		{3, 1, 192, 192, 256}, {4, 2, 112, 112, 9}};
	struct score s = {0};
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int kind = 0; kind < 2; kind++) {
			struct op_case *c = calloc(1, sizeof *c);
			const uint32_t *h = shapes[i];
			snprintf(c->label, sizeof c->label, "%u/%u heads of %u, %u turned, %u tokens, kind %d", h[0], h[1], h[2],
				h[3], h[4], kind);
			random_steps(c, h[4], 131071);
			c->position[0] = 131071;
			add_floats(c, h[4], h[0] * h[2], 3, true, true);
			add_floats(c, h[4], h[1] * h[2], 3, true, true);
			add_floats(c, 1, h[3] / 2, 1, false, false);
			for (uint32_t k = 0; k < h[3] / 2; k++)
				((float *)c->init[2])[k] = powf(10000.0f, -2.0f * (float)k / (float)h[3]);
			c->node = (struct kb_node){.op = KB_OP_ROPE, .name = "rope"};
			c->node.rope.heads = h[0];
			c->node.rope.kv_heads = h[1];
			c->node.rope.head_dim = h[2];
			c->node.rope.rot = h[3];
			c->node.rope.mscale = i % 2 ? 1.25f : 1.0f;
			c->node.rope.kind = kind ? KB_ROPE_HALVES : KB_ROPE_PAIRS;
			c->bind = bind_rope;
			sum_bounds(c, 4); // two products; sine and cosine good to about 2^-23
			run_case(o, c, &s);
			free(c);
		}
	report(o, "rope", &s);
}

static void bind_kv_write(struct kb_node *n, const kb_addr *a)
{
	n->kv_write.k = a[0];
	n->kv_write.v = a[1];
	n->kv_write.k_cache = a[2];
	n->kv_write.v_cache = a[3];
}

static void check_kv_write(struct checkop *o)
{
	static const uint32_t shapes[][3] = {{3, 64, 3}, {1, 256, 33}, {5, 80, 256}, {2, 2, 1}};
	struct score s = {0};
	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct op_case *c = calloc(1, sizeof *c);
		uint32_t width = shapes[i][0] * shapes[i][1], tokens = shapes[i][2], slots = tokens + 40;
		snprintf(c->label, sizeof c->label, "%u heads of %u, %u tokens", shapes[i][0], shapes[i][1], tokens);
		random_steps(c, tokens, 10);
		for (uint32_t t = 0; t < tokens; t++)
			c->slot[t] = t % 5 == 4 ? KB_NO_SLOT : slots - 1 - t;
		add_floats(c, tokens, width, 4, true, false);
		add_floats(c, tokens, width, 4, true, false);
		// Every kind of rounding: ties, subnormal, overflow, signed zero, infinity.
		static const float odd[] = {1.00048828125f, 1.0014648f, 6.1e-5f, 5.9e-8f, 2.9e-8f, 65519.9f, 65520.0f, 1e30f,
			-0.0f, INFINITY, -6.0e-8f, 3.0517578e-5f};
		for (size_t k = 0; k < COUNT(odd) && k < width; k++)
			((float *)c->init[0])[k] = odd[k];
		for (int b = 0; b < 2; b++) {
			int k = c->n_bufs++;
			c->bufs[k] = (struct buf){.bytes = 2ull * slots * width, .out = true, .half = true};
		}
		c->node = (struct kb_node){.op = KB_OP_KV_WRITE, .name = "kv_write"};
		c->node.kv_write.kv_heads = shapes[i][0];
		c->node.kv_write.head_dim = shapes[i][1];
		c->bind = bind_kv_write;
		run_case(o, c, &s);
		free(c);
	}
	report(o, "kv_write", &s);
}

// --- attention -------------------------------------------------------------------

static void bind_attention(struct kb_node *n, const kb_addr *a)
{
	n->attention.q = a[0];
	n->attention.out = a[1];
	n->attention.k_cache = a[2];
	n->attention.v_cache = a[3];
}

struct attention_shape {
	uint32_t heads, kv_heads, head_dim, tokens, context, window;
	float softcap;
};

// Two sequences (one where there is one token) with pages scattered over the cache. Even tokens go on from the end of
// sequence 0 as in a prefill, the others are anywhere in sequence 1.
static void attention_case(struct checkop *o, const struct attention_shape *a, struct score *s)
{
	struct op_case *c = calloc(1, sizeof *c);
	uint32_t pages = (a->context + 15) / 16 + 1, slots = 2 * pages * 16;
	snprintf(c->label, sizeof c->label, "%u/%u heads of %u, %u tokens, context %u, window %u, cap %g", a->heads,
		a->kv_heads, a->head_dim, a->tokens, a->context, a->window, (double)a->softcap);
	random_steps(c, a->tokens, a->context - 1);
	c->n_seqs = 2;
	c->pages_per_seq = pages;
	c->pages = calloc((size_t)2 * pages, sizeof *c->pages);
	for (uint32_t i = 0; i < 2 * pages; i++)
		c->pages[i] = (i * 7 + 3) % (2 * pages);
	if (pages % 7 == 0)
		for (uint32_t i = 0; i < 2 * pages; i++)
			c->pages[i] = 2 * pages - 1 - i;
	for (uint32_t t = 0; t < a->tokens; t++) {
		c->seq[t] = a->tokens > 1 && t >= a->tokens - a->tokens / 3;
		if (c->seq[t] == 0)
			c->position[t] = a->context - (a->tokens - t) < a->context ? a->context - (a->tokens - t) : t % a->context;
	}
	add_floats(c, a->tokens, a->heads * a->head_dim, 2, true, false);
	add_floats(c, a->tokens, a->heads * a->head_dim, 0, true, true);
	for (int b = 0; b < 2; b++) {
		int k = c->n_bufs++;
		uint64_t n = (uint64_t)slots * a->kv_heads * a->head_dim;
		uint16_t *h = malloc(2 * n);
		c->bufs[k] = (struct buf){.bytes = 2 * n};
		for (uint64_t i = 0; i < n; i++)
			h[i] = kb_f16_from_f32(2 * rng_float());
		c->init[k] = h;
	}
	c->node = (struct kb_node){.op = KB_OP_ATTENTION, .name = "attention"};
	c->node.attention.heads = a->heads;
	c->node.attention.kv_heads = a->kv_heads;
	c->node.attention.head_dim = a->head_dim;
	c->node.attention.window = a->window;
	c->node.attention.scale = 1.0f / sqrtf((float)a->head_dim);
	c->node.attention.softcap = a->softcap;
	c->bind = bind_attention;
	// Scores err by sqrt(head_dim) * 2^-24 of themselves (a few units) and are exponentiated; then a sum over context.
	sum_bounds(c, 64 * a->head_dim + a->context);
	run_case(o, c, s);
	free(c);
}

static void check_attention(struct checkop *o)
{
	static const struct attention_shape shapes[] = {{9, 3, 64, 1, 1, 0, 0}, {9, 3, 64, 3, 33, 0, 0},
		{9, 3, 64, 33, 200, 0, 0}, {4, 1, 256, 5, 300, 100, 0}, {4, 1, 256, 1, 700, 512, 0}, {8, 8, 80, 7, 50, 0, 30},
		{6, 2, 96, 9, 65, 16, 0}, {4, 4, 112, 2, 64, 0, 0}, {8, 2, 128, 8, 129, 0, 50}, {2, 1, 160, 3, 17, 0, 0},
		{3, 3, 192, 16, 90, 20, 10}, {8, 1, 64, 256, 256, 64, 0}, {14, 2, 64, 1, 1000, 0, 0},
		{16, 2, 128, 40, 100, 1, 0}, {2, 1, 64, 9, 4500, 0, 0}};
	struct score s = {0};
	for (size_t i = 0; i < COUNT(shapes); i++)
		if (!o->quick || i % 3 != 1)
			attention_case(o, &shapes[i], &s);
	report(o, "attention", &s);
}

// --- element-wise ----------------------------------------------------------------

static void bind_glu(struct kb_node *n, const kb_addr *a)
{
	n->glu.gate = a[0];
	n->glu.up = a[1];
	n->glu.out = a[2];
}

static void bind_glu_in_place(struct kb_node *n, const kb_addr *a)
{
	n->glu.gate = n->glu.out = a[0];
	n->glu.up = a[1];
}

static void bind_add(struct kb_node *n, const kb_addr *a)
{
	n->add.x = a[0];
	n->add.y = a[1];
}

static void bind_gather(struct kb_node *n, const kb_addr *a)
{
	n->gather.x = a[0];
	n->gather.out = a[1];
}

static void bind_softcap(struct kb_node *n, const kb_addr *a)
{
	n->softcap.x = a[0];
}

static const uint32_t row_shapes[][2] = {{576, 1}, {1536, 33}, {31, 3}, {1024, 8}, {1025, 2}, {5184, 256}};

static void check_glu(struct checkop *o)
{
	struct score s = {0};
	for (size_t i = 0; i < COUNT(row_shapes); i++)
		for (int act = 0; act < 3; act++) {
			struct op_case *c = calloc(1, sizeof *c);
			uint32_t width = row_shapes[i][0], tokens = row_shapes[i][1];
			bool in_place = i % 2;
			snprintf(c->label, sizeof c->label, "width %u, %u tokens, act %d", width, tokens, act);
			random_steps(c, tokens, 1);
			add_floats(c, tokens, width, 9, true, in_place);
			add_floats(c, tokens, width, 2, true, false);
			add_floats(c, tokens, width, 0, true, !in_place);
			float *gate = c->init[0];
			for (uint32_t k = 0; k < 8; k++)
				gate[k] = (float[]){0, -0.0f, 60, -60, 120, -120, 0.5f, -1e-6f}[k];
			c->node = (struct kb_node){.op = KB_OP_GLU, .name = "glu"};
			c->node.glu.width = width;
			c->node.glu.act = (enum kb_act)act;
			c->bind = in_place ? bind_glu_in_place : bind_glu;
			sum_bounds(c, 16); // erf is good to 1.5e-7 = 2.5 units
			run_case(o, c, &s);
			free(c);
		}
	report(o, "glu", &s);
}

static void check_rows(struct checkop *o)
{
	static void (*const binds[])(struct kb_node *, const kb_addr *) = {bind_add, bind_gather, bind_softcap};
	static const enum kb_op ops[] = {KB_OP_ADD, KB_OP_GATHER, KB_OP_SOFTCAP};
	static const char *const names[] = {"add", "gather", "softcap"};
	for (int kind = 0; kind < 3; kind++) {
		struct score s = {0};
		for (size_t i = 0; i < COUNT(row_shapes); i++) {
			struct op_case *c = calloc(1, sizeof *c);
			uint32_t width = row_shapes[i][0], tokens = row_shapes[i][1];
			snprintf(c->label, sizeof c->label, "%s width %u, %u tokens", names[kind], width, tokens);
			random_steps(c, tokens, 1);
			add_floats(c, tokens, width, kind == 2 ? 90 : 2, kind != 1, kind != 1);
			if (kind < 2)
				add_floats(c, tokens, width, kind == 0 ? 2 : 0, true, kind == 1);
			if (kind == 1 || (kind == 2 && i % 2))
				c->outs = kind == 1 ? (tokens + 1) / 2 : tokens;
			for (uint32_t k = 0; k < tokens; k++)
				c->out_row[k] = (k * 5 + 1) % tokens;
			c->node = (struct kb_node){.op = ops[kind], .name = names[kind]};
			if (kind == 0)
				c->node.add.width = width;
			else if (kind == 1)
				c->node.gather.width = width;
			else
				c->node.softcap = (struct kb_node_softcap){
					.width = width, .cap = 30, .count = c->outs ? KB_COUNT_OUT : KB_COUNT_TOKENS};
			c->bind = binds[kind];
			sum_bounds(c, 4);
			run_case(o, c, &s);
			free(c);
		}
		report(o, names[kind], &s);
	}
}

void check_all(struct checkop *o, const char *only)
{
	static const struct {
		const char *name;
		void (*check)(struct checkop *o);
	} checks[] = {{"embed", check_embed}, {"norm", check_norm}, {"matmul", check_matmul}, {"rope", check_rope},
		{"kv_write", check_kv_write}, {"attention", check_attention}, {"glu", check_glu}, {"rows", check_rows},
		{"layer", check_layer}};
	for (size_t i = 0; i < COUNT(checks); i++)
		if (!only || strstr(only, checks[i].name))
			checks[i].check(o);
}
