// One life of an engine process: spawn, frames out and in, end. See engine.h.
#include "base/log.h"
#include "firmware/api/engine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kb_engine_run {
	struct kb_engine *engine; // NULL: dropped
	uv_process_t process;
	uv_pipe_t pipe;
	uv_timer_t quit;
	int handles; // not yet closed
	bool is_exited, is_pipe_closing, is_quit_set;
	struct kb_buf in;
	size_t out_bytes; // given to libuv, not yet taken by the engine
	char data[65536];
};

struct frame {
	uv_write_t write;
	struct kb_engine_run *run;
	struct kb_buf bytes;
};

static void on_closed(uv_handle_t *h)
{
	struct kb_engine_run *r = h->data;
	if (--r->handles > 0)
		return;
	kb_buf_finish(&r->in);
	free(r);
}

static void close_pipe(struct kb_engine_run *r)
{
	if (!r->is_pipe_closing)
		uv_close((uv_handle_t *)&r->pipe, on_closed);
	r->is_pipe_closing = true;
}

// Tells the engine once; the run is dropped by it in return.
static void ended(struct kb_engine_run *r, const char *why)
{
	if (r->engine)
		kb_engine_on_end(r->engine, why);
}

static void on_process_exit(uv_process_t *p, int64_t status, int signal)
{
	struct kb_engine_run *r = p->data;
	char why[96];
	r->is_exited = true;
	if (signal)
		snprintf(why, sizeof why, "killed by signal %d", signal);
	else
		snprintf(why, sizeof why, "left with status %d", (int)status);
	ended(r, why);
	close_pipe(r);
	uv_close((uv_handle_t *)&r->quit, on_closed);
	uv_close((uv_handle_t *)p, on_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
	(void)suggested;
	struct kb_engine_run *r = h->data;
	*ret = uv_buf_init(r->data, sizeof r->data);
}

static const char *take_frames(struct kb_engine_run *r)
{
	size_t at = 0;
	while (at < r->in.len && r->engine) {
		struct kb_msg msg;
		size_t used = 0;
		int e = kb_proto_decode(r->in.data + at, r->in.len - at, &msg, &used);
		if (e == KB_EPARTIAL)
			break;
		if (e || kb_engine_on_message(r->engine, &msg))
			return "it sent what no engine may send";
		at += used;
	}
	kb_buf_consume(&r->in, at);
	return NULL;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct kb_engine_run *r = s->data;
	const char *why = NULL;
	if (n < 0)
		why = "it closed its socket";
	else if (kb_buf_append(&r->in, buf->base, (size_t)n))
		why = "it sent too much";
	else
		why = take_frames(r);
	if (!why)
		return;
	// What the process's end says is better than what the socket's says: it follows at once where it has died.
	if (n < 0 && !r->is_exited && r->engine) {
		uv_read_stop(s);
		uv_process_kill(&r->process, SIGKILL);
		return;
	}
	ended(r, why);
}

static void on_written(uv_write_t *w, int status)
{
	(void)status; // a broken socket is noticed by reading
	struct frame *f = (struct frame *)w;
	f->run->out_bytes -= f->bytes.len;
	kb_buf_finish(&f->bytes);
	free(f);
}

int kb_engine_run_send(struct kb_engine_run *r, const struct kb_msg *msg)
{
	struct frame *f = calloc(1, sizeof *f);
	if (!f)
		return KB_ENOMEM;
	f->run = r;
	int e = kb_proto_encode(&f->bytes, msg);
	if (e == 0 && r->out_bytes + f->bytes.len > KB_ENGINE_OUT_MAX)
		e = KB_EBUSY;
	if (e == 0) {
		uv_buf_t b = uv_buf_init((char *)f->bytes.data, (unsigned)f->bytes.len);
		e = r->is_pipe_closing || uv_write(&f->write, (uv_stream_t *)&r->pipe, &b, 1, on_written) ? KB_ECLOSED : 0;
	}
	if (e) {
		kb_buf_finish(&f->bytes);
		free(f);
		return e;
	}
	r->out_bytes += f->bytes.len;
	return 0;
}

static void on_quit_time(uv_timer_t *t)
{
	struct kb_engine_run *r = t->data;
	if (!r->is_exited)
		uv_process_kill(&r->process, SIGKILL);
}

void kb_engine_run_drop(struct kb_engine_run *r, bool kill_now)
{
	unsigned wait_ms = KB_ENGINE_QUIT_MS / r->engine->o->hurry;
	r->engine = NULL;
	if (r->is_exited)
		return;
	if (kill_now) {
		uv_process_kill(&r->process, SIGKILL);
		return;
	}
	struct kb_msg quit = {.type = KB_MSG_QUIT};
	if (kb_engine_run_send(r, &quit))
		uv_process_kill(&r->process, SIGKILL);
	uv_timer_start(&r->quit, on_quit_time, wait_ms, 0);
}

int kb_engine_run_pid(const struct kb_engine_run *r)
{
	return r->is_exited ? 0 : uv_process_get_pid(&r->process);
}

// argv for the engine: at most 16 words.
static void arguments(const struct kb_engine *e, char *argv[20], char text[4][1100])
{
	int n = 0;
	argv[n++] = (char *)e->o->program;
	argv[n++] = (char *)"--serve";
	argv[n++] = (char *)"3";
	argv[n++] = (char *)e->path;
	snprintf(text[0], sizeof text[0], "%s/%s.cache", e->o->cache_dir, e->model);
	argv[n++] = (char *)"--cache";
	argv[n++] = text[0];
	snprintf(text[1], sizeof text[1], "%u", e->o->kv_tokens);
	if (e->o->kv_tokens) {
		argv[n++] = (char *)"--kv-tokens";
		argv[n++] = text[1];
	}
	snprintf(text[2], sizeof text[2], "%u", e->o->max_seqs);
	if (e->o->max_seqs) {
		argv[n++] = (char *)"--max-seqs";
		argv[n++] = text[2];
	}
	snprintf(text[3], sizeof text[3], "%u", e->o->speculate);
	if (e->o->speculate != KB_ENGINES_CHOICE) {
		argv[n++] = (char *)"--speculate";
		argv[n++] = text[3];
	}
	if (e->o->shared_system) {
		argv[n++] = (char *)"--shared-system";
		argv[n++] = (char *)e->o->shared_system;
	}
	if (e->digest[0]) {
		argv[n++] = (char *)"--digest";
		argv[n++] = (char *)e->digest;
	}
	argv[n] = NULL;
}

struct kb_engine_run *kb_engine_run_create(struct kb_engine *e, struct kb_err *err)
{
	char *argv[20], text[4][1100];
	struct kb_engine_run *r = calloc(1, sizeof *r);
	if (!r) {
		kb_fail(err, KB_ENOMEM, "out of memory");
		return NULL;
	}
	arguments(e, argv, text);
	r->engine = e;
	r->in.max = KB_FRAME_MAX + sizeof r->data + 16;
	uv_pipe_init(e->o->loop, &r->pipe, 0);
	uv_timer_init(e->o->loop, &r->quit);
	r->pipe.data = r->process.data = r->quit.data = r;
	uv_stdio_container_t stdio[4] = {
		{.flags = UV_IGNORE},
		{.flags = UV_INHERIT_FD, .data.fd = 2},
		{.flags = UV_INHERIT_FD, .data.fd = 2},
		{.flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&r->pipe},
	};
	uv_process_options_t o = {
		.exit_cb = on_process_exit,
		.file = e->o->program,
		.args = argv,
		.stdio = stdio,
		.stdio_count = 4,
		.flags = UV_PROCESS_DETACHED, // Ctrl-C on a terminal is for the daemon, which lets answers end
	};
	int u = uv_spawn(e->o->loop, &r->process, &o);
	r->handles = 3;
	if (u) {
		kb_fail(err, KB_EIO, "starting %s: %s", e->o->program, uv_strerror(u));
		r->engine = NULL;
		r->is_exited = true;
		close_pipe(r);
		uv_close((uv_handle_t *)&r->quit, on_closed);
		uv_close((uv_handle_t *)&r->process, on_closed);
		return NULL;
	}
	uv_read_start((uv_stream_t *)&r->pipe, on_alloc, on_read);
	return r;
}
