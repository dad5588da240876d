// Frames to and from the daemon over one inherited socket (runtime/proto/proto.h has their layout).
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "proto/proto.h"
#include <uv.h>

#define KB_WIRE_QUEUED_MAX (4u << 20) // bytes not yet taken by the daemon: above it nothing is read or computed

struct kb_wire {
	uv_pipe_t pipe;
	int fd;
	struct kb_buf in, out; // out: frames put since the last flush
	bool is_reading, is_closed, is_open;
	char chunk[64 << 10];
	void *ctx;
	// One message; it points into the buffer and is valid during the call. Non-zero closes the wire.
	int (*message)(void *ctx, const struct kb_msg *msg);
	void (*drained)(void *ctx);                          // the daemon has taken enough after kb_wire_is_full
	void (*closed)(void *ctx, const struct kb_err *err); // once: the other side closed, or sent what it must not
};

// Before the loop: writes one frame and waits until it is out. For PROGRESS while loading, and for last words.
KB_MUST_CHECK int kb_wire_send_now(int fd, const struct kb_msg *msg);

// Takes the fd over. Fill ctx and the callbacks first.
KB_MUST_CHECK int kb_wire_open(struct kb_wire *w, uv_loop_t *loop, int fd, struct kb_err *err);
// Adds a frame to what the next flush sends.
KB_MUST_CHECK int kb_wire_put(struct kb_wire *w, const struct kb_msg *msg);
KB_MUST_CHECK int kb_wire_flush(struct kb_wire *w);
bool kb_wire_is_full(const struct kb_wire *w);
// Stops and closes the handle; the struct must live until the loop has run its close callbacks. closed is not called.
void kb_wire_close(struct kb_wire *w);
void kb_wire_finish(struct kb_wire *w);
