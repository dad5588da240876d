// One connection of the mirror, from handshake to end, in a process of its own. See mirror.h.
#include "firmware/ctl/mirror.h"
#include "base/log.h"
#include "net/http.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HANDSHAKE_S 10u          // a slow radio link needs about one second
#define REQUEST_S 75u            // from one answer to the end of the next request's head; above the 60 s of proxies
#define STALL_S 30               // nothing of an answer was taken for so long: the reader is gone
#define PIECE_BYTES (128u << 10) // read and sent at once

struct connection {
	const struct kb_mirror *m;
	int fd;
	struct kb_tls *tls;
	struct kb_http http;
	struct kb_buf in;
	uint8_t piece[PIECE_BYTES];
};

static int send_output(struct connection *c)
{
	struct kb_buf *out = kb_tls_output(c->tls);
	size_t at = 0;
	while (at < out->len) {
		ssize_t n = send(c->fd, out->data + at, out->len - at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return KB_ECLOSED;
		at += (size_t)n;
	}
	kb_buf_consume(out, at);
	return KB_OK;
}

static int receive(struct connection *c)
{
	ssize_t n;
	do
		n = recv(c->fd, c->piece, KB_TLS_RECORD_MAX, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return KB_ECLOSED;
	if (n > 0)
		return kb_tls_feed(c->tls, c->piece, (size_t)n);
	kb_tls_feed_end(c->tls);
	return KB_OK;
}

static int write_plain(struct connection *c, const void *data, size_t len)
{
	const uint8_t *p = data;
	while (len) {
		size_t n = len < KB_TLS_RECORD_MAX ? len : KB_TLS_RECORD_MAX;
		int r = kb_tls_write(c->tls, p, n, NULL);
		if (r)
			return r;
		p += n;
		len -= n;
		if (kb_tls_output(c->tls)->len >= PIECE_BYTES && send_output(c))
			return KB_ECLOSED;
	}
	return send_output(c);
}

static int handshake(struct connection *c, struct kb_err *err)
{
	alarm(HANDSHAKE_S);
	for (;;) {
		int r = kb_tls_handshake(c->tls, err);
		int sent = send_output(c); // an alert too
		if (r != KB_EPARTIAL)
			return r ? r : sent;
		r = sent ? sent : receive(c);
		if (r)
			return r;
	}
}

// Reads up to the end of one request. KB_ECLOSED: the client has left.
static int read_request(struct connection *c, struct kb_err *err)
{
	uint8_t plain[4096];
	kb_http_next(&c->http);
	alarm(REQUEST_S);
	while (!c->http.is_done) {
		size_t n = 0, used = 0;
		int r = KB_OK;
		if (c->in.len) {
			r = kb_http_feed(&c->http, c->in.data, c->in.len, &used, err);
			kb_buf_consume(&c->in, used);
			if (r || c->http.is_done)
				return r;
		}
		r = kb_tls_read(c->tls, plain, sizeof plain, &n, err);
		if (r == KB_OK && c->in.len + n > KB_HTTP_PIPELINE_MAX)
			return KB_ELIMIT;
		if (r == KB_OK)
			r = kb_buf_append(&c->in, plain, n);
		else if (r == KB_EPARTIAL)
			r = send_output(c) ? KB_ECLOSED : receive(c);
		if (r)
			return r;
	}
	return KB_OK;
}

static int put_head(struct connection *c, struct kb_http_head *head)
{
	struct kb_buf out = {0};
	head->is_close = !c->http.is_done || !c->http.is_keep_alive;
	head->has_ranges = true;
	int r = kb_http_put_head(&out, head);
	r = r ? r : write_plain(c, out.data, out.len);
	kb_buf_finish(&out);
	return r;
}

static int say(struct connection *c, int status, const char *text)
{
	struct kb_http_head head = {
		.status = status, .content_type = "text/plain", .content_length = (int64_t)strlen(text), .allow = "GET, HEAD"};
	int r = put_head(c, &head);
	return r || strcmp(kb_http_method(&c->http), "HEAD") == 0 ? r : write_plain(c, text, strlen(text));
}

static int send_list(struct connection *c, bool is_head)
{
	struct kb_buf body = {0};
	int r = kb_mirror_list(c->m, &body);
	struct kb_http_head head = {.status = 200, .content_type = "application/json", .content_length = (int64_t)body.len};
	r = r ? r : put_head(c, &head);
	if (r == 0 && !is_head)
		r = write_plain(c, body.data, body.len);
	kb_buf_finish(&body);
	return r;
}

static int send_bytes(struct connection *c, const struct kb_mirror_image *i, uint64_t at, uint64_t len)
{
	struct kb_err err = {0};
	while (len) {
		const size_t n = len < PIECE_BYTES ? (size_t)len : PIECE_BYTES;
		int r = kb_mirror_read(i, at, c->piece, n, &err);
		if (r) {
			kb_warn("mirror", "%s", err.text);
			return r; // the connection ends: what was promised is not there
		}
		r = write_plain(c, c->piece, n);
		if (r)
			return r;
		at += n;
		len -= n;
	}
	return KB_OK;
}

static int send_image(struct connection *c, const char *name, const struct kb_mirror_image *i, bool is_head)
{
	struct kb_http_head head = {.status = 200, .content_type = "application/octet-stream", .range_total = i->bytes};
	struct kb_str range;
	uint64_t first = 0, len = i->bytes;
	int r = !is_head && kb_http_header(&c->http, "range", &range) ? kb_http_range(range, i->bytes, &first, &len)
																  : KB_ENOTFOUND;
	if (r == KB_ELIMIT) {
		head.status = 416;
		return put_head(c, &head);
	}
	head.status = r == KB_OK ? 206 : 200;
	head.range_first = first;
	head.content_length = (int64_t)len;
	r = put_head(c, &head);
	r = r || is_head ? r : send_bytes(c, i, first, len);
	kb_info("mirror", "%s: %s, %" PRIu64 " bytes from %" PRIu64 "%s", kb_tls_peer(c->tls)->name, name,
		is_head ? 0 : len, first, r ? "; cut" : "");
	return r;
}

static int answer(struct connection *c)
{
	char name[KB_MIRROR_NAME_MAX + 1];
	struct kb_str path = kb_http_path(&c->http);
	struct kb_mirror_image image;
	const char *method = kb_http_method(&c->http);
	const bool is_head = strcmp(method, "HEAD") == 0;
	if (!is_head && strcmp(method, "GET") != 0)
		return say(c, 405, "only GET and HEAD\n");
	if (path.len == 1)
		return send_list(c, is_head);
	path.data++;
	path.len--;
	if (kb_http_unescape(path, name, sizeof name) || kb_mirror_open(c->m, name, &image))
		return say(c, 404, "there is no such image\n");
	int r = send_image(c, name, &image, is_head);
	kb_mirror_close(&image);
	return r;
}

static int converse(struct connection *c, struct kb_err *err)
{
	int r = handshake(c, err);
	if (r)
		return r;
	do {
		r = read_request(c, err);
		alarm(0); // from here on the socket's own limit counts
		if (r && c->http.failed_status)
			(void)!say(c, c->http.failed_status, "the request was not understood\n");
		r = r ? r : answer(c);
	} while (r == KB_OK && c->http.is_keep_alive);
	kb_tls_close(c->tls);
	(void)!send_output(c);
	return r == KB_ECLOSED && !err->text[0] ? KB_OK : r;
}

static bool is_allowed(void *ctx, const struct kb_tls_peer *peer)
{
	struct kb_client client;
	return kb_state_get_client(ctx, peer->fingerprint, &client) == 0 && !client.revoked_s;
}

/* see mirror.h */
void kb_mirror_serve(const struct kb_mirror *m, int fd)
{
	struct connection *c = calloc(1, sizeof *c);
	struct kb_tls_config *config = NULL;
	struct kb_state *state = NULL;
	struct kb_err err = {0};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = STALL_S}, sizeof(struct timeval));
	int r = c ? kb_tls_init(&err) : KB_ENOMEM;
	r = r ? r : kb_ctl_state(m->ctl, false, &err, &state);
	const struct kb_tls_options o = {.role = KB_TLS_SERVER_MUTUAL,
		.ca_pem = (const char *)m->ca.data,
		.cert_pem = (const char *)m->cert.data,
		.key_pem = (const char *)m->key.data,
		.is_allowed = is_allowed,
		.ctx = state};
	r = r ? r : kb_tls_config_create(&o, &config, &err);
	r = r ? r : kb_tls_create(config, NULL, &c->tls, &err);
	if (r == KB_OK) {
		c->m = m;
		c->fd = fd;
		kb_http_init(&c->http, true, 0);
		r = converse(c, &err);
		kb_http_finish(&c->http);
		kb_buf_finish(&c->in);
		kb_tls_destroy(c->tls);
	}
	if (r)
		kb_info("mirror", "a connection ended: %s", err.text[0] ? err.text : kb_err_message(r));
	kb_tls_config_destroy(config);
	kb_state_close(state);
	free(c);
	_exit(r != KB_OK);
}
