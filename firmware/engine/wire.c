#include "firmware/engine/wire.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct outgoing {
	uv_write_t request;
	struct kb_wire *wire;
	struct kb_buf bytes;
};

int kb_wire_send_now(int fd, const struct kb_msg *msg)
{
	struct kb_buf b = {0};
	int rc = kb_proto_encode(&b, msg);
	size_t at = 0;
	while (rc == 0 && at < b.len) {
		ssize_t n = write(fd, b.data + at, b.len - at);
		if (n > 0) {
			at += (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};
			rc = poll(&p, 1, 10000) == 1 ? 0 : KB_ETIMEOUT;
		} else if (n < 0 && errno != EINTR) {
			rc = KB_ECLOSED;
		}
	}
	kb_buf_finish(&b);
	return rc;
}

static void give_up(struct kb_wire *w, const struct kb_err *err)
{
	if (w->is_closed)
		return;
	w->is_closed = true;
	uv_read_stop((uv_stream_t *)&w->pipe);
	w->closed(w->ctx, err);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	(void)suggested;
	struct kb_wire *w = handle->data;
	*ret = uv_buf_init(w->chunk, sizeof w->chunk);
}

// Hands out the whole frames of the input buffer.
static int take_frames(struct kb_wire *w, struct kb_err *err)
{
	size_t at = 0;
	int rc = 0;
	while (rc == 0 && !w->is_closed) {
		struct kb_msg msg;
		size_t used = 0;
		rc = kb_proto_decode(w->in.data + at, w->in.len - at, &msg, &used);
		if (rc == 0) {
			rc = w->message(w->ctx, &msg);
			at += used;
			if (rc)
				kb_fail(err, rc, "the connection is given up: %s", kb_err_message(rc));
		} else if (rc != KB_EPARTIAL) {
			kb_fail(err, rc, "malformed frame from the daemon: %s", kb_err_message(rc));
		}
	}
	kb_buf_consume(&w->in, at);
	return rc == KB_EPARTIAL ? 0 : rc;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct kb_wire *w = stream->data;
	struct kb_err err = {0};
	int rc = 0;
	if (n == 0)
		return;
	if (n < 0)
		rc = kb_fail(&err, KB_ECLOSED, "%s", n == UV_EOF ? "the daemon closed the socket" : uv_strerror((int)n));
	else if (kb_buf_append(&w->in, buf->base, (size_t)n))
		rc = kb_fail(&err, KB_ELIMIT, "a frame from the daemon is too large");
	else
		rc = take_frames(w, &err);
	if (rc)
		give_up(w, &err);
}

int kb_wire_open(struct kb_wire *w, uv_loop_t *loop, int fd, struct kb_err *err)
{
	w->in.max = KB_FRAME_MAX + sizeof w->chunk + 64;
	w->fd = fd;
	int rc = uv_pipe_init(loop, &w->pipe, 0);
	if (rc == 0) {
		w->pipe.data = w;
		w->is_open = true;
		rc = uv_pipe_open(&w->pipe, fd);
	}
	if (rc == 0)
		rc = uv_read_start((uv_stream_t *)&w->pipe, on_alloc, on_read);
	w->is_reading = rc == 0;
	return rc ? kb_fail(err, KB_EIO, "file descriptor %d: %s", fd, uv_strerror(rc)) : 0;
}

int kb_wire_put(struct kb_wire *w, const struct kb_msg *msg)
{
	return w->is_closed ? 0 : kb_proto_encode(&w->out, msg);
}

static void on_written(uv_write_t *request, int status)
{
	struct outgoing *o = (struct outgoing *)request;
	struct kb_wire *w = o->wire;
	kb_buf_finish(&o->bytes);
	free(o);
	if (status == UV_ECANCELED)
		return;
	if (status < 0) {
		struct kb_err err;
		kb_fail(&err, KB_ECLOSED, "writing to the daemon: %s", uv_strerror(status));
		give_up(w, &err);
		return;
	}
	if (kb_wire_is_full(w) || w->is_closed)
		return;
	if (!w->is_reading)
		w->is_reading = uv_read_start((uv_stream_t *)&w->pipe, on_alloc, on_read) == 0;
	w->drained(w->ctx);
}

int kb_wire_flush(struct kb_wire *w)
{
	if (w->out.len == 0 || w->is_closed)
		return 0;
	struct outgoing *o = calloc(1, sizeof *o);
	if (!o)
		return KB_ENOMEM;
	o->wire = w;
	o->bytes = w->out;
	w->out = (struct kb_buf){0};
	uv_buf_t b = uv_buf_init((char *)o->bytes.data, (unsigned)o->bytes.len);
	int rc = uv_write(&o->request, (uv_stream_t *)&w->pipe, &b, 1, on_written);
	if (rc) {
		kb_buf_finish(&o->bytes);
		free(o);
		return KB_ECLOSED;
	}
	if (kb_wire_is_full(w) && w->is_reading) {
		uv_read_stop((uv_stream_t *)&w->pipe);
		w->is_reading = false;
	}
	return 0;
}

bool kb_wire_is_full(const struct kb_wire *w)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&w->pipe) > KB_WIRE_QUEUED_MAX;
}

void kb_wire_close(struct kb_wire *w)
{
	w->is_closed = true;
	if (w->is_open)
		uv_close((uv_handle_t *)&w->pipe, NULL);
	w->is_open = false;
}

void kb_wire_finish(struct kb_wire *w)
{
	kb_buf_finish(&w->in);
	kb_buf_finish(&w->out);
}
