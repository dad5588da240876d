// What holds for tiny models of every family, whatever the backend. Oracle: llama.cpp
// (tests/data/make_tiny_models.py).
#pragma once
#include "unit/model/tiny.h"

#include <math.h>

// Makes the backend under test; fails the test where it cannot.
typedef struct kb_backend *make_backend(void);

// One model, its backend, and what a caller of kb_model_step needs.
struct rig {
	struct tiny *tiny;
	struct kb_backend *backend;
	struct kb_model *model;
};

static void rig_open(struct rig *r, make_backend *make, const struct tiny_spec *spec, struct kb_model_options options)
{
	struct kb_err err;
	r->tiny = tiny_make(spec);
	r->backend = make();
	if (kb_model_create(r->backend, &r->tiny->source, &options, &err, &r->model))
		fail_msg("%s: %s", spec->name, err.text);
}

static void rig_close(struct rig *r)
{
	kb_model_destroy(r->model);
	r->backend->ops->destroy(r->backend);
	tiny_free(r->tiny);
}

// Runs tokens [from, from + n) of the test's sequence as sequence seq; logits for all rows.
static const float *run(struct rig *r, uint32_t seq, uint32_t from, uint32_t n)
{
	struct kb_err err;
	const float *logits;
	uint32_t token[TINY_TOKENS], position[TINY_TOKENS], slot[TINY_TOKENS], seqs[TINY_TOKENS], out[TINY_TOKENS];
	const uint32_t *pages = kb_model_page_row(r->model, seq);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t p = from + i;
		token[i] = tiny_token(p);
		position[i] = p;
		slot[i] = pages[p / KB_KV_PAGE_TOKENS] * KB_KV_PAGE_TOKENS + p % KB_KV_PAGE_TOKENS;
		seqs[i] = seq;
		out[i] = i;
	}
	struct kb_batch b = {
		.n_tokens = n, .n_out = n, .token = token, .position = position, .slot = slot, .seq = seqs, .out_row = out};
	if (kb_model_step(r->model, &b, &err, &logits))
		fail_msg("%s: %s", r->tiny->spec->name, err.text);
	return logits;
}

static const struct kb_model_options small = {.kv_tokens = 64, .max_tokens = 32, .max_seqs = 4, .max_out = 32};

static void every_family_matches_llama_cpp(make_backend *make)
{
	for (uint32_t i = 0; i < TINY_SPECS; i++) {
		struct rig r;
		float *want = tiny_golden(i);
		double worst = 0, squares = 0;
		rig_open(&r, make, &tiny_specs[i], small);
		kb_model_page_row(r.model, 0)[1] = 1;
		const float *got = run(&r, 0, 0, TINY_TOKENS);
		for (uint32_t j = 0; j < TINY_TOKENS * TINY_VOCAB; j++) {
			worst = fmax(worst, fabs((double)got[j] - (double)want[j]));
			squares += (double)want[j] * (double)want[j];
		}
		// Our KV cache is f16, the oracle's f32. With an f32 cache we were within 3e-5 (the families with GELU, which
		// llama.cpp looks up in a table of 16-bit floats, within 3e-3).
		double size = sqrt(squares / (TINY_TOKENS * TINY_VOCAB));
		print_message("# %s: logits of size %.2g differ by at most %.2g\n", tiny_specs[i].name, size, worst);
		assert_true(worst < 0.01 * size);
		free(want);
		rig_close(&r);
	}
}

static void steps_of_any_size_agree(make_backend *make)
{
	static const uint32_t chunks[] = {1, 5, 8, 3, 7};
	for (uint32_t i = 0; i < TINY_SPECS; i++) {
		struct rig r;
		float whole[TINY_TOKENS * TINY_VOCAB];
		rig_open(&r, make, &tiny_specs[i], small);
		for (uint32_t seq = 0; seq < 3; seq++)
			memcpy(kb_model_page_row(r.model, seq), ((uint32_t[]){2 * seq % 4, 2 * seq % 4 + 1}), 8);
		memcpy(whole, run(&r, 0, 0, TINY_TOKENS), sizeof whole);
		for (uint32_t p = 0; p < TINY_TOKENS; p++)
			assert_memory_equal(run(&r, 1, p, 1), whole + p * TINY_VOCAB, TINY_VOCAB * sizeof(float));
		for (uint32_t c = 0, p = 0; c < 5; p += chunks[c++])
			assert_memory_equal(
				run(&r, 2, p, chunks[c]), whole + p * TINY_VOCAB, chunks[c] * TINY_VOCAB * sizeof(float));
		rig_close(&r);
	}
}

// Two sequences, one five tokens behind the other, in the same steps, on pages in any order, with and without logits.
static void company_changes_nothing(make_backend *make)
{
	for (uint32_t i = 0; i < TINY_SPECS; i++) {
		struct rig r;
		struct kb_err err;
		const float *logits;
		float alone[TINY_TOKENS * TINY_VOCAB];
		rig_open(&r, make, &tiny_specs[i], small);
		kb_model_page_row(r.model, 0)[1] = 1;
		memcpy(alone, run(&r, 0, 0, TINY_TOKENS), sizeof alone);
		static const uint32_t pages[2][2] = {{3, 0}, {2, 1}};
		memcpy(kb_model_page_row(r.model, 3), pages[0], 8);
		memcpy(kb_model_page_row(r.model, 1), pages[1], 8);
		run(&r, 3, 0, 5);
		for (uint32_t p = 0; p + 5 < TINY_TOKENS; p++) {
			uint32_t at[2] = {p + 5, p}, token[2], slot[2];
			for (uint32_t s = 0; s < 2; s++) {
				token[s] = tiny_token(at[s]);
				slot[s] = pages[s][at[s] / 16] * 16 + at[s] % 16;
			}
			struct kb_batch b = {.n_tokens = 2,
				.n_out = p % 3, // 0: none; 1: only the second; 2: both, the second first
				.token = token,
				.position = at,
				.slot = slot,
				.seq = (uint32_t[]){3, 1},
				.out_row = (uint32_t[]){1, 0}};
			assert_int_equal(kb_model_step(r.model, &b, &err, &logits), 0);
			if (b.n_out > 0)
				assert_memory_equal(logits, alone + p * TINY_VOCAB, TINY_VOCAB * sizeof(float));
			if (b.n_out > 1)
				assert_memory_equal(logits + TINY_VOCAB, alone + (p + 5) * TINY_VOCAB, TINY_VOCAB * sizeof(float));
		}
		rig_close(&r);
	}
}
