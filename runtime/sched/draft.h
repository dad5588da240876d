// Guessing the next tokens of an answer, so that one step can check several at once (speculative decoding, Leviathan et
// al., arXiv 2211.17192). The guesses come from the text itself: where its last tokens stood before, the same may
// follow again (prompt look-up; "LLMA", Yang et al., arXiv 2304.04487). Quotes, code edits and forms are full of that.
//
// Checking never changes the answer: a step gives the logits behind each guess, the sampler picks from them as it would
// have without, and the first pick that differs from the guess ends the run. The draw of a token depends on (seed,
// token index) alone, so this holds for sampled answers too, token by token.
#pragma once
#include <stdint.h>

#define KB_DRAFT_MAX 15u          // guesses of a step: with the token before them, the tuned kernels' 16 columns
#define KB_DRAFT_MATCH_MIN 2u     // tokens that must agree
#define KB_DRAFT_MATCH_MAX 16u    // longer agreement is no better
#define KB_DRAFT_CLASSES 4u       // of agreement: 2, 3-4, 5-8, more
#define KB_DRAFT_LOOK_BACK 16384u // tokens searched, to bound the time: some 10 us

// How well guesses of one sequence did, by how many tokens agreed before them (right guesses count). Zero-initialise.
struct kb_draft {
	float hits[KB_DRAFT_CLASSES], tries[KB_DRAFT_CLASSES]; // fading
};

// Guesses what follows token[0 .. n): max tokens to ret. Returns how many tokens agree with where the guesses come
// from; 0: nothing like this stood before. The longest agreement counts, the latest among equals.
uint32_t kb_draft_look_up(const uint32_t *token, uint32_t n, uint32_t max, uint32_t *ret);

// Of guesses behind `agreed` tokens the first n_right were right, and the one behind them was wrong if has_wrong.
void kb_draft_learn(struct kb_draft *d, uint32_t agreed, uint32_t n_right, int has_wrong);
// How many of n guesses behind `agreed` tokens will be right, as it looks now.
double kb_draft_expect(const struct kb_draft *d, uint32_t agreed, uint32_t n);
