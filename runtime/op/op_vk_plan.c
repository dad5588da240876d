#include "op/op_vk_internal.h"
#include "shaders/push.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// The shaders' view of things: shaders/push.h.
#define FITS(s, n) _Static_assert(sizeof(struct s) == (n) && (n) <= KB_VK_PUSH_MAX, "layout of " #s)
FITS(kb_push_embed, 40);
FITS(kb_push_norm, 48);
FITS(kb_push_matmul, 112);
FITS(kb_push_rope, 88);
FITS(kb_push_kv_write, 48);
FITS(kb_push_attention, 88);
FITS(kb_push_rows, 48);
FITS(kb_push_canary, 16);
_Static_assert(offsetof(struct kb_step_head, n_tokens) == 4 * KB_HEAD_TOKENS, "step head");
_Static_assert(offsetof(struct kb_step_head, n_out) == 4 * KB_HEAD_OUT, "step head");
_Static_assert(offsetof(struct kb_step_head, pages_per_seq) == 4 * KB_HEAD_PAGES, "step head");
_Static_assert(offsetof(struct kb_step_head, canary) == 4 * KB_HEAD_CANARY, "step head");
_Static_assert(KB_KV_PAGE_TOKENS == KB_PAGE && KB_PANEL_ROWS == KB_PANEL, "sizes shared with shaders");

static uint32_t up(uint32_t n, uint32_t d)
{
	return n / d + (n % d != 0);
}

static uint32_t rows_max(const struct kb_plan *p, enum kb_count count)
{
	return count == KB_COUNT_OUT ? p->desc->max_out : p->desc->max_tokens;
}

// Adds a dispatch of one row-group along y for each y_per_group rows. NULL: out of memory.
static struct kb_vk_dispatch *add(struct kb_plan *p, const char *name, const struct kb_pipeline *pipeline, uint32_t x,
	uint32_t y_per_group, enum kb_count count, const void *push, size_t push_size)
{
	if (p->n == p->cap) {
		uint32_t cap = p->cap ? 2 * p->cap : 64;
		struct kb_vk_dispatch *grown = realloc(p->list, cap * sizeof *grown);
		if (!grown)
			return NULL;
		p->list = grown;
		p->cap = cap;
	}
	struct kb_vk_dispatch *d = &p->list[p->n++];
	*d = (struct kb_vk_dispatch){
		.name = name,
		.pipeline = pipeline->pipeline,
		.push_size = (uint32_t)push_size,
		.x = x,
		.y_per_group = y_per_group,
		.counter = count,
	};
	memcpy(d->push, push, push_size);
	return d;
}

static void touch(struct kb_vk_dispatch *d, kb_addr address, uint64_t size, bool write)
{
	if (address)
		d->ranges[d->n_ranges++] = (struct kb_vk_range){.address = address, .size = size, .write = write};
}

static int no_memory(struct kb_err *err)
{
	return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
}

static int check_matrix(const struct kb_matrix *w, const char *name, struct kb_err *err)
{
	uint64_t bytes = kb_format_bytes(w->format, w->rows, w->cols);
	// Shaders index panels by 32-bit words.
	if (!bytes || !w->addr || w->addr % 4 || bytes / 4 > INT32_MAX)
		return kb_fail(err, KB_EARG, "op_vk: %s: a matrix of %u x %u at %#llx cannot be used", name, w->rows, w->cols,
			(unsigned long long)w->addr);
	return KB_OK;
}

static uint32_t panel_words(const struct kb_matrix *w)
{
	return (uint32_t)(kb_format_panel_bytes(w->format, w->cols) / 4);
}

static int plan_embed(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_embed *n = &node->embed;
	const struct kb_pipeline *pipeline;
	int rc = check_matrix(&n->table, node->name, err);
	if (rc == KB_OK)
		rc = kb__op_vk_pipeline(p->b, KB_KERNEL_EMBED, n->table.format, 0, NULL, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_embed push = {
		.table = n->table.addr,
		.token = p->desc->step.token,
		.outp = n->out,
		.cols = n->table.cols,
		.blocks = n->table.cols / KB_BLOCK_COLS,
		.panel_words = panel_words(&n->table),
		.scale = n->scale,
	};
	struct kb_vk_dispatch *d =
		add(p, node->name, pipeline, up(push.blocks, 64), 1, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	touch(d, n->out, 4ull * n->table.cols * p->desc->max_tokens, true);
	return KB_OK;
}

static int plan_norm(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_norm *n = &node->norm;
	const struct kb_pipeline *pipeline;
	uint64_t bytes = 4ull * n->width * n->groups * rows_max(p, n->count);
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_NORM, KB_ANY_FORMAT, 0, NULL, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_norm push = {
		.x = n->x,
		.add = n->add,
		.outp = n->out,
		.weight = n->weight,
		.width = n->width,
		.groups = n->groups,
		.flags = (n->add ? KB_NORM_ADD : 0) | (n->weight ? KB_NORM_WEIGHT : 0),
		.eps = n->eps,
	};
	struct kb_vk_dispatch *d = add(p, node->name, pipeline, n->groups, 1, n->count, &push, sizeof push);
	if (!d)
		return no_memory(err);
	touch(d, n->x, bytes, n->add != 0);
	touch(d, n->add, bytes, false);
	touch(d, n->out, bytes, true);
	return KB_OK;
}

// How a group of the matmul kernel is shaped: weights are read once for `tokens` rows of x, and x once for
// `unit_rows` rows of the matrix.
struct matmul_shape {
	uint32_t tokens, pairs, unit_rows;
};

static struct matmul_shape matmul_shape(const struct kb_op_vk *b, uint32_t rows_of_x)
{
	if (!b->tuned) {
		uint32_t nt = rows_of_x <= 1 ? 1 : rows_of_x <= 2 ? 2 : rows_of_x <= 4 ? 4 : 8;
		return (struct matmul_shape){nt, 1, KB_PANEL_ROWS};
	}
	// Measured on lavapipe: two pairs of rows by four tokens keep all sums in registers.
	uint32_t nt = rows_of_x <= 1 ? 1 : rows_of_x <= 2 ? 2 : 4;
	return (struct matmul_shape){nt, 2, 4 * b->caps.subgroup};
}

static int plan_matmul(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_matmul *n = &node->matmul;
	const struct kb_pipeline *pipeline;
	uint32_t most = rows_max(p, n->count), sg = p->b->caps.subgroup;
	struct matmul_shape s = matmul_shape(p->b, most);
	int rc = check_matrix(&n->w, node->name, err);
	if (rc == KB_OK)
		rc = kb__op_vk_pipeline(
			p->b, KB_KERNEL_MATMUL, n->w.format, 3, (uint32_t[]){s.tokens, sg, s.pairs}, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_matmul push = {
		.w0 = n->w.addr,
		.y0 = n->y,
		.bias0 = n->bias,
		.x = n->x,
		.head = p->desc->step.head,
		.rows0 = n->w.rows,
		.cols = n->w.cols,
		.panel_words = panel_words(&n->w),
		.flags = (n->bias ? KB_MM_BIAS : 0) | (n->count == KB_COUNT_OUT ? KB_MM_COUNT_OUT : 0),
	};
	struct kb_vk_dispatch *d =
		add(p, node->name, pipeline, up(n->w.rows, s.unit_rows), s.tokens, n->count, &push, sizeof push);
	if (!d)
		return no_memory(err);
	d->work = (uint64_t)n->w.rows * n->w.cols;
	touch(d, n->x, 4ull * n->w.cols * most, false);
	touch(d, n->y, 4ull * n->w.rows * most, true);
	return KB_OK;
}

static int plan_rope(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_rope *n = &node->rope;
	const struct kb_pipeline *pipeline;
	if (n->rot % 2 || n->rot > n->head_dim || !n->rot)
		return kb_fail(err, KB_EARG, "op_vk: %s: %u of %u dimensions to rotate", node->name, n->rot, n->head_dim);
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_ROPE, KB_ANY_FORMAT, 0, NULL, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_rope push = {
		.q = n->q,
		.k = n->k,
		.inv_freq = n->inv_freq,
		.position = p->desc->step.position,
		.heads = n->heads,
		.kv_heads = n->k ? n->kv_heads : 0,
		.head_dim = n->head_dim,
		.rot = n->rot,
		.flags = n->kind == KB_ROPE_HALVES ? KB_ROPE_HALVES_FLAG : 0,
		.mscale = n->mscale,
	};
	struct kb_vk_dispatch *d = add(p, node->name, pipeline, up(n->rot / 2, 64), 1, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	touch(d, n->q, 4ull * n->heads * n->head_dim * p->desc->max_tokens, true);
	touch(d, n->k, 4ull * n->kv_heads * n->head_dim * p->desc->max_tokens, true);
	return KB_OK;
}

static int plan_kv_write(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_kv_write *n = &node->kv_write;
	const struct kb_pipeline *pipeline;
	uint64_t bytes = 4ull * n->kv_heads * n->head_dim * p->desc->max_tokens;
	if (n->head_dim % 2)
		return kb_fail(err, KB_EUNSUPPORTED, "op_vk: %s: head_dim %u is odd", node->name, n->head_dim);
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_KV_WRITE, KB_ANY_FORMAT, 0, NULL, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_kv_write push = {
		.k = n->k,
		.v = n->v,
		.slot = p->desc->step.slot,
		.k_cache = n->k_cache,
		.v_cache = n->v_cache,
		.width = n->kv_heads * n->head_dim,
	};
	struct kb_vk_dispatch *d =
		add(p, node->name, pipeline, up(push.width / 2, 64), 1, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	touch(d, n->k, bytes, false);
	touch(d, n->v, bytes, false);
	// The node does not know how large a cache is; its first byte stands for it.
	touch(d, n->k_cache, 1, true);
	touch(d, n->v_cache, 1, true);
	return KB_OK;
}

static uint32_t shared_heads(const struct kb_node_attention *n, uint32_t sg)
{
	uint32_t group = n->heads / n->kv_heads, most = KB_ATTENTION_LANE_FLOATS * sg / n->head_dim;
	uint32_t together = group < most ? group : most;
	together = together > KB_ATTENTION_HEADS_MAX ? KB_ATTENTION_HEADS_MAX : together;
	while (together > 1 && group % together)
		together--;
	return together ? together : 1;
}

static int plan_attention(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_attention *n = &node->attention;
	const struct kb_pipeline *pipeline;
	uint64_t bytes = 4ull * n->heads * n->head_dim * p->desc->max_tokens;
	if (n->head_dim % 2 || n->head_dim > 256 || !n->head_dim)
		return kb_fail(
			err, KB_EUNSUPPORTED, "op_vk: %s: head_dim %u; even and at most 256 is supported", node->name, n->head_dim);
	if (!n->kv_heads || n->heads % n->kv_heads)
		return kb_fail(err, KB_EARG, "op_vk: %s: %u heads over %u", node->name, n->heads, n->kv_heads);
	// The lane kernel keeps queries and sums of its heads in registers: as many heads as fit and share a kv head.
	bool lanes = p->b->tuned && n->head_dim % 4 == 0;
	uint32_t sg = p->b->caps.subgroup, together = lanes ? shared_heads(n, sg) : 1;
	int rc = lanes ? kb__op_vk_pipeline(p->b, KB_KERNEL_ATTENTION_LANES, KB_ANY_FORMAT, 4,
						 (uint32_t[]){together, sg, n->head_dim, n->softcap > 0}, err, &pipeline)
				   : kb__op_vk_pipeline(p->b, KB_KERNEL_ATTENTION, KB_ANY_FORMAT, 0, NULL, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	const struct kb_step_arrays *s = &p->desc->step;
	struct kb_push_attention push = {
		.q = n->q,
		.outp = n->out,
		.k_cache = n->k_cache,
		.v_cache = n->v_cache,
		.head = s->head,
		.position = s->position,
		.seq = s->seq,
		.page_table = s->page_table,
		.heads = n->heads,
		.kv_heads = n->kv_heads,
		.head_dim = n->head_dim,
		.window = n->window,
		.scale = n->scale,
		.softcap = n->softcap,
	};
	struct kb_vk_dispatch *d =
		add(p, node->name, pipeline, n->heads / together, 1, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	touch(d, n->q, bytes, false);
	touch(d, n->out, bytes, true);
	touch(d, n->k_cache, 1, false);
	touch(d, n->v_cache, 1, false);
	return KB_OK;
}

static int plan_rows(struct kb_plan *p, const struct kb_node *node, uint32_t kind, const struct kb_push_rows *push,
	enum kb_count count, struct kb_err *err)
{
	const struct kb_pipeline *pipeline;
	uint64_t bytes = 4ull * push->width * rows_max(p, count);
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_ROWS, KB_ANY_FORMAT, 1, &kind, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_vk_dispatch *d = add(p, node->name, pipeline, up(push->width, KB_CHUNK), 1, count, push, sizeof *push);
	if (!d)
		return no_memory(err);
	touch(d, push->a, kind == KB_ROWS_GATHER ? 4ull * push->width * p->desc->max_tokens : bytes, false);
	touch(d, push->b, bytes, false);
	touch(d, push->outp, bytes, true);
	return KB_OK;
}

static int plan_node(struct kb_plan *p, const struct kb_node *n, struct kb_err *err)
{
	static const uint32_t acts[] = {
		[KB_ACT_SILU] = KB_ROWS_SILU, [KB_ACT_GELU_TANH] = KB_ROWS_GELU_TANH, [KB_ACT_GELU_ERF] = KB_ROWS_GELU_ERF};
	struct kb_push_rows rows = {0};
	switch (n->op) {
	case KB_OP_EMBED:
		return plan_embed(p, n, err);
	case KB_OP_NORM:
		return plan_norm(p, n, err);
	case KB_OP_MATMUL:
		return plan_matmul(p, n, err);
	case KB_OP_ROPE:
		return plan_rope(p, n, err);
	case KB_OP_KV_WRITE:
		return plan_kv_write(p, n, err);
	case KB_OP_ATTENTION:
		return plan_attention(p, n, err);
	case KB_OP_GLU:
		rows = (struct kb_push_rows){.a = n->glu.gate, .b = n->glu.up, .outp = n->glu.out, .width = n->glu.width};
		return plan_rows(p, n, acts[n->glu.act], &rows, KB_COUNT_TOKENS, err);
	case KB_OP_ADD:
		rows = (struct kb_push_rows){.a = n->add.x, .b = n->add.y, .outp = n->add.x, .width = n->add.width};
		return plan_rows(p, n, KB_ROWS_ADD, &rows, KB_COUNT_TOKENS, err);
	case KB_OP_GATHER:
		rows = (struct kb_push_rows){
			.a = n->gather.x, .outp = n->gather.out, .index = p->desc->step.out_row, .width = n->gather.width};
		return plan_rows(p, n, KB_ROWS_GATHER, &rows, KB_COUNT_OUT, err);
	case KB_OP_SOFTCAP:
		rows = (struct kb_push_rows){
			.a = n->softcap.x, .outp = n->softcap.x, .width = n->softcap.width, .cap = n->softcap.cap};
		return plan_rows(p, n, KB_ROWS_SOFTCAP, &rows, n->softcap.count, err);
	case KB_OPS:
		break;
	}
	return kb_fail(err, KB_EARG, "op_vk: node %s has op %d", n->name, (int)n->op);
}

/* see op_vk_internal.h */
int kb__op_vk_plan(struct kb_plan *p, struct kb_err *err)
{
	int rc = KB_OK;
	for (uint32_t i = 0; i < p->desc->n_nodes && rc == KB_OK; i++)
		rc = plan_node(p, &p->desc->nodes[i], err);
	return rc;
}

/* see op_vk_internal.h */
int kb__op_vk_plan_canary(struct kb_plan *p, kb_addr result, struct kb_err *err)
{
	const struct kb_pipeline *pipeline;
	struct kb_push_canary push = {.head = p->desc->step.head, .result = result};
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_CANARY, KB_ANY_FORMAT, 0, NULL, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_vk_dispatch *d = add(p, "canary", pipeline, 1, 0, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	// It must run after everything: it conflicts with every write of the dispatch before it.
	for (uint32_t i = 0; p->n > 1 && i < p->list[p->n - 2].n_ranges; i++)
		if (p->list[p->n - 2].ranges[i].write)
			touch(d, p->list[p->n - 2].ranges[i].address, 1, false);
	touch(d, result, 4, true);
	return KB_OK;
}

/* see op_vk_internal.h */
void kb__op_vk_plan_finish(struct kb_plan *p)
{
	free(p->list);
}
