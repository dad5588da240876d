// Oracles: the definitions, done the slow way (sort everything, 64-bit floats); published outputs of splitmix64
// (https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64, seed 1234567); critical values of chi-square.
#include "harness/kt.h"
#include "sample/sampler.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

// --- the slow way ----------------------------------------------------------------

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void splitmix64_is_the_published_one(void **state)
{
	(void)state;
	static const uint64_t want[] = {UINT64_C(6457827717110365317), UINT64_C(3203168211198807973),
		UINT64_C(9817491932198370423), UINT64_C(4593380528125082431), UINT64_C(16408922859458223821)};
	uint64_t s = 1234567;
	for (size_t i = 0; i < 5; i++)
		assert_true(splitmix64(&s) == want[i]);
}

// Draw n of a seed: the stream is seeded by the first output of splitmix64(seed).
static double slow_draw(uint64_t seed, uint64_t n)
{
	uint64_t s = seed, stream = splitmix64(&s), out = 0;
	for (uint64_t i = 0; i <= n; i++)
		out = splitmix64(&stream);
	return (double)(out >> 11) / 9007199254740992.0;
}

struct slow {
	double p;
	uint32_t token;
	bool is_in;
};

static int slow_order(const void *a, const void *b)
{
	const struct slow *x = a, *y = b;
	if (x->p < y->p || x->p > y->p)
		return x->p < y->p ? 1 : -1;
	return x->token < y->token ? -1 : 1;
}

// The distribution to sample from, by the definitions; q has vocab places. Adjusts for temperature, top-k, top-p,
// min-p.
static void slow_distribution(const float *logits, uint32_t vocab, const struct kb_sampler_params *p, double *q)
{
	struct slow *s = malloc(vocab * sizeof *s);
	double most = -HUGE_VAL, total = 0, sum = 0, first;
	for (uint32_t i = 0; i < vocab; i++)
		most = fmax(most, (double)logits[i]);
	for (uint32_t i = 0; i < vocab; i++)
		s[i] = (struct slow){exp(((double)logits[i] - most) / (double)p->temperature), i, true};
	qsort(s, vocab, sizeof *s, slow_order);
	first = s[0].p;
	for (uint32_t i = 0; i < vocab; i++) {
		s[i].is_in = p->top_k == 0 || i < p->top_k;
		total += s[i].is_in ? s[i].p : 0;
	}
	for (uint32_t i = 0; i < vocab; i++) {
		if (i > 0 && sum >= (double)p->top_p * total)
			s[i].is_in = false;
		if (s[i].p < (double)p->min_p * first)
			s[i].is_in = false;
		sum += s[i].is_in ? s[i].p : 0;
	}
	memset(q, 0, vocab * sizeof *q);
	for (uint32_t i = 0; i < vocab; i++)
		if (s[i].is_in)
			q[s[i].token] = s[i].p / sum;
	free(s);
}

// --- helpers -----------------------------------------------------------------------

static const struct kb_sampler_params plain = {.temperature = 1, .top_p = 1};

static struct kb_sampler sampler(struct kb_sampler_params p)
{
	struct kb_sampler s;
	struct kb_err err;
	if (kb_sampler_init(&s, &p, &err))
		fail_msg("%s", err.text);
	return s;
}

static uint32_t pick(const struct kb_sampler *s, const float *logits, uint32_t vocab)
{
	struct kb_sampler_scratch w;
	struct kb_err err;
	uint32_t token = UINT32_MAX;
	assert_int_equal(kb_sampler_scratch_init(&w, vocab), 0);
	if (kb_sampler_pick(s, &w, logits, &err, &token))
		fail_msg("%s", err.text);
	kb_sampler_scratch_finish(&w);
	return token;
}

static uint32_t pick_with(struct kb_sampler_params p, const float *logits, uint32_t vocab)
{
	struct kb_sampler s = sampler(p);
	uint32_t token = pick(&s, logits, vocab);
	kb_sampler_finish(&s);
	return token;
}

static double normal(uint64_t *state) // roughly: the sum of 12 uniforms
{
	double sum = -6;
	for (int i = 0; i < 12; i++)
		sum += (double)(splitmix64(state) >> 11) * 0x1p-53;
	return sum;
}

// --- greedy ------------------------------------------------------------------------

static void greedy_takes_the_largest(void **state)
{
	(void)state;
	static const float x[] = {-1, 2, 5, 5, 3, 5, -7, 0, 1, 5};
	assert_int_equal(pick_with((struct kb_sampler_params){0}, x, 10), 2);
	assert_int_equal(pick_with((struct kb_sampler_params){.seed = 99}, x, 10), 2);
	assert_int_equal(pick_with((struct kb_sampler_params){.temperature = 2, .top_p = 1, .top_k = 1}, x, 10), 2);
	assert_int_equal(pick_with((struct kb_sampler_params){.temperature = 2, .top_p = 0}, x, 10), 2);
	assert_int_equal(pick_with((struct kb_sampler_params){0}, (float[]){-3, -2}, 2), 1);
	assert_int_equal(pick_with((struct kb_sampler_params){0}, (float[]){-3}, 1), 0);
	static const struct kb_logit_bias bias[] = {{2, -1}, {7, 5.5f}, {12, 100}};
	assert_int_equal(pick_with((struct kb_sampler_params){.bias = bias, .n_bias = 1}, x, 10), 3);
	assert_int_equal(pick_with((struct kb_sampler_params){.bias = bias, .n_bias = 3}, x, 10), 7);
}

static void numbers_that_are_none_are_the_devices_fault(void **state)
{
	(void)state;
	static const float bad[] = {NAN, INFINITY, -INFINITY};
	struct kb_sampler_scratch w;
	struct kb_err err;
	uint32_t token = 77;
	float x[19] = {0}, logprob;
	assert_int_equal(kb_sampler_scratch_init(&w, 19), 0);
	for (size_t b = 0; b < 3; b++)
		for (uint32_t i = 0; i < 19; i++) {
			struct kb_sampler s = sampler(plain);
			x[i] = bad[b];
			assert_int_equal(kb_sampler_pick(&s, &w, x, &err, &token), KB_EDEVICE);
			assert_int_equal(kb_sampler_logprobs(x, 19, 0, 0, &err, &logprob, NULL), KB_EDEVICE);
			x[i] = 0;
			s.params.temperature = 0;
			x[18 - i] = bad[b];
			assert_int_equal(kb_sampler_pick(&s, &w, x, &err, &token), KB_EDEVICE);
			x[18 - i] = 0;
			kb_sampler_finish(&s);
		}
	assert_int_equal(token, 77);
	// Finite, but not after the penalty.
	struct kb_sampler s = sampler((struct kb_sampler_params){.repeat_penalty = 0.1f, .temperature = 1, .top_p = 1});
	x[3] = 3e38f;
	assert_int_equal(kb_sampler_accept(&s, 3, false), 0);
	assert_int_equal(kb_sampler_pick(&s, &w, x, &err, &token), KB_EDEVICE);
	kb_sampler_finish(&s);
	kb_sampler_scratch_finish(&w);
}

// --- penalties -----------------------------------------------------------------------

static void penalties_count_what_they_should(void **state)
{
	(void)state;
	float x[] = {4, 3.5f, 3, -1};
	// Generated 0 three times: frequency 0.25 makes 3.25, presence 0.4 makes 3.6; prompt tokens do not count.
	struct kb_sampler s = sampler((struct kb_sampler_params){.frequency_penalty = 0.25f});
	for (int i = 0; i < 3; i++) {
		assert_int_equal(kb_sampler_accept(&s, 0, false), 0);
		assert_int_equal(pick(&s, x, 4), 0);
	}
	assert_int_equal(kb_sampler_accept(&s, 0, true), 0);
	assert_int_equal(pick(&s, x, 4), 0); // 3.75
	assert_int_equal(kb_sampler_accept(&s, 0, true), 0);
	assert_int_equal(pick(&s, x, 4), 0); // 3.5, as much as token 1: the lower id
	assert_int_equal(kb_sampler_accept(&s, 0, true), 0);
	assert_int_equal(pick(&s, x, 4), 1);
	kb_sampler_finish(&s);
	s = sampler((struct kb_sampler_params){.presence_penalty = 0.4f});
	for (int i = 0; i < 5; i++)
		assert_int_equal(kb_sampler_accept(&s, 0, true), 0);
	assert_int_equal(pick(&s, x, 4), 0); // once, whatever the count
	x[1] = 3.7f;
	assert_int_equal(pick(&s, x, 4), 1);
	kb_sampler_finish(&s);
	// Many distinct tokens: each counted apart.
	float y[500];
	s = sampler((struct kb_sampler_params){.frequency_penalty = 1});
	for (uint32_t t = 0; t < 500; t++) {
		y[t] = t % 7 == 0 ? 1.5f : 1;
		for (uint32_t i = 0; i <= t % 7; i++)
			assert_int_equal(kb_sampler_accept(&s, t, true), 0);
	}
	assert_int_equal(s.n_counts, 500);
	assert_int_equal(pick(&s, y, 500), 0); // 1.5 - 1; the others 1 - 2 and less
	y[0] = 0;
	assert_int_equal(pick(&s, y, 500), 7);
	kb_sampler_finish(&s);
}

static void repeat_penalty_divides_or_multiplies_in_its_window(void **state)
{
	(void)state;
	struct kb_sampler s = sampler((struct kb_sampler_params){.repeat_penalty = 2});
	static const float x[] = {4, 2.5f, 2, -1}, negative[] = {-2, -3, -5, -9};
	assert_int_equal(kb_sampler_accept(&s, 0, false), 0);
	assert_int_equal(pick(&s, x, 4), 1);        // 4 / 2
	assert_int_equal(pick(&s, negative, 4), 1); // -2 * 2
	assert_int_equal(kb_sampler_accept(&s, 0, true), 0);
	assert_int_equal(pick(&s, x, 3), 1); // a second time changes nothing: 2, and token 1 is 2.5
	static const float close[] = {4, 1.5f, 1};
	assert_int_equal(pick(&s, close, 3), 0); // 2, not 1
	for (uint32_t i = 0; i < KB_SAMPLER_WINDOW - 1; i++)
		assert_int_equal(kb_sampler_accept(&s, 3, true), 0);
	assert_int_equal(pick(&s, x, 4), 1); // still within the window
	assert_int_equal(kb_sampler_accept(&s, 3, true), 0);
	assert_int_equal(pick(&s, x, 4), 0); // forgotten
	kb_sampler_finish(&s);
}

// --- sampling ------------------------------------------------------------------------

// Chi-square of the counts against the exact distribution; tokens expected fewer than 5 times are put together.
static void agrees(const uint32_t *counts, const double *q, uint32_t vocab, uint32_t n, const char *what)
{
	double chi = 0, rest_q = 0;
	uint32_t groups = 0, rest = 0;
	for (uint32_t i = 0; i < vocab; i++) {
		if (q[i] <= 0 && counts[i] > 0)
			fail_msg("%s: token %u is not allowed but came %u times", what, i, counts[i]);
		if (q[i] * n < 5) {
			rest_q += q[i];
			rest += counts[i];
			continue;
		}
		chi += pow(counts[i] - q[i] * n, 2) / (q[i] * n);
		groups++;
	}
	if (rest_q * n >= 5) {
		chi += pow(rest - rest_q * n, 2) / (rest_q * n);
		groups++;
	}
	// Wilson and Hilferty: (chi/f)^(1/3) is normal; 3.9 sigma is a chance of 1 in 20,000.
	double f = groups - 1;
	double sigma = f > 0 ? (cbrt(chi / f) - (1 - 2 / (9 * f))) / sqrt(2 / (9 * f)) : 0;
	print_message("# %s: chi-square %.1f with %.0f degrees of freedom\n", what, chi, f);
	assert_true(groups >= 2);
	assert_true(sigma < 3.9);
}

static void frequencies_match_the_distribution(void **state)
{
	(void)state;
	enum { VOCAB = 200, N = 30000 };
	static const struct {
		const char *what;
		struct kb_sampler_params p;
	} cases[] = {
		{"temperature 1", {.temperature = 1, .top_p = 1, .seed = 1}},
		{"temperature 0.5", {.temperature = 0.5f, .top_p = 1, .seed = 2}},
		{"temperature 3", {.temperature = 3, .top_p = 1, .seed = 3}},
		{"top-k 10", {.temperature = 1, .top_p = 1, .top_k = 10, .seed = 4}},
		{"top-p 0.7", {.temperature = 1, .top_p = 0.7f, .seed = 5}},
		{"min-p 0.1", {.temperature = 1, .top_p = 1, .min_p = 0.1f, .seed = 6}},
		{"all together", {.temperature = 0.8f, .top_p = 0.9f, .top_k = 20, .min_p = 0.05f, .seed = 7}},
	};
	float x[VOCAB];
	double q[VOCAB];
	uint64_t rng = 42;
	struct kb_sampler_scratch w;
	for (uint32_t i = 0; i < VOCAB; i++)
		x[i] = (float)(2 * normal(&rng));
	assert_int_equal(kb_sampler_scratch_init(&w, VOCAB), 0);
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		uint32_t counts[VOCAB] = {0}, token;
		struct kb_err err;
		struct kb_sampler s = sampler(cases[c].p);
		for (uint32_t i = 0; i < N; i++) {
			assert_int_equal(kb_sampler_pick(&s, &w, x, &err, &token), 0);
			assert_int_equal(kb_sampler_accept(&s, token, true), 0);
			counts[token]++;
		}
		slow_distribution(x, VOCAB, &cases[c].p, q);
		agrees(counts, q, VOCAB, N, cases[c].what);
		kb_sampler_finish(&s);
	}
	kb_sampler_scratch_finish(&w);
}

// The very token that the slow way draws, over many shapes of logits, with ties.
static void picks_as_the_slow_way(void **state)
{
	(void)state;
	enum { VOCAB = 700 };
	static float x[VOCAB];
	static double q[VOCAB];
	uint64_t rng = 7;
	uint32_t borders = 0;
	for (uint32_t c = 0; c < 2000; c++) {
		uint32_t vocab = 1 + (uint32_t)(splitmix64(&rng) % VOCAB), token = 0, n = c % 5;
		double spread = exp(normal(&rng)), sum = 0;
		for (uint32_t i = 0; i < vocab; i++) {
			x[i] = (float)(spread * normal(&rng));
			if (c % 3 == 0) // ties: multiples of 1/4
				x[i] = roundf(4 * x[i]) / 4;
		}
		struct kb_sampler_params p = {.temperature = c % 4 == 0 ? 1 : (float)exp(normal(&rng) / 2),
			.top_k = c % 2 ? (uint32_t)(splitmix64(&rng) % 50) : 0,
			.top_p = c % 7 < 4 ? 0.01f + (float)(splitmix64(&rng) % 99) / 100 : 1,
			.min_p = c % 5 < 2 ? (float)(splitmix64(&rng) % 100) / 200 : 0,
			.seed = splitmix64(&rng)};
		struct kb_sampler s = sampler(p);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(kb_sampler_accept(&s, 0, true), 0);
		slow_distribution(x, vocab, &p, q);
		double u = slow_draw(p.seed, n), nearest = 1;
		for (uint32_t i = 0; i < vocab; i++) {
			sum += q[i];
			nearest = q[i] > 0 ? fmin(nearest, fabs(u - sum)) : nearest;
			if (sum <= u && i + 1 < vocab)
				token = i + 1;
		}
		while (q[token] <= 0 && token > 0 && token + 1 < vocab)
			token++;
		uint32_t got = pick(&s, x, vocab);
		if (nearest < 1e-6 || p.top_k == 1)
			borders++; // weights are 32-bit floats
		else if (got != token)
			fail_msg("case %u: token %u (p %g), the slow way %u (p %g), u %g", c, got, q[got], token, q[token], u);
		kb_sampler_finish(&s);
	}
	assert_true(borders < 200);
}

static void an_answer_is_a_function_of_seed_and_place(void **state)
{
	(void)state;
	float x[50];
	uint64_t rng = 3;
	uint32_t first[40], same = 0;
	for (uint32_t i = 0; i < 50; i++)
		x[i] = (float)normal(&rng);
	struct kb_sampler a = sampler((struct kb_sampler_params){.temperature = 1, .top_p = 1, .seed = 5});
	for (uint32_t i = 0; i < 40; i++) {
		first[i] = pick(&a, x, 50);
		assert_int_equal(pick(&a, x, 50), first[i]); // choosing is not accepting
		assert_int_equal(kb_sampler_accept(&a, first[i], true), 0);
	}
	kb_sampler_finish(&a);
	// Resumed after 17 tokens, and with a longer prompt.
	a = sampler((struct kb_sampler_params){.temperature = 1, .top_p = 1, .seed = 5});
	for (uint32_t i = 0; i < 9; i++)
		assert_int_equal(kb_sampler_accept(&a, i, false), 0);
	for (uint32_t i = 0; i < 17; i++)
		assert_int_equal(kb_sampler_accept(&a, first[i], true), 0);
	for (uint32_t i = 17; i < 40; i++) {
		assert_int_equal(pick(&a, x, 50), first[i]);
		assert_int_equal(kb_sampler_accept(&a, first[i], true), 0);
	}
	kb_sampler_finish(&a);
	struct kb_sampler b = sampler((struct kb_sampler_params){.temperature = 1, .top_p = 1, .seed = 6});
	for (uint32_t i = 0; i < 40; i++) {
		same += pick(&b, x, 50) == first[i];
		assert_int_equal(kb_sampler_accept(&b, 0, true), 0);
	}
	assert_true(same < 10);
	kb_sampler_finish(&b);
}

// --- logprobs --------------------------------------------------------------------------

static void logprobs_are_of_the_models_own_distribution(void **state)
{
	(void)state;
	enum { VOCAB = 333 };
	static float x[VOCAB];
	struct kb_sampler_choice top[20];
	struct kb_err err;
	uint64_t rng = 11;
	double sum = 0;
	float logprob;
	for (uint32_t i = 0; i < VOCAB; i++)
		x[i] = 30 + roundf((float)(8 * normal(&rng))) / 4;
	for (uint32_t i = 0; i < VOCAB; i++)
		sum += exp((double)x[i]);
	double total = 0;
	for (uint32_t i = 0; i < VOCAB; i++) {
		assert_int_equal(kb_sampler_logprobs(x, VOCAB, i, 0, &err, &logprob, NULL), 0);
		assert_true(fabs((double)logprob - ((double)x[i] - log(sum))) < 1e-5);
		total += exp((double)logprob);
	}
	assert_true(fabs(total - 1) < 1e-5);
	assert_int_equal(kb_sampler_logprobs(x, VOCAB, 7, 20, &err, &logprob, top), 0);
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t better = 0;
		for (uint32_t j = 0; j < VOCAB; j++)
			better += x[j] > x[top[i].token] || (x[j] >= x[top[i].token] && j < top[i].token);
		assert_int_equal(better, i);
		assert_true(fabs((double)top[i].logprob - ((double)x[top[i].token] - log(sum))) < 1e-5);
	}
	assert_int_equal(kb_sampler_logprobs(x, VOCAB, VOCAB, 0, &err, &logprob, NULL), KB_EARG);
	assert_int_equal(kb_sampler_logprobs(x, 5, 0, 6, &err, &logprob, top), KB_EARG);
}

static void parameters_are_checked(void **state)
{
	(void)state;
	static const struct kb_logit_bias too_much = {1, 101}, not_a_number = {1, NAN};
	static const struct {
		struct kb_sampler_params p;
		const char *says;
	} cases[] = {
		{{.temperature = -0.1f}, "temperature"},
		{{.temperature = NAN}, "temperature"},
		{{.temperature = INFINITY}, "temperature"},
		{{.top_p = 1.01f}, "top_p"},
		{{.min_p = -1}, "min_p"},
		{{.repeat_penalty = 11}, "repeat_penalty"},
		{{.presence_penalty = 2.5f}, "presence_penalty"},
		{{.frequency_penalty = -3}, "frequency_penalty"},
		{{.bias = &too_much, .n_bias = 1}, "logit_bias of token 1"},
		{{.bias = &not_a_number, .n_bias = 1}, "logit_bias of token 1"},
		{{.n_bias = KB_SAMPLER_BIAS_MAX + 1}, "logit_bias has 1025"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct kb_sampler s;
		struct kb_err err;
		assert_int_equal(kb_sampler_init(&s, &cases[i].p, &err), KB_EARG);
		if (!strstr(err.text, cases[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
		kb_sampler_finish(&s);
	}
}

// Of this process, so that a busy machine does not count.
static double cpu_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void large_vocabularies_take_milliseconds(void **state)
{
	(void)state;
	enum { VOCAB = 262144, N = 5 };
	static const struct {
		const char *what;
		struct kb_sampler_params p;
	} cases[] = {
		{"greedy", {.temperature = 0}},
		{"temperature", {.temperature = 1, .top_p = 1}},
		{"top-k 40", {.temperature = 0.8f, .top_p = 1, .top_k = 40}},
		{"top-p 0.95", {.temperature = 1, .top_p = 0.95f}},
		{"flat, top-p 0.95", {.temperature = 100, .top_p = 0.95f}},
	};
	float *x = malloc(VOCAB * sizeof *x), logprob;
	uint64_t rng = 1;
	double begin;
	struct kb_sampler_scratch w;
	struct kb_sampler_choice top[20];
	struct kb_err err;
	uint32_t token;
	assert_int_equal(kb_sampler_scratch_init(&w, VOCAB), 0);
	for (uint32_t i = 0; i < VOCAB; i++)
		x[i] = (float)(4 * normal(&rng));
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		struct kb_sampler s = sampler(cases[c].p);
		begin = cpu_ms();
		for (uint32_t i = 0; i < N; i++)
			assert_int_equal(kb_sampler_pick(&s, &w, x, &err, &token), 0);
		double ms = (cpu_ms() - begin) / N;
		print_message("# %s over %d logits: %.2f ms\n", cases[c].what, VOCAB, ms);
		assert_true(ms < 60); // 2 in a release build, 10 with sanitizers
		kb_sampler_finish(&s);
	}
	begin = cpu_ms();
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(kb_sampler_logprobs(x, VOCAB, 0, 20, &err, &logprob, top), 0);
	print_message("# logprobs: %.2f ms\n", (cpu_ms() - begin) / N);
	kb_sampler_scratch_finish(&w);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(splitmix64_is_the_published_one),
		cmocka_unit_test(greedy_takes_the_largest),
		cmocka_unit_test(numbers_that_are_none_are_the_devices_fault),
		cmocka_unit_test(penalties_count_what_they_should),
		cmocka_unit_test(repeat_penalty_divides_or_multiplies_in_its_window),
		cmocka_unit_test(frequencies_match_the_distribution),
		cmocka_unit_test(picks_as_the_slow_way),
		cmocka_unit_test(an_answer_is_a_function_of_seed_and_place),
		cmocka_unit_test(logprobs_are_of_the_models_own_distribution),
		cmocka_unit_test(parameters_are_checked),
		cmocka_unit_test(large_vocabularies_take_milliseconds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
