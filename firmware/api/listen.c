// Listening sockets. See daemon.h.
#include "base/log.h"
#include "firmware/api/conn.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void on_connection(uv_stream_t *s, int status)
{
	struct kb_listener *l = s->data;
	if (status == 0 && !l->daemon->is_stopping)
		kb_conn_accept(l);
	else if (status < 0)
		kb_warn("listen", "accepting: %s", uv_strerror(status));
}

static int open_tcp(struct kb_listener *l, const struct kb_address *a, struct kb_err *err)
{
	struct sockaddr_storage address;
	uv_tcp_init(&l->daemon->loop, &l->h.tcp);
	l->is_open = true;
	int u = uv_ip4_addr(a->host, a->port, (struct sockaddr_in *)&address);
	if (u)
		u = uv_ip6_addr(a->host, a->port, (struct sockaddr_in6 *)&address);
	if (u)
		return kb_fail(err, KB_EARG, "%s is not an address to listen on", a->host);
	u = uv_tcp_bind(&l->h.tcp, (struct sockaddr *)&address, 0);
	if (u == 0)
		u = uv_listen(&l->h.stream, 128, on_connection);
	if (u)
		return kb_fail(err, KB_EIO, "listening on %s port %u: %s", a->host, a->port, uv_strerror(u));
	return 0;
}

// The state directory's lock is held: a socket that lies there is a dead one.
static int open_admin(struct kb_listener *l, struct kb_err *err)
{
	const char *path = l->daemon->admin_path;
	if (strlen(path) >= sizeof((struct sockaddr_un){0}).sun_path)
		return kb_fail(err, KB_EARG, "%s: the path is too long for a socket; take a shorter --state", path);
	unlink(path);
	uv_pipe_init(&l->daemon->loop, &l->h.pipe, 0);
	l->is_open = true;
	mode_t old = umask(0177);
	int u = uv_pipe_bind(&l->h.pipe, path);
	umask(old);
	if (u == 0)
		u = uv_listen(&l->h.stream, 16, on_connection);
	return u ? kb_fail(err, KB_EIO, "listening on %s: %s", path, uv_strerror(u)) : 0;
}

int kb_listener_open(struct kb_daemon *d, enum kb_listener_kind kind, struct kb_err *err)
{
	struct kb_listener *l = &d->listeners[kind];
	l->daemon = d;
	l->kind = kind;
	int r = kind == KB_LISTEN_ADMIN ? open_admin(l, err)
									: open_tcp(l, kind == KB_LISTEN_MUTUAL ? &d->o.listen : &d->o.bearer, err);
	l->h.handle.data = l;
	return r;
}

void kb_listener_close(struct kb_listener *l)
{
	if (!l->is_open)
		return;
	l->is_open = false;
	uv_close(&l->h.handle, NULL);
	if (l->kind == KB_LISTEN_ADMIN)
		unlink(l->daemon->admin_path);
}
