#include "firmware/engine/prompt.h"
#include <stdlib.h>
#include <string.h>

#define TOKEN_BYTES_MAX 256u // no text has longer tokens on average: a prompt above it cannot fit the context

static int append_words(const uint8_t *data, uint32_t n, struct kb_err *err, struct kb_buf *ret)
{
	return kb_buf_append(ret, data, (size_t)n * 4) ? kb_fail(err, KB_ENOMEM, "out of memory for the prompt") : 0;
}

static int encode(
	const struct kb_engine *e, const struct kb_span *spans, size_t n_spans, struct kb_err *err, struct kb_buf *ret)
{
	uint32_t context = kb_model_info(e->model)->context;
	size_t bytes = 0, n = 0;
	for (size_t i = 0; i < n_spans; i++)
		bytes += spans[i].len;
	if (bytes > (size_t)context * TOKEN_BYTES_MAX || bytes > KB_TOK_TEXT_MAX)
		return kb_fail(
			err, KB_ELIMIT, "the prompt has %zu bytes, more than a context of %u tokens can hold", bytes, context);
	size_t cap = kb_tok_bound(bytes);
	if (kb_buf_reserve(ret, cap * 4))
		return kb_fail(err, KB_ENOMEM, "out of memory for a prompt of %zu bytes", bytes);
	int rc = kb_tok_encode(e->tok, spans, n_spans, KB_TOK_BOS, (uint32_t *)(void *)(ret->data + ret->len), cap, &n);
	if (rc)
		return kb_fail(err, rc, "the prompt cannot be tokenised: %s", kb_err_message(rc));
	ret->len += n * 4;
	return 0;
}

static int encode_chat(const struct kb_engine *e, const struct kb_msg_submit *m, struct kb_err *err, struct kb_buf *ret)
{
	if (!e->chat)
		return kb_fail(err, e->chat_error.code, "this model cannot chat: %s", e->chat_error.text);
	if (m->n_messages == 0)
		return kb_fail(err, KB_EARG, "the conversation has no messages");
	size_t cap = kb_chat_bound(m->n_messages), n_turns = 0, cursor = 0, n_spans = 0;
	struct kb_chat_turn *turns = calloc(m->n_messages, sizeof *turns);
	struct kb_span *spans = calloc(cap, sizeof *spans);
	struct kb_chat_message message;
	int rc = turns && spans ? 0 : kb_fail(err, KB_ENOMEM, "out of memory for %u messages", m->n_messages);
	while (rc == 0 && n_turns < m->n_messages && kb_proto_next_message(m, &cursor, &message))
		turns[n_turns++] = (struct kb_chat_turn){message.role, message.content};
	if (rc == 0)
		rc = kb_chat_render(e->chat, turns, n_turns, spans, cap, err, &n_spans);
	if (rc == 0)
		rc = encode(e, spans, n_spans, err, ret);
	free(turns);
	free(spans);
	return rc;
}

int kb_prompt_tokens(
	const struct kb_engine *e, const struct kb_msg_submit *m, struct kb_err *err, struct kb_buf *ret) /* see prompt.h */
{
	// What people write is never a control token, whichever way it comes.
	const struct kb_span span = {m->text.data, m->text.len, false};
	switch (m->kind) {
	case KB_PROMPT_CHAT:
		return encode_chat(e, m, err, ret);
	case KB_PROMPT_TEXT:
		return encode(e, &span, 1, err, ret);
	case KB_PROMPT_TOKENS:
		return append_words(m->tokens, m->n_tokens, err, ret);
	}
	return kb_fail(err, KB_EARG, "prompt kind %u is not known", m->kind);
}

int kb_prompt_resume(const struct kb_msg_submit *m, struct kb_err *err, struct kb_buf *ret)
{
	return append_words(m->resume, m->n_resume, err, ret);
}

void kb_prompt_request(const struct kb_engine *e, uint64_t id, const struct kb_msg_submit *m, const uint32_t *tokens,
	uint32_t n_prompt, struct kb_prompt *ret)
{
	const struct kb_sampling *s = &m->sampling;
	uint32_t n_stop = m->n_stop;
	memcpy(ret->stop, m->stop, n_stop * sizeof *ret->stop);
	const char *end = m->kind == KB_PROMPT_CHAT && e->chat && !m->ignore_eos ? kb_chat_stop(e->chat) : NULL;
	if (end)
		ret->stop[n_stop++] = (struct kb_str){end, strlen(end)};
	ret->request = (struct kb_sched_request){
		.id = id,
		.prompt = tokens,
		.n_prompt = n_prompt,
		.resume = tokens + n_prompt,
		.n_resume = m->n_resume,
		.max_new = m->max_new,
		.sampling =
			{
				.temperature = s->temperature,
				.top_p = s->top_p,
				.min_p = s->min_p,
				.top_k = s->top_k,
				.repeat_penalty = s->repeat_penalty,
				.presence_penalty = s->presence_penalty,
				.frequency_penalty = s->frequency_penalty,
				.seed = s->seed,
			},
		.logprobs = m->logprobs,
		.ignore_eos = m->ignore_eos,
		.continues_text = m->kind != KB_PROMPT_CHAT,
		.n_stop = n_stop,
		.stop = ret->stop,
		.client = m->client,
	};
}
