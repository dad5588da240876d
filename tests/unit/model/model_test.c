// Models on the reference backend: all families, and what is refused.
#include "base/limits.h"
#include "unit/model/agree.h"

static struct kb_backend *reference(void)
{
	struct kb_backend *b = NULL;
	struct kb_err err;
	assert_int_equal(kb_op_ref_create(&err, &b), 0);
	return b;
}

static void matches_llama_cpp(void **state)
{
	(void)state;
	every_family_matches_llama_cpp(reference);
}

static void steps_agree(void **state)
{
	(void)state;
	steps_of_any_size_agree(reference);
}

static void company(void **state)
{
	(void)state;
	company_changes_nothing(reference);
}

static void info_tells_sizes(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, reference, &tiny_specs[3], (struct kb_model_options){.kv_tokens = 33, .max_seqs = 7});
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

static void add_progress(void *ctx, uint64_t done, uint64_t total)
{
	uint64_t *seen = ctx;
	assert_true(done > seen[0] && done <= total);
	seen[0] = done;
	seen[1] = total;
}

static void loading_tells_its_progress(void **state)
{
	(void)state;
	struct rig r;
	uint64_t seen[2] = {0};
	rig_open(&r, reference, &tiny_specs[0],
		(struct kb_model_options){.kv_tokens = 16, .progress = add_progress, .progress_ctx = seen});
	assert_int_equal(seen[0], seen[1]);
	assert_int_equal(seen[1], kb_model_info(r.model)->weight_bytes);
	rig_close(&r);
}

static void bad_batches_are_refused(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, reference, &tiny_specs[0], (struct kb_model_options){.kv_tokens = 64, .max_tokens = 4, .max_seqs = 2});
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

static void tiny_unset(struct tiny *t, const char *suffix)
{
	char key[64];
	snprintf(key, sizeof key, "%s.%s", t->spec->arch, suffix);
	for (uint32_t i = 0; i < t->n_meta; i++)
		if (strcmp(t->meta[i].key, key) == 0) {
			t->meta[i] = t->meta[--t->n_meta];
			return;
		}
	fail_msg("no key %s", key);
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
		cmocka_unit_test(matches_llama_cpp),
		cmocka_unit_test(steps_agree),
		cmocka_unit_test(company),
		cmocka_unit_test(info_tells_sizes),
		cmocka_unit_test(loading_tells_its_progress),
		cmocka_unit_test(bad_batches_are_refused),
		cmocka_unit_test(bad_metadata_is_refused),
		cmocka_unit_test(bad_tensors_are_refused),
		cmocka_unit_test(bad_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
