// The watchdog, the power button, and a stick that asks to be paired. See init.h.
#include "firmware/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WATCHDOG_S = 60, BUTTONS_MAX = 4 };

static int watchdog = -1;
static struct pollfd buttons[BUTTONS_MAX];
static nfds_t n_buttons;

void kb_init_watchdog_open(void)
{
	int seconds = WATCHDOG_S;
	watchdog = open("/dev/watchdog", O_WRONLY | O_CLOEXEC);
	if (watchdog < 0)
		kb_init_say("watchdog: none (%s)", strerror(errno));
	else
		kb_init_say("watchdog: %d s%s", seconds, ioctl(watchdog, WDIOC_SETTIMEOUT, &seconds) ? " (its own time)" : "");
}

void kb_init_watchdog_feed(void)
{
	if (watchdog >= 0)
		ioctl(watchdog, WDIOC_KEEPALIVE, 0);
}

int kb_init_button_open(void)
{
	for (int i = 0; i < 16 && n_buttons < BUTTONS_MAX; i++) {
		char path[32], name[64] = "";
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			continue;
		if (ioctl(fd, EVIOCGNAME(sizeof name - 1), name) >= 0 && strcmp(name, "Power Button") == 0)
			buttons[n_buttons++] = (struct pollfd){.fd = fd, .events = POLLIN};
		else
			close(fd);
	}
	return (int)n_buttons;
}

bool kb_init_button_pressed(int wait_ms)
{
	if (poll(buttons, n_buttons, wait_ms) <= 0)
		return false;
	for (nfds_t i = 0; i < n_buttons; i++) {
		struct input_event e;
		while (read(buttons[i].fd, &e, sizeof e) == (ssize_t)sizeof e)
			if (e.type == EV_KEY && e.code == KEY_POWER && e.value == 1)
				return true;
	}
	return false;
}

// The kernel counts disks as they come; 0: there is none of that letter.
static uint64_t disk_number(int letter)
{
	char path[64], text[32], *end;
	snprintf(path, sizeof path, "/sys/class/block/sd%c/diskseq", letter);
	if (kb_init_read(path, text, sizeof text) <= 0)
		return 0;
	uint64_t n = strtoull(text, &end, 10);
	return end == text ? 0 : n;
}

static bool mount_one(const struct kb_service *s, int letter, int part)
{
	char options[64], device[32], folder[64];
	struct stat st;
	snprintf(options, sizeof options, "uid=%u,gid=%u,umask=077", s->uid, s->uid);
	snprintf(device, sizeof device, part ? "/dev/sd%c%d" : "/dev/sd%c", letter, part);
	snprintf(folder, sizeof folder, "/run/stick/kotobako/%s", s->folder);
	if (stat(device, &st))
		return false;
	mkdir("/run/stick", 0755);
	if (mount(device, "/run/stick", "vfat", MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOSYMFOLLOW, options))
		return false;
	if (stat(folder, &st) == 0 && S_ISDIR(st.st_mode)) {
		kb_init_say("stage stick: %s, for %s", device, s->name);
		return true;
	}
	umount2("/run/stick", 0);
	return false;
}

// Removable disks are the sdX of USB; whole or their first partition. The kernel's FAT is what reads them, nothing of
// ours: mounted without devices, programs and links.
bool kb_init_stick_mount(struct kb_service *s)
{
	for (int i = 0; i < KB_INIT_STICKS; i++) {
		const uint64_t number = disk_number('a' + i);
		if (!number || number == s->seen[i])
			continue;
		s->seen[i] = number;
		if (mount_one(s, 'a' + i, 0) || mount_one(s, 'a' + i, 1))
			return true;
	}
	return false;
}

void kb_init_stick_unmount(void)
{
	sync();
	if (umount2("/run/stick", 0))
		kb_init_say("the stick is busy: %s", strerror(errno));
}
