// An answer in the making: one HTTP request for text, its choices as jobs of an engine, written as one body or as an
// event stream in the form of its endpoint.
#pragma once
#include "firmware/api/conn.h"
#include "firmware/api/json.h"
#include "firmware/api/request.h"

struct kb_answer;

struct kb_choice {
	struct kb_job job;
	struct kb_answer *answer;
	uint32_t index;
	struct kb_buf text;        // not yet sent (streams), or all of it
	struct kb_buf logprobs[4]; // JSON items with commas between; how many are used is the format's affair
	size_t chars;              // code points of the tokens so far, for text_offset
	uint32_t n_logprobs;       // items not yet sent
	const char *finish;        // NULL: not over
	struct kb_msg_done done;   // its text is not valid any more
	uint64_t last_token_ms;
};

// What differs between the endpoints.
struct kb_format {
	const char *id_prefix, *object, *chunk_object;
	// Adds a token's logprobs to the choice.
	void (*add_logprob)(struct kb_choice *x, const struct kb_msg_token *t);
	// The choice of a whole answer, as an object.
	void (*put_choice)(struct kb_json *j, struct kb_choice *x);
	// The choice of a chunk: the text and logprobs not yet sent; is_first: before any text; finish: the last one.
	void (*put_delta)(struct kb_json *j, struct kb_choice *x, bool is_first, bool is_last);
	bool has_opening; // a chunk before any text (the role)
};

struct kb_answer {
	struct kb_task task;
	struct kb_conn *c;
	struct kb_daemon *d;
	const struct kb_format *format;
	struct kb_api_request request;
	char id[40], client[17], model[KB_MODEL_NAME_MAX + 1];
	uint8_t fingerprint[32];
	int64_t created_s;
	uint64_t begun_ms, sent_ms;
	bool is_starting, is_streaming, has_token;
	struct kb_problem problem; // of starting
	uint32_t n_choices, n_open, n_accepted;
	struct kb_choice choices[];
};

// Parses the request, submits its choices, and answers when they are there.
void kb_answer_begin(struct kb_conn *c, enum kb_api_kind kind, const struct kb_format *format);

// For the formats: {"token": ..., "logprob": ..., "bytes": [...]} without the braces.
void kb_put_token(struct kb_json *j, const struct kb_logprob *p);
// "null" or {"content": [...]}: whichever the choice's request asked for; the items are used up.
void kb_put_finish(struct kb_json *j, const struct kb_choice *x, bool is_last);
