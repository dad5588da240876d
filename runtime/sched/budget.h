// What goes into a step: a token of each answer, then guesses of what follows, or pieces of prompts.
#pragma once
#include "sched/pace.h"
#include "sched/seq.h"

struct kb_budget {
	const struct kb_pace *pace;
	uint32_t max_tokens, max_out;     // of a step
	uint32_t mixed_tokens, draft_max; // as in kb_sched_options
};

// Sets n_step, n_draft and the guesses of each running request, which are in order of age. Pages are not looked at.
void kb__budget_share(const struct kb_budget *b, struct kb_seq **running, uint32_t n_running);
