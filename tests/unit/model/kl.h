// The divergence of our next-token distributions from llama.cpp's, whose weights were the same numbers as f32 (see
// tests/golden/README.md). The bound is the one that issue and README promise: a mean below 1e-4 over 2,000 positions.
#pragma once
#include "base/clock.h"
#include "harness/golden.h"
#include "unit/model/real.h"

#include <math.h>

#define KL_CHUNK 64u
#define KL_MEAN_MAX 1e-4

// Runs tokens as positions [from, from + n) of sequence 0. The last n_out rows get logits.
static const float *kl_run(struct real *r, const uint32_t *tokens, uint32_t from, uint32_t n, uint32_t n_out)
{
	struct kb_err err = {0};
	const float *logits = NULL;
	uint32_t position[KB_STEP_TOKENS_MAX], out[KB_STEP_TOKENS_MAX];
	static const uint32_t seq[KB_STEP_TOKENS_MAX];
	assert_true(n <= KB_STEP_TOKENS_MAX && n_out <= n);
	for (uint32_t i = 0; i < n; i++)
		position[i] = from + i;
	for (uint32_t i = 0; i < n_out; i++)
		out[i] = n - n_out + i;
	struct kb_batch b = {.n_tokens = n,
		.n_out = n_out,
		.token = tokens,
		.position = position,
		.slot = position,
		.seq = seq,
		.out_row = out};
	if (kb_model_step(r->model, &b, &err, &logits))
		fail_msg("positions from %u: %s", from, err.text);
	return logits;
}

// Over the whole file, or as much of it as makes `enough` positions.
static void kl_check(const char *image, const char *golden, enum kb_op_vk_path path, uint32_t enough)
{
	struct real r;
	struct kb_golden_ref ref;
	struct kb_err err;
	double sum = 0, worst = 0;
	uint32_t n = 0, same = 0;
	if (kb_golden_ref_open(golden, &err, &ref))
		fail_msg("%s", err.text);
	real_open(
		&r, image, path, (struct kb_model_options){.kv_tokens = 1024, .max_tokens = KL_CHUNK, .max_out = KL_CHUNK});
	assert_int_equal(ref.vocab, r.info->vocab);
	uint64_t begin = kb_clock_ms(), device_ms = 0;
	for (uint32_t s = 0; s < ref.n_seq && n < enough; s++)
		for (uint32_t at = 0; at < ref.seq[s].len && n < enough; at += KL_CHUNK) {
			uint32_t m = ref.seq[s].len - at < KL_CHUNK ? ref.seq[s].len - at : KL_CHUNK;
			uint64_t before = kb_clock_ms();
			const float *logits = kl_run(&r, ref.seq[s].tokens + at, at, m, m);
			device_ms += kb_clock_ms() - before;
			for (uint32_t i = 0; i < m; i++, n++) {
				struct kb_golden_row row = kb_golden_row(&ref, ref.seq[s].first_row + at + i);
				const float *ours = logits + (size_t)i * ref.vocab;
				double kl = kb_golden_kl(&row, ours, ref.vocab);
				uint32_t best = 0;
				for (uint32_t j = 1; j < ref.vocab; j++)
					best = ours[j] > ours[best] ? j : best;
				sum += kl;
				worst = fmax(worst, kl);
				same += best == row.ids[0];
			}
		}
	print_message(
		"# %s on %s, %s: %u positions, mean KL %.3g, largest %.3g, same first token %u; %llu s, the model %llu s\n",
		golden, r.backend->device, kb_op_vk_caps(r.backend)->path, n, sum / n, worst, same,
		(unsigned long long)(kb_clock_ms() - begin) / 1000, (unsigned long long)device_ms / 1000);
	assert_true(n >= 2000);
	assert_true(sum / n < KL_MEAN_MAX);
	assert_true(worst < 100 * KL_MEAN_MAX);
	real_close(&r);
	kb_golden_ref_close(&ref);
}
