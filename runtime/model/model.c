/* see model.h */
#include "model/model.h"
#include "base/limits.h"
#include "model/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SEQS 32u

// --- creating ----------------------------------------------------------------

static int check_options(
	const struct kb_hparams *h, const struct kb_model_options *o, struct kb_err *err, struct kb_model_info *ret)
{
	struct kb_model_info i = {0};
	uint32_t kv_tokens = o->kv_tokens ? o->kv_tokens : h->context;
	i.max_tokens = o->max_tokens ? o->max_tokens : KB_STEP_TOKENS_MAX;
	i.max_seqs = o->max_seqs ? o->max_seqs : DEFAULT_SEQS;
	i.max_out = o->max_out ? o->max_out : i.max_seqs;
	i.kv_pages = (uint32_t)(((uint64_t)kv_tokens + KB_KV_PAGE_TOKENS - 1) / KB_KV_PAGE_TOKENS);
	if (i.max_tokens > KB_STEP_TOKENS_MAX)
		return kb_fail(err, KB_EARG, "a step of %u tokens: the most is %u", i.max_tokens, KB_STEP_TOKENS_MAX);
	if (kv_tokens > KB_MAX_CONTEXT || i.max_seqs > KB_MAX_SEQS)
		return kb_fail(err, KB_EARG, "a KV cache of %u tokens for %u sequences: the most is %u for %u", kv_tokens,
			i.max_seqs, KB_MAX_CONTEXT, KB_MAX_SEQS);
	if (i.max_out > i.max_tokens)
		i.max_out = i.max_tokens; // every row of logits is one token's
	*ret = i;
	return 0;
}

static void fill_info(struct kb_model *m, const struct kb_model_source *source)
{
	const struct kb_hparams *h = &m->h;
	struct kb_model_info *i = &m->info;
	struct kb_str name;
	if (kb_meta_str(&source->meta, "general.name", &name) == 0) {
		size_t n = name.len < sizeof m->name ? name.len : sizeof m->name - 1;
		memcpy(m->name, name.data, n);
	}
	i->arch = h->family->arch;
	i->name = m->name;
	i->layers = h->layers;
	i->width = h->width;
	i->heads = h->heads;
	i->kv_heads = h->kv_heads;
	i->head_dim = h->head_dim;
	i->ff = h->ff;
	i->vocab = h->vocab;
	i->context = h->context;
	i->parameters = m->w.parameters;
	i->weight_bytes = m->w.bytes;
	i->weight_bytes_per_token = m->w.bytes_per_token;
	i->kv_bytes_per_token = UINT64_C(2) * h->layers * h->kv_heads * h->head_dim * sizeof(uint16_t);
	i->kv_bytes = i->kv_bytes_per_token * i->kv_pages * KB_KV_PAGE_TOKENS;
	i->scratch_bytes = m->scratch.size + m->logits.size + m->arrays.size + m->rope.size;
}

// The step's arrays in one allocation: their addresses for the nodes, and our view of them.
static int make_arrays(struct kb_model *m, struct kb_err *err)
{
	const struct kb_model_info *i = &m->info;
	uint64_t at = 256; // the head comes first
	const struct {
		kb_addr *addr;
		uint32_t **host;
		uint64_t count;
	} arrays[] = {
		{&m->step.token, &m->token, i->max_tokens},
		{&m->step.position, &m->position, i->max_tokens},
		{&m->step.slot, &m->slot, i->max_tokens},
		{&m->step.seq, &m->seq, i->max_tokens},
		{&m->step.page_table, &m->page_table, (uint64_t)i->max_seqs * i->kv_pages},
		{&m->step.out_row, &m->out_row, i->max_out},
	};
	_Static_assert(sizeof(struct kb_step_head) <= 256, "the head has its place");
	uint64_t offset[sizeof arrays / sizeof *arrays];
	for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++) {
		offset[a] = at;
		at += (arrays[a].count * sizeof(uint32_t) + 255) / 256 * 256;
	}
	int e = m->backend->ops->alloc(m->backend, KB_MEM_HOST, at, "step arrays", err, &m->arrays);
	if (e)
		return e;
	for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++) {
		*arrays[a].addr = m->arrays.addr + offset[a];
		*arrays[a].host = (uint32_t *)(void *)((uint8_t *)m->arrays.host + offset[a]);
	}
	m->step.head = m->arrays.addr;
	m->head = m->arrays.host;
	m->head->pages_per_seq = i->kv_pages;
	m->last_position = calloc(i->max_seqs, sizeof *m->last_position);
	return m->last_position ? 0 : kb_fail(err, KB_ENOMEM, "no memory for the sequences of a step");
}

static int make_rope(struct kb_model *m, struct kb_err *err)
{
	const struct kb_hparams *h = &m->h;
	uint32_t half = h->rot / 2;
	int e = m->backend->ops->alloc(
		m->backend, KB_MEM_HOST, UINT64_C(2) * half * sizeof(float), "rotation frequencies", err, &m->rope);
	if (e)
		return e;
	float *to = m->rope.host;
	for (uint32_t i = 0; i < half; i++) {
		double power = -2.0 * i / h->rot, factor = m->w.rope_factors ? (double)m->w.rope_factors[i] : 1;
		to[i] = (float)(pow(h->rope_base, power) / h->rope_factor / factor);
		to[half + i] = (float)(pow(h->window_rope_base, power) / h->window_rope_factor / factor);
	}
	return 0;
}

static int make_kv(struct kb_model *m, struct kb_err *err)
{
	const struct kb_hparams *h = &m->h;
	uint64_t slots = (uint64_t)m->info.kv_pages * KB_KV_PAGE_TOKENS;
	uint64_t size = slots * h->kv_heads * h->head_dim * sizeof(uint16_t);
	m->k_cache = calloc(h->layers, sizeof *m->k_cache);
	m->v_cache = calloc(h->layers, sizeof *m->v_cache);
	if (!m->k_cache || !m->v_cache)
		return kb_fail(err, KB_ENOMEM, "no memory for the table of KV caches");
	for (uint32_t i = 0; i < h->layers; i++) {
		int e = m->backend->ops->alloc(m->backend, KB_MEM_DEVICE, size, "kv cache", err, &m->k_cache[i]);
		if (!e)
			e = m->backend->ops->alloc(m->backend, KB_MEM_DEVICE, size, "kv cache", err, &m->v_cache[i]);
		if (e)
			return kb_err_wrap(err, "KV cache of %llu tokens (fewer take less memory): ", (unsigned long long)slots);
	}
	return 0;
}

static int make_scratch(struct kb_model *m, struct kb_err *err)
{
	uint64_t logits = (uint64_t)m->info.max_out * m->h.vocab * sizeof(float);
	int e =
		m->backend->ops->alloc(m->backend, KB_MEM_DEVICE, kb__forward_scratch(m, 0), "activations", err, &m->scratch);
	if (e)
		return e;
	kb__forward_scratch(m, m->scratch.addr);
	return m->backend->ops->alloc(m->backend, KB_MEM_HOST, logits, "logits", err, &m->logits);
}

int kb_model_create(struct kb_backend *backend, const struct kb_model_source *source,
	const struct kb_model_options *options, struct kb_err *err, struct kb_model **ret)
{
	struct kb_model_options defaults = {0};
	struct kb_model *m = calloc(1, sizeof *m);
	if (!m)
		return kb_fail(err, KB_ENOMEM, "no memory for a model");
	m->backend = backend;
	options = options ? options : &defaults;
	int e = kb__hparams_read(&source->meta, err, &m->h);
	if (!e)
		e = check_options(&m->h, options, err, &m->info);
	if (!e)
		e = kb__weights_init(&m->w, backend, source, options, &m->h, err);
	if (!e)
		e = make_arrays(m, err);
	if (!e)
		e = make_rope(m, err);
	if (!e)
		e = make_kv(m, err);
	if (!e)
		e = make_scratch(m, err);
	if (!e)
		e = kb__forward_names(m, err, &m->node_names);
	if (e) {
		kb_model_destroy(m);
		return e;
	}
	fill_info(m, source);
	*ret = m;
	return 0;
}

static void release(struct kb_model *m, struct kb_mem *mem)
{
	if (mem->addr)
		m->backend->ops->free(m->backend, mem);
}

void kb_model_destroy(struct kb_model *m)
{
	if (!m)
		return;
	for (uint32_t t = 0; t < KB_TOKEN_BUCKETS; t++)
		for (uint32_t o = 0; o < KB_OUT_BUCKETS; o++)
			if (m->graphs[t][o])
				m->backend->ops->graph_destroy(m->backend, m->graphs[t][o]);
	for (uint32_t i = 0; i < m->h.layers && m->k_cache && m->v_cache; i++) {
		release(m, &m->k_cache[i]);
		release(m, &m->v_cache[i]);
	}
	release(m, &m->arrays);
	release(m, &m->logits);
	release(m, &m->rope);
	release(m, &m->scratch);
	kb__weights_finish(&m->w, m->backend);
	free(m->k_cache);
	free(m->v_cache);
	free(m->last_position);
	free(m->node_names);
	free(m);
}

const struct kb_model_info *kb_model_info(const struct kb_model *m)
{
	return &m->info;
}

uint32_t *kb_model_page_row(struct kb_model *m, uint32_t seq)
{
	return m->page_table + (size_t)seq * m->info.kv_pages;
}

// --- a step ------------------------------------------------------------------

static uint32_t log2_up(uint32_t n)
{
	return n <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(n - 1);
}

static uint32_t at_most(uint32_t n, uint32_t max)
{
	return n < max ? n : max;
}

// The graph for the next power of two of tokens and of outputs.
static int graph_for(struct kb_model *m, uint32_t n_tokens, uint32_t n_out, struct kb_err *err, struct kb_graph **ret)
{
	uint32_t t = log2_up(n_tokens), o = n_out ? 1 + log2_up(n_out) : 0;
	struct kb_graph **cached = &m->graphs[t][o];
	if (!*cached) {
		struct kb_node *nodes = malloc(kb__forward_nodes_max(m) * sizeof *nodes);
		if (!nodes)
			return kb_fail(err, KB_ENOMEM, "no memory for a graph's nodes");
		struct kb_graph_desc desc = {
			.nodes = nodes,
			.n_nodes = kb__forward_build(m, n_out > 0, nodes),
			.step = m->step,
			.max_tokens = at_most(1u << t, m->info.max_tokens),
			.max_out = o ? at_most(1u << (o - 1), m->info.max_out) : 0,
		};
		int e = m->backend->ops->graph_create(m->backend, &desc, err, cached);
		free(nodes);
		if (e)
			return e;
	}
	*ret = *cached;
	return 0;
}

// Every index that a kernel will use as an address.
static int check_rows(struct kb_model *m, const struct kb_batch *b, struct kb_err *err)
{
	const struct kb_model_info *i = &m->info;
	uint32_t slots = i->kv_pages * KB_KV_PAGE_TOKENS;
	memset(m->last_position, 0, i->max_seqs * sizeof *m->last_position);
	for (uint32_t t = 0; t < b->n_tokens; t++) {
		if (b->token[t] >= i->vocab)
			return kb_fail(err, KB_EARG, "row %u: token %u of a vocabulary of %u", t, b->token[t], i->vocab);
		if (b->seq[t] >= i->max_seqs)
			return kb_fail(err, KB_EARG, "row %u: sequence %u of %u", t, b->seq[t], i->max_seqs);
		if (b->position[t] >= slots)
			return kb_fail(err, KB_EARG, "row %u: position %u in a cache of %u", t, b->position[t], slots);
		if (b->slot[t] >= slots && b->slot[t] != KB_NO_SLOT)
			return kb_fail(err, KB_EARG, "row %u: slot %u in a cache of %u", t, b->slot[t], slots);
		if (b->position[t] > m->last_position[b->seq[t]])
			m->last_position[b->seq[t]] = b->position[t];
	}
	for (uint32_t o = 0; o < b->n_out; o++)
		if (b->out_row[o] >= b->n_tokens)
			return kb_fail(err, KB_EARG, "output %u: row %u of %u", o, b->out_row[o], b->n_tokens);
	return 0;
}

static int check_pages(struct kb_model *m, const struct kb_batch *b, struct kb_err *err)
{
	uint32_t pages = m->info.kv_pages;
	for (uint32_t t = 0; t < b->n_tokens; t++) {
		uint32_t seq = b->seq[t];
		if (b->position[t] != m->last_position[seq])
			continue; // once a sequence: at its last token
		const uint32_t *row = kb_model_page_row(m, seq);
		for (uint32_t p = 0; p <= b->position[t] / KB_KV_PAGE_TOKENS; p++)
			if (row[p] >= pages)
				return kb_fail(
					err, KB_EARG, "sequence %u: entry %u of its page table is %u of %u", seq, p, row[p], pages);
	}
	return 0;
}

int kb_model_step(struct kb_model *m, const struct kb_batch *b, struct kb_err *err, const float **ret_logits)
{
	struct kb_graph *graph = NULL;
	size_t rows = b->n_tokens * sizeof(uint32_t);
	if (b->n_tokens == 0 || b->n_tokens > m->info.max_tokens)
		return kb_fail(err, KB_EARG, "a step of %u tokens: 1 to %u are possible", b->n_tokens, m->info.max_tokens);
	if (b->n_out > b->n_tokens || b->n_out > m->info.max_out)
		return kb_fail(err, KB_EARG, "%u rows of logits in a step of %u tokens: at most %u are possible", b->n_out,
			b->n_tokens, m->info.max_out);
	int e = check_rows(m, b, err);
	if (!e)
		e = check_pages(m, b, err);
	if (!e)
		e = graph_for(m, b->n_tokens, b->n_out, err, &graph);
	if (e)
		return e;
	memcpy(m->token, b->token, rows);
	memcpy(m->position, b->position, rows);
	memcpy(m->slot, b->slot, rows);
	memcpy(m->seq, b->seq, rows);
	if (b->n_out > 0)
		memcpy(m->out_row, b->out_row, b->n_out * sizeof(uint32_t));
	m->head->n_tokens = b->n_tokens;
	m->head->n_out = b->n_out;
	m->head->canary++;
	e = m->backend->ops->graph_run(m->backend, graph, err);
	if (e)
		return e;
	*ret_logits = m->logits.host;
	return 0;
}
