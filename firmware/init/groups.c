// Control groups and the socket where services say that they are well. See init.h.
#include "firmware/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// Documentation/admin-guide/cgroup-v2.rst of the kernel.
#define GROUPS "/sys/fs/cgroup"

enum { SAID_MAX = 512 }; // bytes of one message of a service

static bool has_groups;
static int notify_fd = -1;

void kb_init_groups_open(void)
{
	has_groups = mount("cgroup2", GROUPS, "cgroup2", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL) == 0 &&
				 kb_init_write(GROUPS "/cgroup.subtree_control", "+memory +pids") == 0;
	if (!has_groups)
		kb_init_say("control groups: %s: services have no limits", strerror(errno));
}

static int put(const struct kb_service *s, const char *file, const char *text)
{
	char path[160];
	snprintf(path, sizeof path, GROUPS "/%.64s/%s", s->name, file);
	return kb_init_write(path, text);
}

static void limit(const struct kb_service *s, const char *file, uint64_t value)
{
	char text[32] = "max";
	if (value)
		snprintf(text, sizeof text, "%" PRIu64, value);
	if (put(s, file, text))
		kb_init_say("service %s: %s %s: %s", s->name, file, text, strerror(errno));
}

void kb_init_group_make(const struct kb_service *s)
{
	char path[128];
	if (!has_groups)
		return;
	snprintf(path, sizeof path, GROUPS "/%.64s", s->name);
	if (mkdir(path, 0755) && errno != EEXIST)
		kb_init_say("%s: %s", path, strerror(errno));
	limit(s, "memory.max", s->memory_max);
	limit(s, "pids.max", s->pids_max);
}

void kb_init_group_join(const struct kb_service *s)
{
	if (has_groups && put(s, "cgroup.procs", "0"))
		kb_init_say("service %s: its control group: %s", s->name, strerror(errno));
}

void kb_init_group_kill(const struct kb_service *s)
{
	if (has_groups)
		put(s, "cgroup.kill", "1");
}

void kb_init_notify_open(uid_t uid)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof a.sun_path, KB_INIT_NOTIFY);
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const mode_t old = umask(0177);
	if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *)&a, sizeof a) || chown(a.sun_path, uid, uid) ||
		setsockopt(notify_fd, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)))
		kb_init_say("%s: %s: silence of services is not noticed", a.sun_path, strerror(errno));
	umask(old);
}

// One message and whose it is; false: there is none.
static bool receive(char text[SAID_MAX + 1], pid_t *ret_pid)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec v = {text, SAID_MAX};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(notify_fd, &m, MSG_DONTWAIT);
	if (n < 0)
		return false;
	text[n] = 0;
	*ret_pid = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred who;
			memcpy(&who, CMSG_DATA(c), sizeof who);
			*ret_pid = who.pid;
		}
	return true;
}

// What a process says counts for the service that it is, nobody else's.
void kb_init_notify_read(struct kb_service *services, int n, int64_t now)
{
	char text[SAID_MAX + 1];
	pid_t pid;
	for (int left = 64; notify_fd >= 0 && left > 0 && receive(text, &pid); left--) // who floods does not stop the loop
		for (int i = 0; i < n; i++)
			if (pid && services[i].pid == pid)
				kb_init_heard(&services[i], text, now);
}
