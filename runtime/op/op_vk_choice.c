#include "op/op_vk_choice.h"

// The other one is tried after so many runs: at most one run in so many is a wrong one.
#define TRY_AFTER 24u
// Chains count as disturbed from so much above their least on; below, nothing else is tried at all.
#define DISTURBED 1.3
// The other one must be better by so much: what a run takes varies by less.
#define BETTER 0.9
#define LEAST_RISES 1.002
#define SMOOTHING 0.25
#define SMOOTHING_TRIAL 0.5 // trials are few
#define OUTLIER 2.0         // one run counts as at most so many times what was known

/* see op_vk_choice.h */
uint32_t kb__choice_next(const struct kb_choice *c)
{
	if (c->since < TRY_AFTER)
		return c->now;
	if (c->now == KB_RUN_APART)
		return KB_RUN_CHAINED;
	return c->ns[KB_RUN_CHAINED] > DISTURBED * c->least ? KB_RUN_APART : KB_RUN_CHAINED;
}

/* see op_vk_choice.h */
void kb__choice_ran(struct kb_choice *c, uint32_t kind, double ns)
{
	const double part = kind == c->now ? SMOOTHING : SMOOTHING_TRIAL;
	const uint32_t other = c->now == KB_RUN_CHAINED ? KB_RUN_APART : KB_RUN_CHAINED;
	const double known = c->ns[kind], capped = known > 0 && ns > OUTLIER * known ? OUTLIER * known : ns;
	c->ns[kind] = known > 0 ? (1 - part) * known + part * capped : ns;
	if (kind == KB_RUN_CHAINED)
		c->least = c->least <= 0 || ns < c->least ? ns : c->least * LEAST_RISES;
	c->since = kind == c->now ? c->since + 1 : 0;
	// Only a fresh trial decides: an old one tells of another time.
	if (kind == other && c->ns[other] < BETTER * c->ns[c->now]) {
		c->now = other;
		c->since = 0;
	}
}
