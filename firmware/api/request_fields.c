// How each field is read. See request_fields.h.
#include "firmware/api/request_fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int parse_messages(struct kb_api_request *r, const char *name, yyjson_val *v, struct kb_problem *p);
static int parse_prompt(struct kb_api_request *r, const char *name, yyjson_val *v, struct kb_problem *p);

static int want(struct kb_problem *p, const char *name, const char *what)
{
	return kb_problem_set(p, 400, "invalid_type", name, "%s must be %s", name, what);
}

static int unavailable(struct kb_problem *p, const char *name)
{
	return kb_problem_set(p, 400, "unsupported_parameter", name, "%s is not available in this release", name);
}

static int number(const char *name, yyjson_val *v, double low, double high, float *ret, struct kb_problem *p)
{
	double x = yyjson_get_num(v);
	if (!yyjson_is_num(v))
		return want(p, name, "a number");
	if (!(x >= low && x <= high))
		return kb_problem_set(p, 400, "invalid_value", name, "%s must be between %g and %g", name, low, high);
	*ret = (float)x;
	return 0;
}

static int whole(const char *name, yyjson_val *v, uint32_t low, uint32_t high, uint32_t *ret, struct kb_problem *p)
{
	double x = yyjson_get_num(v);
	if (!yyjson_is_num(v) || x != floor(x))
		return want(p, name, "a whole number");
	if (!(x >= low && x <= high))
		return kb_problem_set(p, 400, "invalid_value", name, "%s must be between %u and %u", name, low, high);
	*ret = (uint32_t)x;
	return 0;
}

static int flag(const char *name, yyjson_val *v, bool *ret, struct kb_problem *p)
{
	if (!yyjson_is_bool(v))
		return want(p, name, "true or false");
	*ret = yyjson_get_bool(v);
	return 0;
}

#define PARSER(function) \
	static int function(struct kb_api_request *r, const char *name, yyjson_val *v, struct kb_problem *p)

PARSER(parse_model)
{
	if (!yyjson_is_str(v))
		return want(p, name, "a string");
	r->model = (struct kb_str){yyjson_get_str(v), yyjson_get_len(v)};
	return 0;
}
PARSER(parse_temperature)
{
	return number(name, v, 0, 2, &r->sampling.temperature, p);
}
PARSER(parse_top_p)
{
	return number(name, v, 0, 1, &r->sampling.top_p, p);
}
PARSER(parse_min_p)
{
	return number(name, v, 0, 1, &r->sampling.min_p, p);
}
PARSER(parse_top_k)
{
	return whole(name, v, 0, 1u << 20, &r->sampling.top_k, p);
}
PARSER(parse_presence)
{
	return number(name, v, -2, 2, &r->sampling.presence_penalty, p);
}
PARSER(parse_frequency)
{
	return number(name, v, -2, 2, &r->sampling.frequency_penalty, p);
}
PARSER(parse_repeat)
{
	return number(name, v, 0.5, 2, &r->sampling.repeat_penalty, p);
}
PARSER(parse_seed)
{
	if (!yyjson_is_int(v))
		return want(p, name, "a whole number of 64 bits");
	r->sampling.seed = yyjson_is_sint(v) ? (uint64_t)yyjson_get_sint(v) : yyjson_get_uint(v);
	r->has_seed = true;
	return 0;
}
PARSER(parse_n)
{
	return whole(name, v, 1, KB_CHOICES_MAX, &r->n, p);
}
PARSER(parse_best_of)
{
	(void)r;
	uint32_t best_of = 1;
	int e = whole(name, v, 1, 20, &best_of, p);
	return e || best_of == 1 ? e : unavailable(p, name);
}
PARSER(parse_max_tokens)
{
	return whole(name, v, 1, KB_MAX_NEW_MAX, &r->max_new, p);
}
PARSER(parse_stream)
{
	return flag(name, v, &r->is_stream, p);
}
PARSER(parse_echo)
{
	return flag(name, v, &r->with_echo, p);
}
PARSER(parse_ignore_eos)
{
	return flag(name, v, &r->ignore_eos, p);
}
PARSER(parse_stream_options)
{
	yyjson_obj_iter it = yyjson_obj_iter_with(v);
	yyjson_val *key;
	if (!yyjson_is_obj(v))
		return want(p, name, "an object");
	while ((key = yyjson_obj_iter_next(&it))) {
		bool ignored;
		yyjson_val *value = yyjson_obj_iter_get_val(key);
		if (yyjson_is_null(value))
			continue;
		bool is_usage = yyjson_equals_str(key, "include_usage");
		if (!is_usage && !yyjson_equals_str(key, "include_obfuscation"))
			return kb_problem_set(
				p, 400, "unknown_parameter", "stream_options", "stream_options knows include_usage only");
		int e = flag(is_usage ? "stream_options.include_usage" : "stream_options.include_obfuscation", value,
			is_usage ? &r->with_usage : &ignored, p);
		if (e)
			return e;
	}
	return 0;
}

PARSER(parse_chat_logprobs)
{
	bool wanted = false;
	int e = flag(name, v, &wanted, p);
	if (e == 0 && wanted)
		r->logprobs |= KB_LOGPROBS_WANTED;
	return e;
}
PARSER(parse_top_logprobs)
{
	uint32_t k = 0;
	int e = whole(name, v, 0, KB_TOP_LOGPROBS_MAX, &k, p);
	if (e == 0)
		r->logprobs |= (uint8_t)(1 + k);
	return e;
}
PARSER(parse_count_logprobs)
{
	uint32_t k = 0;
	if (yyjson_is_false(v))
		return 0;
	int e = whole(name, v, 0, KB_TOP_LOGPROBS_MAX, &k, p);
	if (e == 0)
		r->logprobs = (uint8_t)(1 + k);
	return e;
}

PARSER(parse_stop)
{
	size_t n = yyjson_is_str(v) ? 1 : yyjson_arr_size(v);
	if (!yyjson_is_str(v) && !yyjson_is_arr(v))
		return want(p, name, "a string or an array of strings");
	if (n > KB_STOP_MAX)
		return kb_problem_set(p, 400, "invalid_value", name, "stop has at most %u strings", KB_STOP_MAX);
	for (size_t i = 0; i < n; i++) {
		yyjson_val *s = yyjson_is_str(v) ? v : yyjson_arr_get(v, i);
		size_t len = yyjson_get_len(s);
		if (!yyjson_is_str(s) || len == 0 || len > KB_STOP_BYTES_MAX)
			return kb_problem_set(p, 400, "invalid_value", name, "a stop string has 1 to %u bytes", KB_STOP_BYTES_MAX);
		r->stop[r->n_stop++] = (struct kb_str){yyjson_get_str(s), len};
	}
	return 0;
}

// --- fields that are known and do nothing, or only when they say what is done anyway

PARSER(parse_ignored)
{
	(void)r, (void)name, (void)v, (void)p;
	return 0;
}
// Empty, false, "none", "auto": as if absent.
PARSER(parse_must_be_empty)
{
	(void)r;
	bool is_empty = yyjson_is_ctn(v) && (yyjson_is_obj(v) ? yyjson_obj_size(v) : yyjson_arr_size(v)) == 0;
	bool is_none = yyjson_equals_str(v, "none") || yyjson_equals_str(v, "auto") || yyjson_is_false(v);
	return is_empty || is_none ? 0 : unavailable(p, name);
}
PARSER(parse_suffix)
{
	(void)r;
	return yyjson_equals_str(v, "") ? 0 : unavailable(p, name);
}
PARSER(parse_modalities)
{
	(void)r;
	bool is_text = yyjson_arr_size(v) == 1 && yyjson_equals_str(yyjson_arr_get_first(v), "text");
	return is_text ? 0 : unavailable(p, name);
}
PARSER(parse_response_format)
{
	(void)r;
	if (!yyjson_is_obj(v))
		return want(p, name, "an object");
	return yyjson_equals_str(yyjson_obj_get(v, "type"), "text") ? 0 : unavailable(p, name);
}

#undef PARSER

const struct kb_field kb_fields[] = {
	{"model", true, true, parse_model},
	{"messages", true, false, parse_messages},
	{"prompt", false, true, parse_prompt},
	{"stream", true, true, parse_stream},
	{"stream_options", true, true, parse_stream_options},
	{"max_tokens", true, true, parse_max_tokens},
	{"max_completion_tokens", true, false, parse_max_tokens},
	{"temperature", true, true, parse_temperature},
	{"top_p", true, true, parse_top_p},
	{"top_k", true, true, parse_top_k},
	{"min_p", true, true, parse_min_p},
	{"presence_penalty", true, true, parse_presence},
	{"frequency_penalty", true, true, parse_frequency},
	{"repeat_penalty", true, true, parse_repeat},
	{"seed", true, true, parse_seed},
	{"n", true, true, parse_n},
	{"stop", true, true, parse_stop},
	{"logprobs", true, false, parse_chat_logprobs},
	{"top_logprobs", true, false, parse_top_logprobs},
	{"logprobs", false, true, parse_count_logprobs},
	{"echo", false, true, parse_echo},
	{"best_of", false, true, parse_best_of},
	{"suffix", false, true, parse_suffix},
	{"ignore_eos", true, true, parse_ignore_eos}, // for measurements, as in other servers
	{"user", true, true, parse_ignored},
	{"metadata", true, false, parse_ignored},
	{"store", true, false, parse_ignored},
	{"service_tier", true, false, parse_ignored},
	{"safety_identifier", true, false, parse_ignored},
	{"prompt_cache_key", true, false, parse_ignored},
	{"prompt_cache_retention", true, false, parse_ignored},
	{"verbosity", true, false, parse_ignored},
	{"reasoning_effort", true, false, parse_ignored},
	{"parallel_tool_calls", true, false, parse_ignored},
	{"logit_bias", true, true, parse_must_be_empty},
	{"tools", true, false, parse_must_be_empty},
	{"tool_choice", true, false, parse_must_be_empty},
	{"functions", true, false, parse_must_be_empty},
	{"function_call", true, false, parse_must_be_empty},
	{"audio", true, false, parse_must_be_empty},
	{"web_search_options", true, false, parse_must_be_empty},
	{"prediction", true, false, parse_must_be_empty},
	{"modalities", true, false, parse_modalities},
	{"response_format", true, false, parse_response_format},
};
const int kb_field_count = sizeof kb_fields / sizeof *kb_fields;
_Static_assert(sizeof kb_fields / sizeof *kb_fields <= 64, "the rows seen are the bits of a word");

// --- messages

// A message's content: a string, or parts of type text put together in *text.
static int read_content(yyjson_val *content, size_t index, struct kb_buf *text, struct kb_problem *p)
{
	char param[48];
	size_t i, n;
	yyjson_val *part;
	snprintf(param, sizeof param, "messages[%zu].content", index);
	int r = 0;
	if (yyjson_is_str(content))
		r = kb_buf_append(text, yyjson_get_str(content), yyjson_get_len(content));
	else if (!yyjson_is_arr(content) || yyjson_arr_size(content) == 0)
		return kb_problem_set(p, 400, "invalid_type", param, "%s must be a string or an array of parts", param);
	else
		yyjson_arr_foreach(content, i, n, part)
		{
			yyjson_val *piece = yyjson_obj_get(part, "text");
			snprintf(param, sizeof param, "messages[%zu].content[%zu]", index, i);
			if (!yyjson_equals_str(yyjson_obj_get(part, "type"), "text"))
				return kb_problem_set(
					p, 400, "invalid_value", param, "%s: only parts of type text are available", param);
			if (!yyjson_is_str(piece))
				return kb_problem_set(p, 400, "invalid_type", param, "%s.text must be a string", param);
			if (r == 0)
				r = kb_buf_append(text, yyjson_get_str(piece), yyjson_get_len(piece));
		}
	return r ? kb_problem_set(p, 503, NULL, "", "out of memory") : 0;
}

static const char *frame_role(yyjson_val *role)
{
	static const struct {
		const char *given, *used;
	} rows[] = {{"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (yyjson_equals_str(role, rows[i].given))
			return rows[i].used;
	return NULL;
}

static int read_message(struct kb_api_request *r, yyjson_val *m, size_t index, struct kb_problem *p)
{
	char param[48];
	struct kb_buf text = {0};
	snprintf(param, sizeof param, "messages[%zu]", index);
	if (!yyjson_is_obj(m))
		return kb_problem_set(p, 400, "invalid_type", param, "%s must be an object", param);
	const char *role = frame_role(yyjson_obj_get(m, "role"));
	if (!role) {
		snprintf(param, sizeof param, "messages[%zu].role", index);
		return kb_problem_set(p, 400, "invalid_value", param,
			"%s must be system, developer, user or assistant (tools are not available in this release)", param);
	}
	yyjson_val *calls = yyjson_obj_get(m, "tool_calls");
	if (calls && !yyjson_is_null(calls) && yyjson_arr_size(calls) > 0) {
		snprintf(param, sizeof param, "messages[%zu].tool_calls", index);
		return unavailable(p, param);
	}
	int e = read_content(yyjson_obj_get(m, "content"), index, &text, p);
	if (e == 0) {
		int c = kb_proto_add_message(&r->messages, (struct kb_str){role, strlen(role)},
			(struct kb_str){text.data ? (const char *)text.data : "", text.len});
		if (c)
			e = kb_problem_set(p, c == KB_ELIMIT ? 413 : 503, NULL, param, "%s: %s", param, kb_err_message(c));
	}
	kb_buf_finish(&text);
	r->n_messages++;
	return e;
}

static int parse_messages(struct kb_api_request *r, const char *name, yyjson_val *v, struct kb_problem *p)
{
	size_t i, n;
	yyjson_val *m;
	if (!yyjson_is_arr(v) || yyjson_arr_size(v) == 0)
		return want(p, name, "an array of at least one message");
	if (yyjson_arr_size(v) > KB_MESSAGES_MAX)
		return kb_problem_set(p, 400, "invalid_value", name, "a chat has at most %u messages", KB_MESSAGES_MAX);
	yyjson_arr_foreach(v, i, n, m)
	{
		int e = read_message(r, m, i, p);
		if (e)
			return e;
	}
	return 0;
}

// --- prompts

static int read_tokens(struct kb_api_request *r, yyjson_val *v, struct kb_problem *p)
{
	size_t i, n;
	yyjson_val *id;
	struct kb_api_prompt *prompt = &r->prompts[r->n_prompts];
	*prompt = (struct kb_api_prompt){.kind = KB_PROMPT_TOKENS, .tokens_at = r->tokens.len / 4};
	if (prompt->tokens_at + yyjson_arr_size(v) > KB_PROMPT_TOKENS_MAX)
		return kb_problem_set(p, 400, "context_length_exceeded", "prompt", "more than %u tokens", KB_PROMPT_TOKENS_MAX);
	yyjson_arr_foreach(v, i, n, id)
	{
		uint64_t token = yyjson_get_uint(id);
		uint8_t bytes[4] = {(uint8_t)token, (uint8_t)(token >> 8), (uint8_t)(token >> 16), (uint8_t)(token >> 24)};
		if (!yyjson_is_uint(id) || token > INT32_MAX)
			return kb_problem_set(p, 400, "invalid_type", "prompt", "prompt: token %zu is not a token id", i);
		if (kb_buf_append(&r->tokens, bytes, 4))
			return kb_problem_set(p, 503, NULL, "", "out of memory");
		prompt->n_tokens++;
	}
	if (prompt->n_tokens == 0)
		return kb_problem_set(p, 400, "invalid_value", "prompt", "prompt: an array of no tokens");
	r->n_prompts++;
	return 0;
}

static void add_text(struct kb_api_request *r, yyjson_val *v)
{
	r->prompts[r->n_prompts++] =
		(struct kb_api_prompt){.kind = KB_PROMPT_TEXT, .text = {yyjson_get_str(v), yyjson_get_len(v)}};
}

static int parse_prompt(struct kb_api_request *r, const char *name, yyjson_val *v, struct kb_problem *p)
{
	size_t i, n;
	yyjson_val *item;
	static const char what[] = "a string, an array of strings, of token ids, or of arrays of token ids";
	if (yyjson_is_str(v)) {
		add_text(r, v);
		return 0;
	}
	if (!yyjson_is_arr(v) || yyjson_arr_size(v) == 0)
		return want(p, name, what);
	if (yyjson_is_num(yyjson_arr_get_first(v)))
		return read_tokens(r, v, p);
	if (yyjson_arr_size(v) > KB_PROMPTS_MAX)
		return kb_problem_set(p, 400, "invalid_value", name, "at most %u prompts a request", KB_PROMPTS_MAX);
	yyjson_arr_foreach(v, i, n, item)
	{
		int e = 0;
		if (yyjson_is_str(item))
			add_text(r, item);
		else
			e = yyjson_is_arr(item) ? read_tokens(r, item, p) : want(p, name, what);
		if (e)
			return e;
	}
	return 0;
}
