#include "sched/budget.h"

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

// Prompt tokens of a step that also decodes: as many as keep it short.
static uint32_t mixed_budget(const struct kb_budget *b, uint32_t n_decoding, uint32_t n_reading)
{
	double most = KB_SCHED_STRETCH * kb_pace_guess(b->pace, n_decoding, 1);
	uint32_t n = 1;
	while (most > 0 && n < b->mixed_tokens && kb_pace_guess(b->pace, n * 2, 2) <= most)
		n *= 2;
	uint32_t least = n_decoding + (n_reading > KB_SCHED_READ_MIN ? n_reading : KB_SCHED_READ_MIN);
	n = n > least ? n : least;
	n = min_u32(n, b->mixed_tokens);
	n = n < n_decoding + n_reading ? n_decoding + n_reading : n; // everyone goes on
	return min_u32(n, b->max_tokens) - n_decoding;
}

// How many of q's guesses are worth checking in a step that has n tokens already: those that bring the most tokens for
// the time, compared with none.
static uint32_t guesses_worth(const struct kb_budget *b, const struct kb_seq *q, uint32_t n)
{
	uint32_t room = min_u32(b->max_tokens, b->max_out) - n, best = 0;
	double best_pace = 1;
	for (uint32_t total = 2; total <= n + room; total *= 2) { // only full sizes: the kernels' cost goes in such steps
		uint32_t more = total > n ? min_u32(total - n, q->n_guesses) : 0;
		double now = kb_pace_guess(b->pace, n, 1), then = kb_pace_guess(b->pace, n + more, 1);
		double pace = now > 0 ? (1 + kb_draft_expect(&q->draft, q->agreed, more) / n) * now / then : 0;
		if (pace > best_pace) {
			best_pace = pace;
			best = more;
		}
		if (more == q->n_guesses)
			break;
	}
	return best;
}

static void add_guesses(const struct kb_budget *b, struct kb_seq **running, uint32_t n_running, uint32_t n_tokens)
{
	for (uint32_t i = 0; i < n_running && b->draft_max > 0; i++) {
		struct kb_seq *q = running[i];
		// The last token needs no guess behind it.
		uint32_t most = min_u32(b->draft_max, q->limit - q->n_tokens - 1);
		q->agreed = kb_draft_look_up(q->token, q->n_tokens, most, q->guess);
		q->n_guesses = q->agreed ? most : 0;
		q->n_draft = q->n_guesses ? guesses_worth(b, q, n_tokens) : 0;
		q->n_step += q->n_draft;
		n_tokens += q->n_draft;
	}
}

void kb__budget_share(const struct kb_budget *b, struct kb_seq **running, uint32_t n_running)
{
	uint32_t n_decoding = 0, n_reading = 0;
	for (uint32_t i = 0; i < n_running; i++) {
		struct kb_seq *q = running[i];
		q->n_draft = q->n_guesses = 0;
		q->n_step = q->state == KB_SEQ_DECODE;
		n_decoding += q->state == KB_SEQ_DECODE;
		n_reading += q->state == KB_SEQ_PREFILL;
	}
	uint32_t budget = n_decoding ? mixed_budget(b, n_decoding, n_reading) : b->max_tokens;
	if (n_reading == 0)
		add_guesses(b, running, n_running, n_decoding);
	// Equal shares; what one does not use goes to the others, oldest first.
	for (uint32_t round = 0; round < 2; round++) {
		uint32_t share = n_reading ? (budget + n_reading - 1) / n_reading : 0;
		for (uint32_t i = 0; i < n_running && budget > 0; i++) {
			struct kb_seq *q = running[i];
			if (q->state != KB_SEQ_PREFILL)
				continue;
			uint32_t n = min_u32(q->n_tokens - q->n_computed - q->n_step, min_u32(round ? budget : share, budget));
			q->n_step += n;
			budget -= n;
		}
	}
}
