// One answer of the box: the conversation and its options as a request, the streamed events as text.
// The parsing is pure; kb_ctl_ask() does the calling.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "firmware/ctl/ctl.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_CTL_TURNS_MAX 4096u // the box's own limit on messages of one chat
#define KB_CTL_MODEL_MAX 128   // bytes of a model's name, longer ones are cut

// --- conversation
struct kb_ctl_turn {
	char *role, *content; // owned
};
struct kb_ctl_talk {
	struct kb_ctl_turn *turns;
	uint32_t n;
};

// Zero-initialise. role and content are copied. KB_ELIMIT past KB_CTL_TURNS_MAX.
KB_MUST_CHECK int kb_ctl_talk_add(struct kb_ctl_talk *t, const char *role, const char *content);
// Replaces the system message at the front, or takes it away ("" or NULL).
KB_MUST_CHECK int kb_ctl_talk_set_system(struct kb_ctl_talk *t, const char *content);
void kb_ctl_talk_drop_last(struct kb_ctl_talk *t);
// Drops everything but the system message.
void kb_ctl_talk_clear(struct kb_ctl_talk *t);
void kb_ctl_talk_finish(struct kb_ctl_talk *t);
// {"model": ..., "messages": [...]}: what /save writes and /load reads.
KB_MUST_CHECK int kb_ctl_talk_save(const struct kb_ctl_talk *t, const char *model, struct kb_buf *out);
// Replaces *t and *ret_model (free() it; NULL where the text has none) only on success. KB_EBAD names the place.
KB_MUST_CHECK int kb_ctl_talk_load(
	struct kb_ctl_talk *t, const char *text, size_t len, char **ret_model, struct kb_err *err);

// --- one request
struct kb_ctl_ask {
	const char *model; // NULL: the box's default
	const struct kb_ctl_talk *talk;
	struct kb_ctl_value max_tokens, temperature, top_p, seed;
};

struct kb_ctl_answer {
	// Each piece of text as it comes; NULL: only collected. Non-zero ends the answer with it.
	int (*on_text)(void *ctx, const char *text, size_t len);
	void *ctx;

	struct kb_buf text;
	char model[KB_CTL_MODEL_MAX]; // that answered; "" until it is known
	char finish[16];              // "stop", "length"; "" until it is known
	bool is_done;                 // [DONE] was seen
	bool has_usage;
	uint64_t prompt_tokens, completion_tokens, cached_tokens;
	uint64_t asked_us, first_us, last_us; // own clock; 0: not yet
	uint32_t pieces;
	struct kb_err error; // code is not 0 where the stream carried an error
	char request_id[64];
};

// The body of POST /v1/chat/completions, as a stream with usage.
KB_MUST_CHECK int kb_ctl_ask_body(const struct kb_ctl_ask *ask, struct kb_buf *out);
// Pure but for on_text: one event's data at the time now_us. KB_EBAD: no JSON of the expected shape; KB_EIO: the
// stream carried an error, see answer->error.
KB_MUST_CHECK int kb_ctl_answer_event(struct kb_ctl_answer *a, const char *data, size_t len, uint64_t now_us);
void kb_ctl_answer_finish(struct kb_ctl_answer *a);

// Asks and waits for the whole answer; a busy or loading box is asked again for up to wait_s seconds.
// Returns the exit status; what went wrong is printed. Ctrl-C: KB_CTL_INTERRUPTED, with what had come in answer.
// Zero-initialise the answer but for on_text and ctx, and finish it in any case.
int kb_ctl_ask(struct kb_http_client *c, const struct kb_ctl_ask *ask, uint64_t wait_s, struct kb_ctl_answer *ret);

// The model that the box answers with where none is named; free() it. NULL where it does not say. Prints what went
// wrong, where the box cannot be reached, and returns the exit status.
KB_MUST_CHECK int kb_ctl_default_model(struct kb_http_client *c, char **ret);

struct kb_ctl_speed {
	double first_s, prefill_tps, decode_tps; // 0: not known
};
struct kb_ctl_speed kb_ctl_answer_speed(const struct kb_ctl_answer *a);
// One line on standard error.
void kb_ctl_answer_stats(const struct kb_ctl_answer *a);
