// Continuous batching: which tokens of which requests go into the next step of the model, and what comes of them.
// No clock and no thread of its own: the caller passes the time and calls in this order, again and again:
//   kb_sched_plan        chooses the next step's tokens; gives out pages       \  the owner's thread
//   kb_sched_run         the model's step and the sampling                      > any thread
//   kb_sched_settle      events; ended requests give their pages back          /  the owner's thread
// Between plan and settle the owner may call submit, cancel and stats, also while run is busy on another thread.
//
// Each step takes one token of every decoding request, then prompt pieces of the others up to the step's budget, which
// is what keeps the gap between two tokens of an answer within KB_SCHED_STRETCH of that without any prompt. Where only
// answers run, guesses of their next tokens come along when they look worth their time.
// Admission is fair between clients (round robin by client key, oldest first within one). A request is admitted
// when the pages for what it has to read are free. When pages run out, the newest admitted request gives its pages
// back, waits at the head of the queue, and is read anew including what it has generated (preemption by
// recomputing); the oldest is never preempted, so every request ends.
//
// What a client's requests have in common with its earlier ones from the start on is not read again (prefix.h). Pages
// that nobody uses stay for that until they are needed.
//
// An answer depends on its own request only, never on batch mates, preemption or resumption: the model is
// batch-invariant and the sampler's randomness is a function of (seed, token index).
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "model/model.h"
#include "sample/sampler.h"
#include "text/tok.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_SCHED_TOP_MAX 20u    // logprob alternatives of a token
#define KB_SCHED_STRETCH 1.8    // below 2, so that p95 of the gaps is within twice their median
#define KB_SCHED_READ_MIN 4u    // prompt tokens of a step however long it takes: prompts go on, too
#define KB_SCHED_CLIENT_MAX 64u // bytes of a client key; longer ones are told apart by these

// What the scheduler asks of a model; kb_sched_model_of() makes it from a real one.
struct kb_sched_model {
	void *ctx;
	uint32_t vocab, context;
	uint32_t kv_pages, max_tokens, max_seqs, max_out;
	uint32_t *(*page_row)(void *ctx, uint32_t seq);
	int (*step)(void *ctx, const struct kb_batch *batch, struct kb_err *err, const float **ret_logits);
};
struct kb_sched_model kb_sched_model_of(struct kb_model *m);

struct kb_sched_logprob {
	uint32_t token;
	float logprob;
	struct kb_str bytes; // the token's own bytes
};

struct kb_sched_token {
	uint32_t token;
	struct kb_str text; // whole UTF-8; may be empty
	bool has_logprob;
	struct kb_sched_logprob chosen;
	uint32_t n_top;
	struct kb_sched_logprob top[KB_SCHED_TOP_MAX]; // best first
};

enum kb_sched_finish { KB_SCHED_STOP, KB_SCHED_LENGTH, KB_SCHED_CANCELLED }; // as enum kb_finish of proto.h

struct kb_sched_done {
	enum kb_sched_finish finish;
	struct kb_str text; // held-back text that turned out not to be a stop string
	uint32_t prompt_tokens, completion_tokens, cached_tokens;
	uint64_t queue_us, prefill_us, decode_us;
};

// Called on the owner's thread, from submit, cancel and settle. What they point to is valid during the call. They may
// not call back into the scheduler. After done or error nothing more comes for that id.
struct kb_sched_events {
	void *ctx;
	void (*accepted)(void *ctx, uint64_t id, uint32_t prompt_tokens);
	void (*token)(void *ctx, uint64_t id, const struct kb_sched_token *t);
	void (*done)(void *ctx, uint64_t id, const struct kb_sched_done *d);
	void (*error)(void *ctx, uint64_t id, const struct kb_err *err);
};

struct kb_sched_options {
	uint32_t queue_max;    // waiting requests; 0: 256
	uint32_t mixed_tokens; // the most tokens of a step that also decodes; 0: as many as answers can bear
	uint32_t draft_max;    // guesses of a request checked by one step (draft.h); at most KB_DRAFT_MAX; 0: none
	bool no_prefix_cache;
	// A beginning (of a system prompt) that all clients may know of each other that they use it: its pages are kept
	// once for all. Copied.
	const uint32_t *shared;
	uint32_t n_shared;
};

// Everything is copied by submit.
struct kb_sched_request {
	uint64_t id; // unique among the requests that have not ended
	const uint32_t *prompt;
	uint32_t n_prompt;
	const uint32_t *resume; // generated and delivered before an engine restart: read again, not sent again
	uint32_t n_resume;
	uint32_t max_new; // tokens to generate, resume included; 0: up to the context's end
	struct kb_sampler_params sampling;
	uint8_t logprobs; // 0: none; 1 + k: the chosen token's and the k best
	bool ignore_eos;
	bool continues_text; // the answer is the middle of a text: its first space is kept
	uint32_t n_stop;
	const struct kb_str *stop;
	struct kb_str client;
};

struct kb_sched_stats {
	uint32_t running, waiting, kv_pages;
	uint32_t kv_pages_used, kv_pages_idle; // by running requests; kept for later ones
	uint64_t guessed_tokens, guessed_right;
	uint64_t prompt_tokens, cached_tokens, generated_tokens, steps, step_us, preemptions;
};

struct kb_sched;

// model and tok must outlive the scheduler; model is copied, its ctx is not.
KB_MUST_CHECK int kb_sched_create(const struct kb_sched_model *model, const struct kb_tok *tok,
	const struct kb_sched_options *options, const struct kb_sched_events *events, struct kb_err *err,
	struct kb_sched **ret);
// Drops what is running without events. Not between plan and settle.
void kb_sched_destroy(struct kb_sched *s);

// 0: accepted was called. KB_EBUSY: the queue is full. KB_ELIMIT: prompt and answer exceed the context. KB_EARG,
// KB_EEXISTS. On failure no event comes; err says why.
KB_MUST_CHECK int kb_sched_submit(
	struct kb_sched *s, const struct kb_sched_request *r, uint64_t now_us, struct kb_err *err);
// Its pages are free at once; done(cancelled) was called. KB_ENOTFOUND: there is no such request, or no more.
int kb_sched_cancel(struct kb_sched *s, uint64_t id, uint64_t now_us);

// True when there is a step to run: then run and settle must follow.
bool kb_sched_plan(struct kb_sched *s, uint64_t now_us);
// The model's answer; keep it for settle. Touches nothing that submit, cancel and stats touch.
KB_MUST_CHECK int kb_sched_run(struct kb_sched *s, struct kb_err *err);
// rc and err: what run gave. KB_EDEVICE and other failures of the step end every request of the step with error.
void kb_sched_settle(struct kb_sched *s, int rc, const struct kb_err *err, uint64_t step_us, uint64_t now_us);

void kb_sched_stats(const struct kb_sched *s, struct kb_sched_stats *ret);
// Checks all invariants (pages, rows, lists). For tests; O(everything).
bool kb_sched_is_sound(const struct kb_sched *s);
