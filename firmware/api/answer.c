// See answer.h.
#include "firmware/api/answer.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "net/x509.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void destroy(struct kb_answer *a)
{
	for (uint32_t i = 0; i < a->n_choices; i++) {
		struct kb_choice *x = &a->choices[i];
		kb_engine_cancel(&x->job);
		kb_buf_finish(&x->text);
		for (int k = 0; k < 4; k++)
			kb_buf_finish(&x->logprobs[k]);
	}
	kb_limiter_leave(&a->d->limiter, a->fingerprint);
	kb_request_finish(&a->request);
	free(a);
}

static void on_cancel(struct kb_task *t)
{
	struct kb_answer *a = (struct kb_answer *)t;
	kb_info("api", "the client left; its request %s is cancelled", a->id);
	destroy(a);
}

// --- the body's common parts

static void put_opening(struct kb_json *j, const struct kb_answer *a, const char *object)
{
	kb_json_raw(j, "{\"id\":");
	kb_json_cstr(j, a->id);
	kb_json_printf(j, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object, (long long)a->created_s);
	kb_json_cstr(j, a->model);
	kb_json_raw(j, ",\"system_fingerprint\":\"kotobako-" KB_VERSION "\",\"choices\":[");
}

// Usage as OpenAI counts it: a prompt once, however many choices; and where the time went, for whoever measures.
static void put_usage(struct kb_json *j, const struct kb_answer *a)
{
	uint64_t prompt = 0, completion = 0, cached = 0, queue_us = 0, prefill_us = 0, decode_us = 0;
	for (uint32_t i = 0; i < a->n_choices; i++) {
		const struct kb_msg_done *d = &a->choices[i].done;
		completion += d->completion_tokens;
		queue_us = d->queue_us > queue_us ? d->queue_us : queue_us;
		prefill_us = d->prefill_us > prefill_us ? d->prefill_us : prefill_us;
		decode_us = d->decode_us > decode_us ? d->decode_us : decode_us;
		if (i % a->request.n)
			continue;
		prompt += d->prompt_tokens;
		cached += d->cached_tokens;
	}
	kb_json_printf(j,
		"\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
		"\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
		(unsigned long long)prompt, (unsigned long long)completion, (unsigned long long)(prompt + completion),
		(unsigned long long)cached);
	kb_json_printf(j, ",\"timings\":{\"queue_ms\":%.3f,\"prefill_ms\":%.3f,\"decode_ms\":%.3f}",
		(double)queue_us / 1000, (double)prefill_us / 1000, (double)decode_us / 1000);
}

void kb_put_token(struct kb_json *j, const struct kb_logprob *p)
{
	kb_json_raw(j, "\"token\":");
	kb_json_str(j, p->bytes.data, p->bytes.len);
	kb_json_raw(j, ",\"logprob\":");
	kb_json_float(j, (double)p->logprob);
	kb_json_raw(j, ",\"bytes\":[");
	for (size_t i = 0; i < p->bytes.len; i++)
		kb_json_printf(j, i ? ",%u" : "%u", (unsigned char)p->bytes.data[i]);
	kb_json_raw(j, "]");
}

void kb_put_finish(struct kb_json *j, const struct kb_choice *x, bool is_last)
{
	kb_json_raw(j, ",\"finish_reason\":");
	if (is_last)
		kb_json_cstr(j, x->finish);
	else
		kb_json_raw(j, "null");
}

// --- streams. Each returns false when the connection was cut: then the answer is gone too.

static bool send_event(struct kb_answer *a, struct kb_buf *json, int error)
{
	struct kb_buf event = {0};
	struct kb_conn *c = a->c;
	if (error == 0)
		error = kb_sse_put(&event, (const char *)json->data, json->len);
	a->sent_ms = kb_clock_ms();
	bool lives = true;
	if (error) {
		kb_conn_cut(c);
		lives = false;
	} else {
		lives = kb_reply_stream_put(c, event.data, event.len);
	}
	kb_buf_finish(&event);
	kb_buf_finish(json);
	return lives;
}

static bool send_chunk(struct kb_choice *x, bool is_first, bool is_last)
{
	struct kb_answer *a = x->answer;
	struct kb_buf json = {0};
	struct kb_json j = {.out = &json};
	put_opening(&j, a, a->format->chunk_object);
	a->format->put_delta(&j, x, is_first, is_last);
	kb_json_raw(&j, a->request.with_usage ? "],\"usage\":null}" : "]}");
	x->text.len = 0;
	for (int k = 0; k < 4; k++)
		x->logprobs[k].len = 0;
	x->n_logprobs = 0;
	return send_event(a, &json, j.error);
}

static bool begin_stream(struct kb_answer *a)
{
	if (a->is_streaming)
		return true;
	a->is_streaming = true;
	a->sent_ms = kb_clock_ms();
	if (!kb_reply_stream_begin(a->c))
		return false;
	for (uint32_t i = 0; i < a->n_choices; i++) {
		struct kb_choice *x = &a->choices[i];
		const struct kb_api_prompt *prompt = &a->request.prompts[i / a->request.n];
		if (a->request.with_echo && kb_buf_append(&x->text, prompt->text.data, prompt->text.len)) {
			kb_conn_cut(a->c);
			return false;
		}
		if ((a->format->has_opening || a->request.with_echo) && !send_chunk(x, true, false))
			return false;
	}
	return true;
}

static void end_stream(struct kb_answer *a)
{
	static const char done[] = "data: [DONE]\n\n";
	struct kb_conn *c = a->c;
	if (a->request.with_usage) {
		struct kb_buf json = {0};
		struct kb_json j = {.out = &json};
		put_opening(&j, a, a->format->chunk_object);
		kb_json_raw(&j, "],");
		put_usage(&j, a);
		kb_json_raw(&j, "}");
		if (!send_event(a, &json, j.error))
			return;
	}
	kb_conn_end(c);
	destroy(a);
	if (kb_reply_stream_put(c, done, sizeof done - 1))
		kb_reply_stream_end(c);
}

static void end_whole(struct kb_answer *a)
{
	struct kb_conn *c = a->c;
	struct kb_buf body = {.max = KB_REPLY_MAX};
	struct kb_json j = {.out = &body};
	put_opening(&j, a, a->format->object);
	for (uint32_t i = 0; i < a->n_choices; i++) {
		if (i)
			kb_json_raw(&j, ",");
		a->format->put_choice(&j, &a->choices[i]);
	}
	kb_json_raw(&j, "],");
	put_usage(&j, a);
	kb_json_raw(&j, "}");
	kb_conn_end(c);
	destroy(a);
	kb_reply_json(c, 200, &body, j.error);
}

// The request fails: as an error answer, or as the last event where the stream has begun.
static void fail(struct kb_answer *a, const struct kb_problem *p)
{
	struct kb_conn *c = a->c;
	struct kb_problem problem = *p;
	bool is_streaming = a->is_streaming;
	if (a->is_starting) {
		a->problem = *p;
		return;
	}
	kb_warn("api", "%s failed: %s", a->id, p->text);
	kb_conn_end(c);
	destroy(a);
	if (!is_streaming) {
		kb_reply_problem(c, &problem);
		return;
	}
	struct kb_buf json = {0}, event = {0};
	int r = kb_problem_print(&problem, &json);
	if (r == 0)
		r = kb_sse_put(&event, (const char *)json.data, json.len);
	if (r)
		kb_conn_cut(c);
	else if (kb_reply_stream_put(c, event.data, event.len))
		kb_reply_stream_end(c);
	kb_buf_finish(&json);
	kb_buf_finish(&event);
}

static void on_tick(struct kb_task *t, uint64_t now)
{
	struct kb_answer *a = (struct kb_answer *)t;
	static const char comment[] = ": ping\n\n";
	if (!a->is_streaming || now - a->sent_ms < kb_daemon_ms(a->d, KB_PING_COMMENT_MS))
		return;
	a->sent_ms = now;
	(void)kb_reply_stream_put(a->c, comment, sizeof comment - 1);
}

// --- what the engine says

static struct kb_choice *choice_of(struct kb_job *j)
{
	return (struct kb_choice *)j; // its first member
}

static void on_accepted(struct kb_job *j, uint32_t prompt_tokens)
{
	struct kb_answer *a = choice_of(j)->answer;
	(void)prompt_tokens; // counted at the end
	// From here on the request is known to be good: headers may go out.
	if (++a->n_accepted == a->n_choices && a->request.is_stream)
		(void)begin_stream(a);
}

static void measure(struct kb_choice *x)
{
	struct kb_answer *a = x->answer;
	struct kb_metrics *m = &a->d->metrics;
	uint64_t now = kb_clock_ms();
	if (!a->has_token)
		kb_histogram_add(&m->first_token_s, (double)(now - a->begun_ms) / 1000);
	if (x->last_token_ms)
		kb_histogram_add(&m->inter_token_s, (double)(now - x->last_token_ms) / 1000);
	a->has_token = true;
	x->last_token_ms = now;
	m->generated_tokens++;
}

static void out_of_memory(struct kb_answer *a)
{
	struct kb_problem p;
	kb_problem_set(&p, 503, NULL, "", "out of memory");
	fail(a, &p);
}

static void on_token(struct kb_job *j, const struct kb_msg_token *t)
{
	struct kb_choice *x = choice_of(j);
	struct kb_answer *a = x->answer;
	measure(x);
	if (a->request.is_stream && !begin_stream(a))
		return;
	if (kb_buf_append(&x->text, t->text.data, t->text.len)) {
		out_of_memory(a);
		return;
	}
	if (a->request.logprobs && t->has_logprob)
		a->format->add_logprob(x, t);
	if (a->request.is_stream && x->text.len > 0)
		(void)send_chunk(x, false, false);
}

static void on_done(struct kb_job *j, const struct kb_msg_done *d)
{
	struct kb_choice *x = choice_of(j);
	struct kb_answer *a = x->answer;
	x->finish = d->finish == KB_FINISH_LENGTH ? "length" : "stop";
	x->done = *d;
	x->done.text = (struct kb_str){0};
	if (x->index % a->request.n == 0) {
		a->d->metrics.prompt_tokens += d->prompt_tokens;
		a->d->metrics.cached_tokens += d->cached_tokens;
	}
	if (a->request.is_stream && !begin_stream(a))
		return;
	if (kb_buf_append(&x->text, d->text.data, d->text.len)) {
		out_of_memory(a);
		return;
	}
	if (a->request.is_stream && (x->text.len > 0 || x->n_logprobs > 0) && !send_chunk(x, false, false))
		return;
	if (a->request.is_stream && !send_chunk(x, false, true))
		return;
	if (--a->n_open > 0)
		return;
	if (a->request.is_stream)
		end_stream(a);
	else
		end_whole(a);
}

static void on_failed(struct kb_job *j, const struct kb_problem *p)
{
	fail(choice_of(j)->answer, p);
}

// --- beginning

static struct kb_answer *create(struct kb_conn *c, const struct kb_format *format, const struct kb_api_request *request)
{
	uint32_t n = request->n * request->n_prompts;
	uint8_t id[12];
	struct kb_err err;
	struct kb_answer *a = calloc(1, sizeof *a + n * sizeof a->choices[0]);
	if (!a || kb_random(id, sizeof id, &err)) {
		free(a);
		return NULL;
	}
	a->task = (struct kb_task){on_cancel, on_tick};
	a->c = c;
	a->d = c->daemon;
	a->format = format;
	a->request = *request; // moved
	a->n_choices = a->n_open = n;
	a->created_s = time(NULL);
	a->begun_ms = c->begun_ms;
	memcpy(a->fingerprint, c->client.fingerprint, sizeof a->fingerprint);
	kb_hex(a->fingerprint, 8, a->client); // the engine's key for fairness: no name
	size_t prefix = strlen(format->id_prefix);
	memcpy(a->id, format->id_prefix, prefix);
	kb_hex(id, sizeof id, a->id + prefix);
	return a;
}

// Gives every choice to the engine. KB_EBUSY with p filled.
static int submit(struct kb_answer *a, struct kb_engine *e, struct kb_problem *p)
{
	uint64_t seed = a->request.sampling.seed;
	struct kb_err err;
	if (!a->request.has_seed && kb_random(&seed, sizeof seed, &err)) {
		kb_problem_set(p, 503, NULL, "", "%s", err.text);
		return KB_EBUSY;
	}
	a->is_starting = true;
	for (uint32_t i = 0; i < a->n_choices; i++) {
		struct kb_choice *x = &a->choices[i];
		x->answer = a;
		x->index = i;
		x->text.max = KB_REPLY_MAX;
		x->job.on_accepted = on_accepted;
		x->job.on_token = on_token;
		x->job.on_done = on_done;
		x->job.on_failed = on_failed;
		kb_request_submit(&a->request, i, seed, &x->job.submit);
		x->job.submit.client = (struct kb_str){a->client, strlen(a->client)};
		int r = kb_engine_submit(e, &x->job, p);
		if (r)
			return r;
	}
	a->is_starting = false;
	if (a->problem.status == 0)
		return 0;
	*p = a->problem;
	return KB_EBUSY;
}

static bool refuse_now(struct kb_daemon *d, const struct kb_conn *c, struct kb_problem *p)
{
	if (d->is_stopping) {
		kb_problem_set(p, 503, "stopping", "", "the box is stopping");
		p->retry_after_s = 10;
		return true;
	}
	if (!kb_limiter_enter(&d->limiter, c->client.fingerprint, kb_clock_ms())) {
		kb_problem_set(p, 429, "rate_limit_exceeded", "", "this client has %u requests running, the most allowed",
			d->limiter.running_max);
		p->retry_after_s = 1;
		return true;
	}
	return false;
}

void kb_answer_begin(struct kb_conn *c, enum kb_api_kind kind, const struct kb_format *format)
{
	struct kb_daemon *d = c->daemon;
	struct kb_api_request request;
	struct kb_problem p;
	struct kb_engine *e = NULL;
	struct kb_answer *a = NULL;
	int r = kb_request_parse(kind, c->http.body.data, c->http.body.len, &request, &p);
	if (r == 0)
		r = kb_pool_acquire(d, request.model, &e, &p);
	if (r == 0 && refuse_now(d, c, &p))
		r = KB_EBUSY;
	else if (r == 0 && !(a = create(c, format, &request))) {
		kb_limiter_leave(&d->limiter, c->client.fingerprint);
		r = kb_problem_set(&p, 503, NULL, "", "out of memory");
	}
	if (r) {
		kb_request_finish(&request);
		kb_reply_problem(c, &p);
		return;
	}
	snprintf(a->model, sizeof a->model, "%s", e->model);
	if (submit(a, e, &p)) {
		destroy(a);
		kb_reply_problem(c, &p);
		return;
	}
	kb_conn_begin(c, &a->task);
}
