// kotobako image fetch: a file from any HTTPS server on the network that knows ranges (RFC 9110, 14), several parts at
// a time. It comes as OUT.part with OUT.part.map, which says which parts are there, so that what was cut goes on.
// Nothing is proven by it but who the server is: that is the installer's work.
//
// Workers are processes, because the TLS library wants all of a process's calls on one thread (net/tls.h); each begins
// with the library untouched, so that none has another's random numbers.
#include "base/clock.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/progress.h"
#include "net/http_client.h"
#include "net/x509.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PART_BYTES (4u << 20)
#define WORKERS 4u
#define TRIES 6u // of one part, with pauses that double: a minute of a cable that is out
#define MAP_HEAD 8u

// What all processes see.
struct shared {
	_Atomic uint64_t next, done;
	_Atomic bool is_over;
	uint64_t total;             // of the file: the first worker's answer
	struct kb_err err[WORKERS]; // of each
};

struct fetch {
	struct kb_http_target server;
	char host[256], path[2048];
	struct kb_buf ca, cert, key;
	int fd, map_fd;
	uint64_t total, parts;
	uint8_t *map; // of each part: 1, it is there
	struct shared *shared;
};

static int parse_url(const char *url, struct fetch *f, struct kb_err *err)
{
	static const char scheme[] = "https://";
	const char *rest = url + sizeof scheme - 1, *slash;
	char host[256];
	if (strncmp(url, scheme, sizeof scheme - 1) != 0 || !(slash = strchr(rest, '/')) || slash == rest ||
		(size_t)(slash - rest) >= sizeof host || strlen(slash) >= sizeof f->path ||
		strspn(slash, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%/+,=@") != strlen(slash))
		return kb_fail(err, KB_EARG, "%.100s: it wants https://HOST[:PORT]/PATH, with anything unusual as %%XX", url);
	snprintf(host, sizeof host, "%.*s", (int)(slash - rest), rest);
	bool has_port = strchr(host, ':') && (host[0] != '[' || strstr(host, "]:"));
	if (kb_ctl_parse_box(host, f->host, sizeof f->host, &f->server.port))
		return kb_fail(err, KB_EARG, "%.100s: no host and port", url);
	if (!has_port)
		f->server.port = 443;
	f->server.host = f->host;
	snprintf(f->path, sizeof f->path, "%s", slash);
	return KB_OK;
}

// Whom to believe; and our own certificate where --client says so.
static int read_keys(struct fetch *f, const struct kb_ctl *ctl, const char *ca, struct kb_err *err)
{
	char *own = ca ? NULL : kb_ctl_path(ctl->client, "ca.pem");
	int r = ca || own ? kb_ctl_read_file(ca ? ca : own, &f->ca, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	free(own);
	f->server.ca_pem = r ? NULL : (const char *)f->ca.data;
	if (r || !ctl->has_client)
		return r;
	char *cert = kb_ctl_path(ctl->client, "cert.pem"), *key = kb_ctl_path(ctl->client, "key.pem");
	r = cert && key ? kb_ctl_read_file(cert, &f->cert, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	r = r ? r : kb_ctl_read_file(key, &f->key, err);
	f->server.cert_pem = (const char *)f->cert.data;
	f->server.key_pem = (const char *)f->key.data;
	free(cert);
	free(key);
	return r;
}

struct part {
	struct fetch *f;
	uint64_t at, left;
};

static int on_body(void *ctx, const char *data, size_t len)
{
	struct part *p = ctx;
	if (len > p->left)
		return KB_EBAD; // more than was asked for
	while (len) {
		ssize_t n = pwrite(p->f->fd, data, len, (off_t)p->at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ENOSPC ? KB_ENOSPACE : KB_EIO;
		data += n;
		len -= (size_t)n;
		p->at += (uint64_t)n;
		p->left -= (uint64_t)n;
		atomic_fetch_add(&p->f->shared->done, (uint64_t)n);
	}
	return KB_OK;
}

// One request for [at, at + len). ret_total: of the whole.
static int get(struct kb_http_client *c, struct fetch *f, struct part *p, uint64_t *ret_total, struct kb_err *err)
{
	char range[80];
	struct kb_http_reply reply;
	snprintf(range, sizeof range, "Range: bytes=%" PRIu64 "-%" PRIu64 "\r\n", p->at, p->at + p->left - 1);
	const struct kb_http_call call = {.method = "GET",
		.path = f->path,
		.headers = range,
		.idle_ms = 20000,
		.interrupt = &kb_ctl_interrupted,
		.on_body = on_body,
		.ctx = p};
	int r = kb_http_client_call(c, &call, &reply, err);
	if (r == KB_EBAD)
		r = kb_fail(err, KB_EUNSUPPORTED, "the server sends more than was asked for: it knows no ranges");
	else if (r == KB_ENOSPACE)
		r = kb_fail(err, r, "there is no room for it");
	else if (r == 0 && reply.status == 404)
		r = kb_fail(err, KB_ENOTFOUND, "the server has no %s", f->path);
	else if (r == 0 && reply.status != 206)
		r = kb_fail(err, reply.status >= 500 ? KB_EBUSY : KB_EUNSUPPORTED, "the server answers %d to a range of %s",
			reply.status, f->path);
	else if (r == 0 && p->left)
		r = kb_fail(err, KB_ECLOSED, "the server sent less than was asked for");
	if (r == 0)
		*ret_total = reply.range_total;
	kb_buf_finish(&reply.body);
	return r;
}

static bool may_help(int code)
{
	return code == KB_EIO || code == KB_ECLOSED || code == KB_ETIMEOUT || code == KB_EBUSY;
}

// get, again after a pause where that may help.
static int get_patiently(
	struct kb_http_client *c, struct fetch *f, uint64_t at, uint64_t len, uint64_t *ret_total, struct kb_err *err)
{
	int r = KB_OK;
	for (unsigned tries = 0; tries < TRIES && !atomic_load(&f->shared->is_over); tries++) {
		struct part p = {.f = f, .at = at, .left = len};
		if (tries)
			usleep((1u << tries) * 250000);
		r = get(c, f, &p, ret_total, err);
		if (r == KB_OK)
			return r;
		atomic_fetch_sub(&f->shared->done, len - p.left);
		if (!may_help(r))
			return r;
	}
	return r;
}

static int get_part(struct kb_http_client *c, struct fetch *f, uint64_t i, struct kb_err *err)
{
	const uint64_t at = i * PART_BYTES, left = f->total - at;
	uint64_t total = f->total;
	int r = get_patiently(c, f, at, left < PART_BYTES ? left : PART_BYTES, &total, err);
	if (r == KB_OK && total != f->total)
		r = kb_fail(err, KB_ECORRUPT, "the file on the server has changed: it had %" PRIu64 " bytes, now %" PRIu64,
			f->total, total);
	return r;
}

static int get_parts(struct fetch *f, struct kb_http_client *c, struct kb_err *err)
{
	struct shared *s = f->shared;
	uint64_t i;
	int r = KB_OK;
	while (r == KB_OK && !atomic_load(&s->is_over) && (i = atomic_fetch_add(&s->next, 1)) < f->parts) {
		if (f->map[i])
			continue;
		r = get_part(c, f, i, err);
		// First the part, then that it is there.
		if (r == KB_OK && !atomic_load(&s->is_over) &&
			(fdatasync(f->fd) || pwrite(f->map_fd, &(uint8_t){1}, 1, (off_t)(MAP_HEAD + i)) != 1))
			r = kb_fail(err, kb_err_from_errno(errno), "writing: %s", strerror(errno));
	}
	return r;
}

// How long it is, by asking for its first byte.
static int get_total(struct fetch *f, struct kb_http_client *c, struct kb_err *err)
{
	int r = get_patiently(c, f, 0, 1, &f->shared->total, err);
	if (r == KB_OK && f->shared->total == 0)
		r = kb_fail(err, KB_EUNSUPPORTED, "the server does not say how long %s is", f->path);
	return r;
}

typedef int task(struct fetch *f, struct kb_http_client *c, struct kb_err *err);

// A worker's life. It ends with its parent.
static _Noreturn void work(struct fetch *f, uint32_t index, task *what)
{
	struct kb_http_client *c = NULL;
	struct kb_err err = {0};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int r = kb_tls_init(&err);
	r = r ? r : kb_http_client_create(&f->server, &c, &err);
	r = r ? r : what(f, c, &err);
	if (r) {
		err.code = r;
		f->shared->err[index] = err;
		atomic_store(&f->shared->is_over, true);
	}
	_exit(r != 0);
}

// Runs n workers until all have ended; the first error of any.
static int run(struct fetch *f, uint32_t n, task *what, struct kb_ctl_progress *progress, struct kb_err *err)
{
	uint32_t working = 0;
	for (; working < n; working++) {
		pid_t pid = fork();
		if (pid == 0)
			work(f, working, what);
		if (pid < 0)
			break;
	}
	if (working == 0)
		return kb_fail(err, KB_ENOMEM, "no process could be made: %s", strerror(errno));
	while (working) {
		int status = 0;
		pid_t ended = waitpid(-1, &status, WNOHANG);
		if (ended > 0) {
			working--;
			if (WIFSIGNALED(status)) // it could not say why
				atomic_store(&f->shared->is_over, true);
			continue;
		}
		usleep(20000);
		if (kb_ctl_interrupted)
			atomic_store(&f->shared->is_over, true);
		if (progress)
			kb_ctl_progress_step(progress, atomic_load(&f->shared->done), f->total, "fetching", kb_clock_ms());
	}
	if (kb_ctl_interrupted)
		return kb_fail(err, KB_ECANCELLED, "stopped");
	for (uint32_t i = 0; i < n; i++)
		if (f->shared->err[i].code) {
			*err = f->shared->err[i];
			return err->code;
		}
	return atomic_load(&f->shared->is_over) ? kb_fail(err, KB_EIO, "a worker died") : KB_OK;
}

static int ask_total(struct fetch *f, struct kb_err *err)
{
	int r = run(f, 1, get_total, NULL, err);
	f->total = f->shared->total;
	f->parts = (f->total + PART_BYTES - 1) / PART_BYTES;
	atomic_store(&f->shared->done, 0);
	return r;
}

static int get_all(struct fetch *f, struct kb_err *err)
{
	struct kb_ctl_progress progress;
	if (atomic_load(&f->shared->done))
		fprintf(
			stderr, "goes on: %" PRIu64 " of %" PRIu64 " bytes are there\n", atomic_load(&f->shared->done), f->total);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "fetching", kb_clock_ms());
	int r = run(f, f->parts < WORKERS ? (uint32_t)f->parts : WORKERS, get_parts, &progress, err);
	kb_ctl_progress_end(&progress);
	return r;
}

// The map of an earlier try, if it is of a file of this length.
static int open_map(struct fetch *f, struct kb_err *err)
{
	uint8_t head[MAP_HEAD], now[MAP_HEAD];
	memcpy(now, &f->total, sizeof now);
	f->map = calloc(f->parts, 1);
	if (!f->map)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	if (pread(f->map_fd, head, sizeof head, 0) == (ssize_t)sizeof head && memcmp(head, now, sizeof head) == 0 &&
		pread(f->map_fd, f->map, f->parts, MAP_HEAD) == (ssize_t)f->parts) {
		for (uint64_t i = 0; i < f->parts; i++)
			if (f->map[i])
				atomic_fetch_add(&f->shared->done, i + 1 < f->parts ? PART_BYTES : f->total - i * PART_BYTES);
		return KB_OK;
	}
	memset(f->map, 0, f->parts);
	if (ftruncate(f->map_fd, 0) || pwrite(f->map_fd, now, sizeof now, 0) != (ssize_t)sizeof now ||
		ftruncate(f->map_fd, (off_t)(MAP_HEAD + f->parts)) || ftruncate(f->fd, (off_t)f->total))
		return kb_fail(err, kb_err_from_errno(errno), "writing: %s", strerror(errno));
	return KB_OK;
}

static int fetch(struct fetch *f, const char *out, struct kb_err *err)
{
	char *part = NULL, *map = NULL;
	int r = KB_OK;
	if (asprintf(&part, "%s.part", out) < 0 || asprintf(&map, "%s.part.map", out) < 0)
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == KB_OK && access(out, F_OK) == 0)
		r = kb_fail(err, KB_EEXISTS, "%s is there already", out);
	f->fd = r == KB_OK ? open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
	f->map_fd = r == KB_OK ? open(map, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
	if (r == KB_OK && (f->fd < 0 || f->map_fd < 0))
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", part, strerror(errno));
	r = r ? r : ask_total(f, err);
	r = r ? r : open_map(f, err);
	r = r ? r : get_all(f, err);
	if (r == KB_OK && (f->fd < 0 || fsync(f->fd) || rename(part, out) || unlink(map)))
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", out, strerror(errno));
	if (f->fd >= 0)
		close(f->fd);
	if (f->map_fd >= 0)
		close(f->map_fd);
	free(f->map);
	free(part);
	free(map);
	return r;
}

int kb_ctl_image_fetch(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct fetch *f = calloc(1, sizeof *f);
	struct kb_err err = {0};
	const char *ca = args->option[KB_IMAGE_CA].text;
	if (!f)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	f->shared = mmap(NULL, sizeof *f->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f->shared == MAP_FAILED) {
		free(f);
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	}
	kb_ctl_catch_interrupt(true);
	int r = ca || ctl->has_client ? parse_url(args->arg[1], f, &err)
								  : kb_fail(&err, KB_EARG, "--ca is wanted, or --client: who vouches for the server");
	r = r ? r : read_keys(f, ctl, ca, &err);
	r = r ? r : fetch(f, args->arg[2], &err);
	kb_buf_finish(&f->ca);
	kb_buf_finish(&f->cert);
	kb_wipe(&f->key);
	munmap(f->shared, sizeof *f->shared);
	free(f);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; the same command goes on where it was");
	if (r == KB_EARG)
		return kb_ctl_fail(KB_CTL_USAGE, "%s", err.text);
	bool is_unreached = r == KB_EIO || r == KB_ECLOSED || r == KB_ETIMEOUT;
	return r ? kb_ctl_fail(is_unreached ? KB_CTL_UNREACHABLE : KB_CTL_FAILED, "%s%s", err.text,
				   may_help(r) ? "; the same command goes on where it was" : "")
			 : KB_CTL_OK;
}
