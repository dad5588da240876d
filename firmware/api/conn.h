// One connection: TLS (or none, on the admin socket), requests one after another, limits of time and size.
//
//   HANDSHAKE --> OPEN --(Connection: close, refusal)--> LINGER --> CLOSING
// An answer is written by kb_reply_*() at once, or later by a task that the route began.
#pragma once
#include "firmware/api/daemon.h"
#include "net/http.h"

enum kb_conn_state { KB_CONN_HANDSHAKE, KB_CONN_OPEN, KB_CONN_LINGER, KB_CONN_CLOSING };

// An answer in the making. cancel: the connection is going away; it must not be touched any more and the task frees
// itself. tick (may be NULL): every 100 ms.
struct kb_task {
	void (*cancel)(struct kb_task *t);
	void (*tick)(struct kb_task *t, uint64_t now_ms);
};

struct kb_conn {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} h;
	struct kb_daemon *daemon;
	enum kb_listener_kind kind;
	enum kb_conn_state state;
	struct kb_conn *next, *prev;
	struct kb_tls *tls;
	struct kb_http http;
	struct kb_buf in, out, sending; // plaintext in and out; bytes that the socket is taking
	size_t out_head;
	uv_write_t write;
	uv_shutdown_t shutdown;
	bool is_writing, is_busy, is_processing, is_reading, is_close_said, is_shut, is_head_written;
	bool is_chunked;
	uint64_t deadline_ms; // 0: none
	uint64_t progress_ms; // when the socket last took something, or was first given it
	struct kb_task *task;
	struct kb_claim *claim; // of KB_LISTEN_CLAIM, between its two messages
	// the request
	struct kb_tls_peer client; // of the certificate or the bearer key
	bool has_client;
	int endpoint; // enum kb_endpoint
	char request_id[24];
	uint64_t begun_ms;
	int status;
};

void kb_conn_accept(struct kb_listener *l);
// Ends it now, without more words: cancels its task.
void kb_conn_cut(struct kb_conn *c);
void kb_conn_tick(struct kb_conn *c, uint64_t now_ms);
void kb_conn_stop(struct kb_conn *c); // at the daemon's end: at once where nothing is being answered

// For reply.c and tasks.
void kb_conn_begin(struct kb_conn *c, struct kb_task *t);
void kb_conn_end(struct kb_conn *c); // the task is over and frees itself; what it still writes is from others
void kb_conn_flush(struct kb_conn *c);
size_t kb_conn_pending(const struct kb_conn *c); // bytes of answers that the socket has not taken
void kb_conn_done(struct kb_conn *c);            // the answer is complete in out; the task, if any, is over

// --- reply.c: whole answers; each ends with kb_conn_done(). Safe in any state before the head is written.
void kb_reply(struct kb_conn *c, int status, const char *content_type, const void *body, size_t len);
void kb_reply_json(struct kb_conn *c, int status, struct kb_buf *body, int error); // error: of making the body
void kb_reply_problem(struct kb_conn *c, const struct kb_problem *p);
void kb_reply_error(struct kb_conn *c, int status, const char *code, const char *param, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
KB_MUST_CHECK int kb_problem_print(const struct kb_problem *p, struct kb_buf *out); // {"error": {...}}
// Event streams: false means that the connection was cut (the task was cancelled).
bool kb_reply_stream_begin(struct kb_conn *c);
bool kb_reply_stream_put(struct kb_conn *c, const void *data, size_t len);
void kb_reply_stream_end(struct kb_conn *c);

// --- route.c
// Once the head is there: false when it was answered (refused) already.
bool kb_route_head(struct kb_conn *c);
// Once the body is there too.
void kb_route_run(struct kb_conn *c);
void kb_route_log(struct kb_conn *c); // counts the answered request

// --- the routes' functions
void kb_handle_chat(struct kb_conn *c);        // openai_chat.c
void kb_handle_completions(struct kb_conn *c); // openai_completions.c
void kb_handle_models(struct kb_conn *c);      // openai_models.c
void kb_handle_health(struct kb_conn *c);      // health.c
void kb_handle_metrics(struct kb_conn *c);     // health.c
void kb_handle_admin_pair(struct kb_conn *c);  // admin.c
void kb_handle_admin_clients(struct kb_conn *c);
void kb_handle_admin_revoke(struct kb_conn *c);
void kb_handle_admin_bearer(struct kb_conn *c);
void kb_handle_admin_status(struct kb_conn *c);
void kb_handle_admin_reload(struct kb_conn *c);
void kb_handle_system(struct kb_conn *c); // system.c
void kb_handle_system_rollback(struct kb_conn *c);
void kb_handle_network(struct kb_conn *c); // network.c
void kb_handle_network_set(struct kb_conn *c);
void kb_handle_claim_begin(struct kb_conn *c); // claim.c
void kb_handle_claim_finish(struct kb_conn *c);

// admin.c: a certificate for a request, and the client's row in the state; false: answered why not. *ret_cert is
// the caller's.
bool kb_issue_client(struct kb_conn *c, const char *name, const char *csr, bool is_admin, struct kb_buf *ret_cert,
	struct kb_client *ret);
// Over TLS only clients that were paired as administrators; the admin socket has asked the kernel already. Answers
// where not.
bool kb_is_administrator(struct kb_conn *c);
void kb_handle_upload_begin(struct kb_conn *c); // upload.c
void kb_handle_upload_offset(struct kb_conn *c);
void kb_handle_upload_piece(struct kb_conn *c);
void kb_handle_upload_cancel(struct kb_conn *c);
