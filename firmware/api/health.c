// GET /healthz: a real operation on the device. GET /metrics: the engines' figures, then ours.
#include "base/clock.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"

#include <stdlib.h>
#include <string.h>

#define HEALTH_WAIT_MS 10000 // for the device; a step before it takes at most 100 ms on a GPU
#define STATS_WAIT_MS 1000

// Waits for answers of engines, then replies.
struct inquiry {
	struct kb_task task;
	struct kb_conn *c;
	uint64_t until_ms;
	bool is_stats;
	int n_waiting;
	struct kb_engine_wait waits[KB_ENGINES_MAX];
};

static void finish(struct inquiry *q)
{
	for (int i = 0; i < (int)KB_ENGINES_MAX; i++)
		kb_engine_forget(&q->waits[i]);
	free(q);
}

static void reply_metrics(struct kb_conn *c)
{
	struct kb_daemon *d = c->daemon;
	struct kb_buf body = {0};
	struct kb_gauges g = {.connections = d->n_conns,
		.handshaking = d->n_handshaking,
		.running = d->n_running,
		.uptime_s = (kb_clock_ms() - d->started_ms) / 1000};
	kb_pool_gauges(d, &g);
	int r = kb_metrics_print(&d->metrics, &g, &body);
	if (r)
		kb_reply_json(c, 500, &body, r);
	else
		kb_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", body.data, body.len);
	kb_buf_finish(&body);
}

// The engine that health is about: the default model's, else any.
static struct kb_engine *main_engine(struct kb_daemon *d)
{
	const char *name = kb_pool_default(d);
	struct kb_engine *any = NULL;
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++) {
		if (d->engines[i].is_retiring)
			continue;
		if (d->engines[i].model[0] && strcmp(d->engines[i].model, name) == 0)
			return &d->engines[i];
		if (d->engines[i].model[0] && !any)
			any = &d->engines[i];
	}
	return any;
}

static void reply_health(struct kb_conn *c, bool is_answered)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	const struct kb_engine *e = main_engine(c->daemon);
	bool is_ok = is_answered && e && e->is_healthy;
	const char *status = !e                            ? "no model"
						 : is_ok                       ? "ok"
						 : e->state == KB_ENGINE_READY ? "failing"
													   : kb_engine_state_name(e);
	kb_json_raw(&j, "{\"status\":");
	kb_json_cstr(&j, status);
	if (e) {
		kb_json_raw(&j, ",\"model\":");
		kb_json_cstr(&j, e->model);
		kb_json_raw(&j, ",\"device\":");
		kb_json_cstr(&j, e->device);
		kb_json_printf(&j, ",\"device_us\":%u", e->device_us);
	} else {
		kb_json_raw(&j, ",\"message\":\"no model is installed on this box: kotobako import FILE.gguf installs one\"");
	}
	kb_json_raw(&j, "}");
	kb_reply_json(c, is_ok ? 200 : 503, &body, j.error);
}

static void complete(struct inquiry *q, bool is_answered)
{
	struct kb_conn *c = q->c;
	bool is_stats = q->is_stats;
	kb_conn_end(c);
	finish(q);
	if (is_stats)
		reply_metrics(c);
	else
		reply_health(c, is_answered);
}

static void on_answer(struct kb_engine_wait *w, bool is_answered)
{
	// Which inquiry: its waits are an array, the first of which says where it lies.
	struct kb_engine_wait *first = w - w->index;
	struct inquiry *q = (struct inquiry *)(void *)((char *)first - offsetof(struct inquiry, waits));
	if (--q->n_waiting == 0)
		complete(q, is_answered);
}

static void on_cancel(struct kb_task *t)
{
	finish((struct inquiry *)t);
}

static void on_tick(struct kb_task *t, uint64_t now)
{
	struct inquiry *q = (struct inquiry *)t;
	if (now >= q->until_ms)
		complete(q, false);
}

static void begin(struct kb_conn *c, bool is_stats)
{
	struct kb_daemon *d = c->daemon;
	struct inquiry *q = calloc(1, sizeof *q);
	struct kb_engine *e = main_engine(d);
	if (!q) {
		kb_reply_error(c, 503, NULL, "", "out of memory");
		return;
	}
	*q = (struct inquiry){.task = {on_cancel, on_tick}, .c = c, .is_stats = is_stats};
	q->until_ms = kb_clock_ms() + kb_daemon_ms(d, is_stats ? STATS_WAIT_MS : HEALTH_WAIT_MS);
	for (uint32_t i = 0; i < d->o.max_engines; i++) {
		struct kb_engine_wait *w = &q->waits[q->n_waiting];
		w->index = q->n_waiting;
		w->on_answer = on_answer;
		if (d->engines[i].model[0] && (is_stats || &d->engines[i] == e))
			q->n_waiting += kb_engine_ask(&d->engines[i], w, is_stats);
	}
	if (q->n_waiting == 0)
		complete(q, false);
	else
		kb_conn_begin(c, &q->task);
}

void kb_handle_health(struct kb_conn *c)
{
	struct kb_engine *e;
	struct kb_problem p;
	// An idle box without its engine gets it back, so that health is about something.
	if (!main_engine(c->daemon) && kb_pool_acquire(c->daemon, (struct kb_str){0}, &e, &p) == 0)
		kb_engine_start(e);
	begin(c, false);
}

void kb_handle_metrics(struct kb_conn *c)
{
	begin(c, true);
}
