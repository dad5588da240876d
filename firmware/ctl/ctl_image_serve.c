// kotobako image serve: a folder of images, or the box's own installed models, for the boxes that were paired with this
// one. It runs where and as long as the administrator wants it to; nothing else serves images.
#include "base/log.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_LISTEN "127.0.0.1:8444"
#define CONNECTIONS_MAX 32 // eight boxes that fetch four parts each; more wait until one has ended
#define LOOK_MS 500

static int read_credential(const struct kb_ctl *ctl, const char *name, struct kb_buf *ret, struct kb_err *err)
{
	char path[64];
	snprintf(path, sizeof path, "ca/%s", name);
	char *whole = kb_ctl_path(ctl->state, path);
	int r = whole ? kb_ctl_read_file(whole, ret, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == KB_ENOTFOUND)
		r = kb_fail(err, r, "%s: there is no certificate of the box yet; kotobakod makes it when it starts", whole);
	free(whole);
	return r;
}

static int listen_on(const char *text, struct kb_err *err)
{
	char host[256], port[8];
	uint16_t number;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST | AI_PASSIVE};
	struct addrinfo *list = NULL;
	if (kb_ctl_parse_box(text, host, sizeof host, &number))
		return kb_fail(err, KB_EARG, "--listen %.100s: it wants ADDRESS:PORT", text), -1;
	snprintf(port, sizeof port, "%u", number);
	int g = getaddrinfo(host, port, &hints, &list);
	if (g)
		return kb_fail(err, KB_EARG, "--listen %.100s: %s", text, gai_strerror(g)), -1;
	int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, CONNECTIONS_MAX)) {
		kb_fail(err, KB_EIO, "listening on %.100s: %s", text, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd;
}

static unsigned reap(unsigned n)
{
	while (n && waitpid(-1, NULL, WNOHANG) > 0)
		n--;
	return n;
}

// A connection's process ends with this one.
static bool accept_one(const struct kb_mirror *m, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_DFL);
		close(listener);
		kb_mirror_serve(m, fd);
	}
	if (pid < 0)
		kb_warn("mirror", "no process could be made: %s", strerror(errno));
	close(fd);
	return pid > 0;
}

static int serve(struct kb_mirror *m, int listener, struct kb_err *err)
{
	unsigned working = 0;
	while (!kb_ctl_interrupted) {
		struct pollfd p = {.fd = listener, .events = POLLIN};
		working = reap(working);
		if (poll(&p, working < CONNECTIONS_MAX ? 1 : 0, working < CONNECTIONS_MAX ? LOOK_MS : 20) <= 0)
			continue;
		int r = kb_mirror_refresh(m, err);
		if (r)
			return r;
		working += accept_one(m, listener);
	}
	return KB_OK; // connections end with us
}

static int open_all(struct kb_mirror *m, const char *dir, struct kb_err *err)
{
	int r = read_credential(m->ctl, "ca.pem", &m->ca, err);
	r = r ? r : read_credential(m->ctl, "server.pem", &m->cert, err);
	r = r ? r : read_credential(m->ctl, "server.key", &m->key, err);
	if (r == KB_OK && dir && (m->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", dir, strerror(errno));
	return r ? r : kb_mirror_refresh(m, err);
}

int kb_ctl_image_serve(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const char *listen_text =
		args->option[KB_IMAGE_LISTEN].is_set ? args->option[KB_IMAGE_LISTEN].text : DEFAULT_LISTEN;
	struct kb_mirror *m = calloc(1, sizeof *m);
	struct kb_err err = {0};
	if (!m)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	m->ctl = ctl;
	m->dir = -1;
	kb_ctl_catch_interrupt(false);
	int r = open_all(m, args->n > 1 ? args->arg[1] : NULL, &err);
	int listener = r ? -1 : listen_on(listen_text, &err);
	if (listener >= 0) {
		kb_info("mirror", "serves %s on %s", args->n > 1 ? args->arg[1] : "the installed models", listen_text);
		r = serve(m, listener, &err);
		close(listener);
	}
	kb_mirror_finish(m);
	free(m);
	if (r || listener < 0)
		return kb_ctl_fail(err.code == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	return KB_CTL_OK;
}
