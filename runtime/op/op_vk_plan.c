#include "op/op_vk_internal.h"
#include "shaders/push.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// The shaders' view of things: shaders/push.h.
#define FITS(s, n) _Static_assert(sizeof(struct s) == (n) && (n) <= KB_VK_PUSH_MAX, "layout of " #s)
FITS(kb_push_embed, 40);
FITS(kb_push_norm, 64);
FITS(kb_push_matmul, 120);
FITS(kb_push_fixed, 24);
FITS(kb_push_rope, 88);
FITS(kb_push_kv_write, 48);
FITS(kb_push_attention, 104);
FITS(kb_push_rows, 48);
FITS(kb_push_canary, 16);
FITS(kb_push_chain, 40);
FITS(kb_push_fma, 16);
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

static void touch(struct kb_vk_dispatch *d, struct kb_vk_range r)
{
	for (uint32_t i = 0; i < d->n_ranges; i++)
		if (d->ranges[i].address == r.address && d->ranges[i].size == r.size) {
			d->ranges[i].write |= r.write;
			return;
		}
	d->ranges[d->n_ranges++] = r;
}

// Adds a dispatch that does the work of n nodes, with a row of groups along y for each y_per_group rows.
// NULL: out of memory.
static struct kb_vk_dispatch *add(struct kb_plan *p, const struct kb_node *nodes, uint32_t n,
	const struct kb_pipeline *pipeline, uint32_t x, uint32_t y_per_group, enum kb_count count, const void *push,
	size_t push_size)
{
	if (p->n == p->cap) {
		uint32_t cap = p->cap ? 2 * p->cap : 64;
		struct kb_vk_dispatch *grown = realloc(p->list, cap * sizeof *grown);
		if (grown)
			p->list = grown;
		const struct kb_pipeline **wider = grown ? realloc(p->pipelines, cap * sizeof(struct kb_pipeline *)) : NULL;
		if (!wider)
			return NULL;
		p->pipelines = wider;
		p->cap = cap;
	}
	p->pipelines[p->n] = pipeline;
	struct kb_vk_dispatch *d = &p->list[p->n++];
	*d = (struct kb_vk_dispatch){
		.name = nodes ? nodes->name : "canary",
		.pipeline = pipeline->pipeline,
		.push_size = (uint32_t)push_size,
		.x = x,
		.y_per_group = y_per_group,
		.counter = count,
	};
	memcpy(d->push, push, push_size);
	for (uint32_t i = 0; i < n; i++) {
		struct kb_vk_range r[KB_NODE_RANGES_MAX];
		for (uint32_t k = kb__op_vk_access(p->desc, &nodes[i], r); k-- > 0;)
			touch(d, r[k]);
	}
	return d;
}

static int no_memory(struct kb_err *err)
{
	return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
}

#define MATRIX_ALIGNMENT 16u // the longest load of a shader

static int check_matrix(const struct kb_matrix *w, const char *name, struct kb_err *err)
{
	uint64_t bytes = kb_format_bytes(w->format, w->rows, w->cols);
	// Shaders index panels by 32-bit words.
	if (!bytes || !w->addr || w->addr % MATRIX_ALIGNMENT || bytes / 4 > INT32_MAX)
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
	return add(p, node, 1, pipeline, up(push.blocks, 64), 1, KB_COUNT_TOKENS, &push, sizeof push) ? KB_OK
																								  : no_memory(err);
}

// Lanes of the universal norm: few, or as many as a GPU needs to have a whole row in flight.
#define NORM_LANES 64u
#define NORM_LANES_STREAM 256u

// Quantised weights on GPUs: x in fixed point, see shaders/fixed.glsl.
#define FIXED_BLOCK_BYTES 80u
enum { ORDER_PLAIN, ORDER_PAIRS };

static bool is_fixed(const struct kb_op_vk *b, enum kb_format f)
{
	return b->path == KB_OP_VK_STREAM && f != KB_FMT_F32 && f != KB_FMT_F16 && f != KB_FMT_BF16;
}

static uint32_t order_of(enum kb_format f)
{
	return f == KB_FMT_Q8_0 ? ORDER_PLAIN : ORDER_PAIRS;
}

// Notes that x is about to be in fixed point, by d.
static void keep_fixed(struct kb_plan *p, struct kb_vk_dispatch *d, kb_addr x, uint32_t order)
{
	touch(d, (struct kb_vk_range){.address = p->fixed.address, .size = p->fixed.size, .write = true});
	p->fixed_x = x;
	p->fixed_order = order;
}

// Whether the norm at `node` should make its result fixed point: a matmul behind it needs it.
static bool makes_fixed(const struct kb_plan *p, const struct kb_node *node)
{
	const struct kb_node_norm *n = &node->norm;
	const struct kb_node_matmul *m = &node[1].matmul;
	return node + 1 < p->desc->nodes + p->desc->n_nodes && node[1].op == KB_OP_MATMUL && is_fixed(p->b, m->w.format) &&
		   m->x == n->out && m->w.cols == n->width && m->count == n->count && n->groups == 1 && n->width > NORM_LANES &&
		   4 * (n->width + n->width / KB_BLOCK_COLS + NORM_LANES_STREAM) <= p->b->caps.shared_max;
}

static int plan_norm_fixed(
	struct kb_plan *p, const struct kb_node *node, const struct kb_push_norm *push, struct kb_err *err)
{
	const struct kb_node_norm *n = &node->norm;
	const struct kb_pipeline *pipeline;
	const uint32_t order = order_of(node[1].matmul.w.format);
	int rc = kb__op_vk_pipeline(
		p->b, KB_KERNEL_NORM_FIXED, KB_ANY_FORMAT, 3, (uint32_t[]){NORM_LANES_STREAM, n->width, order}, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_vk_dispatch *d = add(p, node, 1, pipeline, 1, 1, n->count, push, sizeof *push);
	if (!d)
		return no_memory(err);
	keep_fixed(p, d, n->out, order);
	return KB_OK;
}

static int plan_norm(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_norm *n = &node->norm;
	const struct kb_pipeline *pipeline;
	const bool lanes = p->b->path == KB_OP_VK_TUNED && n->weight && n->width % (2 * p->b->caps.subgroup) == 0;
	const uint32_t wide = p->b->path == KB_OP_VK_STREAM && n->width > NORM_LANES ? NORM_LANES_STREAM : NORM_LANES;
	int rc = lanes ? kb__op_vk_pipeline(p->b, KB_KERNEL_NORM_LANES, KB_ANY_FORMAT, 2,
						 (uint32_t[]){p->b->caps.subgroup, n->add != 0}, err, &pipeline)
				   : kb__op_vk_pipeline(p->b, KB_KERNEL_NORM, KB_ANY_FORMAT, 1, &wide, err, &pipeline);
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
		.digits = p->fixed.address,
		.rows = rows_max(p, n->count),
	};
	if (makes_fixed(p, node))
		return plan_norm_fixed(p, node, &push, err);
	return add(p, node, 1, pipeline, n->groups, 1, n->count, &push, sizeof push) ? KB_OK : no_memory(err);
}

static const uint32_t acts[] = {
	[KB_ACT_SILU] = KB_ROWS_SILU, [KB_ACT_GELU_TANH] = KB_ROWS_GELU_TANH, [KB_ACT_GELU_ERF] = KB_ROWS_GELU_ERF};

// How a group of a matmul kernel is shaped: weights are read once for `tokens` rows of x, and x once for `unit_rows`
// rows of the matrix.
struct matmul_shape {
	enum kb_kernel kernel;
	uint32_t tokens, unit_rows;
	uint32_t n_spec, spec[4];
};

// Rows of x up to which a GPU streams weights; for more it makes tiles.
#define STREAM_TOKENS 8u
#define TILE_TOKENS 32u
#define TILE_ROWS 64u
#define MATRICES_TOKENS 64u    // a tile of cooperative matrices
#define MATRICES_SHARED 18432u // bytes of a group, Q6_K

#define DOT_LANES 256u
#define DOT_SHARED 8192u // bytes of a group of matmul_dot, beside its own blocks of x

// Blocks of x that a group makes for itself; 0: they are made beforehand.
static uint32_t own_blocks(const struct kb_op_vk *b, uint32_t rows_of_x, uint32_t cols)
{
	const uint32_t blocks = cols / KB_BLOCK_COLS;
	return rows_of_x == 1 && DOT_SHARED + (blocks + 1) * FIXED_BLOCK_BYTES <= b->caps.shared_max ? blocks : 0;
}

static struct matmul_shape shape_lanes(const struct kb_op_vk *b, uint32_t rows_of_x, uint32_t glu)
{
	// Measured on lavapipe: two pairs of rows by four tokens keep all sums in registers. For one token three pairs
	// share the loads of x among more rows, and 576, 960 and 1536 rows are an even number of units.
	const uint32_t pairs = rows_of_x <= 1 ? 3 : 2, sg = b->caps.subgroup;
	uint32_t tokens = rows_of_x <= 1 ? 1 : rows_of_x <= 2 ? 2 : 4;
	return (struct matmul_shape){KB_KERNEL_MATMUL, tokens, 2 * pairs * sg, 4, {tokens, sg, pairs, glu}};
}

static struct matmul_shape shape_stream(uint32_t rows_of_x, uint32_t glu)
{
	uint32_t tokens = 1;
	if (rows_of_x > STREAM_TOKENS)
		return (struct matmul_shape){KB_KERNEL_MATMUL_TILE, TILE_TOKENS, TILE_ROWS, 0, {0}};
	while (tokens < rows_of_x)
		tokens *= 2;
	return (struct matmul_shape){KB_KERNEL_MATMUL, tokens, KB_PANEL, 2, {tokens, glu}};
}

static struct matmul_shape shape_fixed(const struct kb_op_vk *b, uint32_t rows_of_x, uint32_t cols, uint32_t glu)
{
	struct matmul_shape s = shape_stream(rows_of_x, glu);
	if (s.kernel == KB_KERNEL_MATMUL) {
		s.n_spec = 4;
		s.spec[2] = own_blocks(b, rows_of_x, cols);
		s.spec[3] = DOT_LANES;
	} else if (b->caps.byte_matrices && b->caps.subgroup == 32 && b->caps.shared_max >= MATRICES_SHARED) {
		s.kernel = KB_KERNEL_MATMUL_MATRICES;
		s.tokens = MATRICES_TOKENS;
	}
	return s;
}

static struct matmul_shape matmul_shape(
	const struct kb_op_vk *b, const struct kb_matrix *w, uint32_t rows_of_x, uint32_t glu)
{
	if (is_fixed(b, w->format))
		return shape_fixed(b, rows_of_x, w->cols, glu);
	if (b->path == KB_OP_VK_TUNED)
		return shape_lanes(b, rows_of_x, glu);
	if (b->path == KB_OP_VK_STREAM)
		return shape_stream(rows_of_x, glu);
	const uint32_t tokens = rows_of_x <= 1 ? 1 : rows_of_x <= 2 ? 2 : 4;
	return (struct matmul_shape){KB_KERNEL_MATMUL, tokens, 64, 1, {tokens}};
}

/* see op_vk_internal.h */
uint64_t kb__op_vk_fixed_bytes(const struct kb_op_vk *b, const struct kb_graph_desc *desc)
{
	const struct kb_plan p = {.desc = desc};
	uint64_t most = 0;
	for (uint32_t i = 0; i < desc->n_nodes; i++) {
		const struct kb_node_matmul *m = &desc->nodes[i].matmul;
		if (desc->nodes[i].op != KB_OP_MATMUL || !is_fixed(b, m->w.format))
			continue;
		uint64_t bytes = (uint64_t)rows_max(&p, m->count) * (m->w.cols / KB_BLOCK_COLS) * FIXED_BLOCK_BYTES;
		most = bytes > most ? bytes : most;
	}
	return most;
}

// Whether x of a matmul lies there in fixed point.
static bool has_fixed(const struct kb_plan *p, const struct kb_node_matmul *m)
{
	return p->fixed_x == m->x && p->fixed_order == order_of(m->w.format);
}

// Makes x of a matmul fixed point, unless that has been done.
static int plan_fixed(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_matmul *m = &node->matmul;
	const struct kb_pipeline *pipeline;
	const uint32_t order = order_of(m->w.format), blocks = m->w.cols / KB_BLOCK_COLS;
	if (has_fixed(p, m))
		return KB_OK;
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_FIXED, KB_ANY_FORMAT, 1, &order, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_fixed push = {.x = m->x, .outp = p->fixed.address, .cols = m->w.cols, .rows = rows_max(p, m->count)};
	struct kb_vk_dispatch *d = add(p, node, 0, pipeline, up(blocks, 64), 1, m->count, &push, sizeof push);
	if (!d)
		return no_memory(err);
	touch(d, (struct kb_vk_range){.address = m->x, .size = 4ull * rows_max(p, m->count) * m->w.cols});
	keep_fixed(p, d, m->x, order);
	return KB_OK;
}

// n matmuls of one x, or (with a glu) gate, up and glu.
static int plan_matmul(
	struct kb_plan *p, const struct kb_node *nodes, uint32_t n, const struct kb_node *glu, struct kb_err *err)
{
	const struct kb_node_matmul *m = &nodes->matmul;
	const struct kb_pipeline *pipeline;
	struct matmul_shape s = matmul_shape(p->b, &m->w, rows_max(p, m->count), glu ? 1 + acts[glu->glu.act] : 0);
	// In fixed point, made beforehand.
	const bool fixed =
		is_fixed(p->b, m->w.format) && (has_fixed(p, m) || !own_blocks(p->b, rows_max(p, m->count), m->w.cols));
	int rc = KB_OK;
	for (uint32_t i = 0; i < n && rc == KB_OK; i++)
		rc = check_matrix(&nodes[i].matmul.w, nodes[i].name, err);
	if (rc == KB_OK && fixed) {
		s.spec[2] = 0;
		rc = plan_fixed(p, nodes, err);
	}
	if (rc == KB_OK)
		rc = kb__op_vk_pipeline(p->b, s.kernel, m->w.format, s.n_spec, s.spec, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_matmul push = {
		.x = fixed ? p->fixed.address : m->x,
		.head = p->desc->step.head,
		.cols = m->w.cols,
		.panel_words = panel_words(&m->w),
		.x_rows = rows_max(p, m->count),
		.flags = m->count == KB_COUNT_OUT ? KB_MM_COUNT_OUT : 0,
	};
	uint64_t *const w[] = {&push.w0, &push.w1, &push.w2}, *const y[] = {&push.y0, &push.y1, &push.y2},
					*const bias[] = {&push.bias0, &push.bias1, &push.bias2};
	uint32_t *const rows[] = {&push.rows0, &push.rows1, &push.rows2}, groups = 0;
	uint64_t work = 0;
	for (uint32_t i = 0; i < n; i++) {
		*w[i] = nodes[i].matmul.w.addr;
		*y[i] = nodes[i].matmul.y;
		*bias[i] = nodes[i].matmul.bias;
		*rows[i] = nodes[i].matmul.w.rows;
		push.flags |= nodes[i].matmul.bias ? KB_MM_BIAS << i : 0;
		groups += up(*rows[i], s.unit_rows);
		work += (uint64_t)*rows[i] * m->w.cols;
	}
	if (glu) {
		push.y0 = glu->glu.out;
		push.flags |= KB_MM_GLU;
		groups /= 2;
	}
	struct kb_vk_dispatch *d =
		add(p, nodes, n + (glu ? 1 : 0), pipeline, groups, s.tokens, m->count, &push, sizeof push);
	if (!d)
		return no_memory(err);
	d->work = work;
	if (fixed)
		touch(d, (struct kb_vk_range){.address = p->fixed.address, .size = p->fixed.size});
	return KB_OK;
}

// keep: the kv_write that is done with it, or NULL.
static int plan_rope(
	struct kb_plan *p, const struct kb_node *node, const struct kb_node_kv_write *keep, struct kb_err *err)
{
	const struct kb_node_rope *n = &node->rope;
	const struct kb_pipeline *pipeline;
	if (n->rot % 2 || n->rot > n->head_dim || !n->rot)
		return kb_fail(err, KB_EARG, "op_vk: %s: %u of %u dimensions to rotate", node->name, n->rot, n->head_dim);
	const uint32_t halves = n->kind == KB_ROPE_HALVES;
	// Heads go one after another on a processor's few threads, side by side on a GPU.
	const uint32_t heads_apart = keep && p->b->path == KB_OP_VK_STREAM ? n->kv_heads : 1;
	int rc = kb__op_vk_pipeline(p->b, keep ? KB_KERNEL_ROPE_KEEP : KB_KERNEL_ROPE, KB_ANY_FORMAT, keep ? 2 : 0,
		(uint32_t[]){halves, heads_apart}, err, &pipeline);
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
		.flags = halves ? KB_ROPE_HALVES_FLAG : 0,
		.mscale = n->mscale,
	};
	uint32_t groups = up(n->rot / 2, 64);
	if (keep) {
		push.v = keep->v;
		push.slot = p->desc->step.slot;
		push.k_cache = keep->k_cache;
		push.v_cache = keep->v_cache;
		groups = up(n->rot / 4, 16) * heads_apart;
	}
	return add(p, node, keep ? 2 : 1, pipeline, groups, 1, KB_COUNT_TOKENS, &push, sizeof push) ? KB_OK
																								: no_memory(err);
}

static int plan_kv_write(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_kv_write *n = &node->kv_write;
	const struct kb_pipeline *pipeline;
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
	return add(p, node, 1, pipeline, up(push.width / 2, 64), 1, KB_COUNT_TOKENS, &push, sizeof push) ? KB_OK
																									 : no_memory(err);
}

// Query heads of one group: as many as share a kv head and whose sums, `floats` a lane and head, fit.
static uint32_t shared_heads(const struct kb_node_attention *n, uint32_t floats)
{
	uint32_t group = n->heads / n->kv_heads, together = KB_ATTENTION_LANE_FLOATS / floats;
	together = together < KB_ATTENTION_HEADS_MAX ? together : KB_ATTENTION_HEADS_MAX;
	together = together < group ? together : group;
	while (together > 1 && group % together)
		together--;
	return together ? together : 1;
}

// Whether the positions of a head are shared among groups: for few tokens there would be too few groups.
static bool is_split(const struct kb_op_vk *b, const struct kb_graph_desc *desc, const struct kb_node_attention *n)
{
	return b->path == KB_OP_VK_STREAM && n->head_dim % 8 == 0 && desc->max_tokens <= STREAM_TOKENS;
}

/* see op_vk_internal.h */
uint64_t kb__op_vk_parts_bytes(const struct kb_op_vk *b, const struct kb_graph_desc *desc, uint64_t *ret_arrived)
{
	uint64_t heads = 0;
	for (uint32_t i = 0; i < desc->n_nodes; i++)
		if (desc->nodes[i].op == KB_OP_ATTENTION && is_split(b, desc, &desc->nodes[i].attention) &&
			desc->nodes[i].attention.heads > heads)
			heads = desc->nodes[i].attention.heads;
	*ret_arrived = 4 * heads * desc->max_tokens;
	return 4ull * KB_ATTENTION_PART_FLOATS * KB_ATTENTION_RANGES * heads * desc->max_tokens;
}

// ret_together: heads of a group.
static int attention_kernel(struct kb_plan *p, const struct kb_node_attention *n, uint32_t *ret_together,
	struct kb_err *err, const struct kb_pipeline **ret)
{
	const uint32_t sg = p->b->caps.subgroup, slice = up(n->head_dim, 16);
	if (p->b->path == KB_OP_VK_TUNED && n->head_dim % 4 == 0) {
		*ret_together = shared_heads(n, up(n->head_dim, sg));
		return kb__op_vk_pipeline(p->b, KB_KERNEL_ATTENTION_LANES, KB_ANY_FORMAT, 4,
			(uint32_t[]){*ret_together, sg, n->head_dim, n->softcap > 0}, err, ret);
	}
	if (p->b->path == KB_OP_VK_STREAM && n->head_dim % 8 == 0) {
		// For few tokens more groups are worth more than K and V read once for several heads.
		const uint32_t group = n->heads / n->kv_heads;
		*ret_together = is_split(p->b, p->desc, n) || group % 2 ? 1 : group % 4 ? 2 : 4;
		return kb__op_vk_pipeline(p->b, KB_KERNEL_ATTENTION_STREAM, KB_ANY_FORMAT, 3,
			(uint32_t[]){*ret_together, n->head_dim, is_split(p->b, p->desc, n)}, err, ret);
	}
	*ret_together = shared_heads(n, 2 * slice);
	return kb__op_vk_pipeline(
		p->b, KB_KERNEL_ATTENTION, KB_ANY_FORMAT, 2, (uint32_t[]){*ret_together, slice}, err, ret);
}

static int plan_attention(struct kb_plan *p, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_node_attention *n = &node->attention;
	const struct kb_pipeline *pipeline;
	if (n->head_dim % 2 || n->head_dim > 256 || !n->head_dim)
		return kb_fail(
			err, KB_EUNSUPPORTED, "op_vk: %s: head_dim %u; even and at most 256 is supported", node->name, n->head_dim);
	if (!n->kv_heads || n->heads % n->kv_heads)
		return kb_fail(err, KB_EARG, "op_vk: %s: %u heads over %u", node->name, n->heads, n->kv_heads);
	uint32_t together;
	int rc = attention_kernel(p, n, &together, err, &pipeline);
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
		.parts = p->parts.address,
		.arrived = p->arrived,
		.heads = n->heads,
		.kv_heads = n->kv_heads,
		.head_dim = n->head_dim,
		.window = n->window,
		.scale = n->scale,
		.softcap = n->softcap,
	};
	const bool split = is_split(p->b, p->desc, n);
	const uint32_t groups = split ? n->heads * KB_ATTENTION_RANGES : n->heads / together;
	struct kb_vk_dispatch *d = add(p, node, 1, pipeline, groups, 1, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	if (split)
		touch(d, (struct kb_vk_range){.address = p->parts.address, .size = p->parts.size, .write = true});
	return KB_OK;
}

static int plan_rows(struct kb_plan *p, const struct kb_node *node, uint32_t kind, const struct kb_push_rows *push,
	enum kb_count count, struct kb_err *err)
{
	const struct kb_pipeline *pipeline;
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_ROWS, KB_ANY_FORMAT, 1, &kind, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	return add(p, node, 1, pipeline, up(push->width, KB_CHUNK), 1, count, push, sizeof *push) ? KB_OK : no_memory(err);
}

// Whether gate, up and glu can be one dispatch for so many rows.
static bool fuses_glu(const struct kb_plan *p, const struct kb_node *node)
{
	return p->b->path == KB_OP_VK_TUNED ||
		   (is_fixed(p->b, node->matmul.w.format) && rows_max(p, node->matmul.count) <= STREAM_TOKENS);
}

// Plans node i, and those after it that become one dispatch with it. ret_n: how many that were.
static int plan_node(struct kb_plan *p, uint32_t i, uint32_t *ret_n, struct kb_err *err)
{
	const struct kb_node *n = &p->desc->nodes[i];
	struct kb_push_rows rows = {0};
	switch (n->op) {
	case KB_OP_EMBED:
		return plan_embed(p, n, err);
	case KB_OP_NORM:
		return plan_norm(p, n, err);
	case KB_OP_MATMUL:
		if (fuses_glu(p, n) && kb__op_vk_glu_fits(p->desc, i)) {
			*ret_n = 3;
			return plan_matmul(p, n, 2, &n[2], err);
		}
		*ret_n = kb__op_vk_same_x(p->desc, i, KB_FUSED_MAX);
		return plan_matmul(p, n, *ret_n, NULL, err);
	case KB_OP_ROPE:
		if (p->b->path != KB_OP_VK_UNIVERSAL && kb__op_vk_rope_keeps(p->desc, i)) {
			*ret_n = 2;
			return plan_rope(p, n, &n[1].kv_write, err);
		}
		return plan_rope(p, n, NULL, err);
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
	for (uint32_t i = 0, n; i < p->desc->n_nodes && rc == KB_OK; i += n) {
		n = 1;
		// Only matmuls one after another share x in fixed point: nobody else writes x between them.
		if (p->desc->nodes[i].op != KB_OP_MATMUL)
			p->fixed_x = 0;
		rc = plan_node(p, i, &n, err);
	}
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
	struct kb_vk_dispatch *d = add(p, NULL, 0, pipeline, 1, 0, KB_COUNT_TOKENS, &push, sizeof push);
	if (!d)
		return no_memory(err);
	// It must run after everything: it conflicts with every write of the dispatch before it.
	for (uint32_t i = 0; p->n > 1 && i < p->list[p->n - 2].n_ranges; i++) {
		struct kb_vk_range r = p->list[p->n - 2].ranges[i];
		if (r.write)
			touch(d, (struct kb_vk_range){.address = r.address, .size = r.size});
	}
	touch(d, (struct kb_vk_range){.address = result, .size = 4, .write = true});
	return KB_OK;
}

/* see op_vk_internal.h */
void kb__op_vk_plan_finish(struct kb_plan *p)
{
	free(p->list);
	free(p->pipelines);
}
