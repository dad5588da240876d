// Services: started, started again, stopped. See init.h.
#include "firmware/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	TICK_MS = 500,              // how often the supervisor looks
	STEADY_MS = 60000,          // a service that ran this long has no failures
	STOP_MS = 10000,            // between SIGTERM and SIGKILL at power-off
	CLAIM_MS = 30 * 60000,      // a stick may pair this long after power-on
	STICK_TRIES_MS = 2000,      // between looks for a stick
	CLOCK_MS = 3600000,         // between notes of the time: what an empty battery loses at most
	SOCKETS_TEXT_MAX = 1 << 18, // bytes of /proc/net/tcp: some 1700 connections
};

static const char admin[] = "/state/admin.sock"; // where the daemon listens once it is ready
static const char claimed[] = "/state/claimed";  // there: the box has a client, sticks are not looked at

static bool wants_restart;  // a service asks for it
static int64_t trial_until; // 0: the system that runs is on no trial

static _Noreturn void run(const struct kb_service *s)
{
	static char path[] = "PATH=/usr/bin", home[] = "HOME=/state", temporary[] = "TMPDIR=/tmp",
				language[] = "LANG=C.UTF-8", notify[] = "NOTIFY_SOCKET=" KB_INIT_NOTIFY;
	char *environment[] = {path, home, temporary, language, notify, NULL};
	char adjust[16];
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	umask(077);
	kb_init_group_join(s);
	snprintf(adjust, sizeof adjust, "%d", s->oom_adjust);
	kb_init_write("/proc/self/oom_score_adj", adjust);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || setgroups(0, NULL) || setgid(s->uid) || setuid(s->uid)) {
		kb_init_say("%s: user %u: %s", s->name, s->uid, strerror(errno));
		_exit(126);
	}
	execve(s->argv[0], s->argv, environment);
	kb_init_say("%s: %s: %s", s->name, s->argv[0], strerror(errno));
	_exit(127);
}

static void start(struct kb_service *s)
{
	s->started = kb_init_now();
	s->stop_by = s->heard = s->killed = 0;
	s->is_ready = false;
	s->mark = kb_init_file_mark(s->folder);
	kb_init_group_make(s);
	s->pid = fork();
	if (s->pid == 0)
		run(s);
	if (s->pid < 0) {
		s->pid = 0;
		s->due = s->started + kb_init_backoff(++s->failures);
		kb_init_say("%s: fork: %s", s->name, strerror(errno));
		return;
	}
	kb_init_say("service %s: started as %d, user %u", s->name, (int)s->pid, s->uid);
}

static void say_end(const struct kb_service *s, int status)
{
	if (WIFEXITED(status))
		kb_init_say("service %s: ended with %d", s->name, WEXITSTATUS(status));
	else
		kb_init_say("service %s: ended by signal %d", s->name, WTERMSIG(status));
}

static void mark_claimed(void)
{
	int fd = open(claimed, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		kb_init_say("%s: %s", claimed, strerror(errno));
	else
		close(fd);
}

static bool uses_stick(const struct kb_service *s)
{
	return s->when == KB_WHEN_CLAIM || s->when == KB_WHEN_STICK;
}

static void ended(struct kb_service *s, int status)
{
	int64_t now = kb_init_now();
	say_end(s, status);
	kb_init_group_kill(s);
	s->pid = 0;
	// One that was asked to end is to begin anew at once.
	s->failures = s->stop_by ? 0 : now - s->started > STEADY_MS ? 1 : s->failures + 1;
	s->due = now + kb_init_backoff(s->failures);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KB_INIT_EXIT_RESTART)
		wants_restart = true;
	bool is_good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (s->when == KB_WHEN_ON && is_good) // until the file changes
		s->failures = 0;
	if (s->when == KB_WHEN_TRIAL && is_good) {
		kb_init_say("stage proven: this system starts by itself from now on");
		trial_until = 0;
		kb_init_trial_close();
	} else if (s->when == KB_WHEN_TRIAL) {
		wants_restart = true;
	}
	if (!uses_stick(s))
		return;
	kb_init_stick_unmount();
	if (s->when == KB_WHEN_STICK) {
		kb_init_say("stage %s: %s", s->name, is_good ? "done" : "not all of it could be done");
	} else if (is_good) {
		mark_claimed();
		sync();
		kb_init_say("stage paired: the stick holds the client's files");
	} else {
		memset(s->seen, 0, sizeof s->seen); // again, after a while
	}
}

// Everything that ended, of ours or left to us by its parent.
static void reap(struct kb_service *services, int n)
{
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (int i = 0; i < n; i++)
			if (services[i].pid == pid)
				ended(&services[i], status);
}

// One service at a time has the sticks.
static bool has_stick(const struct kb_service *services, int n)
{
	for (int i = 0; i < n; i++)
		if (services[i].pid && uses_stick(&services[i]))
			return true;
	return false;
}

static bool is_due(struct kb_service *s, int64_t now, bool may_look)
{
	if (s->pid || now < s->due)
		return false;
	if (s->when == KB_WHEN_ALWAYS)
		return true;
	if (s->when == KB_WHEN_FILE || s->when == KB_WHEN_WITH)
		return access(s->folder, F_OK) == 0;
	if (s->when == KB_WHEN_ON)
		return !s->started || s->failures > 0 || s->mark != kb_init_file_mark(s->folder);
	if (s->when == KB_WHEN_TRIAL)
		return trial_until && !s->started && kb_init_listens(admin);
	if (s->when == KB_WHEN_CLAIM && (now > CLAIM_MS || access(claimed, F_OK) == 0))
		return false;
	return may_look && kb_init_stick_mount(s);
}

// A service that runs for the sake of a file ends with it.
static void follow_file(struct kb_service *s, int64_t now)
{
	if (!s->pid || s->when != KB_WHEN_WITH)
		return;
	if (s->stop_by && now > s->stop_by)
		kill(s->pid, SIGKILL);
	if (s->stop_by || s->mark == kb_init_file_mark(s->folder))
		return;
	kb_init_say("service %s: %s has changed", s->name, s->folder);
	kill(s->pid, SIGTERM);
	s->stop_by = now + STOP_MS;
}

// For whoever looks at the console, and for the test that there is one port and no other.
static void say_listeners(void)
{
	static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
	static char text[SOCKETS_TEXT_MAX];
	uint16_t ports[16];
	unsigned n = 0;
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
		if (kb_init_read(tables[i], text, sizeof text) > 0)
			n = kb_init_parse_listeners(text, ports, n, sizeof ports / sizeof *ports);
		else if (errno != ENOENT)
			kb_init_say("%s: it cannot be read whole", tables[i]);
	char list[128] = "";
	for (unsigned i = 0; i < n; i++)
		snprintf(list + strlen(list), sizeof list - strlen(list), " %u", ports[i]);
	kb_init_say("listening on %u TCP ports:%s", n, list);
}

static bool any_runs(const struct kb_service *services, int n)
{
	for (int i = 0; i < n; i++)
		if (services[i].pid)
			return true;
	return false;
}

static void stop_all(struct kb_service *services, int n)
{
	for (int i = n - 1; i >= 0; i--)
		if (services[i].pid)
			kill(services[i].pid, SIGTERM);
	for (int64_t end = kb_init_now() + STOP_MS; any_runs(services, n) && kb_init_now() < end; usleep(20000)) {
		kb_init_watchdog_feed();
		reap(services, n);
	}
	kill(-1, SIGKILL);
	usleep(100000);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

// The system on trial has had its time, and neither proved itself nor said what is wrong.
static bool is_trial_over(int64_t now)
{
	if (!trial_until || now < trial_until)
		return false;
	kb_init_say("stage trial: it did not prove itself in time");
	kb_init_mark("its services started, it did not prove itself in time");
	return true;
}

// Back to where the power button, a restart or a failed trial leads.
static _Noreturn void leave(struct kb_service *services, int n, bool is_restart)
{
	if (!is_restart)
		say_listeners();
	kb_init_say(is_restart ? "stage restart" : "stage power-off");
	stop_all(services, n);
	kb_init_clock_keep();
	sync();
	if (umount2("/state", 0))
		kb_init_say("/state: %s", strerror(errno));
	kb_init_say("stage off");
	reboot(is_restart ? RB_AUTOBOOT : RB_POWER_OFF);
	kb_init_die("%s: %s", is_restart ? "restart" : "power-off", strerror(errno));
}

// The board's watchdog is fed while every service that promised to say so is well, or can be made so by a fresh start.
static bool are_well(struct kb_service *services, int n, int64_t now)
{
	bool is_good = true;
	for (int i = 0; i < n; i++) {
		struct kb_service *s = &services[i];
		switch (kb_init_wellness(s, now)) {
		case KB_SILENT:
			kb_init_say("service %s: silent for %d s: killed", s->name, KB_INIT_SILENT_MS / 1000);
			kill(s->pid, SIGKILL);
			s->killed = now;
			break;
		case KB_STUCK:
			is_good = false;
			break;
		case KB_WELL:
			break;
		}
	}
	return is_good;
}

void kb_init_supervise(struct kb_service *services, int n, int trial_s)
{
	int64_t stick_at = 0, clock_at = 0, now = kb_init_now();
	trial_until = trial_s ? now + trial_s * INT64_C(1000) : 0;
	kb_init_say("stage services: %d rows, %d power buttons", n, kb_init_button_open());
	kb_init_notify_open(services[0].uid);
	while (!wants_restart && !is_trial_over(now)) {
		kb_init_notify_read(services, n, now);
		if (are_well(services, n, now))
			kb_init_watchdog_feed();
		reap(services, n);
		const bool may_look = now >= stick_at && !trial_until && (has_stick(services, n) || kb_init_listens(admin));
		for (int i = 0; i < n; i++) {
			follow_file(&services[i], now);
			if (is_due(&services[i], now, may_look && !has_stick(services, n)))
				start(&services[i]);
		}
		if (now >= clock_at) {
			kb_init_clock_keep();
			clock_at = now + CLOCK_MS;
		}
		stick_at = now >= stick_at ? now + STICK_TRIES_MS : stick_at;
		if (kb_init_button_pressed(TICK_MS))
			leave(services, n, false);
		now = kb_init_now();
	}
	leave(services, n, true);
}
