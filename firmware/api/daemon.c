// Start, the loop's tick, the end. See daemon.h.
#include "firmware/api/daemon.h"
#include "base/clock.h"
#include "base/log.h"
#include "firmware/api/conn.h"
#include "net/x509.h"
#include "storage/epoch_tpm.h"
#include "storage/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// Whether the client of this certificate may come in: it is in the table and not revoked.
static bool is_allowed(void *ctx, const struct kb_tls_peer *peer)
{
	struct kb_daemon *d = ctx;
	struct kb_client client;
	return kb_state_get_client(d->state, peer->fingerprint, &client) == 0 && client.revoked_s == 0;
}

static int make_directories(struct kb_daemon *d, struct kb_err *err)
{
	char lock[512];
	snprintf(d->models_dir, sizeof d->models_dir, "%s/models", d->o.state_dir);
	snprintf(d->cache_dir, sizeof d->cache_dir, "%s/cache", d->o.state_dir);
	snprintf(d->admin_path, sizeof d->admin_path, "%s/admin.sock", d->o.state_dir);
	snprintf(d->models.dir, sizeof d->models.dir, "%s", d->models_dir);
	snprintf(lock, sizeof lock, "%s/lock", d->o.state_dir);
	const char *const all[] = {d->o.state_dir, d->models_dir, d->cache_dir};
	for (size_t i = 0; i < 3; i++)
		if (mkdir(all[i], 0700) && errno != EEXIST)
			return kb_fail(err, kb_err_from_errno(errno), "%s: %s", all[i], strerror(errno));
	d->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock_fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", lock, strerror(errno));
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB))
		return kb_fail(err, KB_EBUSY, "%s: another kotobakod uses this state directory", d->o.state_dir);
	return 0;
}

int kb_daemon_open_tls(struct kb_daemon *d, struct kb_err *err)
{
	struct kb_buf key = {0}, cert = {0};
	struct kb_tls_config *mutual = NULL, *bearer = NULL;
	int r = kb_ca_open(d, &key, &cert, err);
	if (r == 0) {
		struct kb_tls_options o = {.role = KB_TLS_SERVER_MUTUAL,
			.ca_pem = kb_buf_cstr(&d->ca_cert),
			.cert_pem = kb_buf_cstr(&cert),
			.key_pem = kb_buf_cstr(&key),
			.is_allowed = is_allowed,
			.may_claim = kb_claim_may,
			.ctx = d};
		r = kb_tls_config_create(&o, &mutual, err);
		o.role = KB_TLS_SERVER_ONLY;
		if (r == 0 && d->o.bearer.port)
			r = kb_tls_config_create(&o, &bearer, err);
	}
	if (r == 0) {
		kb_tls_config_destroy(d->listeners[KB_LISTEN_MUTUAL].tls);
		kb_tls_config_destroy(d->listeners[KB_LISTEN_BEARER].tls);
		d->listeners[KB_LISTEN_MUTUAL].tls = mutual;
		d->listeners[KB_LISTEN_BEARER].tls = bearer;
	} else {
		kb_tls_config_destroy(mutual);
	}
	kb_wipe(&key);
	kb_buf_finish(&cert);
	return r;
}

static int open_listeners(struct kb_daemon *d, struct kb_err *err)
{
	int r = kb_listener_open(d, KB_LISTEN_MUTUAL, err);
	if (r == 0 && d->o.bearer.port)
		r = kb_listener_open(d, KB_LISTEN_BEARER, err);
	return r ? r : kb_listener_open(d, KB_LISTEN_ADMIN, err);
}

static void close_all(struct kb_daemon *d)
{
	for (struct kb_conn *c = d->conns; c; c = c->next)
		kb_conn_cut(c);
	kb_pool_stop(d);
	uv_close((uv_handle_t *)&d->tick, NULL);
	uv_close((uv_handle_t *)&d->on_term, NULL);
	uv_close((uv_handle_t *)&d->on_int, NULL);
	uv_close((uv_handle_t *)&d->on_hup, NULL);
	// From here the loop ends when the last engine has left.
}

static void begin_stop(struct kb_daemon *d)
{
	d->is_stopping = true;
	d->stop_by_ms = kb_clock_ms() + kb_daemon_ms(d, KB_STOP_GRACE_MS);
	kb_notify("STOPPING=1");
	kb_info("daemon", "stopping: %u answers may end", d->n_running);
	for (int i = 0; i < KB_LISTENERS; i++)
		kb_listener_close(&d->listeners[i]);
	for (struct kb_conn *c = d->conns; c; c = c->next)
		kb_conn_stop(c);
}

static void on_signal(uv_signal_t *s, int number)
{
	struct kb_daemon *d = s->data;
	if (number == SIGHUP) {
		kb_pool_reload(d);
		return;
	}
	if (d->is_stopping) // asked twice: now
		d->stop_by_ms = 0;
	else
		begin_stop(d);
}

static void on_tick(uv_timer_t *t)
{
	struct kb_daemon *d = t->data;
	uint64_t now = kb_clock_ms();
	for (struct kb_conn *c = d->conns; c; c = c->next)
		kb_conn_tick(c, now);
	kb_pool_tick(d, now);
	kb_upload_tick(d, now);
	kb_names_tick(d, now);
	if (now - d->well_ms >= KB_WELL_MS) { // the loop turns: answers, the admin socket and engines' pings are looked at
		d->well_ms = now;
		kb_notify("WATCHDOG=1");
	}
	if (d->is_stopping && (now >= d->stop_by_ms || d->n_conns == 0))
		close_all(d);
}

// A state that was put back to an earlier day does not run: keys, clients and versions that were taken back would
// count.
static int guard(struct kb_daemon *d, struct kb_err *err)
{
	char lock[600];
	uint64_t now_s = 0;
	snprintf(lock, sizeof lock, "%s/epoch.lock", d->o.state_dir);
	int r = kb_trust_now(d->state, (uint64_t)time(NULL), err, &now_s);
	const bool adopt = d->o.adopt && access(d->o.adopt, F_OK) == 0;
	r = r ? r : kb_epoch_guard_tpm(d->state, d->o.tpm, lock, adopt, now_s, err);
	if (r == 0 && adopt) {
		kb_warn("daemon", "this state and this TPM belong together from now on, says %s", d->o.adopt);
		unlink(d->o.adopt);
	}
	return r;
}

// The first time on the word of whoever made the image; later only what follows.
static int trust(struct kb_daemon *d, struct kb_err *err)
{
	struct kb_chain *chain = calloc(1, sizeof *chain);
	struct kb_buf bytes = {.max = KB_CHAIN_MAX};
	int fd = open(d->o.roots, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;
	int r = chain && fd >= 0 ? 0 : kb_fail(err, kb_err_from_errno(errno), "%s: %s", d->o.roots, strerror(errno));
	while (r == 0 && n > 0) {
		r = kb_buf_reserve(&bytes, 1 << 16) ? kb_fail(err, KB_ENOMEM, "%s: too large", d->o.roots) : 0;
		n = r ? 0 : read(fd, bytes.data + bytes.len, 1 << 16);
		bytes.len += n > 0 ? (size_t)n : 0;
	}
	r = r ? r : kb_chain_parse(bytes.data, bytes.len, err, chain);
	if (r)
		kb_err_wrap(err, "%s: ", d->o.roots);
	else if (kb_trust_set(d->state, chain, KB_ALLOW_TEST_KEYS, (uint64_t)time(NULL), err))
		kb_warn("daemon", "%s: %s; whom this box trusts is unchanged", d->o.roots, err->text);
	if (fd >= 0)
		close(fd);
	kb_buf_finish(&bytes);
	free(chain);
	return r;
}

static int open_rest(struct kb_daemon *d, struct kb_err *err)
{
	char path[512];
	snprintf(path, sizeof path, "%s/state.mdb", d->o.state_dir);
	int r = kb_tls_init(err);
	if (r == 0)
		r = kb_state_open(path, &d->state, err);
	if (r == 0 && d->o.tpm)
		r = guard(d, err);
	if (r == 0 && d->o.roots)
		r = trust(d, err);
	if (r == 0)
		r = kb_daemon_open_tls(d, err);
	if (r == 0)
		r = kb_claim_open(d, err);
	d->models.state = d->state;
	return r ? r : open_listeners(d, err);
}

int kb_daemon_open(struct kb_daemon *d, struct kb_err *err)
{
	d->lock_fd = -1;
	d->started_ms = kb_clock_ms();
	d->limiter.rate = d->o.client_rate;
	d->limiter.running_max = d->o.client_requests;
	d->engine_options = (struct kb_engine_options){
		.loop = &d->loop,
		.program = d->o.engine_program,
		.cache_dir = d->cache_dir,
		.shared_system = d->o.shared_system,
		.kv_tokens = d->o.kv_tokens,
		.max_seqs = d->o.max_seqs,
		.speculate = d->o.speculate,
		.hurry = d->o.hurry,
		.patience = d->o.patience,
		.metrics = &d->metrics,
	};
	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&d->loop);
	uv_timer_init(&d->loop, &d->tick);
	uv_signal_init(&d->loop, &d->on_term);
	uv_signal_init(&d->loop, &d->on_int);
	uv_signal_init(&d->loop, &d->on_hup);
	d->tick.data = d->on_term.data = d->on_int.data = d->on_hup.data = d;
	int r = make_directories(d, err);
	return r ? r : open_rest(d, err);
}

void kb_daemon_run(struct kb_daemon *d)
{
	uv_timer_start(&d->tick, on_tick, KB_TICK_MS, KB_TICK_MS);
	uv_signal_start(&d->on_term, on_signal, SIGTERM);
	uv_signal_start(&d->on_int, on_signal, SIGINT);
	uv_signal_start(&d->on_hup, on_signal, SIGHUP);
	kb_pool_reload(d);
	if (d->models.n == 0)
		kb_warn("daemon", "no model is installed: kotobako %s",
			d->models.is_signed ? "model install FILE" : "import FILE.gguf");
	else if (!kb_models_find(&d->models, (struct kb_str){kb_pool_default(d), strlen(kb_pool_default(d))}))
		kb_warn("daemon", "the default model %s is not installed", kb_pool_default(d));
	kb_info("daemon", "kotobakod " KB_VERSION " listens on %s port %u, state in %s", d->o.listen.host, d->o.listen.port,
		d->o.state_dir);
	if (d->o.bearer.port)
		kb_info("daemon", "bearer keys are accepted on %s port %u", d->o.bearer.host, d->o.bearer.port);
	kb_notify("READY=1");
	uv_run(&d->loop, UV_RUN_DEFAULT);
	kb_info("daemon", "stopped");
}

void kb_daemon_close(struct kb_daemon *d)
{
	if (!uv_is_closing((uv_handle_t *)&d->tick)) { // it did not come to run
		for (int i = 0; i < KB_LISTENERS; i++)
			kb_listener_close(&d->listeners[i]);
		close_all(d);
	}
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
	for (int i = 0; i < KB_LISTENERS; i++)
		kb_tls_config_destroy(d->listeners[i].tls);
	kb_upload_finish(d);
	kb_state_close(d->state);
	kb_wipe(&d->ca_key);
	kb_buf_finish(&d->ca_cert);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
}
