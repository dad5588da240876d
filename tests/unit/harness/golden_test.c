// The reader of tests/golden and the divergence it computes. Expected values below are worked by hand.
#include "harness/golden.h"
#include "harness/kt.h"
#include <math.h>
#include <stdio.h>
#include <unistd.h>

static const char *scratch(const char *name)
{
	static char path[512];
	const char *dir = getenv("KB_TMP");
	snprintf(path, sizeof path, "%s/%s", dir ? dir : "/tmp", name);
	return path;
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

// A vocabulary of 4, probabilities 1/2, 1/4, 1/8, 1/8; the reference names tokens 2 and 0, in that order.
static const uint32_t ids[2] = {2, 0};
static const float logprobs[2] = {-0.69314718f, -1.38629436f};
static const struct kb_golden_row halves = {2, ids, logprobs, -1.38629436f};

static void test_kl_of_equal_is_zero(void **state)
{
	(void)state;
	// log2-shaped logits, shifted by 5: 0 -> 1/4, 1 -> 1/8, 2 -> 1/2, 3 -> 1/8
	const float logits[4] = {5 - 1.38629436f, 5 - 2.07944154f, 5 - 0.69314718f, 5 - 2.07944154f};
	double kl = kb_golden_kl(&halves, logits, 4);
	assert_true(fabs(kl) < 1e-7);
	// Within the rest bucket it cannot see: 3/16 and 1/16 instead of 1/8 and 1/8 (a lower bound, as documented).
	const float shifted[4] = {-1.38629436f, logf(3.0f / 16), -0.69314718f, logf(1.0f / 16)};
	assert_true(fabs(kb_golden_kl(&halves, shifted, 4)) < 1e-7);
}

static void test_kl_by_hand(void **state)
{
	(void)state;
	// Ours uniform: q = 1/4, 1/4, rest 1/2. KL = 1/2 ln 2 + 1/4 ln 1 + 1/4 ln(1/2) = 1/4 ln 2.
	const float uniform[4] = {7, 7, 7, 7};
	assert_true(fabs(kb_golden_kl(&halves, uniform, 4) - 0.25 * log(2)) < 1e-7);
	// Ours swaps tokens 0 and 2: KL = 1/2 ln 2 + 1/4 ln(1/2) + 0 = 1/4 ln 2.
	const float swapped[4] = {-0.69314718f, -2.07944154f, -1.38629436f, -2.07944154f};
	assert_true(fabs(kb_golden_kl(&halves, swapped, 4) - 0.25 * log(2)) < 1e-7);
}

static void test_kl_sees_small_changes(void **state)
{
	(void)state;
	// One logit moved by d: KL = d^2 p (1 - p) / 2 to second order; p = 1/2 for token 2.
	float logits[4] = {-1.38629436f, -2.07944154f, -0.69314718f + 0.02f, -2.07944154f};
	double kl = kb_golden_kl(&halves, logits, 4);
	assert_true(kl > 0.95 * 0.02 * 0.02 / 8 && kl < 1.05 * 0.02 * 0.02 / 8);
	// Leaving 1 of 10,000 of the rest's probability out is seen too.
	logits[2] = -0.69314718f;
	logits[1] = logits[3] = -2.07944154f - 0.01f;
	assert_true(kb_golden_kl(&halves, logits, 4) > 5e-6);
}

static void test_kl_is_never_nan(void **state)
{
	(void)state;
	const float nan_inside[4] = {0, NAN, 0, 0}, no_chance[4] = {0, 0, -INFINITY, 0},
				no_rest[4] = {0, -INFINITY, 0, -INFINITY};
	const float all_gone[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, huge[4] = {0, 0, INFINITY, 0};
	assert_true(kb_golden_kl(&halves, nan_inside, 4) == INFINITY);
	assert_true(kb_golden_kl(&halves, no_chance, 4) == INFINITY);
	assert_true(kb_golden_kl(&halves, no_rest, 4) == INFINITY);
	assert_true(kb_golden_kl(&halves, all_gone, 4) == INFINITY);
	assert_true(kb_golden_kl(&halves, huge, 4) == INFINITY);
	// An id outside our vocabulary.
	const float two[2] = {0, 0};
	assert_true(kb_golden_kl(&halves, two, 2) == INFINITY);
	// A reference without a rest is one without that term: q gives 1/2 to each.
	const struct kb_golden_row whole = {2, ids, (const float[]){-0.69314718f, -0.69314718f}, -INFINITY};
	const float even[4] = {1, -INFINITY, 1, -INFINITY};
	assert_true(fabs(kb_golden_kl(&whole, even, 4)) < 1e-7);
}

static void test_ref_of_every_length(void **state)
{
	(void)state;
	// 2 sequences of 1 and 2 positions, vocabulary 9, k = 1.
	uint8_t file[64 + 8 + 8 + 12 + 3 * 12] = "KBKL0001";
	const uint32_t head[4] = {2, 3, 9, 1}, body[7] = {1, 2, 4, 5, 6, 7, 8};
	const float p = -0.5f, rest = -0.9f;
	memset(file + 8, 0xab, 32);
	memcpy(file + 40, head, 16);
	memcpy(file + 64, body, 28);
	for (uint32_t i = 0; i < 3; i++) {
		memcpy(file + 92 + 12 * i, &i, 4);
		memcpy(file + 96 + 12 * i, &p, 4);
		memcpy(file + 100 + 12 * i, &rest, 4);
	}
	struct kb_golden_ref g;
	struct kb_err err;
	const char *path = scratch("kl.bin");
	write_bytes(path, file, sizeof file);
	assert_int_equal(kb_golden_ref_open(path, &err, &g), 0);
	assert_int_equal(g.seq[1].len, 2);
	assert_int_equal(g.seq[1].tokens[2], 8);
	assert_int_equal(g.seq[1].first_row, 1);
	struct kb_golden_row r = kb_golden_row(&g, 2);
	assert_int_equal(r.ids[0], 2);
	assert_true(r.logprobs[0] == p && r.rest == rest);
	kb_golden_ref_close(&g);
	for (size_t n = 0; n < sizeof file; n++) {
		write_bytes(path, file, n);
		assert_int_equal(kb_golden_ref_open(path, &err, &g), KB_EBAD);
	}
	file[7] = '2';
	write_bytes(path, file, sizeof file);
	assert_int_equal(kb_golden_ref_open(path, &err, &g), KB_EBAD);
	assert_int_equal(kb_golden_ref_open(scratch("absent"), &err, &g), KB_ENOTFOUND);
}

static void test_greedy_of_every_length(void **state)
{
	(void)state;
	static const char text[] = "# comment\nmodel m 00ff\nvocab 10\nnew 2\ncases 2\nmade-by f32\n"
							   "case a-1 chat\nsay \"x\"\ntext \"a\\n\\\"\\\\\\u0001猫\"\nprompt 1 2 3\n"
							   "token 4 5 0.25 5 0.5 0.125\ntoken 6 7 1.5 6 2 0\n"
							   "case a-2 raw\ntext \"b\"\nprompt 9\ntoken 1 2 3 1 3 0\ntoken 1 2 3 1 3 0\n";
	struct kb_golden_greedy g;
	struct kb_err err;
	const char *path = scratch("greedy.txt");
	write_bytes(path, text, sizeof text - 1);
	assert_int_equal(kb_golden_greedy_open(path, &err, &g), 0);
	assert_int_equal(g.n_cases, 2);
	assert_true(g.is_f32 && g.cases[0].is_chat && !g.cases[1].is_chat);
	assert_string_equal(g.cases[0].say, "x");
	assert_string_equal(g.cases[0].text, "a\n\"\\\x01猫");
	assert_int_equal(g.cases[0].n_prompt, 3);
	assert_int_equal(g.cases[0].prompt[2], 3);
	assert_int_equal(g.cases[0].tokens[0].other, 5);
	assert_true(g.cases[0].tokens[0].other_gap == 0.125f && g.cases[0].tokens[1].margin == 1.5f);
	kb_golden_greedy_close(&g);
	// Cut anywhere before the last line's last word it is refused, without a leak or a crash.
	for (size_t n = 0; n < sizeof text - 2; n++) {
		write_bytes(path, text, n);
		assert_int_equal(kb_golden_greedy_open(path, &err, &g), KB_EBAD);
	}
}

// The committed files: shape, and that their numbers are what they claim to be.
static void test_committed(void **state)
{
	(void)state;
	static const char *const models[] = {"smollm2", "gemma3"};
	for (size_t m = 0; m < 2; m++) {
		char path[128];
		struct kb_golden_ref g;
		struct kb_err err = {0};
		snprintf(path, sizeof path, "tests/golden/kl_%s.bin", models[m]);
		assert_int_equal(kb_golden_ref_open(path, &err, &g), 0);
		assert_true(g.n_pos >= 2048 && g.n_seq >= 4);
		for (uint32_t i = 0; i < g.n_pos; i++) {
			struct kb_golden_row r = kb_golden_row(&g, i);
			double sum = exp((double)r.rest);
			for (uint32_t j = 0; j < r.k; j++) {
				assert_true(r.ids[j] < g.vocab && (j == 0 || r.logprobs[j] <= r.logprobs[j - 1]));
				sum += exp((double)r.logprobs[j]);
			}
			assert_true(fabs(sum - 1) < 1e-5);
		}
		kb_golden_ref_close(&g);
		for (int f32 = 0; f32 < 2; f32++) {
			struct kb_golden_greedy d;
			snprintf(path, sizeof path, "tests/golden/greedy_%s_%s.txt", models[m], f32 ? "f32" : "q");
			assert_int_equal(kb_golden_greedy_open(path, &err, &d), 0);
			assert_true(d.n_cases >= 24 && d.n_new == 64 && d.is_f32 == f32);
			for (uint32_t i = 0; i < d.n_cases; i++)
				for (uint32_t j = 0; j < d.n_new; j++) {
					const struct kb_golden_token *t = &d.cases[i].tokens[j];
					assert_true(t->margin >= 0 && t->id != t->second && (t->other == t->id) == (t->other_gap == 0));
				}
			kb_golden_greedy_close(&d);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kl_of_equal_is_zero),
		cmocka_unit_test(test_kl_by_hand),
		cmocka_unit_test(test_kl_sees_small_changes),
		cmocka_unit_test(test_kl_is_never_nan),
		cmocka_unit_test(test_ref_of_every_length),
		cmocka_unit_test(test_greedy_of_every_length),
		cmocka_unit_test(test_committed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
