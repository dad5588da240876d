// See conn.h.
#include "firmware/api/conn.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "net/x509.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void process(struct kb_conn *c);

static uint64_t in_ms(const struct kb_conn *c, uint64_t ms)
{
	return kb_clock_ms() + kb_daemon_ms(c->daemon, ms);
}

static void on_closed(uv_handle_t *h)
{
	struct kb_conn *c = h->data;
	struct kb_daemon *d = c->daemon;
	if (c->prev)
		c->prev->next = c->next;
	else
		d->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	d->n_conns--;
	if (c->kind == KB_LISTEN_ADMIN)
		d->n_admin--;
	kb_tls_destroy(c->tls);
	kb_claim_destroy(c->claim);
	kb_http_finish(&c->http);
	kb_wipe(&c->in);
	kb_buf_finish(&c->out);
	kb_buf_finish(&c->sending);
	free(c);
}

void kb_conn_cut(struct kb_conn *c)
{
	struct kb_task *t = c->task;
	if (c->state == KB_CONN_CLOSING)
		return;
	if (c->state == KB_CONN_HANDSHAKE)
		c->daemon->n_handshaking--;
	c->state = KB_CONN_CLOSING;
	c->task = NULL;
	uv_close(&c->h.handle, on_closed);
	if (t) {
		c->daemon->metrics.cancelled++;
		c->daemon->n_running--;
		t->cancel(t);
	}
}

size_t kb_conn_pending(const struct kb_conn *c)
{
	return c->out.len - c->out_head + c->sending.len + (c->tls ? kb_tls_output(c->tls)->len : 0);
}

static void on_shut(uv_shutdown_t *s, int status)
{
	(void)s, (void)status; // the end is the peer's EOF or the deadline
}

static void on_written(uv_write_t *w, int status)
{
	struct kb_conn *c = w->data;
	c->is_writing = false;
	c->sending.len = 0;
	if (c->state == KB_CONN_CLOSING)
		return;
	if (status < 0) {
		kb_conn_cut(c);
		return;
	}
	c->progress_ms = kb_clock_ms();
	kb_conn_flush(c);
}

// Moves a piece of out to where the socket's bytes come from. False: the connection was cut.
static bool fill(struct kb_conn *c)
{
	struct kb_buf *wire = c->tls ? kb_tls_output(c->tls) : &c->sending;
	while (c->out_head < c->out.len && wire->len < KB_WRITE_PIECE) {
		size_t n = c->out.len - c->out_head;
		n = n < KB_TLS_RECORD_MAX ? n : KB_TLS_RECORD_MAX;
		const uint8_t *p = c->out.data + c->out_head;
		if (c->tls ? kb_tls_write(c->tls, p, n, NULL) : kb_buf_append(wire, p, n)) {
			kb_conn_cut(c);
			return false;
		}
		c->out_head += n;
	}
	if (c->out_head == c->out.len) {
		if (c->out.cap > KB_STREAM_HIGH_WATER) // a large answer was an exception
			kb_buf_finish(&c->out);
		c->out.len = c->out_head = 0;
	}
	if (c->tls && wire->len) {
		struct kb_buf empty = c->sending;
		c->sending = *wire;
		*wire = empty;
	}
	return true;
}

void kb_conn_flush(struct kb_conn *c)
{
	if (c->is_writing || c->state == KB_CONN_CLOSING)
		return;
	if (!fill(c))
		return;
	if (c->sending.len == 0 && c->state == KB_CONN_LINGER && !c->is_close_said) {
		c->is_close_said = true;
		if (c->tls) {
			kb_tls_close(c->tls);
			if (!fill(c))
				return;
		}
	}
	if (c->sending.len == 0) {
		if (c->state == KB_CONN_LINGER && !c->is_shut) {
			c->is_shut = true;
			c->deadline_ms = in_ms(c, KB_LINGER_MS);
			if (uv_shutdown(&c->shutdown, &c->h.stream, on_shut))
				kb_conn_cut(c);
		}
		return;
	}
	uv_buf_t b = uv_buf_init((char *)c->sending.data, (unsigned)c->sending.len);
	c->write.data = c;
	c->is_writing = true;
	c->progress_ms = kb_clock_ms();
	if (uv_write(&c->write, &c->h.stream, &b, 1, on_written)) {
		c->is_writing = false;
		kb_conn_cut(c);
	}
}

void kb_conn_begin(struct kb_conn *c, struct kb_task *t)
{
	c->task = t;
	c->daemon->n_running++;
}

void kb_conn_end(struct kb_conn *c)
{
	if (c->task)
		c->daemon->n_running--;
	c->task = NULL;
}

void kb_conn_done(struct kb_conn *c)
{
	if (c->state == KB_CONN_CLOSING)
		return;
	kb_route_log(c);
	kb_conn_end(c);
	bool is_whole = c->http.is_done && c->http.is_keep_alive && c->http.ll.http_minor == 1;
	if (!is_whole || c->daemon->is_stopping) {
		c->state = KB_CONN_LINGER;
		c->deadline_ms = 0; // set when the answer is out; until then the write's progress is watched
		kb_conn_flush(c);
		return;
	}
	kb_http_next(&c->http);
	c->is_busy = c->is_head_written = false;
	c->deadline_ms = in_ms(c, KB_IDLE_MS);
	kb_conn_flush(c);
	if (!c->is_processing)
		process(c);
}

static void begin_request(struct kb_conn *c)
{
	uint8_t id[8];
	struct kb_err err;
	if (kb_random(id, sizeof id, &err))
		memset(id, 0, sizeof id);
	memcpy(c->request_id, "req_", 4);
	kb_hex(id, sizeof id, c->request_id + 4);
	c->begun_ms = kb_clock_ms();
	c->status = 0;
	c->endpoint = KB_ENDPOINT_OTHER;
	c->is_head_written = false;
}

static void refuse_message(struct kb_conn *c, const char *text)
{
	if (!c->http.is_head_done)
		begin_request(c);
	c->is_busy = true;
	kb_reply_error(c, c->http.failed_status ? c->http.failed_status : 400, NULL, "", "%s", text);
}

// One step with what has come in. False: no further step is possible now.
static bool step(struct kb_conn *c)
{
	struct kb_err err;
	bool was_begun = c->http.is_begun, had_head = c->http.is_head_done;
	size_t used = 0;
	if (kb_http_feed(&c->http, c->in.data, c->in.len, &used, &err)) {
		refuse_message(c, err.text);
		return false;
	}
	kb_buf_consume(&c->in, used);
	if (!was_begun && c->http.is_begun)
		c->deadline_ms = in_ms(c, KB_HEADER_MS);
	if (!had_head && c->http.is_head_done) {
		c->deadline_ms = in_ms(c, KB_BODY_MS);
		begin_request(c);
		c->is_busy = true;
		if (!kb_route_head(c)) // answered already: kb_conn_done() has chosen how to go on
			return c->state == KB_CONN_OPEN && !c->is_busy;
		c->is_busy = false;
		if (c->http.wants_continue && kb_buf_puts(&c->out, "HTTP/1.1 100 Continue\r\n\r\n") == 0)
			kb_conn_flush(c);
	}
	if (c->http.is_done) {
		c->is_busy = true;
		c->deadline_ms = 0;
		kb_route_run(c);
	}
	return used > 0 || c->http.is_done;
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
	(void)suggested;
	struct kb_conn *c = h->data;
	*ret = uv_buf_init(c->daemon->read_buffer, sizeof c->daemon->read_buffer);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf);

static void process(struct kb_conn *c)
{
	c->is_processing = true;
	while (c->state == KB_CONN_OPEN && !c->is_busy && c->in.len > 0)
		if (!step(c))
			break;
	c->is_processing = false;
	if (c->state == KB_CONN_CLOSING)
		return;
	// While an answer is being made, reading goes on only to notice that the client has left.
	bool wants_more = c->in.len < KB_HTTP_PIPELINE_MAX;
	if (wants_more == c->is_reading)
		return;
	c->is_reading = wants_more;
	if (!wants_more)
		uv_read_stop(&c->h.stream);
	else if (uv_read_start(&c->h.stream, on_alloc, on_read))
		kb_conn_cut(c);
}

static void note_failure(struct kb_daemon *d, const char *text)
{
	uint64_t now = kb_clock_ms();
	d->metrics.handshake_failures++;
	kb_debug("tls", "%s", text);
	d->quiet_failures++;
	if (d->warned_ms && now - d->warned_ms < 10000)
		return;
	kb_warn("tls", "%u handshakes failed; the last: %s", d->quiet_failures, text);
	d->warned_ms = now;
	d->quiet_failures = 0;
}

static bool has_too_many(const struct kb_conn *c)
{
	uint32_t n = 0;
	for (const struct kb_conn *o = c->daemon->conns; o; o = o->next)
		n += o->state != KB_CONN_CLOSING && o->has_client &&
			 memcmp(o->client.fingerprint, c->client.fingerprint, sizeof o->client.fingerprint) == 0;
	return n > KB_CLIENT_CONNS_MAX;
}

// Feeds what came from the socket into TLS and takes the plaintext out. False: the connection is over.
static bool take_tls(struct kb_conn *c, const char *data, size_t len)
{
	struct kb_err err;
	if (kb_tls_feed(c->tls, data, len)) {
		kb_conn_cut(c);
		return false;
	}
	if (c->state == KB_CONN_HANDSHAKE) {
		int r = kb_tls_handshake(c->tls, &err);
		if (r == 0) {
			c->daemon->n_handshaking--;
			c->state = KB_CONN_OPEN;
			c->deadline_ms = in_ms(c, KB_IDLE_MS);
			c->client = *kb_tls_peer(c->tls);
			c->kind = kb_tls_is_claim(c->tls) ? KB_LISTEN_CLAIM : c->kind;
			c->has_client = c->kind == KB_LISTEN_MUTUAL;
			if (c->has_client && has_too_many(c)) {
				c->daemon->metrics.connections_refused++;
				kb_conn_cut(c);
				return false;
			}
		} else if (r != KB_EPARTIAL) {
			note_failure(c->daemon, err.text);
			c->daemon->n_handshaking--;
			c->state = KB_CONN_LINGER; // the alert goes out first
			c->is_close_said = true;
		}
		kb_conn_flush(c);
		if (c->state != KB_CONN_OPEN)
			return c->state != KB_CONN_CLOSING;
	}
	int r = 0;
	while (r == 0 && c->state != KB_CONN_CLOSING) {
		size_t n = 0;
		if (kb_buf_reserve(&c->in, KB_TLS_RECORD_MAX)) {
			kb_conn_cut(c);
			return false;
		}
		r = kb_tls_read(c->tls, c->in.data + c->in.len, KB_TLS_RECORD_MAX, &n, &err);
		if (r == 0 && c->state == KB_CONN_OPEN)
			c->in.len += n;
	}
	if (r != KB_EPARTIAL)
		kb_conn_cut(c);
	return r == KB_EPARTIAL;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct kb_conn *c = s->data;
	if (c->state == KB_CONN_CLOSING)
		return;
	if (n < 0) {
		if (c->state == KB_CONN_HANDSHAKE)
			note_failure(c->daemon, "the client left during the handshake");
		kb_conn_cut(c);
		return;
	}
	if (c->tls && c->state == KB_CONN_LINGER)
		return; // nobody reads it any more
	if (c->tls && !take_tls(c, buf->base, (size_t)n))
		return;
	if (!c->tls && c->state == KB_CONN_OPEN && kb_buf_append(&c->in, buf->base, (size_t)n)) {
		kb_conn_cut(c);
		return;
	}
	process(c);
}

void kb_conn_tick(struct kb_conn *c, uint64_t now)
{
	if (c->state == KB_CONN_CLOSING)
		return;
	if (c->is_writing && now - c->progress_ms > kb_daemon_ms(c->daemon, KB_WRITE_STALL_MS)) {
		c->daemon->metrics.slow_readers++;
		kb_conn_cut(c);
		return;
	}
	if (c->task && c->task->tick)
		c->task->tick(c->task, now);
	if (c->state == KB_CONN_CLOSING || c->deadline_ms == 0 || now < c->deadline_ms)
		return;
	c->deadline_ms = 0;
	if (c->state == KB_CONN_HANDSHAKE)
		note_failure(c->daemon, "the handshake took too long");
	if (c->state != KB_CONN_OPEN || c->is_busy) {
		kb_conn_cut(c);
	} else if (c->http.is_begun) {
		if (!c->http.is_head_done)
			begin_request(c);
		c->is_busy = true;
		kb_reply_error(c, 408, NULL, "", "the request did not come in time");
	} else { // idle for long enough
		c->is_busy = true;
		c->state = KB_CONN_LINGER;
		kb_conn_flush(c);
	}
}

void kb_conn_stop(struct kb_conn *c)
{
	if (c->state == KB_CONN_OPEN && !c->is_busy) {
		c->state = KB_CONN_LINGER;
		kb_conn_flush(c);
	} else if (c->state == KB_CONN_HANDSHAKE) {
		kb_conn_cut(c);
	}
}

// The admin socket is for the daemon's own user and root.
static bool may_administer(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

// Strangers who say nothing must not keep clients out: a client's handshake takes milliseconds.
static void evict_oldest_handshake(struct kb_daemon *d, const struct kb_conn *newest)
{
	struct kb_conn *oldest = NULL;
	for (struct kb_conn *c = d->conns; c; c = c->next) // newest first
		if (c != newest && c->state == KB_CONN_HANDSHAKE)
			oldest = c;
	if (oldest) {
		d->metrics.connections_refused++;
		kb_conn_cut(oldest);
	}
}

static bool prepare(struct kb_conn *c, struct kb_listener *l)
{
	struct kb_daemon *d = c->daemon;
	struct kb_err err;
	uv_os_fd_t fd;
	if (uv_fileno(&c->h.handle, &fd))
		return false;
	if (l->kind == KB_LISTEN_ADMIN) {
		c->state = KB_CONN_OPEN;
		c->deadline_ms = in_ms(c, KB_IDLE_MS);
		return d->n_admin <= KB_ADMIN_CONNS_MAX && may_administer(fd);
	}
	if (d->n_conns > KB_CONNS_MAX)
		return false;
	if (d->n_handshaking > KB_CONNS_HANDSHAKING_MAX)
		evict_oldest_handshake(d, c);
	uv_tcp_nodelay(&c->h.tcp, 1);
	uv_tcp_keepalive(&c->h.tcp, 1, 60);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){KB_SOCKET_SEND_BUFFER}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(unsigned){KB_WRITE_STALL_MS}, sizeof(unsigned));
	c->deadline_ms = in_ms(c, KB_HANDSHAKE_MS);
	return kb_tls_create(l->tls, NULL, &c->tls, &err) == 0;
}

void kb_conn_accept(struct kb_listener *l)
{
	struct kb_daemon *d = l->daemon;
	struct kb_conn *c = calloc(1, sizeof *c);
	if (!c)
		return;
	c->daemon = d;
	c->kind = l->kind;
	if (l->kind == KB_LISTEN_ADMIN)
		uv_pipe_init(&d->loop, &c->h.pipe, 0);
	else
		uv_tcp_init(&d->loop, &c->h.tcp);
	c->h.handle.data = c;
	kb_http_init(&c->http, true, KB_HTTP_BODY_MAX);
	c->out.max = KB_REPLY_MAX;
	c->next = d->conns;
	if (c->next)
		c->next->prev = c;
	d->conns = c;
	d->n_conns++;
	d->n_handshaking++; // kb_conn_cut() takes it back
	d->n_admin += l->kind == KB_LISTEN_ADMIN;
	d->metrics.connections_total++;
	if (uv_accept(&l->h.stream, &c->h.stream) || !prepare(c, l)) {
		c->state = KB_CONN_HANDSHAKE;
		d->metrics.connections_refused++;
		kb_conn_cut(c);
		return;
	}
	if (c->state == KB_CONN_OPEN)
		d->n_handshaking--;
	c->is_reading = true;
	if (uv_read_start(&c->h.stream, on_alloc, on_read))
		kb_conn_cut(c);
}
