// POST /v1/completions: its forms of choices and logprobs (openai-openapi, CreateCompletionResponse).
#include "firmware/api/answer.h"

enum { TOKENS, VALUES, TOPS, OFFSETS };

static void add_logprob(struct kb_choice *x, const struct kb_msg_token *t)
{
	struct kb_json j[4];
	struct kb_buf clean = {0};
	size_t chars = 0;
	const char *comma = x->n_logprobs++ ? "," : "";
	for (int k = 0; k < 4; k++) {
		j[k] = (struct kb_json){.out = &x->logprobs[k]};
		kb_json_raw(&j[k], comma);
	}
	kb_json_str(&j[TOKENS], t->chosen.bytes.data, t->chosen.bytes.len);
	kb_json_float(&j[VALUES], (double)t->chosen.logprob);
	kb_json_raw(&j[TOPS], "{");
	uint32_t n = x->answer->request.logprobs - 1u;
	for (uint32_t i = 0; i < t->n_top && i < n; i++) {
		kb_json_raw(&j[TOPS], i ? "," : "");
		kb_json_str(&j[TOPS], t->top[i].bytes.data, t->top[i].bytes.len);
		kb_json_raw(&j[TOPS], ":");
		kb_json_float(&j[TOPS], (double)t->top[i].logprob);
	}
	kb_json_raw(&j[TOPS], "}");
	kb_json_printf(&j[OFFSETS], "%zu", x->chars);
	if (kb_utf8_clean(&clean, t->chosen.bytes.data, t->chosen.bytes.len, &chars) == 0)
		x->chars += chars;
	kb_buf_finish(&clean);
}

static void put_logprobs(struct kb_json *j, const struct kb_choice *x)
{
	static const char *const names[4] = {
		"\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[", "],\"text_offset\":["};
	kb_json_raw(j, ",\"logprobs\":");
	if (!x->answer->request.logprobs || (x->n_logprobs == 0 && x->answer->request.is_stream)) {
		kb_json_raw(j, "null");
		return;
	}
	kb_json_raw(j, "{");
	for (int k = 0; k < 4; k++) {
		kb_json_raw(j, names[k]);
		if (x->n_logprobs && kb_buf_append(j->out, x->logprobs[k].data, x->logprobs[k].len))
			j->error = KB_ENOMEM;
	}
	kb_json_raw(j, "]}");
}

static void put_text(struct kb_json *j, struct kb_choice *x, bool is_last)
{
	kb_json_printf(j, "{\"index\":%u,\"text\":", x->index);
	kb_json_str(j, (const char *)x->text.data, x->text.len);
	put_logprobs(j, x);
	kb_put_finish(j, x, is_last);
	kb_json_raw(j, "}");
}

static void put_choice(struct kb_json *j, struct kb_choice *x)
{
	const struct kb_api_request *r = &x->answer->request;
	if (r->with_echo) {
		struct kb_str prompt = r->prompts[x->index / r->n].text;
		struct kb_buf whole = {.max = KB_REPLY_MAX};
		if (kb_buf_append(&whole, prompt.data, prompt.len) || kb_buf_append(&whole, x->text.data, x->text.len))
			j->error = KB_ENOMEM;
		kb_buf_finish(&x->text);
		x->text = whole;
	}
	put_text(j, x, true);
}

static void put_delta(struct kb_json *j, struct kb_choice *x, bool is_first, bool is_last)
{
	(void)is_first;
	put_text(j, x, is_last);
}

static const struct kb_format format = {
	.id_prefix = "cmpl-",
	.object = "text_completion",
	.chunk_object = "text_completion",
	.add_logprob = add_logprob,
	.put_choice = put_choice,
	.put_delta = put_delta,
};

void kb_handle_completions(struct kb_conn *c)
{
	kb_answer_begin(c, KB_API_COMPLETION, &format);
}
