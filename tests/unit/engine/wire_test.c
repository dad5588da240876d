// Frames over a real socketpair, cut at every place; the other side is plain system calls.
#include "firmware/engine/wire.c"
#include "harness/kt.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

struct ear {
	struct kb_wire wire;
	uv_loop_t loop;
	int peer;
	uint64_t ids[64];
	uint32_t n, n_closed, n_drained;
	struct kb_err err;
	int refuse; // what message returns
};

static int on_message(void *ctx, const struct kb_msg *msg)
{
	struct ear *e = ctx;
	assert_true(e->n < 64);
	e->ids[e->n++] = msg->id;
	return e->refuse;
}

static void on_closed(void *ctx, const struct kb_err *err)
{
	struct ear *e = ctx;
	e->n_closed++;
	e->err = *err;
}

static void on_drained(void *ctx)
{
	((struct ear *)ctx)->n_drained++;
}

static struct ear *open_ear(void)
{
	struct ear *e = calloc(1, sizeof *e);
	struct kb_err err = {0};
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	e->peer = fds[1];
	assert_int_equal(uv_loop_init(&e->loop), 0);
	e->wire.ctx = e;
	e->wire.message = on_message;
	e->wire.closed = on_closed;
	e->wire.drained = on_drained;
	assert_int_equal(kb_wire_open(&e->wire, &e->loop, fds[0], &err), 0);
	return e;
}

static void turn(struct ear *e)
{
	for (int i = 0; i < 4; i++)
		uv_run(&e->loop, UV_RUN_NOWAIT);
}

static void close_ear(struct ear *e)
{
	kb_wire_close(&e->wire);
	uv_run(&e->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&e->loop), 0);
	kb_wire_finish(&e->wire);
	close(e->peer);
	free(e);
}

static void frames_cut_anywhere_come_whole(void **state)
{
	(void)state;
	struct kb_buf b = {0};
	for (uint64_t id = 1; id <= 3; id++)
		assert_int_equal(kb_proto_encode(&b, &(struct kb_msg){.type = KB_MSG_PING, .id = id}), 0);
	for (size_t cut = 0; cut <= b.len; cut++) {
		struct ear *e = open_ear();
		assert_int_equal(write(e->peer, b.data, cut), (ssize_t)cut);
		turn(e);
		assert_int_equal(e->n, cut / (b.len / 3));
		assert_int_equal(write(e->peer, b.data + cut, b.len - cut), (ssize_t)(b.len - cut));
		turn(e);
		assert_int_equal(e->n, 3);
		assert_true(e->ids[0] == 1 && e->ids[1] == 2 && e->ids[2] == 3);
		assert_int_equal(e->n_closed, 0);
		close_ear(e);
	}
	kb_buf_finish(&b);
}

static void malformed_frame_closes_once(void **state)
{
	(void)state;
	struct ear *e = open_ear();
	const uint8_t good[] = {9, 0, 0, 0, KB_MSG_PING, 5, 0, 0, 0, 0, 0, 0, 0};
	const uint8_t unknown[] = {9, 0, 0, 0, 200, 5, 0, 0, 0, 0, 0, 0, 0};
	assert_int_equal(write(e->peer, good, sizeof good), sizeof good);
	assert_int_equal(write(e->peer, unknown, sizeof unknown), sizeof unknown);
	assert_int_equal(write(e->peer, good, sizeof good), sizeof good);
	turn(e);
	assert_int_equal(e->n, 1); // nothing after it is heard
	assert_int_equal(e->n_closed, 1);
	assert_int_equal(e->err.code, KB_EBAD);
	assert_non_null(strstr(e->err.text, "malformed"));
	close_ear(e);
}

static void refused_message_and_end_of_stream_close(void **state)
{
	(void)state;
	const uint8_t good[] = {9, 0, 0, 0, KB_MSG_PING, 5, 0, 0, 0, 0, 0, 0, 0};
	struct ear *e = open_ear();
	e->refuse = KB_ELIMIT;
	assert_int_equal(write(e->peer, good, sizeof good), sizeof good);
	turn(e);
	assert_true(e->n_closed == 1 && e->err.code == KB_ELIMIT);
	close_ear(e);
	e = open_ear();
	assert_int_equal(shutdown(e->peer, SHUT_WR), 0);
	turn(e);
	assert_true(e->n_closed == 1 && e->err.code == KB_ECLOSED);
	close_ear(e);
}

static void full_wire_stops_reading_until_drained(void **state)
{
	(void)state;
	const uint8_t good[] = {9, 0, 0, 0, KB_MSG_PING, 5, 0, 0, 0, 0, 0, 0, 0};
	struct ear *e = open_ear();
	char *text = calloc(1, 1 << 20);
	struct kb_msg msg = {.type = KB_MSG_PONG, .id = 1, .pong = {.text = {text, 1 << 20}}};
	size_t sent = 0;
	while (!kb_wire_is_full(&e->wire)) {
		assert_int_equal(kb_wire_put(&e->wire, &msg), 0);
		assert_int_equal(kb_wire_flush(&e->wire), 0);
		sent += (1 << 20) + 4 + 9 + 1 + 4 + 4;
		assert_true(sent < 32 << 20);
	}
	assert_int_equal(write(e->peer, good, sizeof good), sizeof good);
	turn(e);
	assert_int_equal(e->n, 0);
	size_t got = 0;
	fcntl(e->peer, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 100000 && got < sent; i++) {
		ssize_t n = read(e->peer, text, 1 << 20);
		got += n > 0 ? (size_t)n : 0;
		turn(e);
	}
	assert_int_equal(got, sent);
	assert_true(e->n_drained > 0);
	assert_int_equal(e->n, 1);
	free(text);
	close_ear(e);
}

static void last_words_go_out_before_the_loop(void **state)
{
	(void)state;
	int fds[2];
	uint8_t got[64];
	struct kb_msg msg = {.type = KB_MSG_PROGRESS, .progress = {1, 2, {"weights", 7}}}, back;
	size_t used;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(kb_wire_send_now(fds[0], &msg), 0);
	ssize_t n = read(fds[1], got, sizeof got);
	assert_int_equal(kb_proto_decode(got, (size_t)n, &back, &used), 0);
	assert_int_equal(used, n);
	assert_true(back.type == KB_MSG_PROGRESS && back.progress.done == 1 && back.progress.total == 2);
	close(fds[1]);
	assert_int_equal(kb_wire_send_now(fds[0], &msg), KB_ECLOSED);
	close(fds[0]);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_cut_anywhere_come_whole),
		cmocka_unit_test(malformed_frame_closes_once),
		cmocka_unit_test(refused_message_and_end_of_stream_close),
		cmocka_unit_test(full_wire_stops_reading_until_drained),
		cmocka_unit_test(last_words_go_out_before_the_loop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
