// The body of POST /v1/chat/completions and /v1/completions -> a checked request. Pure: no connection, no engine.
// Fields are rows of a table; a field that we do not know is refused by name, as OpenAI does, and one that we know
// but cannot do is refused where it would change the answer (tools, json_schema, ...), never silently ignored.
#pragma once
#include "base/buf.h"
#include "firmware/api/limits.h"
#include "proto/proto.h"
#include <yyjson.h>

enum kb_api_kind { KB_API_CHAT, KB_API_COMPLETION };

// What is wrong, in OpenAI's words. Static type and code; param "" where none is to blame.
struct kb_problem {
	int status;
	const char *type, *code; // code may be NULL
	char param[64];
	char text[KB_ERR_TEXT_MAX];
	int retry_after_s; // 0: none
};
// Fills p and returns KB_EBAD.
int kb_problem_set(struct kb_problem *p, int status, const char *code, const char *param, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

struct kb_api_prompt {
	uint8_t kind; // enum kb_prompt_kind
	struct kb_str text;
	size_t tokens_at, n_tokens; // into kb_api_request.tokens, in ids
};

// Texts point into doc and live as long as the request: kb_request_finish().
struct kb_api_request {
	enum kb_api_kind kind;
	yyjson_doc *doc;
	struct kb_str model; // "" where the default is meant
	struct kb_sampling sampling;
	bool has_seed, is_stream, with_usage, with_echo, ignore_eos;
	uint32_t n, max_new;
	uint8_t logprobs; // as in kb_msg_submit
	uint32_t n_stop;
	struct kb_str stop[KB_STOP_MAX];
	struct kb_buf messages; // as kb_proto_add_message() makes it
	uint32_t n_messages;
	struct kb_api_prompt prompts[KB_PROMPTS_MAX];
	uint32_t n_prompts;   // 1 for a chat
	struct kb_buf tokens; // u32 little-endian ids of all token prompts
};

// 0, or KB_EBAD with *ret_problem filled. *ret_request must be finished either way.
KB_MUST_CHECK int kb_request_parse(enum kb_api_kind kind, const void *body, size_t len,
	struct kb_api_request *ret_request, struct kb_problem *ret_problem);
void kb_request_finish(struct kb_api_request *r);
// The request of choice i (prompt i / n, sample i % n) for an engine; seed is the answer's. Points into r.
void kb_request_submit(const struct kb_api_request *r, uint32_t i, uint64_t seed, struct kb_msg_submit *ret);
