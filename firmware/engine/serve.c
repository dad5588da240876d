// --serve: requests in, tokens out. One loop thread owns the scheduler and the socket; the device works on a
// libuv worker thread, one job at a time, so frames are read while a step runs.
//
//   pump: idle -> ping job (if one is asked for) or step job (if the scheduler has one) -> settle -> pump
#include "base/clock.h"
#include "base/log.h"
#include "firmware/engine/engine.h"
#include "firmware/engine/prompt.h"
#include "firmware/engine/shared.h"
#include "firmware/engine/trim.h"
#include "firmware/engine/wire.h"
#include "sched/sched.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PINGS_MAX 64u          // unanswered ones; the daemon sends one at a time
#define LAST_WORDS_MS 2000u    // for the daemon to take what is still to be sent
#define PROGRESS_EVERY_MS 100u // while loading
#define TRIM_EVERY_MS 10000u

enum job { JOB_NONE, JOB_STEP, JOB_PING };

struct server {
	struct kb_engine engine;
	struct kb_sched *sched;
	uv_loop_t loop;
	struct kb_wire wire;
	uv_timer_t last_words;
	uv_shutdown_t shutdown;

	uv_work_t work;
	enum job job;
	int rc; // of the job, and what it says
	struct kb_err err;
	uint64_t job_us;
	uint32_t ping_us;

	uint64_t pings[PINGS_MAX];
	uint32_t n_pings;
	struct kb_buf prompt; // u32 tokens of the request being read

	struct kb_sched_model device_model; // for fault injection
	uint32_t n_steps;
	bool was_busy; // since the last trim
	uint64_t trimmed_ms;
	bool is_stopping;
	int status; // of the program
};

static void pump(struct server *s);

static uint64_t now_us(void)
{
	return kb_clock_ns() / 1000;
}

// --- leaving ---------------------------------------------------------------------

static void on_last_words(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
	(void)status;
	uv_stop(request->handle->loop);
}

// Sends what is queued, then leaves the loop. A job that runs is waited for.
static void stop(struct server *s, int status)
{
	if (s->is_stopping)
		return;
	s->is_stopping = true;
	s->status = status;
	if (s->wire.is_closed || kb_wire_flush(&s->wire) ||
		uv_shutdown(&s->shutdown, (uv_stream_t *)&s->wire.pipe, on_shutdown))
		uv_stop(&s->loop);
	else
		uv_timer_start(&s->last_words, on_last_words, LAST_WORDS_MS, 0);
}

static void put(struct server *s, const struct kb_msg *msg)
{
	int rc = kb_wire_put(&s->wire, msg);
	if (rc && !s->is_stopping) {
		kb_error("engine", "a message to the daemon could not be made: %s", kb_err_message(rc));
		stop(s, EXIT_FAILURE);
	}
}

static void put_error(struct server *s, uint64_t id, const struct kb_err *err)
{
	struct kb_msg msg = {.type = KB_MSG_ERROR, .id = id};
	msg.error = (struct kb_msg_error){.code = err->code, .text = {err->text, strlen(err->text)}};
	put(s, &msg);
}

static void device_failed(struct server *s, const struct kb_err *err)
{
	kb_error("engine", "%s", err->text);
	put_error(s, 0, err);
	stop(s, KB_EXIT_DEVICE);
}

// --- the scheduler's events -> frames ----------------------------------------------

static void on_accepted(void *ctx, uint64_t id, uint32_t prompt_tokens)
{
	put(ctx, &(struct kb_msg){.type = KB_MSG_ACCEPTED, .id = id, .accepted = {prompt_tokens}});
}

static struct kb_logprob wire_logprob(const struct kb_sched_logprob *l)
{
	return (struct kb_logprob){.token = l->token, .logprob = l->logprob, .bytes = l->bytes};
}

_Static_assert(KB_SCHED_TOP_MAX == KB_TOP_LOGPROBS_MAX, "limits of both agree");

static void on_token(void *ctx, uint64_t id, const struct kb_sched_token *t)
{
	struct kb_msg msg = {.type = KB_MSG_TOKEN, .id = id};
	msg.token.token = t->token;
	msg.token.text = t->text;
	msg.token.has_logprob = t->has_logprob;
	if (t->has_logprob) {
		msg.token.chosen = wire_logprob(&t->chosen);
		msg.token.n_top = t->n_top;
		for (uint32_t i = 0; i < t->n_top; i++)
			msg.token.top[i] = wire_logprob(&t->top[i]);
	}
	put(ctx, &msg);
}

static void on_done(void *ctx, uint64_t id, const struct kb_sched_done *d)
{
	static const uint8_t finish[] = {
		[KB_SCHED_STOP] = KB_FINISH_STOP,
		[KB_SCHED_LENGTH] = KB_FINISH_LENGTH,
		[KB_SCHED_CANCELLED] = KB_FINISH_CANCELLED,
	};
	struct kb_msg msg = {.type = KB_MSG_DONE, .id = id};
	msg.done = (struct kb_msg_done){
		.finish = finish[d->finish],
		.text = d->text,
		.prompt_tokens = d->prompt_tokens,
		.completion_tokens = d->completion_tokens,
		.cached_tokens = d->cached_tokens,
		.queue_us = d->queue_us,
		.prefill_us = d->prefill_us,
		.decode_us = d->decode_us,
	};
	put(ctx, &msg);
}

static void on_error(void *ctx, uint64_t id, const struct kb_err *err)
{
	put_error(ctx, id, err);
}

// --- frames -> the scheduler --------------------------------------------------------

static void submit(struct server *s, uint64_t id, const struct kb_msg_submit *m)
{
	struct kb_err err = {0};
	s->prompt.len = 0;
	int rc = kb_prompt_tokens(&s->engine, m, &err, &s->prompt);
	if (rc == 0) {
		struct kb_prompt p;
		uint32_t n_prompt = (uint32_t)(s->prompt.len / 4);
		rc = kb_prompt_resume(m, &err, &s->prompt); // behind the prompt
		if (rc == 0) {
			kb_prompt_request(&s->engine, id, m, (const uint32_t *)(const void *)s->prompt.data, n_prompt, &p);
			rc = kb_sched_submit(s->sched, &p.request, now_us(), &err);
		}
	}
	if (rc) {
		err.code = rc;
		put_error(s, id, &err);
	}
}

static void send_stats(struct server *s, uint64_t id)
{
	struct kb_sched_stats st;
	kb_sched_stats(s->sched, &st);
	struct kb_msg msg = {.type = KB_MSG_STATS_REPLY, .id = id};
	msg.stats = (struct kb_msg_stats){
		.running = st.running,
		.waiting = st.waiting,
		.kv_pages = st.kv_pages,
		.kv_pages_used = st.kv_pages_used,
		.kv_pages_idle = st.kv_pages_idle,
		.prompt_tokens = st.prompt_tokens,
		.generated_tokens = st.generated_tokens,
		.steps = st.steps,
		.step_us = st.step_us,
		.resident_bytes = kb_engine_resident(&s->engine),
		.preemptions = st.preemptions,
		.guessed_tokens = st.guessed_tokens,
		.guessed_right = st.guessed_right,
	};
	put(s, &msg);
}

static int on_message(void *ctx, const struct kb_msg *msg)
{
	struct server *s = ctx;
	if (s->is_stopping)
		return 0;
	switch (msg->type) {
	case KB_MSG_SUBMIT:
		submit(s, msg->id, &msg->submit);
		break;
	case KB_MSG_CANCEL:
		kb_sched_cancel(s->sched, msg->id, now_us());
		break;
	case KB_MSG_PING:
		if (s->n_pings == PINGS_MAX)
			return KB_ELIMIT;
		s->pings[s->n_pings++] = msg->id;
		break;
	case KB_MSG_STATS:
		send_stats(s, msg->id);
		break;
	case KB_MSG_QUIT:
		stop(s, EXIT_SUCCESS);
		return 0;
	default:
		return KB_EBAD; // an engine's message, from the daemon
	}
	pump(s);
	return 0;
}

static void on_drained(void *ctx)
{
	pump(ctx);
}

static void on_closed(void *ctx, const struct kb_err *err)
{
	if (err->code != KB_ECLOSED)
		kb_error("engine", "%s", err->text);
	stop(ctx, err->code == KB_ECLOSED ? EXIT_SUCCESS : EXIT_FAILURE);
}

// --- the device's jobs ----------------------------------------------------------------

static int step_with_fault(void *ctx, const struct kb_batch *batch, struct kb_err *err, const float **ret_logits)
{
	struct server *s = ctx;
	if (s->n_steps++ >= s->engine.options->fault_after)
		return kb_fail(err, KB_EDEVICE, "the device failed (as --fault-after-steps asked)");
	return s->device_model.step(s->device_model.ctx, batch, err, ret_logits);
}

static uint32_t *page_row_with_fault(void *ctx, uint32_t seq)
{
	struct server *s = ctx;
	return s->device_model.page_row(s->device_model.ctx, seq);
}

static void on_work(uv_work_t *work)
{
	struct server *s = work->data;
	uint64_t start = now_us();
	if (s->job == JOB_PING)
		s->rc = kb_ping_run(s->engine.ping, &s->err, &s->ping_us);
	else
		s->rc = kb_sched_run(s->sched, &s->err);
	s->job_us = now_us() - start;
}

static void on_worked(uv_work_t *work, int status)
{
	(void)status; // never cancelled
	struct server *s = work->data;
	enum job job = s->job;
	s->job = JOB_NONE;
	if (job == JOB_PING) {
		struct kb_msg msg = {.type = KB_MSG_PONG, .id = s->pings[0]};
		msg.pong = (struct kb_msg_pong){.is_healthy = s->rc == 0, .device_us = s->rc ? 0 : s->ping_us};
		if (s->rc)
			msg.pong.text = (struct kb_str){s->err.text, strlen(s->err.text)};
		memmove(s->pings, s->pings + 1, --s->n_pings * sizeof *s->pings);
		put(s, &msg);
	} else if (s->rc != KB_EDEVICE) {
		kb_sched_settle(s->sched, s->rc, &s->err, s->job_us, now_us());
	}
	if (s->rc == KB_EDEVICE) // no request is told: the daemon has them resumed by the next engine
		device_failed(s, &s->err);
	pump(s);
}

// Nothing to do after steps: memory that only they needed goes back, now and then.
static void rest(struct server *s)
{
	uint64_t now = kb_clock_ms();
	if (s->was_busy && (!s->trimmed_ms || now - s->trimmed_ms > TRIM_EVERY_MS)) {
		kb_trim();
		s->trimmed_ms = now;
		s->was_busy = false;
	}
}

static void pump(struct server *s)
{
	if (s->job == JOB_NONE && !s->is_stopping && !kb_wire_is_full(&s->wire)) {
		if (s->n_pings > 0)
			s->job = JOB_PING;
		else if (kb_sched_plan(s->sched, now_us()))
			s->job = JOB_STEP;
		s->was_busy |= s->job == JOB_STEP;
		s->err = (struct kb_err){0};
		if (s->job != JOB_NONE && uv_queue_work(&s->loop, &s->work, on_work, on_worked)) {
			kb_error("engine", "no worker thread");
			_exit(EXIT_FAILURE);
		}
	}
	if (!s->is_stopping && kb_wire_flush(&s->wire))
		stop(s, EXIT_FAILURE);
	if (s->job == JOB_NONE && !s->is_stopping)
		rest(s);
}

// --- starting -----------------------------------------------------------------------

struct loading {
	int fd;
	uint64_t sent_ms;
};

static void on_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct loading *l = ctx;
	uint64_t now = kb_clock_ms();
	if (now - l->sent_ms < PROGRESS_EVERY_MS && done != total)
		return;
	l->sent_ms = now;
	struct kb_msg msg = {.type = KB_MSG_PROGRESS, .progress = {.done = done, .total = total, .what = {"weights", 7}}};
	if (kb_wire_send_now(l->fd, &msg))
		kb_debug("engine", "progress was not taken"); // the daemon has gone: serving will notice
}

static struct kb_str str(const char *text)
{
	return (struct kb_str){text, strlen(text)};
}

static void send_ready(struct server *s)
{
	const struct kb_model_info *info = kb_model_info(s->engine.model);
	uint32_t kv_tokens = info->kv_pages * KB_KV_PAGE_TOKENS;
	struct kb_msg msg = {.type = KB_MSG_READY};
	msg.ready = (struct kb_msg_ready){
		.version = KB_PROTO_VERSION,
		.arch = str(info->arch),
		.name = str(info->name),
		.device = str(s->engine.backend->device),
		.vocab = info->vocab,
		.context = info->context < kv_tokens ? info->context : kv_tokens,
		.max_seqs = info->max_seqs,
		.kv_tokens = kv_tokens,
		.weight_bytes = info->weight_bytes,
		.kv_bytes = info->kv_bytes,
		.parameters = info->parameters,
	};
	put(s, &msg);
}

static int start(struct server *s, int fd, struct kb_err *err)
{
	struct kb_sched_model model = s->device_model = kb_sched_model_of(s->engine.model);
	if (s->engine.options->fault_after) {
		model.ctx = s;
		model.step = step_with_fault;
		model.page_row = page_row_with_fault;
	}
	const struct kb_sched_events events = {s, on_accepted, on_token, on_done, on_error};
	// Only now: a loop that was made before the sandbox closed would rely on io_uring, which it forbids.
	if (uv_loop_init(&s->loop) || uv_timer_init(&s->loop, &s->last_words))
		return kb_fail(err, KB_EIO, "no event loop");
	struct kb_buf shared = {0};
	const struct kb_buf *system = &s->engine.shared_system;
	int rc = 0;
	if (system->len)
		rc = kb_shared_tokens(&s->engine, (struct kb_str){(const char *)system->data, system->len}, err, &shared);
	const struct kb_sched_options options = {
		.draft_max = s->engine.options->guesses,
		.no_prefix_cache = s->engine.options->no_prefix_cache,
		.shared = (const uint32_t *)(const void *)shared.data,
		.n_shared = (uint32_t)(shared.len / 4),
	};
	if (rc == 0)
		rc = kb_sched_create(&model, s->engine.tok, &options, &events, err, &s->sched);
	kb_buf_finish(&shared);
	if (rc)
		return rc;
	s->wire.ctx = s;
	s->wire.message = on_message;
	s->wire.drained = on_drained;
	s->wire.closed = on_closed;
	return kb_wire_open(&s->wire, &s->loop, fd, err);
}

int kb_mode_serve(const struct kb_engine_options *o, char **arguments)
{
	static struct server server; // large, and one
	struct server *s = &server;
	struct kb_err err = {0};
	int fd = (int)strtol(arguments[0], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN); // Ctrl-C in a terminal goes to the daemon, which closes the socket
	s->work.data = s;
	int rc = kb_engine_open(&s->engine, o, on_progress, &(struct loading){.fd = fd}, &err);
	if (rc == 0)
		rc = start(s, fd, &err);
	if (rc) {
		struct kb_msg msg = {.type = KB_MSG_ERROR, .error = {.code = rc, .text = {err.text, strlen(err.text)}}};
		kb_error("engine", "%s", err.text);
		if (kb_wire_send_now(fd, &msg))
			kb_error("engine", "nobody listens on file descriptor %d", fd);
		return rc == KB_EDEVICE ? KB_EXIT_DEVICE : EXIT_FAILURE;
	}
	send_ready(s);
	pump(s);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	if (s->job != JOB_NONE || s->status == KB_EXIT_DEVICE)
		_exit(s->status); // tidying up would wait for a device that may never answer
	kb_wire_close(&s->wire);
	uv_close((uv_handle_t *)&s->last_words, NULL);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	uv_loop_close(&s->loop);
	kb_wire_finish(&s->wire);
	kb_buf_finish(&s->prompt);
	kb_sched_destroy(s->sched);
	kb_engine_close(&s->engine);
	return s->status;
}
