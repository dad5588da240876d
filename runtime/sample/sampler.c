/* see sampler.h */
#include "sample/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Weights are exp((logit - largest) / temperature), from 0 to 1. Below 2^-60 they are 0: a draw has 53 bits.
#define WEIGHT_LOG_MIN (-41.5f)

// Weights are counted in buckets by the upper half of their bits: 128 buckets for each power of two. So the place of
// a cut (the k-th likeliest, or where a sum is reached) is found without sorting; only its bucket is sorted.
#define BUCKET_SHIFT 16
#define BUCKET_LOWEST 0x2180u                 // 2^-60
#define BUCKETS (0x3f80u - BUCKET_LOWEST + 1) // 0x3f80: 1

// Those at least as likely as this one; of those exactly as likely, up to this id.
struct cut {
	float weight;
	uint32_t token;
};

// --- scratch -----------------------------------------------------------------

int kb_sampler_scratch_init(struct kb_sampler_scratch *w, uint32_t vocab)
{
	*w = (struct kb_sampler_scratch){
		.vocab = vocab,
		.logit = malloc(vocab * sizeof *w->logit),
		.weight = malloc((vocab + 3) * sizeof *w->weight),
		.sorted = malloc(vocab * sizeof *w->sorted),
		.sum = malloc(BUCKETS * sizeof *w->sum),
		.count = malloc(BUCKETS * sizeof *w->count),
	};
	if (w->logit && w->weight && w->sorted && w->sum && w->count)
		return 0;
	kb_sampler_scratch_finish(w);
	return KB_ENOMEM;
}

void kb_sampler_scratch_finish(struct kb_sampler_scratch *w)
{
	free(w->logit);
	free(w->weight);
	free(w->sorted);
	free(w->sum);
	free(w->count);
	*w = (struct kb_sampler_scratch){0};
}

// --- the sampler's life --------------------------------------------------------

static int check(const struct kb_sampler_params *p, struct kb_err *err)
{
	const struct {
		const char *name;
		float value, min, max;
	} rows[] = {
		{"temperature", p->temperature, 0, 100},
		{"top_p", p->top_p, 0, 1},
		{"min_p", p->min_p, 0, 1},
		{"repeat_penalty", p->repeat_penalty, 0, 10},
		{"presence_penalty", p->presence_penalty, -2, 2},
		{"frequency_penalty", p->frequency_penalty, -2, 2},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!(rows[i].value >= rows[i].min && rows[i].value <= rows[i].max))
			return kb_fail(err, KB_EARG, "%s is %g; it goes from %g to %g", rows[i].name, (double)rows[i].value,
				(double)rows[i].min, (double)rows[i].max);
	if (p->n_bias > KB_SAMPLER_BIAS_MAX)
		return kb_fail(err, KB_EARG, "logit_bias has %u entries; the most is %u", p->n_bias, KB_SAMPLER_BIAS_MAX);
	for (uint32_t i = 0; i < p->n_bias; i++)
		if (!(p->bias[i].bias >= -100 && p->bias[i].bias <= 100))
			return kb_fail(err, KB_EARG, "logit_bias of token %u is %g; it goes from -100 to 100", p->bias[i].token,
				(double)p->bias[i].bias);
	return 0;
}

int kb_sampler_init(struct kb_sampler *s, const struct kb_sampler_params *params, struct kb_err *err)
{
	*s = (struct kb_sampler){.params = *params};
	s->params.bias = NULL;
	s->params.n_bias = 0;
	int e = check(params, err);
	if (e || params->n_bias == 0)
		return e;
	s->bias = malloc(params->n_bias * sizeof *s->bias);
	if (!s->bias)
		return kb_fail(err, KB_ENOMEM, "no memory for logit_bias");
	memcpy(s->bias, params->bias, params->n_bias * sizeof *s->bias);
	s->params.bias = s->bias;
	s->params.n_bias = params->n_bias;
	return 0;
}

void kb_sampler_finish(struct kb_sampler *s)
{
	free(s->bias);
	free(s->counts);
	*s = (struct kb_sampler){0};
}

// splitmix64's mixing of its state.
static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

// Number n of the seed's stream, in [0, 1) with 53 bits. The seed is mixed first, so that seeds 1, 2, 3 have streams
// that are not each other's shifted.
static double draw(uint64_t seed, uint64_t n)
{
	const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
	return (double)(mix(mix(seed + golden) + (n + 1) * golden) >> 11) * 0x1p-53;
}

// The place of token in the table, or the empty one where it would go.
static struct kb_sampler_count *count_place(struct kb_sampler_count *counts, uint32_t n_places, uint32_t token)
{
	uint32_t i = (uint32_t)mix(token) & (n_places - 1);
	while (counts[i].count > 0 && counts[i].token != token)
		i = (i + 1) & (n_places - 1);
	return &counts[i];
}

static int count_grow(struct kb_sampler *s)
{
	uint32_t n = s->n_places ? s->n_places * 2 : 64;
	struct kb_sampler_count *grown = calloc(n, sizeof *grown);
	if (!grown)
		return KB_ENOMEM;
	for (uint32_t i = 0; i < s->n_places; i++)
		if (s->counts[i].count > 0)
			*count_place(grown, n, s->counts[i].token) = s->counts[i];
	free(s->counts);
	s->counts = grown;
	s->n_places = n;
	return 0;
}

static bool is_set(float penalty)
{
	return penalty < 0 || penalty > 0;
}

int kb_sampler_accept(struct kb_sampler *s, uint32_t token, bool is_generated)
{
	bool counts = is_set(s->params.presence_penalty) || is_set(s->params.frequency_penalty);
	if (is_generated && counts) {
		if (s->n_counts * 2 >= s->n_places && count_grow(s))
			return KB_ENOMEM;
		struct kb_sampler_count *place = count_place(s->counts, s->n_places, token);
		s->n_counts += place->count == 0;
		place->token = token;
		place->count++;
	}
	s->window[s->n_accepted % KB_SAMPLER_WINDOW] = token;
	s->n_accepted++;
	s->n_generated += is_generated;
	return 0;
}

// --- over all logits -----------------------------------------------------------

// Runs of eight, so that compilers use vectors.
static bool is_finite(const float *x, uint32_t n)
{
	uint32_t bad[8] = {0}, i = 0, bits[8];
	for (; i + 8 <= n; i += 8) {
		memcpy(bits, x + i, sizeof bits);
		for (uint32_t j = 0; j < 8; j++)
			bad[j] |= -(uint32_t)((bits[j] & 0x7f800000u) == 0x7f800000u);
	}
	for (; i < n; i++)
		bad[0] |= !isfinite(x[i]);
	return !(bad[0] | bad[1] | bad[2] | bad[3] | bad[4] | bad[5] | bad[6] | bad[7]);
}

static float largest(const float *x, uint32_t n)
{
	float most[8];
	uint32_t i = 0;
	for (uint32_t j = 0; j < 8; j++)
		most[j] = x[0];
	for (; i + 8 <= n; i += 8)
		for (uint32_t j = 0; j < 8; j++)
			most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
	for (; i < n; i++)
		most[0] = x[i] > most[0] ? x[i] : most[0];
	for (uint32_t j = 1; j < 8; j++)
		most[0] = most[j] > most[0] ? most[j] : most[0];
	return most[0];
}

// Four at a time, by the vectors that gcc and clang have on every machine.
typedef float four __attribute__((vector_size(16)));
typedef int32_t four_i __attribute__((vector_size(16)));

// exp of numbers that are 0 or less; 0 below WEIGHT_LOG_MIN; exp(0) is 1. Relative error below 3e-7. As Cody and
// Waite: x = n ln 2 + r with ln 2 in two parts, a Taylor polynomial for r, and n into the exponent's bits.
static four exp_four(four x)
{
	const float magic = 12582912; // 1.5 * 2^23: adding it rounds to a whole number
	four_i keep = x > WEIGHT_LOG_MIN;
	four v = (four)((four_i)x & keep); // 0 for those that are dropped in the end
	four n = (v * 1.44269504f + magic) - magic;
	four r = v - n * 0.693359375f - n * -2.12194440e-4f;
	four p = 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * (1 / 120.f + r * (1 / 720.f))))));
	four_i scaled = (four_i)p + __builtin_convertvector(n, four_i) * (1 << 23);
	return (four)(scaled & keep);
}

static uint32_t lowest_with(const float *x, uint32_t n, float value)
{
	for (uint32_t i = 0; i < n; i++)
		if (x[i] >= value)
			return i;
	return 0;
}

static bool seen_before(const struct kb_sampler *s, uint64_t i, uint64_t from)
{
	for (uint64_t j = from; j < i; j++)
		if (s->window[j % KB_SAMPLER_WINDOW] == s->window[i % KB_SAMPLER_WINDOW])
			return true;
	return false;
}

// Bias and penalties: the logits to sample from, in scratch where they differ from the model's.
static const float *adjusted(const struct kb_sampler *s, struct kb_sampler_scratch *w, const float *logits)
{
	const struct kb_sampler_params *p = &s->params;
	bool repeats = p->repeat_penalty > 0 && (p->repeat_penalty < 1 || p->repeat_penalty > 1);
	if (p->n_bias == 0 && !repeats && s->n_counts == 0)
		return logits;
	float *x = w->logit;
	memcpy(x, logits, w->vocab * sizeof *x);
	for (uint32_t i = 0; i < p->n_bias; i++)
		if (p->bias[i].token < w->vocab)
			x[p->bias[i].token] += p->bias[i].bias;
	uint64_t from = s->n_accepted > KB_SAMPLER_WINDOW ? s->n_accepted - KB_SAMPLER_WINDOW : 0;
	for (uint64_t i = from; i < s->n_accepted && repeats; i++) {
		uint32_t token = s->window[i % KB_SAMPLER_WINDOW];
		if (token < w->vocab && !seen_before(s, i, from))
			x[token] = x[token] > 0 ? x[token] / p->repeat_penalty : x[token] * p->repeat_penalty;
	}
	for (uint32_t i = 0; i < s->n_places; i++) {
		const struct kb_sampler_count *c = &s->counts[i];
		if (c->count > 0 && c->token < w->vocab)
			x[c->token] -= p->presence_penalty + p->frequency_penalty * (float)c->count;
	}
	return x;
}

// --- cuts ------------------------------------------------------------------------

static uint32_t bits_of(float weight)
{
	uint32_t bits;
	memcpy(&bits, &weight, sizeof bits);
	return bits;
}

static uint32_t bucket_of(float weight)
{
	return (bits_of(weight) >> BUCKET_SHIFT) - BUCKET_LOWEST;
}

static bool is_within(struct cut cut, float weight, uint32_t token)
{
	return weight > cut.weight || (weight >= cut.weight && token <= cut.token);
}

static int by_weight(const void *a, const void *b)
{
	const struct kb_sampler_candidate *x = a, *y = b;
	if (x->weight < y->weight || x->weight > y->weight)
		return x->weight < y->weight ? 1 : -1;
	return (x->token > y->token) - (x->token < y->token);
}

// The candidates of one bucket within the cut, likeliest first, in w->sorted.
static uint32_t sort_bucket(struct kb_sampler_scratch *w, uint32_t bucket, struct cut cut)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < w->vocab; i++)
		if (w->weight[i] > 0 && bucket_of(w->weight[i]) == bucket && is_within(cut, w->weight[i], i))
			w->sorted[n++] = (struct kb_sampler_candidate){w->weight[i], i};
	qsort(w->sorted, n, sizeof *w->sorted, by_weight);
	return n;
}

// The cut after the k likeliest. Buckets below it are emptied, and its own holds only what is left.
static struct cut cut_top_k(struct kb_sampler_scratch *w, uint32_t k, struct cut cut)
{
	uint32_t above = 0, b = BUCKETS;
	while (b > 0 && above + w->count[b - 1] < k)
		above += w->count[--b];
	if (b == 0)
		return cut; // fewer than k are likely at all
	b--;
	sort_bucket(w, b, cut);
	uint32_t kept = k - above;
	w->sum[b] = 0;
	for (uint32_t i = 0; i < kept; i++)
		w->sum[b] += (double)w->sorted[i].weight;
	w->count[b] = kept;
	memset(w->sum, 0, b * sizeof *w->sum);
	memset(w->count, 0, b * sizeof *w->count);
	return (struct cut){w->sorted[kept - 1].weight, w->sorted[kept - 1].token};
}

// The cut after the fewest of the likeliest that hold top_p of what is within the cut.
static struct cut cut_top_p(struct kb_sampler_scratch *w, double top_p, struct cut cut)
{
	double total = 0, above = 0;
	for (uint32_t b = 0; b < BUCKETS; b++)
		total += w->sum[b];
	uint32_t b = BUCKETS;
	while (b > 0 && above + w->sum[b - 1] < top_p * total)
		above += w->sum[--b];
	if (b == 0)
		return cut;
	uint32_t n = sort_bucket(w, b - 1, cut), i = 0;
	if (n == 0)
		return cut;
	for (; i + 1 < n; i++) {
		above += (double)w->sorted[i].weight;
		if (above >= top_p * total)
			break;
	}
	return (struct cut){w->sorted[i].weight, w->sorted[i].token};
}

// --- choosing --------------------------------------------------------------------

// exp((x[i] - most) * scale) for four from x on, or for as many as n says; the others are 0.
static four weigh(const float *x, uint32_t n, float most, float scale)
{
	four v = {-HUGE_VALF, -HUGE_VALF, -HUGE_VALF, -HUGE_VALF};
	if (n >= 4)
		memcpy(&v, x, sizeof v);
	else
		memcpy(&v, x, n * sizeof *x);
	return exp_four((v - most) * scale);
}

static void fill_weights(struct kb_sampler_scratch *w, const float *x, float most, float temperature)
{
	float scale = 1 / temperature;
	for (uint32_t i = 0; i < w->vocab; i += 4) {
		four weight = weigh(x + i, w->vocab - i, most, scale);
		memcpy(w->weight + i, &weight, sizeof weight);
	}
}

static void fill_buckets(struct kb_sampler_scratch *w)
{
	memset(w->sum, 0, BUCKETS * sizeof *w->sum);
	memset(w->count, 0, BUCKETS * sizeof *w->count);
	for (uint32_t i = 0; i < w->vocab; i++)
		if (w->weight[i] > 0) {
			uint32_t b = bucket_of(w->weight[i]);
			w->sum[b] += (double)w->weight[i];
			w->count[b]++;
		}
}

int kb_sampler_pick(const struct kb_sampler *s, struct kb_sampler_scratch *w, const float *logits, struct kb_err *err,
	uint32_t *ret_token)
{
	const struct kb_sampler_params *p = &s->params;
	struct cut cut = {0, UINT32_MAX};
	if (!is_finite(logits, w->vocab))
		return kb_fail(err, KB_EDEVICE, "the model's logits are not all finite numbers");
	const float *x = adjusted(s, w, logits);
	float most = largest(x, w->vocab);
	if (!isfinite(most)) // after a penalty on a logit near the largest float
		return kb_fail(err, KB_EDEVICE, "the model's logits are too large");
	uint32_t best = lowest_with(x, w->vocab, most);
	if (p->temperature < KB_SAMPLER_TEMPERATURE_MIN || p->top_k == 1 || p->top_p <= 0) {
		*ret_token = best;
		return 0;
	}
	bool cuts_k = p->top_k > 0 && p->top_k < w->vocab, cuts_p = p->top_p < 1;
	fill_weights(w, x, most, p->temperature);
	if (cuts_k || cuts_p)
		fill_buckets(w);
	if (cuts_k)
		cut = cut_top_k(w, p->top_k, cut);
	if (cuts_p)
		cut = cut_top_p(w, (double)p->top_p, cut);
	if (p->min_p > cut.weight)
		cut = (struct cut){p->min_p, UINT32_MAX};
	double total = 0;
	uint32_t n = 0;
	for (uint32_t i = 0; i < w->vocab; i++)
		if (w->weight[i] > 0 && is_within(cut, w->weight[i], i)) {
			w->sorted[n++] = (struct kb_sampler_candidate){w->weight[i], i};
			total += (double)w->weight[i];
		}
	double left = draw(p->seed, s->n_generated) * total;
	uint32_t i = 0;
	while (i + 1 < n && left >= (double)w->sorted[i].weight)
		left -= (double)w->sorted[i++].weight;
	*ret_token = w->sorted[i].token; // the likeliest is always there
	return 0;
}

int kb_sampler_logprobs(const float *logits, uint32_t vocab, uint32_t token, uint32_t n_top, struct kb_err *err,
	float *ret_logprob, struct kb_sampler_choice *ret_top)
{
	if (token >= vocab || n_top > KB_SAMPLER_TOP_MAX || n_top > vocab)
		return kb_fail(err, KB_EARG, "the logprob of token %u and of %u others of %u", token, n_top, vocab);
	if (!is_finite(logits, vocab))
		return kb_fail(err, KB_EDEVICE, "the model's logits are not all finite numbers");
	float most = largest(logits, vocab);
	double sums[4] = {0};
	uint32_t n = 0;
	for (uint32_t i = 0; i < vocab; i += 4) {
		four weight = weigh(logits + i, vocab - i, most, 1);
		for (uint32_t j = 0; j < 4; j++)
			sums[j] += (double)weight[j];
	}
	for (uint32_t i = 0; i < vocab && n_top > 0; i++) {
		if (n == n_top && logits[i] <= ret_top[n - 1].logprob)
			continue;
		uint32_t at = n < n_top ? n++ : n - 1;
		for (; at > 0 && ret_top[at - 1].logprob < logits[i]; at--)
			ret_top[at] = ret_top[at - 1];
		ret_top[at] = (struct kb_sampler_choice){i, logits[i]};
	}
	double log_sum = (double)most + log(sums[0] + sums[1] + sums[2] + sums[3]);
	for (uint32_t i = 0; i < n; i++)
		ret_top[i].logprob = (float)((double)ret_top[i].logprob - log_sum);
	*ret_logprob = (float)((double)logits[token] - log_sum);
	return 0;
}
