// Batch invariance on the real models, whose weights are quantised in several ways: the logits of a token are the same
// bits whether it is read in one step with others, alone, or in company of other sequences, on pages in any order.
#include "harness/golden.h"
#include "unit/model/real.h"

#define TOKENS 18u // more than a KV page
#define SEQS 3u

// One token of each of these sequences (or several of one), at these positions; logits of all.
static const float *step(struct real *r, const uint32_t *tokens, const uint32_t *seqs, const uint32_t *from, uint32_t n)
{
	struct kb_err err = {0};
	const float *logits;
	uint32_t token[TOKENS], slot[TOKENS], out[TOKENS];
	for (uint32_t i = 0; i < n; i++) {
		token[i] = tokens[from[i]];
		slot[i] = kb_model_page_row(r->model, seqs[i])[from[i] / KB_KV_PAGE_TOKENS] * KB_KV_PAGE_TOKENS +
				  from[i] % KB_KV_PAGE_TOKENS;
		out[i] = i;
	}
	struct kb_batch b = {
		.n_tokens = n, .n_out = n, .token = token, .position = from, .slot = slot, .seq = seqs, .out_row = out};
	if (kb_model_step(r->model, &b, &err, &logits))
		fail_msg("%s", err.text);
	return logits;
}

static void check(const char *image, const char *golden, enum kb_op_vk_path path)
{
	struct real r;
	struct kb_golden_ref ref;
	struct kb_err err;
	uint32_t seq[TOKENS] = {0}, at[TOKENS];
	if (kb_golden_ref_open(golden, &err, &ref))
		fail_msg("%s", err.text);
	real_open(&r, image, path,
		(struct kb_model_options){.kv_tokens = 128, .max_tokens = TOKENS, .max_seqs = SEQS, .max_out = TOKENS});
	const uint32_t *tokens = ref.seq[0].tokens;
	size_t row = r.info->vocab, bytes = row * sizeof(float);
	float *whole = malloc(TOKENS * bytes);
	for (uint32_t i = 0; i < TOKENS; i++)
		at[i] = i;
	memcpy(whole, step(&r, tokens, seq, at, TOKENS), TOKENS * bytes);
	memcpy(kb_model_page_row(r.model, 1), ((uint32_t[]){7, 3}), 8);
	memcpy(kb_model_page_row(r.model, 2), ((uint32_t[]){4, 6}), 8);
	for (uint32_t i = 0; i < TOKENS; i++) // alone
		if (memcmp(step(&r, tokens, (uint32_t[]){1}, &i, 1), whole + i * row, bytes) != 0)
			fail_msg("token %u alone has other logits", i);
	for (uint32_t i = 0; i + 3 < TOKENS; i++) { // three sequences at different places
		uint32_t places[3] = {i, i + 3, i + 1};
		const float *got = step(&r, tokens, (uint32_t[]){2, 0, 1}, places, 3);
		for (uint32_t s = 0; s < 3; s++)
			if (memcmp(got + s * row, whole + places[s] * row, bytes) != 0)
				fail_msg("token %u in company has other logits", places[s]);
	}
	free(whole);
	real_close(&r);
	kb_golden_ref_close(&ref);
}

static const char smollm2[] = "build/models/smollm2-135m-instruct.kbm", gemma3[] = "build/models/gemma-3-270m.kbm";

static void smollm2_tuned(void **state)
{
	(void)state;
	check(smollm2, "tests/golden/kl_smollm2.bin", KB_OP_VK_TUNED);
}

static void smollm2_universal(void **state)
{
	(void)state;
	check(smollm2, "tests/golden/kl_smollm2.bin", KB_OP_VK_UNIVERSAL);
}

static void gemma3_tuned(void **state)
{
	(void)state;
	check(gemma3, "tests/golden/kl_gemma3.bin", KB_OP_VK_TUNED);
}

static void gemma3_universal(void **state)
{
	(void)state;
	check(gemma3, "tests/golden/kl_gemma3.bin", KB_OP_VK_UNIVERSAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(smollm2_tuned),
		cmocka_unit_test(smollm2_universal),
		cmocka_unit_test(gemma3_tuned),
		cmocka_unit_test(gemma3_universal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
