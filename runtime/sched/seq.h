// One request as the scheduler sees it: its tokens, its pages, its sampler and text, and where it stands.
//
//   waiting -> prefill -> decode -> done
//      ^---------+---------+            preempted: its pages are gone, its tokens are not
//   From every state to done: cancelled, failed, or finished before it began (a resumed request that was complete).
#pragma once
#include "base/buf.h"
#include "sample/stop.h"
#include "sched/draft.h"
#include "sched/pages.h"
#include "sched/sched.h"
#include "text/detok.h"

#define KB_SEQ_NEVER UINT64_MAX

enum kb_seq_state { KB_SEQ_WAITING, KB_SEQ_PREFILL, KB_SEQ_DECODE, KB_SEQ_DONE };

struct kb_seq {
	const enum kb_seq_state state; // only kb__seq_set_state writes it
	uint64_t id, order;            // order: of submission
	struct kb_client *client;
	struct kb_seq *next; // in the waiting list
	bool was_preempted, in_flight;

	uint32_t *token; // (limit) prompt, then generated
	uint32_t n_tokens, n_prompt, limit;
	uint32_t n_computed; // tokens whose K and V are in the pages
	uint32_t n_cached;   // of the prompt, that the prefix cache had when it was first admitted
	uint32_t row;        // of the model's page table; valid while admitted
	struct kb_page_list pages;

	const struct kb_tok *tok;
	struct kb_sampler sampler;
	struct kb_detok detok;
	struct kb_stops stops;
	struct kb_buf raw, text; // text: of the last feed or flush
	uint8_t logprobs;
	bool ignore_eos, is_stopped; // is_stopped: by a stop string

	// Of the step in flight.
	uint32_t n_step;             // tokens taken into it, guesses included
	uint32_t out;                // first row of its 1 + n_draft rows of logits, or UINT32_MAX
	uint32_t n_guesses, n_draft; // what may come next; the first n_draft of them are checked by the step
	uint32_t agreed;             // tokens before the guesses that agree with where these are from
	uint32_t guess[KB_DRAFT_MAX];
	uint32_t n_sampled; // by run, as the following
	struct kb_seq_sample {
		uint32_t token;
		float logprob;
		struct kb_sampler_choice top[KB_SCHED_TOP_MAX];
	} sampled[KB_DRAFT_MAX + 1];
	struct kb_draft draft;

	uint64_t submitted_us, admitted_us, first_token_us; // KB_SEQ_NEVER: not yet
};

// Waiting, with prompt and resumed tokens; limit: tokens of the context. The request was checked by the caller.
KB_MUST_CHECK int kb__seq_create(const struct kb_sched_request *r, const struct kb_tok *tok, uint32_t limit,
	struct kb_err *err, struct kb_seq **ret);
// pages: where its own go back to.
void kb__seq_destroy(struct kb_seq *q, struct kb_pages *pages);
void kb__seq_set_state(struct kb_seq *q, enum kb_seq_state to);

// True when nothing is left to generate.
bool kb__seq_is_complete(const struct kb_seq *q);
bool kb__seq_is_end(const struct kb_seq *q, uint32_t token);
// Picks the next tokens (q->sampled) and their log probabilities from 1 + n_draft rows of logits: one behind the text,
// and one more behind each guess that was right. Touches only these, the sampler and w.
KB_MUST_CHECK int kb__seq_sample(
	struct kb_seq *q, struct kb_sampler_scratch *w, const float *logits, struct kb_err *err);
// Appends a generated token that the sampler knows; q->text is what can be said now, q->is_stopped may become true.
KB_MUST_CHECK int kb__seq_say(struct kb_seq *q, uint32_t token);
// The end without a stop string: q->text is what was held back.
KB_MUST_CHECK int kb__seq_flush(struct kb_seq *q);
