#include "sched/draft.h"

#define FADING 0.9f // of what was seen, with each new guess: about the last ten count

static uint32_t agreement(const uint32_t *token, uint32_t n, uint32_t at)
{
	uint32_t i = 0;
	while (i < KB_DRAFT_MATCH_MAX && i <= at && token[at - i] == token[n - 1 - i])
		i++;
	return i;
}

uint32_t kb_draft_look_up(const uint32_t *token, uint32_t n, uint32_t max, uint32_t *ret)
{
	uint32_t best = KB_DRAFT_MATCH_MIN - 1, best_at = 0;
	if (n <= KB_DRAFT_MATCH_MIN || max == 0)
		return 0;
	uint32_t first = n > KB_DRAFT_LOOK_BACK ? n - KB_DRAFT_LOOK_BACK : 0;
	for (uint32_t at = n - 1; at-- > first && best < KB_DRAFT_MATCH_MAX;) {
		if (token[at] != token[n - 1])
			continue;
		uint32_t length = agreement(token, n, at);
		if (length > best) {
			best = length;
			best_at = at;
		}
	}
	if (best < KB_DRAFT_MATCH_MIN)
		return 0;
	// Behind the end of the text the guesses go on with themselves: a list repeats as a whole.
	for (uint32_t i = 0; i < max; i++) {
		uint32_t from = best_at + 1 + i;
		ret[i] = from < n ? token[from] : ret[from - n];
	}
	return best;
}

static uint32_t class_of(uint32_t agreed)
{
	return agreed <= 2 ? 0 : agreed <= 4 ? 1 : agreed <= 8 ? 2 : 3;
}

void kb_draft_learn(struct kb_draft *d, uint32_t agreed, uint32_t n_right, int has_wrong)
{
	for (uint32_t i = 0; i < n_right + (has_wrong != 0); i++) {
		uint32_t c = class_of(agreed + i);
		d->hits[c] = d->hits[c] * FADING + (i < n_right);
		d->tries[c] = d->tries[c] * FADING + 1;
	}
}

double kb_draft_expect(const struct kb_draft *d, uint32_t agreed, uint32_t n)
{
	double expected = 0, chance = 1;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t c = class_of(agreed + i);
		chance *= (d->hits[c] + 1.0) / (d->tries[c] + 2.0); // even odds to begin with (Laplace's rule of succession)
		expected += chance;
	}
	return expected;
}
