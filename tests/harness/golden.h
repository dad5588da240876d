// Reads tests/golden: reference next-token distributions (kl_MODEL.bin) and greedy continuations
// (greedy_MODEL_q.txt, greedy_MODEL_f32.txt). Formats and origin: tests/golden/make_goldens.py.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

struct kb_golden_seq {
	uint32_t len;           // positions
	const uint32_t *tokens; // (len + 1): row i predicts tokens[i + 1] from tokens[0..i]
	uint32_t first_row;     // its row 0, for kb_golden_row()
};

// Everything points into one allocation, valid until kb_golden_ref_close().
struct kb_golden_ref {
	uint8_t model_sha256[32]; // of the GGUF file
	uint32_t n_seq, n_pos, vocab, k;
	struct kb_golden_seq *seq; // (n_seq)
	const uint8_t *rows;
	void *memory;
};

// The reference distribution after a position: its k likeliest tokens, and the rest together.
struct kb_golden_row {
	uint32_t k;
	const uint32_t *ids;   // (k), distinct, likeliest first
	const float *logprobs; // (k)
	float rest;            // log of the rest's probability; -inf: none
};

KB_MUST_CHECK int kb_golden_ref_open(const char *path, struct kb_err *err, struct kb_golden_ref *ret);
void kb_golden_ref_close(struct kb_golden_ref *g);
struct kb_golden_row kb_golden_row(const struct kb_golden_ref *g, uint32_t i); // i below n_pos

// KL(reference || softmax(logits)) in nats over the partition {each of the k tokens, all others together}: a lower
// bound of the divergence over the whole vocabulary (tests/golden/full_kl.py computes that one).
// Never NaN: infinite where ours gives no probability to what the reference has, or holds a NaN.
double kb_golden_kl(const struct kb_golden_row *row, const float *logits, uint32_t vocab);

struct kb_golden_token {
	uint32_t id, second; // llama.cpp's choice and its runner-up
	float margin;        // logprob(id) - logprob(second)
	uint32_t other;      // the choice of the other arithmetic (f32 in a q file, q in an f32 file), same prefix
	float other_margin;
	float other_gap; // there, logprob(other) - logprob(id): 0 where both agree
};

struct kb_golden_case {
	char *name;
	bool is_chat;
	char *say;  // chat: the user's message; otherwise NULL
	char *text; // the prompt as text; for chat, rendered by the model's template
	uint32_t *prompt, n_prompt;
	struct kb_golden_token *tokens; // (n_new of the file)
};

struct kb_golden_greedy {
	char model_sha256[65];
	bool is_f32; // chosen by the dequantised model (exact arithmetic), not by the quantised one
	uint32_t vocab, n_new, n_cases;
	struct kb_golden_case *cases;
};

KB_MUST_CHECK int kb_golden_greedy_open(const char *path, struct kb_err *err, struct kb_golden_greedy *ret);
void kb_golden_greedy_close(struct kb_golden_greedy *g);
