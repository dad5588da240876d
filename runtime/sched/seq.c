#include "sched/seq.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

void kb__seq_set_state(struct kb_seq *q, enum kb_seq_state to)
{
	static const bool may[4][4] = {
		[KB_SEQ_WAITING] = {[KB_SEQ_PREFILL] = true, [KB_SEQ_DONE] = true},
		[KB_SEQ_PREFILL] = {[KB_SEQ_DECODE] = true, [KB_SEQ_WAITING] = true, [KB_SEQ_DONE] = true},
		[KB_SEQ_DECODE] = {[KB_SEQ_WAITING] = true, [KB_SEQ_DONE] = true},
	};
	assert(may[q->state][to]);
	*(enum kb_seq_state *)&q->state = to;
}

// What an engine before this one generated and sent: it takes the same way, but nobody hears it.
static int replay(struct kb_seq *q, const struct kb_sched_request *r)
{
	int rc = 0;
	for (uint32_t i = 0; i < r->n_resume && rc == 0 && !q->is_stopped; i++) {
		rc = kb_sampler_accept(&q->sampler, r->resume[i], true);
		if (rc == 0)
			rc = kb__seq_say(q, r->resume[i]);
	}
	return rc;
}

static int fill(struct kb_seq *q, const struct kb_sched_request *r, struct kb_err *err)
{
	int rc = kb_sampler_init(&q->sampler, &r->sampling, err);
	if (rc)
		return rc;
	rc = kb_stops_init(&q->stops, r->stop, r->n_stop, err);
	if (rc)
		return rc;
	q->token = calloc(q->limit, sizeof *q->token);
	if (!q->token)
		rc = KB_ENOMEM;
	for (uint32_t i = 0; i < r->n_prompt && rc == 0; i++) {
		q->token[q->n_tokens++] = r->prompt[i];
		rc = kb_sampler_accept(&q->sampler, r->prompt[i], false);
	}
	if (rc == 0)
		rc = replay(q, r);
	return rc ? kb_fail(err, rc, "taking up a request of %u tokens: %s", r->n_prompt, kb_err_message(rc)) : 0;
}

int kb__seq_create(
	const struct kb_sched_request *r, const struct kb_tok *tok, uint32_t limit, struct kb_err *err, struct kb_seq **ret)
{
	struct kb_seq *q = calloc(1, sizeof *q);
	if (!q)
		return kb_fail(err, KB_ENOMEM, "out of memory for a request");
	q->id = r->id;
	q->admitted_us = q->first_token_us = KB_SEQ_NEVER;
	q->tok = tok;
	q->n_prompt = r->n_prompt;
	q->limit = r->max_new ? r->n_prompt + r->max_new : limit;
	q->logprobs = r->logprobs;
	q->ignore_eos = r->ignore_eos;
	q->detok.after_text = r->continues_text;
	int rc = fill(q, r, err);
	if (rc) {
		kb__seq_destroy(q, NULL);
		return rc;
	}
	*ret = q;
	return 0;
}

void kb__seq_destroy(struct kb_seq *q, struct kb_pages *pages)
{
	kb_page_list_finish(&q->pages, pages);
	kb_sampler_finish(&q->sampler);
	kb_stops_finish(&q->stops);
	kb_buf_finish(&q->raw);
	kb_buf_finish(&q->text);
	free(q->token);
	free(q);
}

bool kb__seq_is_end(const struct kb_seq *q, uint32_t token)
{
	return !q->ignore_eos && kb_tok_is_eog(q->tok, token);
}

bool kb__seq_is_complete(const struct kb_seq *q)
{
	return q->is_stopped || q->n_tokens == q->limit;
}

static int sample_row(struct kb_seq *q, struct kb_sampler_scratch *w, const float *logits, struct kb_err *err)
{
	struct kb_seq_sample *s = &q->sampled[q->n_sampled++];
	int rc = kb_sampler_pick(&q->sampler, w, logits, err, &s->token);
	if (rc == 0 && q->logprobs)
		rc = kb_sampler_logprobs(logits, w->vocab, s->token, q->logprobs - 1u, err, &s->logprob, s->top);
	if (rc)
		return rc;
	rc = kb_sampler_accept(&q->sampler, s->token, true);
	return rc ? kb_fail(err, rc, "token %u of an answer: %s", q->n_tokens - q->n_prompt, kb_err_message(rc)) : 0;
}

int kb__seq_sample(struct kb_seq *q, struct kb_sampler_scratch *w, const float *logits, struct kb_err *err)
{
	int rc;
	q->n_sampled = 0;
	do
		rc = sample_row(q, w, logits + (size_t)q->n_sampled * w->vocab, err);
	while (rc == 0 && q->n_sampled <= q->n_draft && q->sampled[q->n_sampled - 1].token == q->guess[q->n_sampled - 1] &&
		   !kb__seq_is_end(q, q->sampled[q->n_sampled - 1].token));
	return rc;
}

int kb__seq_say(struct kb_seq *q, uint32_t token)
{
	assert(q->n_tokens < q->limit);
	q->token[q->n_tokens++] = token;
	q->raw.len = q->text.len = 0;
	int rc = kb_detok_push(&q->detok, q->tok, token, &q->raw);
	if (rc == 0)
		rc = kb_stops_push(&q->stops, (struct kb_str){(const char *)q->raw.data, q->raw.len}, &q->text, &q->is_stopped);
	return rc;
}

int kb__seq_flush(struct kb_seq *q)
{
	q->raw.len = q->text.len = 0;
	bool is_stopped = q->is_stopped;
	int rc = kb_detok_flush(&q->detok, &q->raw); // half a character, as U+FFFD: it cannot end a stop string
	if (rc == 0 && q->raw.len && !is_stopped)
		rc = kb_stops_push(&q->stops, (struct kb_str){(const char *)q->raw.data, q->raw.len}, &q->text, &is_stopped);
	if (rc == 0 && !is_stopped)
		rc = kb_stops_flush(&q->stops, &q->text);
	return rc;
}
