// What PID 1 asks of the kernel: files, modules, partitions, the verified root, the clock. See init.h.
#include "firmware/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// Files whose times are floors of the clock: one in the verified root, which has the image's time, and one of our own.
static const char image_time[] = "/etc/kotobako/services", kept_time[] = "/state/clock";

int64_t kb_init_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void say(const char *format, va_list args)
{
	char line[1024];
	int64_t now = kb_init_now();
	int n = snprintf(line, sizeof line, "[%5lld.%03lld] init: ", (long long)(now / 1000), (long long)(now % 1000));
	int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
	size_t len = (size_t)n + (m < 0 ? 0 : (size_t)m);
	if (len > sizeof line - 2)
		len = sizeof line - 2;
	line[len++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, len); // a console that takes nothing changes nothing
	(void)written;
}

void kb_init_say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	say(format, args);
	va_end(args);
}

void kb_init_die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	say(format, args);
	va_end(args);
	char why[KB_INIT_REASON_MAX];
	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	kb_init_mark(why);
	exit(1);
}

ssize_t kb_init_read(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size_t len = 0;
	ssize_t n = 0;
	while (len < size && (n = read(fd, ret + len, size - len)) > 0)
		len += (size_t)n;
	close(fd);
	if (n < 0 || len == size)
		return -1;
	ret[len] = 0;
	return (ssize_t)len;
}

int kb_init_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	bool is_good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return is_good ? 0 : -1;
}

void kb_init_load_modules(const char *list)
{
	char text[KB_INIT_TEXT_MAX];
	if (kb_init_read(list, text, sizeof text) < 0)
		kb_init_die("%s: %s", list, strerror(errno));
	unsigned n = 0;
	for (char *at = text; *at;) {
		char *path = at;
		at += strcspn(at, "\n");
		if (*at)
			*at++ = 0;
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			kb_init_say("module %s: %s", path, strerror(errno));
		else
			n++;
		if (fd >= 0)
			close(fd);
	}
	kb_init_say("%u modules of %s", n, list);
}

static bool find_now(const char *name, char *ret, size_t size)
{
	DIR *d = opendir("/sys/class/block");
	bool is_found = false;
	for (struct dirent *e; d && !is_found && (e = readdir(d));) {
		char path[300], text[1024];
		snprintf(path, sizeof path, "/sys/class/block/%s/uevent", e->d_name);
		if (e->d_name[0] == '.' || kb_init_read(path, text, sizeof text) < 0)
			continue;
		char label[64];
		if (kb_init_option(text, "PARTNAME", label, sizeof label) >= 0 && strcmp(label, name) == 0)
			is_found = snprintf(ret, size, "/dev/%s", e->d_name) < (int)size;
	}
	if (d)
		closedir(d);
	return is_found;
}

int kb_init_find_partition(const char *name, int wait_ms, char *ret, size_t size)
{
	for (int64_t end = kb_init_now() + wait_ms; !find_now(name, ret, size); usleep(20000))
		if (kb_init_now() > end)
			return -1;
	return 0;
}

// One call to the device mapper; data is what follows the header.
static int dm_call(int fd, unsigned long call, uint32_t flags, const void *data, size_t len)
{
	_Alignas(8) char buffer[4096] = {0};
	struct dm_ioctl *io = (struct dm_ioctl *)buffer;
	if (sizeof *io + len > sizeof buffer)
		return -1;
	io->version[0] = DM_VERSION_MAJOR;
	io->data_size = sizeof buffer;
	io->data_start = sizeof *io;
	io->flags = flags;
	io->target_count = len > 0;
	snprintf(io->name, sizeof io->name, "root");
	if (len)
		memcpy(buffer + sizeof *io, data, len);
	return ioctl(fd, call, buffer);
}

int kb_init_open_verity(const struct kb_verity *v, const char *device)
{
	struct {
		struct dm_target_spec spec;
		char parameters[1024];
	} table = {.spec = {.length = v->blocks * 8, .target_type = "verity"}};
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (fd < 0 || kb_init_verity_table(v, device, table.parameters, sizeof table.parameters))
		return -1;
	int r = dm_call(fd, DM_DEV_CREATE, 0, NULL, 0);
	if (r == 0)
		r = dm_call(fd, DM_TABLE_LOAD, DM_READONLY_FLAG, &table, sizeof table);
	if (r == 0)
		r = dm_call(fd, DM_DEV_SUSPEND, 0, NULL, 0); // without DM_SUSPEND_FLAG: resume
	int saved = errno;
	close(fd);
	errno = saved;
	return r;
}

bool kb_init_listens(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	bool is_there = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
	if (fd >= 0)
		close(fd);
	return is_there;
}

static int interface_up(int fd, const char *interface)
{
	struct ifreq r = {0};
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", interface);
	if (ioctl(fd, SIOCGIFFLAGS, &r))
		return -1;
	r.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &r);
}

int kb_init_loopback_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -1 : interface_up(fd, "lo");
	if (fd >= 0)
		close(fd);
	return r;
}

uint64_t kb_init_file_mark(const char *path)
{
	struct stat s;
	if (stat(path, &s))
		return 0;
	if (!S_ISREG(s.st_mode)) // a device's times change with every byte that goes through it
		return (uint64_t)s.st_ino << 1 | 1;
	const uint64_t ns = (uint64_t)s.st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t)s.st_mtim.tv_nsec;
	return (ns ^ (uint64_t)s.st_ino << 32) | 1;
}

int64_t kb_init_clock_floor(void)
{
	static const char *const times[] = {image_time, kept_time};
	struct timespec now;
	time_t least = 0;
	struct stat s;
	for (size_t i = 0; i < sizeof times / sizeof *times; i++)
		if (stat(times[i], &s) == 0 && s.st_mtime > least)
			least = s.st_mtime;
	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec >= least)
		return 0;
	const struct timespec to = {.tv_sec = least};
	if (clock_settime(CLOCK_REALTIME, &to))
		kb_init_say("the clock: %s", strerror(errno));
	return least - now.tv_sec;
}

void kb_init_clock_keep(void)
{
	int fd = open(kept_time, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || futimens(fd, NULL))
		kb_init_say("%s: %s", kept_time, strerror(errno));
	if (fd >= 0)
		close(fd);
}
