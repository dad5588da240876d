// Proof from inside: each forbidden thing is tried for real, and so is what the engine lives on.
#include "firmware/engine/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static long try_inet(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}
static long try_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}
static long try_connect(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	return connect(0, (struct sockaddr *)&to, sizeof to);
}
static long try_open_write(void)
{
	return open("/tmp/kotobako-selftest", O_WRONLY | O_CREAT, 0600);
}
static long try_open_read(void)
{
	return open("/etc/passwd", O_RDONLY);
}
static long try_exec(void)
{
	char path[] = "/nonexistent"; // without a sandbox: ENOENT, which is not what counts as refused
	char *argv[] = {path, NULL};
	return execve(path, argv, argv + 1);
}
static long try_fork(void)
{
	long pid = syscall(SYS_fork);
	if (pid == 0)
		_exit(0);
	return pid;
}
static long try_vfork_clone(void)
{
	long pid = syscall(SYS_clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
	if (pid == 0)
		_exit(0);
	return pid;
}
static long try_ptrace(void)
{
	return ptrace(PTRACE_SEIZE, INT_MAX, 0, 0); // nobody has this number: ESRCH without a sandbox
}
static long try_kill(void)
{
	return syscall(SYS_kill, getppid(), 0);
}
static long try_unlink(void)
{
	return unlink("/tmp/kotobako-selftest");
}

static void *nothing(void *arg)
{
	return arg;
}
static long try_thread(void)
{
	pthread_t t;
	return pthread_create(&t, NULL, nothing, NULL) ? -1 : pthread_join(t, NULL);
}
static long try_executable_memory(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? -1 : mprotect(p, 4096, PROT_READ | PROT_EXEC);
}
static long try_memfd(void)
{
	return memfd_create("kotobako", MFD_CLOEXEC);
}

static const struct {
	const char *name;
	long (*attempt)(void);
	bool must_work;
} attempts[] = {
	{"inet socket", try_inet, false},
	{"unix socket", try_unix, false},
	{"connect", try_connect, false},
	{"open for writing", try_open_write, false},
	{"open for reading", try_open_read, false},
	{"execve", try_exec, false},
	{"fork", try_fork, false},
	{"clone of a process", try_vfork_clone, false},
	{"ptrace", try_ptrace, false},
	{"kill of another process", try_kill, false},
	{"unlink", try_unlink, false},
	{"new thread", try_thread, true},
	{"executable memory", try_executable_memory, true},
	{"memfd", try_memfd, true},
};

int kb_sandbox_selftest(void)
{
	int bad = 0;
	for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
		errno = 0;
		bool worked = attempts[i].attempt() >= 0;
		int number = errno;
		// Refused must mean refused by the sandbox, not by circumstances (ENOENT, EINVAL).
		bool is_right = attempts[i].must_work ? worked : !worked && (number == EPERM || number == EACCES);
		printf("%s %s: %s\n", is_right ? "ok" : "NOT OK", attempts[i].name, worked ? "works" : strerror(number));
		bad |= !is_right;
	}
	fflush(stdout);
	return bad ? -1 : 0;
}
