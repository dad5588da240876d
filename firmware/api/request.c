// See request.h. Field meanings: OpenAI's API reference (openai-openapi, MIT), "Create chat completion" and
// "Create completion".
#include "firmware/api/request.h"
#include "firmware/api/json.h"
#include "firmware/api/request_fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int kb_problem_set(struct kb_problem *p, int status, const char *code, const char *param, const char *format, ...)
{
	va_list args;
	*p = (struct kb_problem){.status = status, .code = code};
	p->type = status == 429   ? "rate_limit_error"
			  : status == 401 ? "authentication_error"
			  : status == 403 ? "permission_error"
			  : status >= 500 ? "server_error"
							  : "invalid_request_error";
	snprintf(p->param, sizeof p->param, "%s", param);
	va_start(args, format);
	vsnprintf(p->text, sizeof p->text, format, args);
	va_end(args);
	return KB_EBAD;
}

static int field_of(const char *name, size_t len, enum kb_api_kind kind)
{
	for (int i = 0; i < kb_field_count; i++) {
		const struct kb_field *f = &kb_fields[i];
		bool is_ours = kind == KB_API_CHAT ? f->in_chat : f->in_completions;
		if (is_ours && strlen(f->name) == len && memcmp(f->name, name, len) == 0)
			return i;
	}
	return -1;
}

static int walk(struct kb_api_request *r, yyjson_val *root, struct kb_problem *p)
{
	uint64_t seen = 0;
	yyjson_obj_iter it = yyjson_obj_iter_with(root);
	yyjson_val *key;
	while ((key = yyjson_obj_iter_next(&it))) {
		const char *name = yyjson_get_str(key);
		int i = field_of(name, yyjson_get_len(key), r->kind);
		if (i < 0)
			return kb_problem_set(p, 400, "unknown_parameter", name, "Unrecognized request argument: %.100s", name);
		if (seen >> i & 1)
			return kb_problem_set(p, 400, NULL, name, "%s is given twice", name);
		seen |= UINT64_C(1) << i;
		yyjson_val *v = yyjson_obj_iter_get_val(key);
		int e = yyjson_is_null(v) ? 0 : kb_fields[i].parse(r, kb_fields[i].name, v, p);
		if (e)
			return e;
	}
	return 0;
}

// What concerns more than one field.
static int check_whole(struct kb_api_request *r, struct kb_problem *p)
{
	if (r->kind == KB_API_CHAT && r->n_messages == 0)
		return kb_problem_set(p, 400, "missing_required_parameter", "messages", "messages is required");
	if (r->kind == KB_API_CHAT) {
		if (r->logprobs > 1 && !(r->logprobs & KB_LOGPROBS_WANTED))
			return kb_problem_set(p, 400, NULL, "top_logprobs", "top_logprobs needs logprobs: true");
		r->logprobs = r->logprobs & KB_LOGPROBS_WANTED ? (r->logprobs & 0x7f) + (r->logprobs == KB_LOGPROBS_WANTED) : 0;
		r->n_prompts = 1;
		r->prompts[0].kind = KB_PROMPT_CHAT;
	}
	if (r->n_prompts == 0)
		return kb_problem_set(p, 400, "missing_required_parameter", "prompt", "prompt is required");
	if (r->n * r->n_prompts > KB_ANSWER_CHOICES_MAX)
		return kb_problem_set(p, 400, NULL, "n", "n times the number of prompts is over %u", KB_ANSWER_CHOICES_MAX);
	if (r->with_echo && r->logprobs)
		return kb_problem_set(p, 400, NULL, "echo", "echo together with logprobs is not available in this release");
	for (uint32_t i = 0; r->with_echo && i < r->n_prompts; i++)
		if (r->prompts[i].kind != KB_PROMPT_TEXT)
			return kb_problem_set(p, 400, NULL, "echo", "echo needs prompts of text");
	if (r->with_usage && !r->is_stream)
		return kb_problem_set(p, 400, NULL, "stream_options", "stream_options is for stream: true");
	return 0;
}

int kb_request_parse(enum kb_api_kind kind, const void *body, size_t len, struct kb_api_request *ret_request,
	struct kb_problem *ret_problem)
{
	struct kb_err err;
	struct kb_api_request *r = ret_request;
	memset(r, 0, sizeof *r);
	r->kind = kind;
	r->n = 1;
	r->max_new = kind == KB_API_CHAT ? 0 : 16; // OpenAI's default for /v1/completions
	// Defaults for small models (docs/api.md): a little below llama.cpp's, which are made for larger ones.
	r->sampling =
		(struct kb_sampling){.temperature = 0.7f, .top_p = 0.95f, .min_p = 0.05f, .top_k = 40, .repeat_penalty = 1.0f};
	if (len == 0)
		return kb_problem_set(ret_problem, 400, NULL, "", "the request has no body");
	r->doc = kb_json_parse(body, len, &err);
	if (!r->doc)
		return kb_problem_set(ret_problem, 400, NULL, "", "%s", err.text);
	yyjson_val *root = yyjson_doc_get_root(r->doc);
	if (!yyjson_is_obj(root))
		return kb_problem_set(ret_problem, 400, NULL, "", "the body is not a JSON object");
	int e = walk(r, root, ret_problem);
	return e ? e : check_whole(r, ret_problem);
}

void kb_request_finish(struct kb_api_request *r)
{
	yyjson_doc_free(r->doc);
	kb_buf_finish(&r->messages);
	kb_buf_finish(&r->tokens);
	r->doc = NULL;
}

// splitmix64 (Steele, Lea, Flood 2014): neighbouring inputs, unlike outputs.
static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

void kb_request_submit(const struct kb_api_request *r, uint32_t i, uint64_t seed, struct kb_msg_submit *ret)
{
	const struct kb_api_prompt *prompt = &r->prompts[i / r->n];
	*ret = (struct kb_msg_submit){
		.kind = prompt->kind,
		.n_messages = r->n_messages,
		.messages = r->messages.data,
		.messages_len = r->messages.len,
		.text = prompt->text,
		.tokens = r->tokens.data ? r->tokens.data + 4 * prompt->tokens_at : NULL,
		.n_tokens = (uint32_t)prompt->n_tokens,
		.max_new = r->max_new,
		.sampling = r->sampling,
		.logprobs = r->logprobs,
		.ignore_eos = r->ignore_eos,
		.n_stop = r->n_stop,
	};
	memcpy(ret->stop, r->stop, sizeof ret->stop);
	uint32_t sample = i % r->n;
	ret->sampling.seed = sample ? mix(seed + sample) : seed;
}
