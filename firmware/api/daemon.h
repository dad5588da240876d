// Everything the daemon knows, in one place; one thread, one libuv loop.
#pragma once
#include "base/version.h"
#include "firmware/api/engine.h"
#include "firmware/api/limiter.h"
#include "firmware/api/metrics.h"
#include "firmware/api/models.h"
#include "net/claim.h"
#include "net/tls.h"
#include "net/x509.h"
#include "storage/state.h"
#include <uv.h>

struct kb_conn;

struct kb_address {
	char host[64];
	uint16_t port;
};

struct kb_options {
	const char *state_dir, *engine_program, *model, *shared_system;
	uint32_t speculate;               // or KB_ENGINES_CHOICE
	struct kb_address listen, bearer; // bearer.port 0: off
	uint32_t kv_tokens, max_seqs, max_engines, client_requests, client_rate;
	uint32_t hurry;      // tests: all time limits divided by this
	const char *roots;   // a chain of roots to trust; NULL: who is trusted already, if anybody
	const char *tpm;     // that counts changes of the state (storage/epoch.h); NULL: none does
	const char *adopt;   // a file whose presence says that disk and TPM belong together; may be NULL
	const char *boot;    // what this start is (kotobako-boot); NULL: this box has no slots for systems
	const char *network; // settings that kotobako-net makes so; NULL: this machine's network is not ours
	uint32_t claim;      // minutes after the machine's start in which a box without clients may be claimed; 0: none
	uint32_t patience;   // slow machines: what an engine may take, multiplied by this
	const char *names[KB_X509_SERVER_NAMES_MAX - 24]; // the rest: what names.c finds by itself
	uint32_t n_names;
};

struct kb_names {
	size_t n, first_address; // from there on: addresses of this machine that others may reach
	char text[KB_X509_SERVER_NAMES_MAX][256];
};

// The last is no listener: what a connection of KB_LISTEN_MUTUAL is whose client has no certificate and may claim the
// box.
enum kb_listener_kind {
	KB_LISTEN_MUTUAL,
	KB_LISTEN_BEARER,
	KB_LISTEN_ADMIN,
	KB_LISTENERS,
	KB_LISTEN_CLAIM = KB_LISTENERS
};

struct kb_listener {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} h;
	struct kb_daemon *daemon;
	enum kb_listener_kind kind;
	struct kb_tls_config *tls; // NULL: the admin socket
	bool is_open;
};

struct kb_daemon {
	struct kb_options o;
	uv_loop_t loop;
	uv_timer_t tick;
	uv_signal_t on_term, on_int, on_hup;
	struct kb_state *state;
	struct kb_buf ca_key, ca_cert;
	char claim_code[KB_CLAIM_DIGITS + 1]; // claim.c; "": there is none
	uint32_t claim_failures;
	struct kb_names names; // of the server's certificate as it is
	uint64_t names_ms;     // when they were looked at last
	struct kb_listener listeners[KB_LISTENERS];
	struct kb_conn *conns;
	uint32_t n_conns, n_handshaking, n_admin, n_running;
	struct kb_models models;
	struct kb_engine_options engine_options;
	struct kb_engine engines[KB_ENGINES_MAX]; // a free one has an empty model
	char cache_dir[512], models_dir[512], admin_path[512];
	struct kb_upload *upload; // upload.c; NULL: none yet
	struct kb_metrics metrics;
	struct kb_limiter limiter;
	uint64_t started_ms, stop_by_ms, warned_ms, well_ms;
	uint32_t quiet_failures; // handshake failures since the last line about them
	bool is_stopping;
	int lock_fd;
	char read_buffer[65536]; // of whichever connection reads now
};

static inline uint64_t kb_daemon_ms(const struct kb_daemon *d, uint64_t ms)
{
	return ms / d->o.hurry;
}

// daemon.c
KB_MUST_CHECK int kb_daemon_open(struct kb_daemon *d, struct kb_err *err);
// Reads or makes the certificates and takes them into use; connections go on with what they began with.
KB_MUST_CHECK int kb_daemon_open_tls(struct kb_daemon *d, struct kb_err *err);
void kb_daemon_run(struct kb_daemon *d); // until SIGTERM or SIGINT has been served
void kb_daemon_close(struct kb_daemon *d);

// listen.c
KB_MUST_CHECK int kb_listener_open(struct kb_daemon *d, enum kb_listener_kind kind, struct kb_err *err);
void kb_listener_close(struct kb_listener *l);

// names.c: by what names and addresses clients come. With a listener on all addresses these are the machine's, which
// change where DHCP gives them: the tick sees to a new certificate then (and to one in time before the old one ends).
void kb_names_collect(const struct kb_daemon *d, struct kb_names *ret);
void kb_names_tick(struct kb_daemon *d, uint64_t now_ms);

// ca.c: the authority and the server's certificate in STATE/ca (0700, files 0600), made when missing; the server's
// is made anew when its names do not fit any more. Keys are files, not rows of state.mdb: a backup of the one does
// not carry the other.
KB_MUST_CHECK int kb_ca_open(
	struct kb_daemon *d, struct kb_buf *ret_server_key, struct kb_buf *ret_server_cert, struct kb_err *err);

// pool.c: which engine answers for a model. name "" means the default. KB_EBUSY/KB_ENOTFOUND with p filled.
KB_MUST_CHECK int kb_pool_acquire(
	struct kb_daemon *d, struct kb_str name, struct kb_engine **ret, struct kb_problem *p);
const char *kb_pool_default(const struct kb_daemon *d); // its name; "" where no model is installed
void kb_pool_tick(struct kb_daemon *d, uint64_t now_ms);
void kb_pool_reload(struct kb_daemon *d); // rescans; idle engines whose image changed leave
void kb_pool_stop(struct kb_daemon *d);
void kb_pool_gauges(const struct kb_daemon *d, struct kb_gauges *ret);

// claim.c: the code by which whoever stands before the box becomes its first client, an administrator.
KB_MUST_CHECK int kb_claim_open(struct kb_daemon *d, struct kb_err *err); // makes it, where there is use for one
bool kb_claim_may(void *daemon);                                          // whether it is good now
uint32_t kb_claim_minutes_left(const struct kb_daemon *d);

// upload.c
void kb_upload_tick(struct kb_daemon *d, uint64_t now_ms);
void kb_upload_finish(struct kb_daemon *d); // once the loop has ended

// notify.c: "READY=1" and the like to the service manager, where there is one (sd_notify(3)).
void kb_notify(const char *text);
