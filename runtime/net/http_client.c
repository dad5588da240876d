// The blocking client. See http_client.h.
#include "net/http_client.h"
#include "base/clock.h"
#include "net/http.h"
#include "net/x509.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_TOTAL (UINT64_MAX / 100) // of a Content-Range: beyond any file
#define LOOK_MS 100                  // how often the interrupt flag is looked at

struct kb_http_client {
	char *unix_path, *host, *bearer;
	uint16_t port;
	struct kb_tls_config *config;
	int fd; // -1: not connected
	struct kb_tls *tls;
	bool is_used; // a request was answered on this connection: the box may have closed it since
};

// One call's time and interruption.
struct wait {
	uint64_t until_ms;
	const volatile sig_atomic_t *interrupt;
};

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

int kb_http_client_create(const struct kb_http_target *target, struct kb_http_client **ret, struct kb_err *err)
{
	struct kb_http_client *c = calloc(1, sizeof *c);
	if (!c)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	c->fd = -1;
	c->port = target->port;
	c->unix_path = copy(target->unix_path);
	c->host = copy(target->host);
	c->bearer = copy(target->bearer);
	int r = 0;
	if (!target->unix_path) {
		struct kb_tls_options o = {.role = target->is_claim ? KB_TLS_CLIENT_CLAIM : KB_TLS_CLIENT,
			.ca_pem = target->ca_pem,
			.cert_pem = target->cert_pem,
			.key_pem = target->key_pem};
		r = target->host ? kb_tls_config_create(&o, &c->config, err) : kb_fail(err, KB_EARG, "no host is given");
	}
	if (r) {
		kb_http_client_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

static void disconnect(struct kb_http_client *c)
{
	kb_tls_destroy(c->tls);
	c->tls = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->is_used = false;
}

void kb_http_client_destroy(struct kb_http_client *c)
{
	if (!c)
		return;
	disconnect(c);
	kb_tls_config_destroy(c->config);
	free(c->unix_path);
	free(c->host);
	free(c->bearer);
	free(c);
}

const struct kb_tls_peer *kb_http_client_peer(const struct kb_http_client *c)
{
	static const struct kb_tls_peer nobody;
	return c->tls ? kb_tls_peer(c->tls) : &nobody;
}

// Waits for events on the socket; KB_ETIMEOUT, KB_ECANCELLED.
static int wait_for(const struct kb_http_client *c, short events, const struct wait *w, struct kb_err *err)
{
	for (;;) {
		if (w->interrupt && *w->interrupt)
			return kb_fail(err, KB_ECANCELLED, "stopped");
		uint64_t now = kb_clock_ms();
		if (now >= w->until_ms)
			return kb_fail(err, KB_ETIMEOUT, "no answer from %s in time", c->unix_path ? c->unix_path : c->host);
		uint64_t left = w->until_ms - now;
		struct pollfd p = {.fd = c->fd, .events = events};
		int n = poll(&p, 1, left < LOOK_MS ? (int)left : LOOK_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return kb_fail(err, KB_EIO, "waiting for the box: %s", strerror(errno));
	}
}

static int finish_connect(struct kb_http_client *c, const struct wait *w, struct kb_err *err)
{
	int failure = 0;
	socklen_t len = sizeof failure;
	int r = wait_for(c, POLLOUT, w, err);
	if (r)
		return r;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failure, &len))
		failure = errno;
	if (failure)
		return kb_fail(err, KB_EIO, "connecting to %s port %u: %s", c->host, c->port, strerror(failure));
	return 0;
}

static int connect_tcp(struct kb_http_client *c, const struct wait *w, struct kb_err *err)
{
	char port[8];
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
	snprintf(port, sizeof port, "%u", c->port);
	int g = getaddrinfo(c->host, port, &hints, &list);
	if (g)
		return kb_fail(err, KB_ENOTFOUND, "finding %s: %s", c->host, gai_strerror(g));
	int r = kb_fail(err, KB_EIO, "%s has no address", c->host);
	for (struct addrinfo *a = list; a && r && r != KB_ECANCELLED; a = a->ai_next) {
		c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (c->fd < 0)
			r = kb_fail(err, KB_EIO, "opening a socket: %s", strerror(errno));
		else if (connect(c->fd, a->ai_addr, a->ai_addrlen) && errno != EINPROGRESS)
			r = kb_fail(err, KB_EIO, "connecting to %s port %u: %s", c->host, c->port, strerror(errno));
		else
			r = finish_connect(c, w, err);
		if (r)
			disconnect(c);
	}
	freeaddrinfo(list);
	if (r == 0)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	return r;
}

static int connect_unix(struct kb_http_client *c, struct kb_err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (strlen(c->unix_path) >= sizeof a.sun_path)
		return kb_fail(err, KB_EARG, "%s: the path is too long for a socket", c->unix_path);
	memcpy(a.sun_path, c->unix_path, strlen(c->unix_path));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return kb_fail(err, KB_EIO, "opening a socket: %s", strerror(errno));
	if (connect(c->fd, (struct sockaddr *)&a, sizeof a)) {
		int code = kb_err_from_errno(errno);
		kb_fail(err, code, "%s: %s (is kotobakod running, with this --state?)", c->unix_path, strerror(errno));
		disconnect(c);
		return code;
	}
	return 0;
}

// Sends all of the TLS output.
static int flush_tls(struct kb_http_client *c, const struct wait *w, struct kb_err *err)
{
	struct kb_buf *out = kb_tls_output(c->tls);
	while (out->len > 0) {
		ssize_t n = send(c->fd, out->data, out->len, MSG_NOSIGNAL);
		if (n > 0) {
			kb_buf_consume(out, (size_t)n);
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return kb_fail(err, KB_ECLOSED, "sending to %s: %s", c->host, strerror(errno));
		int r = wait_for(c, POLLOUT, w, err);
		if (r)
			return r;
	}
	return 0;
}

// Receives some bytes; 0 bytes at the end of the stream.
static int receive(
	struct kb_http_client *c, void *data, size_t size, size_t *ret_n, const struct wait *w, struct kb_err *err)
{
	for (;;) {
		ssize_t n = recv(c->fd, data, size, 0);
		if (n >= 0) {
			*ret_n = (size_t)n;
			return 0;
		}
		if (errno == ECONNRESET) {
			*ret_n = 0;
			return 0;
		}
		if (errno != EAGAIN && errno != EINTR)
			return kb_fail(err, KB_EIO, "receiving: %s", strerror(errno));
		int r = wait_for(c, POLLIN, w, err);
		if (r)
			return r;
	}
}

static int feed_tls(struct kb_http_client *c, const struct wait *w, struct kb_err *err)
{
	uint8_t data[16384];
	size_t n;
	int r = receive(c, data, sizeof data, &n, w, err);
	if (r)
		return r;
	if (n == 0)
		kb_tls_feed_end(c->tls);
	return kb_tls_feed(c->tls, data, n);
}

static int handshake(struct kb_http_client *c, const struct wait *w, struct kb_err *err)
{
	int r = kb_tls_create(c->config, c->host, &c->tls, err);
	while (r == 0) {
		int h = kb_tls_handshake(c->tls, err);
		struct kb_err ignored;
		r = flush_tls(c, w, h == 0 || h == KB_EPARTIAL ? err : &ignored);
		if (h == 0)
			return r;
		if (h != KB_EPARTIAL)
			return h;
		if (r == 0)
			r = feed_tls(c, w, err);
	}
	return r;
}

static int ensure_connected(struct kb_http_client *c, const struct wait *w, struct kb_err *err)
{
	if (c->fd >= 0)
		return 0;
	int r = c->unix_path ? connect_unix(c, err) : connect_tcp(c, w, err);
	if (r == 0 && !c->unix_path)
		r = handshake(c, w, err);
	if (r)
		disconnect(c);
	return r;
}

static int send_all(struct kb_http_client *c, const struct kb_buf *b, const struct wait *w, struct kb_err *err)
{
	for (size_t at = 0; at < b->len;) {
		size_t piece = b->len - at < KB_TLS_RECORD_MAX ? b->len - at : KB_TLS_RECORD_MAX;
		if (c->tls) {
			int r = kb_tls_write(c->tls, b->data + at, piece, err);
			if (r == 0)
				r = flush_tls(c, w, err);
			if (r)
				return r;
			at += piece;
			continue;
		}
		ssize_t n = send(c->fd, b->data + at, b->len - at, MSG_NOSIGNAL);
		if (n > 0) {
			at += (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return kb_fail(err, KB_ECLOSED, "sending: %s", strerror(errno));
		int r = wait_for(c, POLLOUT, w, err);
		if (r)
			return r;
	}
	return 0;
}

// Some plaintext; KB_ECLOSED at the end.
static int read_some(
	struct kb_http_client *c, void *data, size_t size, size_t *ret_n, const struct wait *w, struct kb_err *err)
{
	if (!c->tls) {
		int r = receive(c, data, size, ret_n, w, err);
		if (r == 0 && *ret_n == 0)
			return kb_fail(err, KB_ECLOSED, "closed by the other side");
		return r;
	}
	for (;;) {
		int r = kb_tls_read(c->tls, data, size, ret_n, err);
		if (r != KB_EPARTIAL)
			return r;
		r = feed_tls(c, w, err);
		if (r)
			return r;
	}
}

static int put_request(const struct kb_http_client *c, const struct kb_http_call *call, struct kb_buf *out)
{
	const char *host = c->unix_path ? "localhost" : c->host;
	bool is_v6 = strchr(host, ':') != NULL;
	int r = kb_buf_printf(
		out, "%s %s HTTP/1.1\r\nHost: %s%s%s", call->method, call->path, is_v6 ? "[" : "", host, is_v6 ? "]" : "");
	if (r == 0 && !c->unix_path)
		r = kb_buf_printf(out, ":%u", c->port);
	if (r == 0)
		r = kb_buf_puts(out, "\r\nUser-Agent: kotobako\r\nAccept: application/json, text/event-stream\r\n");
	if (r == 0 && c->bearer)
		r = kb_buf_printf(out, "Authorization: Bearer %s\r\n", c->bearer);
	if (r == 0 && call->body)
		r = kb_buf_printf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n",
			call->content_type ? call->content_type : "application/json", call->body_len);
	if (r == 0 && call->headers)
		r = kb_buf_puts(out, call->headers);
	if (r == 0)
		r = kb_buf_puts(out, "\r\n");
	return r == 0 && call->body ? kb_buf_append(out, call->body, call->body_len) : r;
}

// The answer's body goes to the caller's function when it is a good one, else into the reply.
struct sink {
	const struct kb_http_call *call;
	struct kb_http_reply *reply;
	const struct kb_http *http;
	int stopped; // what on_body returned
};

static int take_body(void *ctx, const char *data, size_t len)
{
	struct sink *s = ctx;
	int status = s->http->ll.status_code;
	if (s->call->on_body && status >= 200 && status < 300) {
		s->stopped = s->call->on_body(s->call->ctx, data, len);
		return s->stopped;
	}
	return kb_buf_append(&s->reply->body, data, len);
}

static void fill_reply(const struct kb_http *h, struct kb_http_reply *reply)
{
	struct kb_str v;
	reply->status = h->ll.status_code;
	reply->retry_after_s = -1;
	if (kb_http_header(h, "retry-after", &v) && v.len > 0 && v.len < 6 && v.data[0] >= '0' && v.data[0] <= '9')
		reply->retry_after_s = (int)strtol(v.data, NULL, 10);
	const char *slash = kb_http_header(h, "content-range", &v) ? memchr(v.data, '/', v.len) : NULL;
	for (size_t i = slash ? (size_t)(slash - v.data) + 1 : v.len; slash && i < v.len && reply->range_total < MAX_TOTAL;
		i++)
		reply->range_total =
			v.data[i] >= '0' && v.data[i] <= '9' ? reply->range_total * 10 + (uint64_t)(v.data[i] - '0') : UINT64_MAX;
	if (reply->range_total >= MAX_TOTAL) // "*", or nonsense
		reply->range_total = 0;
	if (kb_http_header(h, "x-request-id", &v))
		snprintf(reply->request_id, sizeof reply->request_id, "%.*s", (int)v.len, v.data);
}

static int read_reply(struct kb_http_client *c, const struct kb_http_call *call, struct kb_http *h,
	struct kb_http_reply *reply, struct wait *w, struct kb_err *err)
{
	char data[16384];
	uint64_t idle_ms = call->idle_ms > 0 ? (uint64_t)call->idle_ms : 600000;
	for (;;) {
		size_t n = 0;
		w->until_ms = kb_clock_ms() + idle_ms;
		int r = read_some(c, data, sizeof data, &n, w, err);
		if (r == KB_ECLOSED && h->is_head_done) {
			struct kb_err ignored;
			r = kb_http_feed_end(h, &ignored); // err keeps how the connection ended
			r = r ? KB_ECLOSED : 0;
		}
		if (r)
			return r;
		for (size_t at = 0; at < n;) {
			size_t used = 0;
			r = kb_http_feed(h, data + at, n - at, &used, err);
			if (r)
				return r;
			at += used;
			if (!h->is_done || h->ll.status_code >= 200)
				break;
			kb_http_next(h); // 1xx: the answer follows
		}
		if (h->is_done) {
			fill_reply(h, reply);
			return 0;
		}
	}
}

static int call_once(struct kb_http_client *c, const struct kb_http_call *call, const struct kb_buf *request,
	struct kb_http_reply *reply, bool *ret_retry, struct kb_err *err)
{
	struct wait w = {kb_clock_ms() + (uint64_t)(call->connect_ms > 0 ? call->connect_ms : 5000), call->interrupt};
	bool was_used = c->is_used && c->fd >= 0;
	struct kb_http h;
	struct sink sink = {.call = call, .reply = reply, .http = &h};
	*ret_retry = false;
	int r = ensure_connected(c, &w, err);
	if (r)
		return r;
	w.until_ms = kb_clock_ms() + 30000;
	kb_http_init(&h, false, KB_HTTP_REPLY_MAX);
	h.on_body = take_body;
	h.ctx = &sink;
	struct kb_err send_err;
	int sent = send_all(c, request, &w, &send_err);
	// A box that refuses the request early answers and closes: its answer tells more than the failed sending.
	r = sent == 0 || sent == KB_ECLOSED ? read_reply(c, call, &h, reply, &w, err)
										: kb_fail(err, sent, "%s", send_err.text);
	*ret_retry = r == KB_ECLOSED && was_used && !h.is_begun;
	c->is_used = true;
	if (r || !h.is_keep_alive)
		disconnect(c);
	kb_http_finish(&h);
	return sink.stopped ? sink.stopped : r;
}

int kb_http_client_call(
	struct kb_http_client *c, const struct kb_http_call *call, struct kb_http_reply *ret_reply, struct kb_err *err)
{
	struct kb_buf request = {0};
	bool retry = false;
	*ret_reply = (struct kb_http_reply){.retry_after_s = -1, .body = {.max = KB_HTTP_REPLY_MAX}};
	int r = put_request(c, call, &request);
	if (r)
		r = kb_fail(err, r, "the request is too large");
	else
		r = call_once(c, call, &request, ret_reply, &retry, err);
	if (retry) // the kept connection had been closed meanwhile, before anything of this request was answered
		r = call_once(c, call, &request, ret_reply, &retry, err);
	kb_wipe(&request);
	return r;
}
