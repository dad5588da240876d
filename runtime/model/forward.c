/* see forward.h */
#include "model/forward.h"

#include <stdio.h>
#include <stdlib.h>

enum label {
	L_ATTN_NORM,
	L_Q,
	L_K,
	L_V,
	L_Q_NORM,
	L_K_NORM,
	L_ROPE,
	L_KV,
	L_ATTENTION,
	L_GATHER_ATT,
	L_GATHER_X,
	L_OUT,
	L_POST_ATTN,
	L_FF_NORM,
	L_GATE,
	L_UP,
	L_GLU,
	L_DOWN,
	L_POST_FF,
	LAYER_LABELS,
	// Not of a layer:
	L_EMBED = LAYER_LABELS,
	L_OUTPUT_NORM,
	L_OUTPUT,
	L_SOFTCAP,
	LABELS
};

static const char *const labels[LABELS] = {
	[L_ATTN_NORM] = "attn_norm",
	[L_Q] = "attn_q",
	[L_K] = "attn_k",
	[L_V] = "attn_v",
	[L_Q_NORM] = "attn_q_norm",
	[L_K_NORM] = "attn_k_norm",
	[L_ROPE] = "rope",
	[L_KV] = "kv_write",
	[L_ATTENTION] = "attention",
	[L_GATHER_ATT] = "gather_att",
	[L_GATHER_X] = "gather_x",
	[L_OUT] = "attn_output",
	[L_POST_ATTN] = "post_attn_norm",
	[L_FF_NORM] = "ffn_norm",
	[L_GATE] = "ffn_gate",
	[L_UP] = "ffn_up",
	[L_GLU] = "glu",
	[L_DOWN] = "ffn_down",
	[L_POST_FF] = "post_ffw_norm",
	[L_EMBED] = "token_embd",
	[L_OUTPUT_NORM] = "output_norm",
	[L_OUTPUT] = "output",
	[L_SOFTCAP] = "logit_softcap",
};

struct build {
	const struct kb_model *m;
	struct kb_node *nodes;
	uint32_t n, layer;
	kb_addr x, h, att;   // of m->s; they change places where the output rows are picked
	enum kb_count count; // which rows are still of interest
};

uint64_t kb__forward_scratch(struct kb_model *m, kb_addr base)
{
	const struct kb_hparams *h = &m->h;
	uint64_t at = 0;
	const struct {
		kb_addr *area;
		uint64_t width;
	} areas[] = {
		{&m->s.x, h->width},
		{&m->s.h, h->width},
		{&m->s.y, h->width},
		{&m->s.q, (uint64_t)h->heads * h->head_dim},
		{&m->s.att, (uint64_t)h->heads * h->head_dim},
		{&m->s.k, (uint64_t)h->kv_heads * h->head_dim},
		{&m->s.v, (uint64_t)h->kv_heads * h->head_dim},
		{&m->s.gate, h->ff},
		{&m->s.up, h->ff},
	};
	for (size_t i = 0; i < sizeof areas / sizeof *areas; i++) {
		*areas[i].area = base + at;
		at += (areas[i].width * m->info.max_tokens * sizeof(float) + 255) / 256 * 256;
	}
	return at;
}

int kb__forward_names(const struct kb_model *m, struct kb_err *err, char (**ret_names)[24])
{
	char(*names)[24] = calloc((size_t)m->h.layers * LAYER_LABELS, sizeof *names);
	if (!names)
		return kb_fail(err, KB_ENOMEM, "no memory for the names of nodes");
	for (uint32_t layer = 0; layer < m->h.layers; layer++)
		for (uint32_t i = 0; i < LAYER_LABELS; i++)
			snprintf(names[layer * LAYER_LABELS + i], sizeof *names, "blk.%u.%s", layer, labels[i]);
	*ret_names = names;
	return 0;
}

static void push(struct build *b, enum label label, struct kb_node node)
{
	node.name =
		label < LAYER_LABELS ? b->m->node_names[b->layer * (uint32_t)LAYER_LABELS + (uint32_t)label] : labels[label];
	b->nodes[b->n++] = node;
}

static void push_norm(struct build *b, enum label label, kb_addr x, kb_addr add, kb_addr out, kb_addr weight)
{
	push(b, label,
		(struct kb_node){.op = KB_OP_NORM,
			.norm = {.x = x,
				.add = add,
				.out = out,
				.weight = weight,
				.width = b->m->h.width,
				.groups = 1,
				.eps = b->m->h.eps,
				.count = b->count}});
}

// Each head of q or k on its own, in place.
static void push_head_norm(struct build *b, enum label label, kb_addr x, kb_addr weight, uint32_t heads)
{
	push(b, label,
		(struct kb_node){.op = KB_OP_NORM,
			.norm = {
				.x = x, .out = x, .weight = weight, .width = b->m->h.head_dim, .groups = heads, .eps = b->m->h.eps}});
}

static void push_matmul(struct build *b, enum label label, struct kb_matrix w, kb_addr bias, kb_addr x, kb_addr y)
{
	push(b, label,
		(struct kb_node){.op = KB_OP_MATMUL, .matmul = {.w = w, .x = x, .y = y, .bias = bias, .count = b->count}});
}

// From the residual to K and V in the cache. add: what the layer before left to be added, or 0.
static void push_qkv(struct build *b, kb_addr add)
{
	const struct kb_hparams *h = &b->m->h;
	const struct kb_scratch *s = &b->m->s;
	const struct kb_layer_weights *w = &b->m->w.layers[b->layer];
	kb_addr frequencies = b->m->rope.addr;
	if (kb__hparams_is_windowed(h, b->layer))
		frequencies += h->rot / 2 * sizeof(float);
	push_norm(b, L_ATTN_NORM, b->x, add, b->h, w->vector[KB_V_ATTN_NORM]);
	push_matmul(b, L_Q, w->matrix[KB_W_Q], w->vector[KB_V_Q_BIAS], b->h, s->q);
	push_matmul(b, L_K, w->matrix[KB_W_K], w->vector[KB_V_K_BIAS], b->h, s->k);
	push_matmul(b, L_V, w->matrix[KB_W_V], w->vector[KB_V_V_BIAS], b->h, s->v);
	if (w->vector[KB_V_Q_NORM])
		push_head_norm(b, L_Q_NORM, s->q, w->vector[KB_V_Q_NORM], h->heads);
	if (w->vector[KB_V_K_NORM])
		push_head_norm(b, L_K_NORM, s->k, w->vector[KB_V_K_NORM], h->kv_heads);
	push(b, L_ROPE,
		(struct kb_node){.op = KB_OP_ROPE,
			.rope = {.q = s->q,
				.k = s->k,
				.inv_freq = frequencies,
				.heads = h->heads,
				.kv_heads = h->kv_heads,
				.head_dim = h->head_dim,
				.rot = h->rot,
				.mscale = 1,
				.kind = h->family->rope}});
	push(b, L_KV,
		(struct kb_node){.op = KB_OP_KV_WRITE,
			.kv_write = {.k = s->k,
				.v = s->v,
				.k_cache = b->m->k_cache[b->layer].addr,
				.v_cache = b->m->v_cache[b->layer].addr,
				.kv_heads = h->kv_heads,
				.head_dim = h->head_dim}});
}

static void push_attention(struct build *b)
{
	const struct kb_hparams *h = &b->m->h;
	push(b, L_ATTENTION,
		(struct kb_node){.op = KB_OP_ATTENTION,
			.attention = {.q = b->m->s.q,
				.out = b->att,
				.k_cache = b->m->k_cache[b->layer].addr,
				.v_cache = b->m->v_cache[b->layer].addr,
				.heads = h->heads,
				.kv_heads = h->kv_heads,
				.head_dim = h->head_dim,
				.window = kb__hparams_is_windowed(h, b->layer) ? h->window : 0,
				.scale = h->attention_scale,
				.softcap = h->score_softcap}});
}

// After the last attention only the rows that get logits matter. q and h are free by then and take them.
static void push_pick_outputs(struct build *b)
{
	const struct kb_hparams *h = &b->m->h;
	kb_addr x = b->x;
	push(b, L_GATHER_ATT,
		(struct kb_node){
			.op = KB_OP_GATHER, .gather = {.x = b->att, .out = b->m->s.q, .width = h->heads * h->head_dim}});
	push(b, L_GATHER_X, (struct kb_node){.op = KB_OP_GATHER, .gather = {.x = b->x, .out = b->h, .width = h->width}});
	b->att = b->m->s.q;
	b->x = b->h;
	b->h = x;
	b->count = KB_COUNT_OUT;
}

// From attention's output to what is to be added to the residual, in s->y.
static void push_output_and_ff(struct build *b)
{
	const struct kb_scratch *s = &b->m->s;
	const struct kb_layer_weights *w = &b->m->w.layers[b->layer];
	push_matmul(b, L_OUT, w->matrix[KB_W_OUT], w->vector[KB_V_OUT_BIAS], b->att, s->y);
	if (w->vector[KB_V_POST_ATTN_NORM])
		push_norm(b, L_POST_ATTN, s->y, 0, s->y, w->vector[KB_V_POST_ATTN_NORM]);
	push_norm(b, L_FF_NORM, b->x, s->y, b->h, w->vector[KB_V_FF_NORM]);
	push_matmul(b, L_GATE, w->matrix[KB_W_GATE], 0, b->h, s->gate);
	push_matmul(b, L_UP, w->matrix[KB_W_UP], 0, b->h, s->up);
	push(b, L_GLU,
		(struct kb_node){.op = KB_OP_GLU,
			.glu = {.gate = s->gate, .up = s->up, .out = s->gate, .width = b->m->h.ff, .act = b->m->h.family->act}});
	push_matmul(b, L_DOWN, w->matrix[KB_W_DOWN], 0, s->gate, s->y);
	if (w->vector[KB_V_POST_FF_NORM])
		push_norm(b, L_POST_FF, s->y, 0, s->y, w->vector[KB_V_POST_FF_NORM]);
}

static void push_logits(struct build *b)
{
	const struct kb_model *m = b->m;
	push_norm(b, L_OUTPUT_NORM, b->x, m->s.y, b->h, m->w.output_norm);
	push_matmul(b, L_OUTPUT, m->w.output, 0, b->h, m->logits.addr);
	if (m->h.logit_softcap > 0)
		push(b, L_SOFTCAP,
			(struct kb_node){.op = KB_OP_SOFTCAP,
				.softcap = {
					.x = m->logits.addr, .width = m->h.vocab, .cap = m->h.logit_softcap, .count = KB_COUNT_OUT}});
}

uint32_t kb__forward_nodes_max(const struct kb_model *m)
{
	return m->h.layers * (uint32_t)LAYER_LABELS + (uint32_t)(LABELS - LAYER_LABELS);
}

uint32_t kb__forward_build(const struct kb_model *m, bool has_logits, struct kb_node *ret_nodes)
{
	struct build b = {.m = m, .nodes = ret_nodes, .x = m->s.x, .h = m->s.h, .att = m->s.att};
	push(&b, L_EMBED,
		(struct kb_node){.op = KB_OP_EMBED, .embed = {.table = m->w.embed, .out = b.x, .scale = m->h.embed_scale}});
	for (b.layer = 0; b.layer < m->h.layers; b.layer++) {
		bool is_last = b.layer + 1 == m->h.layers;
		push_qkv(&b, b.layer > 0 ? m->s.y : 0);
		if (is_last && !has_logits)
			return b.n;
		push_attention(&b);
		if (is_last)
			push_pick_outputs(&b);
		push_output_and_ff(&b);
	}
	push_logits(&b);
	return b.n;
}
