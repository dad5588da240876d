/* see op.h. The specification of every op: straight formulas in 64-bit floats over f32 rows. */
#include "base/half.h"
#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u // what import asks of its callers, so alloc gives it too
#define SQRT_2_OVER_PI 0.79788456080286535588
#define SQRT_HALF 0.70710678118654752440

struct kb_graph {
	struct kb_node *nodes; // (n_nodes)
	uint32_t n_nodes;
	struct kb_step_arrays step;
	uint32_t max_tokens, max_out;
	float *row;     // one decoded matrix row: as long as the longest in the graph
	double *head;   // one head's output: as long as the longest in the graph
	double *scores; // (n_scores) of one query over its positions; grows
	size_t n_scores;
};

static float *floats(kb_addr a)
{
	return (float *)(uintptr_t)a;
}

static uint16_t *halves(kb_addr a)
{
	return (uint16_t *)(uintptr_t)a;
}

static const uint32_t *words(kb_addr a)
{
	return (const uint32_t *)(uintptr_t)a;
}

static const struct kb_step_head *step_head(const struct kb_graph *g)
{
	return (const struct kb_step_head *)(uintptr_t)g->step.head;
}

static uint32_t rows_of(const struct kb_graph *g, enum kb_count count)
{
	const struct kb_step_head *h = step_head(g);
	return count == KB_COUNT_OUT ? h->n_out : h->n_tokens;
}

// --- ops ---------------------------------------------------------------------

static void run_embed(const struct kb_graph *g, const struct kb_node_embed *n)
{
	const uint32_t *token = words(g->step.token);
	const void *table = (const void *)(uintptr_t)n->table.addr;
	uint32_t width = n->table.cols;
	for (uint32_t t = 0; t < rows_of(g, KB_COUNT_TOKENS); t++) {
		float *out = floats(n->out) + (size_t)t * width;
		kb_quant_decode_row(n->table.format, table, width, token[t], out);
		for (uint32_t i = 0; i < width; i++)
			out[i] *= n->scale;
	}
}

static void run_norm(const struct kb_graph *g, const struct kb_node_norm *n)
{
	size_t row_width = (size_t)n->width * n->groups;
	const float *weight = floats(n->weight);
	for (size_t r = 0; r < rows_of(g, n->count); r++) {
		float *x = floats(n->x) + r * row_width;
		float *out = floats(n->out) + r * row_width;
		if (n->add)
			for (size_t i = 0; i < row_width; i++)
				x[i] += floats(n->add)[r * row_width + i];
		for (uint32_t group = 0; group < n->groups; group++, x += n->width, out += n->width) {
			double squares = 0;
			for (uint32_t i = 0; i < n->width; i++)
				squares += (double)x[i] * (double)x[i];
			double scale = 1 / sqrt(squares / n->width + (double)n->eps);
			for (uint32_t i = 0; i < n->width; i++)
				out[i] = (float)((double)x[i] * scale * (double)weight[i]);
		}
	}
}

// Four sums, for speed alone.
static double dot(const float *a, const float *b, uint32_t n)
{
	double s[4] = {0, 0, 0, 0};
	uint32_t i = 0;
	for (; i + 4 <= n; i += 4)
		for (uint32_t j = 0; j < 4; j++)
			s[j] += (double)a[i + j] * (double)b[i + j];
	for (; i < n; i++)
		s[0] += (double)a[i] * (double)b[i];
	return s[0] + s[1] + (s[2] + s[3]);
}

static void run_matmul(const struct kb_graph *g, const struct kb_node_matmul *n)
{
	const void *panels = (const void *)(uintptr_t)n->w.addr;
	uint32_t count = rows_of(g, n->count);
	for (uint32_t row = 0; row < n->w.rows && count > 0; row++) {
		kb_quant_decode_row(n->w.format, panels, n->w.cols, row, g->row);
		double bias = n->bias ? (double)floats(n->bias)[row] : 0;
		for (size_t t = 0; t < count; t++)
			floats(n->y)[t * n->w.rows + row] = (float)(dot(g->row, floats(n->x) + t * n->w.cols, n->w.cols) + bias);
	}
}

static void rotate(const struct kb_node_rope *n, float *x, uint32_t position)
{
	uint32_t half = n->rot / 2;
	for (uint32_t i = 0; i < half; i++) {
		double angle = (double)position * (double)floats(n->inv_freq)[i];
		double c = cos(angle) * (double)n->mscale, s = sin(angle) * (double)n->mscale;
		float *a = n->kind == KB_ROPE_PAIRS ? x + 2 * i : x + i;
		float *b = n->kind == KB_ROPE_PAIRS ? x + 2 * i + 1 : x + i + half;
		double u = (double)*a, v = (double)*b;
		*a = (float)(u * c - v * s);
		*b = (float)(u * s + v * c);
	}
}

static void run_rope(const struct kb_graph *g, const struct kb_node_rope *n)
{
	const uint32_t *position = words(g->step.position);
	for (size_t t = 0; t < rows_of(g, KB_COUNT_TOKENS); t++) {
		for (size_t h = 0; h < n->heads; h++)
			rotate(n, floats(n->q) + (t * n->heads + h) * n->head_dim, position[t]);
		for (size_t h = 0; h < n->kv_heads; h++)
			rotate(n, floats(n->k) + (t * n->kv_heads + h) * n->head_dim, position[t]);
	}
}

static void run_kv_write(const struct kb_graph *g, const struct kb_node_kv_write *n)
{
	const uint32_t *slot = words(g->step.slot);
	size_t width = (size_t)n->kv_heads * n->head_dim;
	for (size_t t = 0; t < rows_of(g, KB_COUNT_TOKENS); t++) {
		if (slot[t] == KB_NO_SLOT)
			continue;
		for (size_t i = 0; i < width; i++) {
			halves(n->k_cache)[slot[t] * width + i] = kb_f16_from_f32(floats(n->k)[t * width + i]);
			halves(n->v_cache)[slot[t] * width + i] = kb_f16_from_f32(floats(n->v)[t * width + i]);
		}
	}
}

// The K or V vector of one position and head.
static const uint16_t *cached(const struct kb_graph *g, const struct kb_node_attention *n, kb_addr cache, uint32_t seq,
	uint32_t position, uint32_t kv_head)
{
	const uint32_t *pages = words(g->step.page_table) + (size_t)seq * step_head(g)->pages_per_seq;
	size_t slot = (size_t)pages[position / KB_KV_PAGE_TOKENS] * KB_KV_PAGE_TOKENS + position % KB_KV_PAGE_TOKENS;
	return halves(cache) + (slot * n->kv_heads + kv_head) * n->head_dim;
}

static void attend(const struct kb_graph *g, const struct kb_node_attention *n, uint32_t t, uint32_t head)
{
	uint32_t seq = words(g->step.seq)[t], last = words(g->step.position)[t];
	uint32_t first = n->window > 0 && last >= n->window ? last - n->window + 1 : 0;
	uint32_t kv_head = head / (n->heads / n->kv_heads);
	const float *q = floats(n->q) + ((size_t)t * n->heads + head) * n->head_dim;
	float *out = floats(n->out) + ((size_t)t * n->heads + head) * n->head_dim;
	double most = -HUGE_VAL, sum = 0;
	for (uint32_t p = first; p <= last; p++) {
		const uint16_t *k = cached(g, n, n->k_cache, seq, p, kv_head);
		double s = 0;
		for (uint32_t i = 0; i < n->head_dim; i++)
			s += (double)q[i] * (double)kb_f32_from_f16(k[i]);
		s *= (double)n->scale;
		if (n->softcap > 0)
			s = (double)n->softcap * tanh(s / (double)n->softcap);
		g->scores[p - first] = s;
		most = s > most ? s : most;
	}
	for (uint32_t p = first; p <= last; p++) {
		g->scores[p - first] = exp(g->scores[p - first] - most);
		sum += g->scores[p - first];
	}
	memset(g->head, 0, n->head_dim * sizeof *g->head);
	for (uint32_t p = first; p <= last; p++) {
		const uint16_t *v = cached(g, n, n->v_cache, seq, p, kv_head);
		for (uint32_t i = 0; i < n->head_dim; i++)
			g->head[i] += g->scores[p - first] * (double)kb_f32_from_f16(v[i]);
	}
	for (uint32_t i = 0; i < n->head_dim; i++)
		out[i] = (float)(g->head[i] / sum);
}

static void run_attention(const struct kb_graph *g, const struct kb_node_attention *n)
{
	for (uint32_t t = 0; t < rows_of(g, KB_COUNT_TOKENS); t++)
		for (uint32_t head = 0; head < n->heads; head++)
			attend(g, n, t, head);
}

static double activate(enum kb_act act, double x)
{
	switch (act) {
	case KB_ACT_SILU:
		return x / (1 + exp(-x));
	case KB_ACT_GELU_TANH:
		return 0.5 * x * (1 + tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)));
	case KB_ACT_GELU_ERF:
		return 0.5 * x * (1 + erf(x * SQRT_HALF));
	}
	return x;
}

static void run_glu(const struct kb_graph *g, const struct kb_node_glu *n)
{
	size_t count = (size_t)rows_of(g, KB_COUNT_TOKENS) * n->width;
	for (size_t i = 0; i < count; i++)
		floats(n->out)[i] = (float)(activate(n->act, (double)floats(n->gate)[i]) * (double)floats(n->up)[i]);
}

static void run_add(const struct kb_graph *g, const struct kb_node_add *n)
{
	size_t count = (size_t)rows_of(g, KB_COUNT_TOKENS) * n->width;
	for (size_t i = 0; i < count; i++)
		floats(n->x)[i] += floats(n->y)[i];
}

static void run_gather(const struct kb_graph *g, const struct kb_node_gather *n)
{
	const uint32_t *row = words(g->step.out_row);
	for (size_t i = 0; i < rows_of(g, KB_COUNT_OUT); i++)
		memcpy(floats(n->out) + i * n->width, floats(n->x) + (size_t)row[i] * n->width, n->width * sizeof(float));
}

static void run_softcap(const struct kb_graph *g, const struct kb_node_softcap *n)
{
	size_t count = (size_t)rows_of(g, n->count) * n->width;
	double cap = (double)n->cap;
	for (size_t i = 0; i < count; i++)
		floats(n->x)[i] = (float)(cap * tanh((double)floats(n->x)[i] / cap));
}

static void run_node(const struct kb_graph *g, const struct kb_node *n)
{
	switch (n->op) {
	case KB_OP_EMBED:
		run_embed(g, &n->embed);
		return;
	case KB_OP_NORM:
		run_norm(g, &n->norm);
		return;
	case KB_OP_MATMUL:
		run_matmul(g, &n->matmul);
		return;
	case KB_OP_ROPE:
		run_rope(g, &n->rope);
		return;
	case KB_OP_KV_WRITE:
		run_kv_write(g, &n->kv_write);
		return;
	case KB_OP_ATTENTION:
		run_attention(g, &n->attention);
		return;
	case KB_OP_GLU:
		run_glu(g, &n->glu);
		return;
	case KB_OP_ADD:
		run_add(g, &n->add);
		return;
	case KB_OP_GATHER:
		run_gather(g, &n->gather);
		return;
	case KB_OP_SOFTCAP:
		run_softcap(g, &n->softcap);
		return;
	case KB_OPS:
		return;
	}
}

// --- the backend -------------------------------------------------------------

static int ref_alloc(struct kb_backend *b, enum kb_mem_kind kind, uint64_t size, const char *what, struct kb_err *err,
	struct kb_mem *ret)
{
	(void)kind;
	if (size == 0 || size > SIZE_MAX - PAGE_BYTES)
		return kb_fail(err, KB_EARG, "%s: %llu bytes cannot be allocated", what, (unsigned long long)size);
	size_t whole = ((size_t)size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	void *p = aligned_alloc(PAGE_BYTES, whole);
	if (!p)
		return kb_fail(err, KB_ENOMEM, "%s: no memory for %llu bytes", what, (unsigned long long)size);
	memset(p, 0, whole);
	b->bytes_allocated += size;
	*ret = (struct kb_mem){.addr = (uintptr_t)p, .host = p, .size = size, .priv = p};
	return 0;
}

static int ref_import(struct kb_backend *b, const void *bytes, uint64_t size, struct kb_err *err, struct kb_mem *ret)
{
	if (!bytes || (uintptr_t)bytes % PAGE_BYTES)
		return kb_fail(err, KB_EARG, "imported memory is not aligned to %u bytes", PAGE_BYTES);
	b->bytes_imported += size;
	*ret = (struct kb_mem){.addr = (uintptr_t)bytes, .size = size};
	return 0;
}

static void ref_free(struct kb_backend *b, struct kb_mem *mem)
{
	(void)b;
	free(mem->priv); // NULL for imported bytes: they are the caller's
	*mem = (struct kb_mem){0};
}

static void ref_graph_destroy(struct kb_backend *b, struct kb_graph *g)
{
	(void)b;
	if (!g)
		return;
	free(g->nodes);
	free(g->row);
	free(g->head);
	free(g->scores);
	free(g);
}

static int ref_graph_create(
	struct kb_backend *b, const struct kb_graph_desc *desc, struct kb_err *err, struct kb_graph **ret)
{
	uint32_t cols = 1, head_dim = 1;
	if (desc->n_nodes == 0 || desc->max_tokens == 0 || desc->max_tokens > KB_STEP_TOKENS_MAX)
		return kb_fail(err, KB_EARG, "a graph of %u nodes for %u tokens", desc->n_nodes, desc->max_tokens);
	struct kb_graph *g = calloc(1, sizeof *g);
	if (!g)
		return kb_fail(err, KB_ENOMEM, "no memory for a graph");
	*g = (struct kb_graph){
		.n_nodes = desc->n_nodes,
		.step = desc->step,
		.max_tokens = desc->max_tokens,
		.max_out = desc->max_out,
	};
	for (const struct kb_node *n = desc->nodes; n < desc->nodes + desc->n_nodes; n++) {
		if (n->op == KB_OP_MATMUL && n->matmul.w.cols > cols)
			cols = n->matmul.w.cols;
		if (n->op == KB_OP_ATTENTION && n->attention.head_dim > head_dim)
			head_dim = n->attention.head_dim;
	}
	g->nodes = malloc(desc->n_nodes * sizeof *g->nodes);
	g->row = malloc(cols * sizeof *g->row);
	g->head = malloc(head_dim * sizeof *g->head);
	if (!g->nodes || !g->row || !g->head) {
		ref_graph_destroy(b, g);
		return kb_fail(err, KB_ENOMEM, "no memory for a graph of %u nodes", desc->n_nodes);
	}
	memcpy(g->nodes, desc->nodes, desc->n_nodes * sizeof *g->nodes);
	*ret = g;
	return 0;
}

// Room for the scores of the longest sequence in the step.
static int reserve_scores(struct kb_graph *g)
{
	size_t most = 0;
	for (uint32_t t = 0; t < step_head(g)->n_tokens; t++) {
		size_t n = (size_t)words(g->step.position)[t] + 1;
		most = n > most ? n : most;
	}
	if (most <= g->n_scores)
		return 0;
	double *grown = realloc(g->scores, most * sizeof *grown);
	if (!grown)
		return KB_ENOMEM;
	g->scores = grown;
	g->n_scores = most;
	return 0;
}

static int ref_graph_run(struct kb_backend *b, struct kb_graph *g, struct kb_err *err)
{
	(void)b;
	const struct kb_step_head *h = step_head(g);
	if (h->n_tokens > g->max_tokens || h->n_out > g->max_out)
		return kb_fail(err, KB_EARG, "a step of %u tokens and %u outputs in a graph for %u and %u", h->n_tokens,
			h->n_out, g->max_tokens, g->max_out);
	if (reserve_scores(g))
		return kb_fail(err, KB_ENOMEM, "no memory for attention scores");
	for (uint32_t i = 0; i < g->n_nodes; i++)
		run_node(g, &g->nodes[i]);
	return 0;
}

static void ref_destroy(struct kb_backend *b)
{
	free(b);
}

int kb_op_ref_create(struct kb_err *err, struct kb_backend **ret)
{
	static const struct kb_backend_ops ops = {
		.alloc = ref_alloc,
		.import = ref_import,
		.free = ref_free,
		.graph_create = ref_graph_create,
		.graph_destroy = ref_graph_destroy,
		.graph_run = ref_graph_run,
		.destroy = ref_destroy,
	};
	struct kb_backend *b = calloc(1, sizeof *b);
	if (!b)
		return kb_fail(err, KB_ENOMEM, "no memory for a backend");
	*b = (struct kb_backend){.ops = &ops, .device = "reference", .imports_in_place = true};
	*ret = b;
	return 0;
}
