// From logits to the next token.
//
// Order: logit bias and penalties; temperature; top-k; top-p (over what top-k left); min-p; one draw.
// Greedy takes the largest after bias and penalties, the lowest id among equals.
//
// The draw for the n-th generated token depends on (seed, n) alone: splitmix64 (Steele, Lea, Flood 2014; constants of
// Vigna's splitmix64.c), a counter-based generator. So an answer can be resumed after any token, in any company.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_SAMPLER_WINDOW 64u // tokens that repeat_penalty looks back, prompt included (llama.cpp's default)
#define KB_SAMPLER_BIAS_MAX 1024u
#define KB_SAMPLER_TEMPERATURE_MIN 0.001f
#define KB_SAMPLER_TOP_MAX 64u

struct kb_logit_bias {
	uint32_t token; // beyond the vocabulary: ignored
	float bias;     // -100 to 100, added to the logit (OpenAI's logit_bias)
};

struct kb_sampler_params {
	float temperature; // 0 to 100; below KB_SAMPLER_TEMPERATURE_MIN: greedy
	uint32_t top_k;    // the k likeliest; 0: all
	float top_p;       // 0 to 1: the fewest of the likeliest that hold this much; 1: all; 0: only the likeliest
	float min_p;       // 0 to 1: those at least this likely, the likeliest being 1; 0: all
	// 0 to 10, over the last KB_SAMPLER_WINDOW tokens: a logit above 0 is divided by it, one below multiplied (the
	// meaning of CTRL, arXiv 1909.05858, and llama.cpp). 1 or 0: off.
	float repeat_penalty;
	// -2 to 2, over the generated tokens: logit -= presence * (count > 0) + frequency * count (OpenAI's meaning).
	float presence_penalty, frequency_penalty;
	uint64_t seed;
	const struct kb_logit_bias *bias; // copied by init; at most KB_SAMPLER_BIAS_MAX
	uint32_t n_bias;
};

struct kb_sampler_count {
	uint32_t token, count; // count 0: an empty place
};

// Of one sequence. Embed; not copyable.
struct kb_sampler {
	struct kb_sampler_params params;
	struct kb_logit_bias *bias;
	uint64_t n_accepted, n_generated;
	uint32_t window[KB_SAMPLER_WINDOW]; // token i is in place i % KB_SAMPLER_WINDOW
	struct kb_sampler_count *counts;    // (n_places) of generated tokens, hashed; NULL until needed
	uint32_t n_places, n_counts;
};

// Working memory, as large as the vocabulary; one serves any number of samplers, one at a time.
struct kb_sampler_candidate {
	float weight;
	uint32_t token;
};
struct kb_sampler_scratch {
	uint32_t vocab;
	float *logit, *weight;               // (vocab), (vocab + 3)
	struct kb_sampler_candidate *sorted; // (vocab)
	double *sum;                         // of the weights in each bucket
	uint32_t *count;
};
KB_MUST_CHECK int kb_sampler_scratch_init(struct kb_sampler_scratch *w, uint32_t vocab);
void kb_sampler_scratch_finish(struct kb_sampler_scratch *w); // safe on a zeroed struct

// KB_EARG names the parameter that is out of range. finish is safe on a zeroed struct.
KB_MUST_CHECK int kb_sampler_init(struct kb_sampler *s, const struct kb_sampler_params *params, struct kb_err *err);
void kb_sampler_finish(struct kb_sampler *s);

// Tells the sampler of a token of its sequence, in order: the prompt's, then each one generated (also those that were
// generated before a restart).
KB_MUST_CHECK int kb_sampler_accept(struct kb_sampler *s, uint32_t token, bool is_generated);

// Chooses the next token; does not accept it. KB_EDEVICE where a logit is not a finite number.
KB_MUST_CHECK int kb_sampler_pick(const struct kb_sampler *s, struct kb_sampler_scratch *w, const float *logits,
	struct kb_err *err, uint32_t *ret_token);

// Natural logarithms of the model's own probabilities (before penalties and temperature): of `token`, and of the n_top
// likeliest, likeliest first, the lower id first among equals. KB_EDEVICE as above.
struct kb_sampler_choice {
	uint32_t token;
	float logprob;
};
KB_MUST_CHECK int kb_sampler_logprobs(const float *logits, uint32_t vocab, uint32_t token, uint32_t n_top,
	struct kb_err *err, float *ret_logprob, struct kb_sampler_choice *ret_top);
