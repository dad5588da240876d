// What nodes touch, and which neighbours may become one dispatch. Dispatches cost more than small ops do.
#include "op/op_vk_internal.h"

static struct kb_vk_range range(kb_addr address, uint64_t floats, bool write)
{
	return (struct kb_vk_range){.address = address, .size = 4 * floats, .write = write};
}

// The node does not know how large a cache is; its first bytes stand for it.
static struct kb_vk_range cache(kb_addr address, bool write)
{
	return range(address, 1, write);
}

static uint32_t access_matmul(const struct kb_node_matmul *n, uint64_t rows, struct kb_vk_range *ret)
{
	ret[0] = range(n->x, rows * n->w.cols, false);
	ret[1] = range(n->y, rows * n->w.rows, true);
	return 2;
}

static uint32_t access_norm(const struct kb_node_norm *n, uint64_t rows, struct kb_vk_range *ret)
{
	uint64_t floats = rows * n->width * n->groups;
	ret[0] = range(n->x, floats, n->add != 0);
	ret[1] = range(n->out, floats, true);
	ret[2] = range(n->add, floats, false);
	return n->add ? 3 : 2;
}

static uint32_t access_attention(const struct kb_node_attention *n, uint64_t tokens, struct kb_vk_range *ret)
{
	uint64_t floats = tokens * n->heads * n->head_dim;
	ret[0] = range(n->q, floats, false);
	ret[1] = range(n->out, floats, true);
	ret[2] = cache(n->k_cache, false);
	ret[3] = cache(n->v_cache, false);
	return 4;
}

/* see op_vk_internal.h */
uint32_t kb__op_vk_access(
	const struct kb_graph_desc *d, const struct kb_node *n, struct kb_vk_range ret[KB_NODE_RANGES_MAX])
{
	const uint64_t rows[] = {[KB_COUNT_TOKENS] = d->max_tokens, [KB_COUNT_OUT] = d->max_out};
	const uint64_t tokens = d->max_tokens;
	switch (n->op) {
	case KB_OP_EMBED:
		ret[0] = range(n->embed.out, tokens * n->embed.table.cols, true);
		return 1;
	case KB_OP_NORM:
		return access_norm(&n->norm, rows[n->norm.count], ret);
	case KB_OP_MATMUL:
		return access_matmul(&n->matmul, rows[n->matmul.count], ret);
	case KB_OP_ROPE:
		ret[0] = range(n->rope.q, tokens * n->rope.heads * n->rope.head_dim, true);
		ret[1] = range(n->rope.k, tokens * n->rope.kv_heads * n->rope.head_dim, true);
		return n->rope.k ? 2 : 1;
	case KB_OP_KV_WRITE:
		ret[0] = range(n->kv_write.k, tokens * n->kv_write.kv_heads * n->kv_write.head_dim, false);
		ret[1] = range(n->kv_write.v, tokens * n->kv_write.kv_heads * n->kv_write.head_dim, false);
		ret[2] = cache(n->kv_write.k_cache, true);
		ret[3] = cache(n->kv_write.v_cache, true);
		return 4;
	case KB_OP_ATTENTION:
		return access_attention(&n->attention, tokens, ret);
	case KB_OP_GLU:
		ret[0] = range(n->glu.gate, tokens * n->glu.width, false);
		ret[1] = range(n->glu.up, tokens * n->glu.width, false);
		ret[2] = range(n->glu.out, tokens * n->glu.width, true);
		return 3;
	case KB_OP_ADD:
		ret[0] = range(n->add.x, tokens * n->add.width, true);
		ret[1] = range(n->add.y, tokens * n->add.width, false);
		return 2;
	case KB_OP_GATHER:
		ret[0] = range(n->gather.x, tokens * n->gather.width, false);
		ret[1] = range(n->gather.out, rows[KB_COUNT_OUT] * n->gather.width, true);
		return 2;
	case KB_OP_SOFTCAP:
		ret[0] = range(n->softcap.x, rows[n->softcap.count] * n->softcap.width, true);
		return 1;
	case KB_OPS:
		break;
	}
	return 0;
}

static bool meet(struct kb_vk_range a, struct kb_vk_range b)
{
	return a.address < b.address + b.size && b.address < a.address + a.size;
}

// Whether nothing from node i on reads r before all of it is written anew. What lives to the end is not dead.
static bool is_dead(const struct kb_graph_desc *d, uint32_t i, struct kb_vk_range r)
{
	for (; i < d->n_nodes; i++) {
		struct kb_vk_range a[KB_NODE_RANGES_MAX];
		uint32_t n = kb__op_vk_access(d, &d->nodes[i], a);
		bool is_over = false;
		for (uint32_t k = 0; k < n; k++) {
			// In place (written by a node that is not a pure producer) counts as read.
			bool pure = a[k].write && (d->nodes[i].op == KB_OP_MATMUL || d->nodes[i].op == KB_OP_EMBED);
			if (!pure && meet(a[k], r))
				return false;
			is_over |= pure && a[k].address <= r.address && a[k].address + a[k].size >= r.address + r.size;
		}
		if (is_over)
			return true;
	}
	return false;
}

/* see op_vk_internal.h */
uint32_t kb__op_vk_same_x(const struct kb_graph_desc *d, uint32_t i, uint32_t most)
{
	const struct kb_node *first = &d->nodes[i];
	uint32_t n = 1;
	for (; n < most && i + n < d->n_nodes; n++) {
		const struct kb_node *next = &d->nodes[i + n];
		struct kb_vk_range y, other[KB_NODE_RANGES_MAX];
		if (next->op != KB_OP_MATMUL || next->matmul.x != first->matmul.x ||
			next->matmul.count != first->matmul.count || next->matmul.w.format != first->matmul.w.format ||
			next->matmul.w.cols != first->matmul.w.cols)
			break;
		kb__op_vk_access(d, next, other);
		y = other[1];
		bool clash = meet(y, other[0]);
		for (uint32_t k = 0; k < n; k++) {
			kb__op_vk_access(d, &d->nodes[i + k], other);
			clash |= meet(y, other[1]);
		}
		if (clash)
			break;
	}
	return n;
}

/* see op_vk_internal.h */
bool kb__op_vk_glu_fits(const struct kb_graph_desc *d, uint32_t i)
{
	struct kb_vk_range gate[KB_NODE_RANGES_MAX], up[KB_NODE_RANGES_MAX], glu[KB_NODE_RANGES_MAX];
	if (i + 2 >= d->n_nodes || d->nodes[i + 2].op != KB_OP_GLU || kb__op_vk_same_x(d, i, 2) != 2)
		return false;
	const struct kb_node *g = &d->nodes[i], *u = &d->nodes[i + 1], *n = &d->nodes[i + 2];
	kb__op_vk_access(d, g, gate);
	kb__op_vk_access(d, u, up);
	kb__op_vk_access(d, n, glu);
	return g->matmul.count == KB_COUNT_TOKENS && !g->matmul.bias && !u->matmul.bias && n->glu.gate == g->matmul.y &&
		   n->glu.up == u->matmul.y && n->glu.width == g->matmul.w.rows && n->glu.width == u->matmul.w.rows &&
		   !meet(glu[2], gate[0]) && (n->glu.out == g->matmul.y || is_dead(d, i + 3, gate[1])) &&
		   is_dead(d, i + 3, up[1]);
}

/* see op_vk_internal.h */
bool kb__op_vk_rope_keeps(const struct kb_graph_desc *d, uint32_t i)
{
	if (i + 1 >= d->n_nodes || d->nodes[i + 1].op != KB_OP_KV_WRITE)
		return false;
	const struct kb_node_rope *r = &d->nodes[i].rope;
	const struct kb_node_kv_write *w = &d->nodes[i + 1].kv_write;
	return r->k && r->k == w->k && r->kv_heads == w->kv_heads && r->head_dim == w->head_dim && r->rot == r->head_dim &&
		   r->rot % 4 == 0;
}
