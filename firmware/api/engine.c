// Jobs, watching and restarts of one engine. See engine.h.
#include "firmware/api/engine.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kb_engine_init(
	struct kb_engine *e, const struct kb_engine_options *o, const struct kb_model *model, const char *path)
{
	memset(e, 0, sizeof *e);
	e->o = o;
	e->id = model->id;
	if (model->version)
		kb_hex(model->digest, sizeof model->digest, e->digest);
	snprintf(e->model, sizeof e->model, "%s", model->name);
	snprintf(e->path, sizeof e->path, "%s", path);
	e->used_ms = kb_clock_ms();
	e->next_id = 1;
}

static uint64_t hurried(const struct kb_engine *e, uint64_t ms)
{
	return ms * e->o->patience / e->o->hurry;
}

static struct kb_job **place_of(struct kb_engine *e, uint64_t id)
{
	struct kb_job **at = &e->jobs;
	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

// Takes the job out; its owner may then be told, and may free it.
static void detach(struct kb_job *j)
{
	struct kb_engine *e = j->engine;
	struct kb_job **at = place_of(e, j->id);
	if (*at == j)
		*at = j->next;
	e->n_jobs--;
	e->used_ms = kb_clock_ms();
	j->engine = NULL;
	kb_buf_finish(&j->received);
}

static void fail_job(struct kb_job *j, int status, const char *code, const char *text)
{
	struct kb_problem p;
	kb_problem_set(&p, status, code, "", "%s", text);
	p.retry_after_s = status == 503 ? KB_ENGINE_QUEUE_RETRY_S : 0;
	detach(j);
	j->on_failed(j, &p);
}

static void fail_all(struct kb_engine *e, int status, const char *text)
{
	while (e->jobs)
		fail_job(e->jobs, status, "engine_failed", text);
}

static void answer_waits(struct kb_engine *e, bool is_alive)
{
	struct kb_engine_wait **at = &e->waits;
	while (*at) {
		struct kb_engine_wait *w = *at;
		uint64_t have = w->is_stats ? e->stats_received : e->pongs_received;
		if (is_alive && have < w->need) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->engine = NULL;
		w->on_answer(w, is_alive);
		at = &e->waits; // the list may have changed
	}
}

// The process is gone or must go. Its jobs wait for the next one.
static void life_failed(struct kb_engine *e, const char *why)
{
	static const uint64_t rest_ms[KB_ENGINE_RESTARTS_MAX + 1] = {100, 500, 2000, KB_ENGINE_REST_MS};
	bool was_steady = e->state == KB_ENGINE_READY && kb_clock_ms() - e->ready_ms >= hurried(e, KB_ENGINE_STEADY_MS);
	if (e->run)
		kb_engine_run_drop(e->run, true);
	e->run = NULL;
	e->state = KB_ENGINE_RESTING;
	e->has_stats = e->is_healthy = false;
	e->failures = was_steady ? 1 : e->failures + 1;
	e->o->metrics->engine_failures++;
	snprintf(e->last_failure, sizeof e->last_failure, "%s", why);
	answer_waits(e, false);
	e->is_given_up = e->failures > KB_ENGINE_RESTARTS_MAX;
	uint32_t step = e->is_given_up ? KB_ENGINE_RESTARTS_MAX : e->failures - 1;
	e->rest_until_ms = kb_clock_ms() + hurried(e, rest_ms[step]);
	kb_warn("engine", "%s: %s; failure %u in a row, %u answers wait", e->model, why, e->failures, e->n_jobs);
	if (e->is_given_up) {
		char text[KB_ERR_TEXT_MAX + 64];
		snprintf(text, sizeof text, "the engine of %s has failed: %.160s", e->model, why);
		fail_all(e, 503, text);
	}
}

void kb_engine_on_end(struct kb_engine *e, const char *why)
{
	life_failed(e, why);
}

void kb_engine_start(struct kb_engine *e)
{
	struct kb_err err;
	uint64_t now = kb_clock_ms();
	if (e->state == KB_ENGINE_LOADING || e->state == KB_ENGINE_READY)
		return;
	if (e->state == KB_ENGINE_RESTING && now < e->rest_until_ms)
		return;
	if (e->is_given_up)
		e->failures = 0;
	if (e->failures)
		e->o->metrics->engine_restarts++;
	e->is_given_up = false;
	e->state = KB_ENGINE_LOADING;
	e->started_ms = e->heard_ms = now;
	e->pings_sent = e->pongs_received = e->stats_sent = e->stats_received = 0;
	e->ping_sent_ms = 0;
	e->run = kb_engine_run_create(e, &err);
	if (!e->run)
		life_failed(e, err.text);
	else
		kb_info("engine", "%s: process %d is loading", e->model, kb_engine_run_pid(e->run));
}

void kb_engine_stop(struct kb_engine *e)
{
	fail_all(e, 503, "the engine is being stopped");
	answer_waits(e, false);
	if (e->run)
		kb_engine_run_drop(e->run, e->state == KB_ENGINE_LOADING);
	e->run = NULL;
	e->state = KB_ENGINE_STOPPED;
	e->has_stats = e->is_given_up = false;
	e->failures = 0;
}

void kb_engine_finish(struct kb_engine *e)
{
	memset(e, 0, sizeof *e);
}

static int send_ping(struct kb_engine *e, uint64_t now)
{
	struct kb_msg msg = {.type = KB_MSG_PING, .id = ++e->pings_sent};
	if (e->ping_sent_ms == 0)
		e->ping_sent_ms = now;
	e->next_ping_ms = now + hurried(e, KB_ENGINE_PING_MS);
	return kb_engine_run_send(e->run, &msg);
}

void kb_engine_tick(struct kb_engine *e, uint64_t now)
{
	// One that has given up is tried again too, after its long rest, if the box is to have it.
	if (e->state == KB_ENGINE_RESTING && now >= e->rest_until_ms && (e->jobs || e->is_wanted))
		kb_engine_start(e);
	else if (e->state == KB_ENGINE_LOADING && now - e->heard_ms > hurried(e, KB_ENGINE_LOAD_MS))
		life_failed(e, "it was silent for too long while loading");
	if (e->state != KB_ENGINE_READY)
		return;
	// Tokens are a sign of the device's life too; other messages only of the process's.
	uint64_t since_ms = e->token_ms > e->ping_sent_ms ? e->token_ms : e->ping_sent_ms;
	if (e->ping_sent_ms && now - since_ms > hurried(e, KB_ENGINE_HANG_MS))
		life_failed(e, "it does not answer: the device hangs");
	else if (!e->ping_sent_ms && now >= e->next_ping_ms && send_ping(e, now))
		life_failed(e, "it does not take messages");
}

// Sends the job to the engine that is ready. False: the engine's life has ended by it.
static bool send_job(struct kb_engine *e, struct kb_job *j)
{
	struct kb_msg msg = {.type = KB_MSG_SUBMIT, .id = j->id, .submit = j->submit};
	msg.submit.resume = j->received.data;
	msg.submit.n_resume = (uint32_t)(j->received.len / 4);
	j->sends++;
	int r = kb_engine_run_send(e->run, &msg);
	if (r == KB_ELIMIT || r == KB_EARG)
		fail_job(j, 413, NULL, "the request is too large");
	else if (r == KB_EBUSY || r == KB_ENOMEM)
		fail_job(j, 503, NULL, "the engine is too busy");
	else if (r)
		life_failed(e, "it does not take messages");
	return r == 0 || (r != KB_ECLOSED && e->state == KB_ENGINE_READY);
}

static void on_ready(struct kb_engine *e, const struct kb_msg_ready *m)
{
	if (m->version != KB_PROTO_VERSION) {
		life_failed(e, "it speaks another version: kotobakod and kotobako-engine are not of one release");
		return;
	}
	snprintf(e->arch, sizeof e->arch, "%.*s", (int)m->arch.len, m->arch.data);
	snprintf(e->device, sizeof e->device, "%.*s", (int)m->device.len, m->device.data);
	e->context = m->context;
	e->vocab = m->vocab;
	e->max_seqs = m->max_seqs;
	e->kv_tokens = m->kv_tokens;
	e->weight_bytes = m->weight_bytes;
	e->parameters = m->parameters;
	e->state = KB_ENGINE_READY;
	e->is_healthy = true;
	e->ready_ms = e->used_ms = kb_clock_ms();
	e->next_ping_ms = e->ready_ms + hurried(e, KB_ENGINE_PING_MS);
	kb_info("engine", "%s: ready after %.2f s on %s, %u answers to make", e->model,
		(double)(e->ready_ms - e->started_ms) / 1000, e->device, e->n_jobs);
	// In the order they came; the list's order is the reverse.
	uint64_t last = 0;
	for (;;) {
		struct kb_job *next = NULL;
		for (struct kb_job *j = e->jobs; j; j = j->next)
			if (j->id > last && (!next || j->id < next->id))
				next = j;
		if (!next)
			break;
		last = next->id;
		// A request that every engine dies of must not take the others with it for ever.
		if (next->sends > KB_ENGINE_RESTARTS_MAX) {
			fail_job(next, 500, "engine_failed", "the engine failed repeatedly while it answered this request");
			continue;
		}
		e->o->metrics->resumed += next->is_accepted;
		if (!send_job(e, next))
			break;
	}
}

// How an engine's code for one request is said over HTTP.
static void on_error(struct kb_engine *e, uint64_t id, const struct kb_msg_error *m)
{
	char text[KB_ERR_TEXT_MAX];
	struct kb_job *j = *place_of(e, id);
	snprintf(text, sizeof text, "%.*s", (int)m->text.len, m->text.data);
	// What does not get better by trying again: the image itself.
	bool is_hopeless =
		m->code == KB_ECORRUPT || m->code == KB_EBAD || m->code == KB_EUNSUPPORTED || m->code == KB_ENOTFOUND;
	if (id == 0 && e->state == KB_ENGINE_LOADING && is_hopeless) {
		e->failures = KB_ENGINE_RESTARTS_MAX;
		e->is_damaged = e->digest[0] && m->code == KB_ECORRUPT;
	}
	if (id == 0)
		life_failed(e, text[0] ? text : "it gave up");
	else if (!j)
		return;
	else if (m->code == KB_ELIMIT)
		fail_job(j, 400, "context_length_exceeded", text);
	else if (m->code == KB_EARG || m->code == KB_EBAD || m->code == KB_EUNSUPPORTED)
		fail_job(j, 400, NULL, text);
	else if (m->code == KB_EBUSY || m->code == KB_ENOMEM)
		fail_job(j, 503, NULL, text);
	else
		fail_job(j, 500, "engine_failed", text);
}

static int on_token(struct kb_engine *e, uint64_t id, const struct kb_msg_token *t)
{
	struct kb_job *j = *place_of(e, id);
	e->token_ms = e->heard_ms;
	if (!j)
		return 0; // cancelled meanwhile
	uint8_t bytes[4] = {
		(uint8_t)t->token, (uint8_t)(t->token >> 8), (uint8_t)(t->token >> 16), (uint8_t)(t->token >> 24)};
	if (kb_buf_append(&j->received, bytes, 4))
		fail_job(j, 503, NULL, "out of memory");
	else
		j->on_token(j, t);
	return 0;
}

static void on_done(struct kb_engine *e, uint64_t id, const struct kb_msg_done *d)
{
	struct kb_job *j = *place_of(e, id);
	if (!j)
		return;
	if (d->finish == KB_FINISH_CANCELLED) {
		fail_job(j, 500, "engine_failed", "the engine cancelled the request");
		return;
	}
	e->failures = 0; // it does its work
	detach(j);
	j->on_done(j, d);
}

static void on_accepted(struct kb_engine *e, uint64_t id, uint32_t prompt_tokens)
{
	struct kb_job *j = *place_of(e, id);
	if (!j || j->is_accepted) // accepted again by a new engine: its owner knows already
		return;
	j->is_accepted = true;
	j->on_accepted(j, prompt_tokens);
}

int kb_engine_on_message(struct kb_engine *e, const struct kb_msg *msg)
{
	e->heard_ms = kb_clock_ms();
	bool is_ready = e->state == KB_ENGINE_READY;
	if (!is_ready && msg->type != KB_MSG_READY && msg->type != KB_MSG_PROGRESS && msg->type != KB_MSG_ERROR)
		return KB_EBAD;
	switch (msg->type) {
	case KB_MSG_READY:
		if (is_ready)
			return KB_EBAD;
		on_ready(e, &msg->ready);
		return 0;
	case KB_MSG_PROGRESS:
		e->load_done = msg->progress.done;
		e->load_total = msg->progress.total;
		return 0;
	case KB_MSG_ACCEPTED:
		on_accepted(e, msg->id, msg->accepted.prompt_tokens);
		return 0;
	case KB_MSG_TOKEN:
		return on_token(e, msg->id, &msg->token);
	case KB_MSG_DONE:
		on_done(e, msg->id, &msg->done);
		return 0;
	case KB_MSG_ERROR:
		on_error(e, msg->id, &msg->error);
		return 0;
	case KB_MSG_PONG:
		e->pongs_received++;
		e->is_healthy = msg->pong.is_healthy;
		e->device_us = msg->pong.device_us;
		e->ping_sent_ms = e->pongs_received < e->pings_sent ? e->heard_ms : 0;
		answer_waits(e, true);
		return 0;
	case KB_MSG_STATS_REPLY:
		e->stats_received++;
		e->stats = msg->stats;
		e->has_stats = true;
		answer_waits(e, true);
		return 0;
	default:
		return KB_EBAD;
	}
}

int kb_engine_submit(struct kb_engine *e, struct kb_job *j, struct kb_problem *p)
{
	kb_engine_start(e);
	if (e->is_given_up) {
		kb_problem_set(p, 503, "engine_failed", "", "the engine of %s has failed (%.120s); it will be tried again",
			e->model, e->last_failure);
		p->retry_after_s = KB_ENGINE_REST_MS / 1000;
		return KB_EBUSY;
	}
	if (e->n_jobs >= KB_ENGINE_JOBS_MAX) {
		kb_problem_set(p, 503, "overloaded", "", "too many requests are waiting; try again later");
		p->retry_after_s = KB_ENGINE_QUEUE_RETRY_S;
		return KB_EBUSY;
	}
	j->id = e->next_id++;
	j->engine = e;
	j->received = (struct kb_buf){0};
	j->is_accepted = false;
	j->sends = 0;
	j->next = e->jobs;
	e->jobs = j;
	e->n_jobs++;
	e->used_ms = kb_clock_ms();
	if (e->state == KB_ENGINE_READY)
		(void)send_job(e, j);
	return 0;
}

void kb_engine_cancel(struct kb_job *j)
{
	struct kb_engine *e = j->engine;
	if (!e)
		return;
	struct kb_msg msg = {.type = KB_MSG_CANCEL, .id = j->id};
	if (e->state == KB_ENGINE_READY && kb_engine_run_send(e->run, &msg))
		kb_debug("engine", "a cancellation was not taken");
	detach(j);
}

bool kb_engine_ask(struct kb_engine *e, struct kb_engine_wait *w, bool stats)
{
	struct kb_msg msg = {.type = KB_MSG_STATS, .id = e->stats_sent + 1};
	if (e->state != KB_ENGINE_READY)
		return false;
	if (stats ? kb_engine_run_send(e->run, &msg) : send_ping(e, kb_clock_ms()))
		return false;
	e->stats_sent += stats;
	w->need = stats ? e->stats_sent : e->pings_sent;
	w->is_stats = stats;
	w->engine = e;
	w->next = e->waits;
	e->waits = w;
	return true;
}

void kb_engine_forget(struct kb_engine_wait *w)
{
	if (!w->engine)
		return;
	struct kb_engine_wait **at = &w->engine->waits;
	while (*at && *at != w)
		at = &(*at)->next;
	if (*at)
		*at = w->next;
	w->engine = NULL;
}

const char *kb_engine_state_name(const struct kb_engine *e)
{
	static const char *const names[] = {"stopped", "loading", "ready", "restarting"};
	return e->is_retiring ? "retiring" : e->is_given_up ? "failed" : names[e->state];
}

int kb_engine_pid(const struct kb_engine *e)
{
	return e->run ? kb_engine_run_pid(e->run) : 0;
}
