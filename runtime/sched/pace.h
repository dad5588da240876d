// How long steps take, learned from those that ran. Two decisions need it: how many prompt tokens may ride along with
// answers, and whether guessed tokens (draft.h) are worth their place. Both change when tokens come, never which.
#pragma once
#include <stdint.h>

#define KB_PACE_SIZES 12u   // steps of 1, 2, 3-4, 5-8 ... 1025-2048 tokens
#define KB_PACE_STALE 1024u // steps after which a figure counts as forgotten: contexts and company change

struct kb_pace {
	uint64_t steps; // that ran
	struct kb_pace_size {
		double us;     // smoothed
		uint64_t last; // value of steps when it was measured
		uint32_t n;    // measurements; the first is thrown away, because it may have made a graph
	} size[KB_PACE_SIZES];
};

void kb_pace_add(struct kb_pace *p, uint32_t n_tokens, uint64_t us);
// Microseconds of a step; growth: what doubling a step costs as long as that size was not tried (1: nothing, which
// makes the caller try it; 2: proportional). 0: nothing at all is known.
double kb_pace_guess(const struct kb_pace *p, uint32_t n_tokens, double growth);
