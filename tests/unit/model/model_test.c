// Tiny models of every family on the reference backend. Oracle: llama.cpp (tests/data/make_tiny_models.py).
#include "base/limits.h"
#include "unit/model/tiny.h"

#include <math.h>

// One model, its backend, and what a caller of kb_model_step needs.
struct rig {
	struct tiny *tiny;
	struct kb_backend *backend;
	struct kb_model *model;
};

static void rig_open(struct rig *r, const struct tiny_spec *spec, struct kb_model_options options)
{
	struct kb_err err;
	r->tiny = tiny_make(spec);
	assert_int_equal(kb_op_ref_create(&err, &r->backend), 0);
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

static void every_family_matches_llama_cpp(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < TINY_SPECS; i++) {
		struct rig r;
		float *want = tiny_golden(i);
		double worst = 0, squares = 0;
		rig_open(&r, &tiny_specs[i], small);
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

static void steps_of_any_size_agree(void **state)
{
	(void)state;
	static const uint32_t chunks[] = {1, 5, 8, 3, 7};
	for (uint32_t i = 0; i < TINY_SPECS; i++) {
		struct rig r;
		float whole[TINY_TOKENS * TINY_VOCAB];
		rig_open(&r, &tiny_specs[i], small);
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
static void company_changes_nothing(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < TINY_SPECS; i++) {
		struct rig r;
		struct kb_err err;
		const float *logits;
		float alone[TINY_TOKENS * TINY_VOCAB];
		rig_open(&r, &tiny_specs[i], small);
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

static void info_tells_sizes(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, &tiny_specs[3], (struct kb_model_options){.kv_tokens = 33, .max_seqs = 7});
	const struct kb_model_info *i = kb_model_info(r.model);
	assert_string_equal(i->arch, "qwen3");
	assert_string_equal(i->name, "qwen3");
	assert_int_equal(i->vocab, TINY_VOCAB);
	assert_int_equal(i->kv_pages, 3);
	assert_int_equal(i->max_tokens, KB_STEP_TOKENS_MAX);
	assert_int_equal(i->max_seqs, 7);
	assert_int_equal(i->max_out, 7);
	assert_int_equal(i->kv_bytes_per_token, 2 * 2 * 64 * 2); // K and V, 2 layers, 2 x 32 numbers of 2 bytes
	assert_int_equal(i->kv_bytes, 48 * 512);
	// By hand: 2 x 96 x 64 + 64; a layer has 128x64 + 2 x 64x64 + 64x128 + 3 x 96x64 + 2 x 64 + 2 x 32.
	uint64_t layer = 128 * 64 + 2 * 64 * 64 + 64 * 128 + 3 * 96 * 64 + 2 * 64 + 2 * 32;
	assert_int_equal(i->parameters, 2 * 96 * 64 + 64 + 2 * layer);
	assert_int_equal(i->weight_bytes_per_token, 4 * (96 * 64 + 64 + 64 + 2 * layer));
	assert_int_equal(r.backend->bytes_imported, i->weight_bytes);
	rig_close(&r);
}

static void bad_batches_are_refused(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, &tiny_specs[0], (struct kb_model_options){.kv_tokens = 64, .max_tokens = 4, .max_seqs = 2});
	static const struct {
		uint32_t n_tokens, n_out, token, position, slot, seq, out_row;
		const char *says;
	} cases[] = {
		{1, 1, 96, 0, 0, 0, 0, "token 96"},
		{1, 1, 0, 64, 0, 0, 0, "position 64"},
		{1, 1, 0, 0, 64, 0, 0, "slot 64"},
		{1, 1, 0, 0, 0, 2, 0, "sequence 2"},
		{1, 1, 0, 0, 0, 0, 1, "row 1"},
		{1, 1, 0, 40, 0, 1, 0, "entry 2"}, // of the page table, set below
		{1, 2, 0, 0, 0, 0, 0, "2 rows"},
		{0, 0, 0, 0, 0, 0, 0, "0 tokens"},
		{5, 0, 0, 0, 0, 0, 0, "5 tokens"},
	};
	memcpy(kb_model_page_row(r.model, 1), ((uint32_t[]){0, 3, 4, 0}), 16);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct kb_err err;
		const float *logits = NULL;
		struct kb_batch b = {.n_tokens = cases[i].n_tokens,
			.n_out = cases[i].n_out,
			.token = &cases[i].token,
			.position = &cases[i].position,
			.slot = &cases[i].slot,
			.seq = &cases[i].seq,
			.out_row = &cases[i].out_row};
		assert_int_equal(kb_model_step(r.model, &b, &err, &logits), KB_EARG);
		if (!strstr(err.text, cases[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
		assert_null(logits);
	}
	run(&r, 0, 0, 2); // and the model still works
	rig_close(&r);
}

// --- what is not a model ------------------------------------------------------

// Creating must fail with this code and a text that holds `says`.
static void refused(struct tiny *t, int code, const char *says)
{
	struct kb_err err = {0};
	struct kb_backend *backend;
	struct kb_model *model = NULL;
	assert_int_equal(kb_op_ref_create(&err, &backend), 0);
	int e = kb_model_create(backend, &t->source, &small, &err, &model);
	if (e != code || !strstr(err.text, says))
		fail_msg("%d \"%s\" instead of %d \"...%s...\"", e, err.text, code, says);
	assert_null(model);
	backend->ops->destroy(backend);
	tiny_free(t);
}

static struct tiny *with_u32(uint32_t spec, const char *key, uint32_t value)
{
	struct tiny *t = tiny_make(&tiny_specs[spec]);
	tiny_set_u32(t, key, value);
	return t;
}

static struct tiny *with_str(uint32_t spec, const char *key, const char *value)
{
	struct tiny *t = tiny_make(&tiny_specs[spec]);
	tiny_set_str(t, key, value);
	return t;
}

static struct tiny *without(uint32_t spec, const char *key)
{
	struct tiny *t = tiny_make(&tiny_specs[spec]);
	tiny_unset(t, key);
	return t;
}

static void bad_metadata_is_refused(void **state)
{
	(void)state;
	refused(with_str(0, "general.architecture", "mamba"), KB_EUNSUPPORTED, "gemma3");
	refused(with_u32(0, "general.architecture", 3), KB_EBAD, "general.architecture");
	static const char *const needed[] = {"block_count", "context_length", "embedding_length", "feed_forward_length",
		"attention.head_count", "attention.layer_norm_rms_epsilon"};
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
		refused(without(0, needed[i]), KB_EBAD, needed[i]);
	for (size_t i = 0; i < 5; i++) {
		refused(with_u32(0, needed[i], 0), KB_EBAD, needed[i]);
		refused(with_u32(0, needed[i], UINT32_MAX), KB_ELIMIT, needed[i]);
		refused(with_str(0, needed[i], "seven"), KB_EUNSUPPORTED, needed[i]);
	}
	refused(with_u32(0, "attention.head_count_kv", 3), KB_EBAD, "head_count_kv 3");
	refused(with_u32(0, "attention.key_length", 15), KB_EBAD, "key_length");
	refused(with_u32(0, "attention.key_length", KB_MAX_HEAD_DIM + 2), KB_ELIMIT, "key_length");
	refused(with_u32(0, "attention.value_length", 32), KB_EUNSUPPORTED, "value_length");
	refused(with_u32(0, "rope.dimension_count", 18), KB_EBAD, "rope.dimension_count");
	refused(with_u32(0, "rope.dimension_count", 7), KB_EBAD, "rope.dimension_count");
	refused(with_str(0, "rope.scaling.type", "yarn"), KB_EUNSUPPORTED, "rope.scaling.type is \"yarn\"");
	refused(with_u32(0, "vocab_size", 97), KB_EBAD, "token_embd.weight is 96 x 64");
	refused(with_u32(0, "expert_count", 8), KB_EUNSUPPORTED, "expert_count");
	struct tiny *t = tiny_make(&tiny_specs[0]);
	tiny_set_f32(t, "attention.layer_norm_rms_epsilon", (float)NAN);
	refused(t, KB_EBAD, "layer_norm_rms_epsilon");
	t = tiny_make(&tiny_specs[0]);
	tiny_unset(t, "attention.key_length");
	tiny_unset(t, "attention.value_length");
	tiny_set_u32(t, "attention.head_count", 6); // 64 / 6
	refused(t, KB_EBAD, "key_length (or embedding_length / head_count) is 0");
}

static void bad_tensors_are_refused(void **state)
{
	(void)state;
	static const char *const needed[] = {"token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight",
		"blk.6.ffn_down.weight", "blk.3.attn_k_norm.weight", "blk.2.post_ffw_norm.weight"};
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
		struct tiny *t = tiny_make(&tiny_specs[5]);
		char text[80];
		for (uint32_t n = 0; n < t->n_tensors; n++)
			if (strcmp(t->tensors[n].name, needed[i]) == 0)
				t->tensors[n].name[0] = 'X';
		snprintf(text, sizeof text, "%s is missing", needed[i]);
		refused(t, KB_EBAD, text);
		for (int how = 0; how < 5; how++) {
			t = tiny_make(&tiny_specs[5]);
			struct kb_source_tensor *s = tiny_tensor(t, needed[i]);
			s->cols += how == 0 ? 32 : 0;
			s->bytes -= how == 1 ? 4 : 0;
			s->offset += how == 2 ? 4 : 0;
			s->offset = how == 3 ? (t->size + 4095) / 4096 * 4096 - s->bytes + 16 : s->offset;
			s->segment = how == 4 ? 1 : 0;
			refused(t, KB_EBAD, needed[i]);
		}
	}
	struct tiny *t = tiny_make(&tiny_specs[2]);
	tiny_tensor(t, "blk.1.attn_v.bias")->format = KB_FMT_F16;
	refused(t, KB_EUNSUPPORTED, "blk.1.attn_v.bias has format 1");
	t = tiny_make(&tiny_specs[2]);
	tiny_tensor(t, "blk.1.attn_v.weight")->format = KB_FMT_Q4_K; // 64 columns are no super-block
	refused(t, KB_EUNSUPPORTED, "rows of 64 do not fit the blocks of Q4_K");
	// Tensors that would change the result of a family that does not know them.
	t = tiny_make(&tiny_specs[0]);
	tiny_add(t, "blk.1.attn_q_norm.weight", 1, 16);
	refused(t, KB_EUNSUPPORTED, "blk.1.attn_q_norm.weight");
	t = tiny_make(&tiny_specs[0]);
	tiny_add(t, "blk.0.ffn_gate_inp.weight", 8, 64);
	refused(t, KB_EUNSUPPORTED, "ffn_gate_inp");
	t = tiny_make(&tiny_specs[0]);
	memset(t->bytes + tiny_tensor(t, "rope_freqs.weight")->offset, 0, 4);
	refused(t, KB_EBAD, "rope_freqs.weight: factor 0 is 0");
}

static void bad_options_are_refused(void **state)
{
	(void)state;
	static const struct kb_model_options bad[] = {
		{.max_tokens = KB_STEP_TOKENS_MAX + 1}, {.kv_tokens = UINT32_MAX}, {.max_seqs = KB_MAX_SEQS + 1}};
	struct tiny *t = tiny_make(&tiny_specs[0]);
	struct kb_backend *backend;
	struct kb_model *model;
	struct kb_err err;
	assert_int_equal(kb_op_ref_create(&err, &backend), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(kb_model_create(backend, &t->source, &bad[i], &err, &model), KB_EARG);
	backend->ops->destroy(backend);
	tiny_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_family_matches_llama_cpp),
		cmocka_unit_test(steps_of_any_size_agree),
		cmocka_unit_test(company_changes_nothing),
		cmocka_unit_test(info_tells_sizes),
		cmocka_unit_test(bad_batches_are_refused),
		cmocka_unit_test(bad_metadata_is_refused),
		cmocka_unit_test(bad_tensors_are_refused),
		cmocka_unit_test(bad_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
