// POST /v1/chat/completions: its forms of choices and logprobs (openai-openapi, CreateChatCompletionResponse and
// CreateChatCompletionStreamResponse).
#include "firmware/api/answer.h"

static void add_logprob(struct kb_choice *x, const struct kb_msg_token *t)
{
	struct kb_json j = {.out = &x->logprobs[0]};
	kb_json_raw(&j, x->n_logprobs++ ? ",{" : "{");
	kb_put_token(&j, &t->chosen);
	kb_json_raw(&j, ",\"top_logprobs\":[");
	uint32_t n = x->answer->request.logprobs - 1u;
	for (uint32_t i = 0; i < t->n_top && i < n; i++) {
		kb_json_raw(&j, i ? ",{" : "{");
		kb_put_token(&j, &t->top[i]);
		kb_json_raw(&j, "}");
	}
	kb_json_raw(&j, "]}");
}

static void put_logprobs(struct kb_json *j, const struct kb_choice *x)
{
	kb_json_raw(j, ",\"logprobs\":");
	if (!x->answer->request.logprobs || (x->n_logprobs == 0 && x->answer->request.is_stream)) {
		kb_json_raw(j, "null");
		return;
	}
	kb_json_raw(j, "{\"content\":[");
	if (x->n_logprobs && kb_buf_append(j->out, x->logprobs[0].data, x->logprobs[0].len))
		j->error = KB_ENOMEM;
	kb_json_raw(j, "],\"refusal\":null}");
}

static void put_choice(struct kb_json *j, struct kb_choice *x)
{
	kb_json_printf(j, "{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", x->index);
	kb_json_str(j, (const char *)x->text.data, x->text.len);
	kb_json_raw(j, ",\"refusal\":null}");
	put_logprobs(j, x);
	kb_put_finish(j, x, true);
	kb_json_raw(j, "}");
}

static void put_delta(struct kb_json *j, struct kb_choice *x, bool is_first, bool is_last)
{
	kb_json_printf(j, "{\"index\":%u,\"delta\":{", x->index);
	if (is_first)
		kb_json_raw(j, "\"role\":\"assistant\",");
	if (!is_last) {
		kb_json_raw(j, "\"content\":");
		kb_json_str(j, (const char *)x->text.data, x->text.len);
	}
	kb_json_raw(j, "}");
	put_logprobs(j, x);
	kb_put_finish(j, x, is_last);
	kb_json_raw(j, "}");
}

static const struct kb_format format = {
	.id_prefix = "chatcmpl-",
	.object = "chat.completion",
	.chunk_object = "chat.completion.chunk",
	.add_logprob = add_logprob,
	.put_choice = put_choice,
	.put_delta = put_delta,
	.has_opening = true,
};

void kb_handle_chat(struct kb_conn *c)
{
	kb_answer_begin(c, KB_API_CHAT, &format);
}
