#include "sched/pace.h"

#define SMOOTHING 0.25 // part of a new figure in the smoothed one

static uint32_t size_of(uint32_t n_tokens)
{
	uint32_t i = n_tokens <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(n_tokens - 1);
	return i < KB_PACE_SIZES ? i : KB_PACE_SIZES - 1;
}

static int is_known(const struct kb_pace *p, uint32_t i)
{
	return p->size[i].n > 1 && p->steps - p->size[i].last < KB_PACE_STALE;
}

void kb_pace_add(struct kb_pace *p, uint32_t n_tokens, uint64_t us)
{
	struct kb_pace_size *s = &p->size[size_of(n_tokens)];
	// A single slow step (another program, a page fault) says little: down at once, up by and by.
	if (s->n <= 1 || (double)us < s->us || p->steps - s->last >= KB_PACE_STALE)
		s->us = (double)us;
	else
		s->us += SMOOTHING * ((double)us - s->us);
	s->n += s->n < 2;
	s->last = ++p->steps;
}

double kb_pace_guess(const struct kb_pace *p, uint32_t n_tokens, double growth)
{
	double factor = 1;
	for (uint32_t i = size_of(n_tokens);; i--) {
		if (is_known(p, i))
			return p->size[i].us * factor;
		if (i == 0)
			return 0;
		factor *= growth;
	}
}
