// Running one case on both backends.
#include "base/half.h"
#include "unit/op/checkop.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// xorshift*, Vigna 2016: the same numbers everywhere.
uint64_t rng_next(void)
{
	static uint64_t s = 88172645463325252ull;
	s ^= s >> 12;
	s ^= s << 25;
	s ^= s >> 27;
	return s * 2685821657736338717ull;
}

float rng_float(void)
{
	return (float)((double)(rng_next() >> 40) / (double)(1 << 23) - 1.0);
}

void fill_floats(float *f, uint64_t n, float scale)
{
	for (uint64_t i = 0; i < n; i++)
		f[i] = scale * rng_float();
}

static void fill_halves(uint8_t *p, uint64_t n, float low, float high)
{
	for (uint64_t i = 0; i < n; i++) {
		uint16_t h = kb_f16_from_f32(low + (high - low) * 0.5f * (1 + rng_float()));
		memcpy(p + 2 * i, &h, 2);
	}
}

static void fill_block(enum kb_format f, uint8_t *p)
{
	const struct kb_format_info *i = &kb_formats[f];
	size_t quants = 16u * (i->lo + i->hi);
	if (f == KB_FMT_F32)
		fill_floats((float *)(void *)p, quants / 4, 0.2f);
	else if (f == KB_FMT_F16)
		fill_halves(p, quants / 2, -0.2f, 0.2f);
	else
		for (size_t k = 0; k < quants; k++)
			p[k] = (uint8_t)(rng_next() >> 32);
	if (f == KB_FMT_BF16)
		for (size_t k = 0; k < quants / 2; k++) {
			uint16_t h = (uint16_t)(kb_f32_bits(0.2f * rng_float()) >> 16);
			memcpy(p + 2 * k, &h, 2);
		}
	p += quants;
	if (f == KB_FMT_Q4_K || f == KB_FMT_Q5_K)
		for (size_t k = 0; k < 16u * i->scale; k++)
			p[k] = (uint8_t)(rng_next() >> 32 & 63);
	else if (f == KB_FMT_Q6_K)
		for (size_t k = 0; k < 16u * i->scale; k++)
			p[k] = (uint8_t)(rng_next() >> 32);
	else
		fill_halves(p, 8u * i->scale, f == KB_FMT_Q8_0 ? 0.0005f : -0.01f, f == KB_FMT_Q8_0 ? 0.002f : 0.02f);
}

void *random_panels(enum kb_format f, uint32_t rows, uint32_t cols, uint64_t *ret_bytes)
{
	const struct kb_format_info *i = &kb_formats[f];
	uint64_t bytes = kb_format_bytes(f, rows, cols), whole = (bytes + 4095) / 4096 * 4096;
	uint8_t *p = bytes ? aligned_alloc(4096, whole) : NULL;
	if (!p)
		return NULL;
	memset(p, 0, whole);
	uint8_t *at = p;
	while (at < p + bytes) {
		fill_halves(at, 8u * i->super, 0.0001f, 0.0008f);
		at += 16u * i->super;
		for (unsigned k = 0; k < i->super_blocks; k++, at += kb_format_block_bytes(f))
			fill_block(f, at);
	}
	*ret_bytes = bytes;
	return p;
}

// One side of a case: its memory and step arrays.
struct side {
	struct kb_backend *b;
	struct kb_mem mem[BUFS_MAX], step;
	uint32_t canary;
};

// Places in the step memory, in words.
enum {
	HEAD = 0,
	TOKEN = 16,
	POSITION = TOKEN + TOKENS_MAX,
	SLOT = POSITION + TOKENS_MAX,
	SEQ = SLOT + TOKENS_MAX,
	OUT_ROW = SEQ + TOKENS_MAX,
	PAGES = OUT_ROW + TOKENS_MAX
};

static void fail(struct score *s, const char *label, const char *text)
{
	if (!s->failed[0])
		snprintf(s->failed, sizeof s->failed, "%s: %s", label, text);
}

static bool side_open(struct side *e, struct kb_backend *b, const struct op_case *c, struct score *s)
{
	struct kb_err err = {0};
	*e = (struct side){.b = b};
	uint64_t words = PAGES + (uint64_t)c->n_seqs * c->pages_per_seq;
	if (b->ops->alloc(b, KB_MEM_HOST, 4 * words, "step", &err, &e->step) != KB_OK) {
		fail(s, c->label, err.text);
		return false;
	}
	for (int i = 0; i < c->n_bufs; i++)
		if (b->ops->alloc(b, KB_MEM_HOST, c->bufs[i].bytes, "buffer", &err, &e->mem[i]) != KB_OK) {
			fail(s, c->label, err.text);
			return false;
		}
	uint32_t *w = e->step.host;
	memcpy(w + TOKEN, c->token, sizeof c->token);
	memcpy(w + POSITION, c->position, sizeof c->position);
	memcpy(w + SLOT, c->slot, sizeof c->slot);
	memcpy(w + SEQ, c->seq, sizeof c->seq);
	memcpy(w + OUT_ROW, c->out_row, sizeof c->out_row);
	if (c->pages)
		memcpy(w + PAGES, c->pages, 4ull * c->n_seqs * c->pages_per_seq);
	w[HEAD + 2] = c->pages_per_seq;
	return true;
}

static void side_close(struct side *e)
{
	for (int i = 0; i < BUFS_MAX; i++)
		if (e->mem[i].priv)
			e->b->ops->free(e->b, &e->mem[i]);
	if (e->step.priv)
		e->b->ops->free(e->b, &e->step);
}

// Runs tokens t0 .. t0 + n - 1 in a graph that is made for `max` tokens. Buffers are filled anew.
static bool side_run(struct side *e, const struct op_case *c, uint32_t t0, uint32_t n, uint32_t max, struct score *s)
{
	struct kb_err err = {0};
	kb_addr addr[BUFS_MAX], step = e->step.addr;
	struct kb_graph *g = NULL;
	struct kb_node node = c->node;
	bool by_out = c->outs != 0;
	for (int i = 0; i < c->n_bufs; i++) {
		addr[i] = e->mem[i].addr + c->bufs[i].row_bytes * t0;
		if (c->init[i])
			memcpy(e->mem[i].host, c->init[i], c->bufs[i].bytes);
		else
			memset(e->mem[i].host, 0, c->bufs[i].bytes);
	}
	c->bind(&node, addr);
	struct kb_graph_desc d = {
		.nodes = &node,
		.n_nodes = 1,
		.step =
			{
				.head = step,
				.token = step + 4 * (TOKEN + t0),
				.position = step + 4 * (POSITION + t0),
				.slot = step + 4 * (SLOT + t0),
				.seq = step + 4 * (SEQ + t0),
				.page_table = step + 4 * PAGES,
				.out_row = step + 4 * (OUT_ROW + t0),
			},
		.max_tokens = by_out ? c->tokens : max,
		.max_out = by_out ? max : 1,
	};
	uint32_t *head = e->step.host;
	head[0] = by_out ? c->tokens : n;
	head[1] = by_out ? n : 0;
	head[3] = ++e->canary;
	int rc = e->b->ops->graph_create(e->b, &d, &err, &g);
	if (rc == KB_OK)
		rc = e->b->ops->graph_run(e->b, g, &err);
	e->b->ops->graph_destroy(e->b, g);
	if (rc != KB_OK)
		fail(s, c->label, err.text);
	return rc == KB_OK;
}

static void compare(const struct op_case *c, int i, const struct side *ref, const struct side *vk, struct score *s)
{
	const float *a = ref->mem[i].host, *b = vk->mem[i].host;
	uint64_t n = c->bufs[i].bytes / 4;
	double square = 0, wrong = 0, worst = 0;
	char text[160];
	if (c->bufs[i].half) {
		if (memcmp(a, b, c->bufs[i].bytes) != 0)
			fail(s, c->label, "f16 bits differ from the reference");
		return;
	}
	for (uint64_t k = 0; k < n; k++) {
		double e = (double)b[k] - (double)a[k];
		square += (double)a[k] * (double)a[k];
		wrong += e * e;
		worst = fabs(e) > worst || isnan(e) ? fabs(e) : worst;
	}
	double rms = sqrt(square / (double)n), nmse = square > 0 ? wrong / square : wrong;
	double error = rms > 0 ? worst / rms : worst;
	if (!(nmse <= c->nmse_max) || !(error <= c->error_max)) {
		snprintf(text, sizeof text,
			"buffer %d: NMSE %.3g (at most %.3g), largest error %.3g (at most %.3g) of rms %.3g", i, nmse, c->nmse_max,
			error, c->error_max, rms);
		fail(s, c->label, text);
	}
	s->nmse = nmse / c->nmse_max > s->nmse ? nmse / c->nmse_max : s->nmse;
	s->error = error / c->error_max > s->error ? error / c->error_max : s->error;
}

// The rows of tokens t0.. of every compared buffer must have the same bits as in `whole`.
static void check_bits(const struct op_case *c, struct side *vk, uint8_t *const *whole, uint32_t t0, uint32_t n,
	uint32_t max, struct score *s)
{
	char text[120];
	if (!side_run(vk, c, t0, n, max, s))
		return;
	for (int i = 0; i < c->n_bufs; i++) {
		uint64_t row = c->bufs[i].row_bytes;
		if (!c->bufs[i].out || !row)
			continue;
		if (memcmp((uint8_t *)vk->mem[i].host + t0 * row, whole[i] + t0 * row, n * row) != 0) {
			snprintf(text, sizeof text, "token %u has other bits in a graph of %u than in one of %u", t0, max,
				c->outs ? c->outs : c->tokens);
			fail(s, c->label, text);
		}
	}
}

static void check_invariance(const struct op_case *c, struct side *vk, struct score *s)
{
	uint8_t *whole[BUFS_MAX] = {0};
	uint32_t n = c->outs ? c->outs : c->tokens;
	for (int i = 0; i < c->n_bufs; i++) {
		if (!c->bufs[i].out)
			continue;
		whole[i] = malloc(c->bufs[i].bytes);
		if (!whole[i])
			goto out;
		memcpy(whole[i], vk->mem[i].host, c->bufs[i].bytes);
	}
	check_bits(c, vk, whole, n - 1, 1, 1, s);
	check_bits(c, vk, whole, n / 2, 1, TOKENS_MAX, s);
	check_bits(c, vk, whole, n / 3, n / 3 + 2 <= n ? 2 : 1, 2, s);
	check_bits(c, vk, whole, 0, n < 3 ? n : 3, 4, s);
	check_bits(c, vk, whole, n > 7 ? n - 7 : 0, n > 7 ? 7 : n, 8, s);
out:
	for (int i = 0; i < BUFS_MAX; i++)
		free(whole[i]);
}

void run_case(struct checkop *o, struct op_case *c, struct score *s)
{
	struct side ref = {0}, vk = {0};
	uint32_t n = c->outs ? c->outs : c->tokens;
	s->cases++;
	if (side_open(&ref, o->ref, c, s) && side_open(&vk, o->vk, c, s) && side_run(&ref, c, 0, n, n, s) &&
		side_run(&vk, c, 0, n, n, s)) {
		for (int i = 0; i < c->n_bufs; i++)
			if (c->bufs[i].out)
				compare(c, i, &ref, &vk, s);
		if (n > 1)
			check_invariance(c, &vk, s);
	}
	side_close(&ref);
	side_close(&vk);
	for (int i = 0; i < c->n_bufs; i++)
		free(c->init[i]);
	free(c->pages);
}

void report(struct checkop *o, const char *what, const struct score *s)
{
	bool ok = !s->failed[0];
	printf("%s %u - [%s] %s: %u cases, NMSE up to %.2f and largest error up to %.2f of the bounds\n",
		ok ? "ok" : "not ok", ++o->number, o->title, what, s->cases, s->nmse, s->error);
	if (!ok)
		printf("# %s\n", s->failed);
	o->failures += !ok;
	fflush(stdout);
}
