// kotobako-disk open DEVICE: /dev/mapper/state, made at the first start; see disk.h. It comes back when it is open.
// Where the TPM does not open it, it waits for a stick with the recovery key in kotobako/recovery-key.txt.
//
// kotobako-disk reset FILE: factory reset, for whoever has the recovery key in FILE: destroys the keys and restarts the
// box.
#include "firmware/disk/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#define STICK "/run/stick"
#define RECOVERY_FILE STICK "/kotobako/recovery-key.txt"
#define ADOPT "/run/kotobako/adopt" // for kotobakod: whoever has the recovery key vouches for disk and TPM
#define TEXT_MAX 512u               // of the file

// A recovery key out of a file.
static bool read_file(const char *path, char ret[static KB_RECOVERY_TEXT])
{
	char text[TEXT_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
	bool is_one = n > 0 && kb_recovery_read(text, (size_t)n, ret);
	if (fd >= 0)
		close(fd);
	explicit_bzero(text, sizeof text);
	return is_one;
}

// The first stick that has one.
static bool read_stick(char ret[static KB_RECOVERY_TEXT])
{
	bool is_found = false;
	mkdir(STICK, 0755);
	for (int i = 0; i < 8 && !is_found; i++) {
		char device[16];
		snprintf(device, sizeof device, i % 2 ? "/dev/sd%c1" : "/dev/sd%c", 'a' + i / 2);
		if (access(device, F_OK) ||
			mount(device, STICK, "vfat", MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOSYMFOLLOW, "umask=077"))
			continue;
		is_found = read_file(RECOVERY_FILE, ret);
		umount2(STICK, 0);
	}
	return is_found;
}

static int recover(const char *device)
{
	char recovery[KB_RECOVERY_TEXT];
	fprintf(stderr, "disk: the TPM does not open this disk: another TPM, a cleared one, or another firmware's kernel.\n"
					"disk: put a stick with the recovery key in kotobako/recovery-key.txt into the box\n");
	for (;; sleep(2)) {
		if (!read_stick(recovery))
			continue;
		int r = kb_disk_recover(device, recovery);
		explicit_bzero(recovery, sizeof recovery);
		if (r == 0)
			break;
		sleep(10); // the same stick, the same answer
	}
	mkdir("/run/kotobako", 0755);
	int fd = open(ADOPT, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	fprintf(stderr, "disk: opened by the recovery key\n");
	return 0;
}

static int open_disk(const char *device)
{
	switch (kb_disk_look(device)) {
	case KB_DISK_MADE:
		return kb_disk_open(device) && recover(device);
	case KB_DISK_FOREIGN:
		fprintf(stderr, "disk: %s has no header that can be read, and is not empty: it is left as it is\n", device);
		return 1;
	default:
		fprintf(stderr, "disk: first start: making the encrypted partition\n");
		return kb_disk_make(device) != 0;
	}
}

static int reset(const char *file)
{
	char recovery[KB_RECOVERY_TEXT];
	if (!read_file(file, recovery)) {
		fprintf(stderr, "disk: %s: no recovery key; a factory reset wants the one that the first start showed\n", file);
		return 1;
	}
	int r = kb_disk_destroy(recovery);
	explicit_bzero(recovery, sizeof recovery);
	if (r)
		return 1;
	fprintf(stderr, "disk: factory reset: the keys are destroyed; the box starts anew\n");
	sync();
	reboot(RB_AUTOBOOT); // at once: nothing may be written by what still has the disk open
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "reset") == 0)
		return reset(argv[2]);
	if (argc != 3 || strcmp(argv[1], "open") != 0) {
		fprintf(stderr, "kotobako-disk open DEVICE | reset FILE: the box's encrypted partition; it is for PID 1\n");
		return 2;
	}
	kb_disk_phase(KB_PHASE_OPEN);
	int r = open_disk(argv[2]);
	return kb_disk_phase(KB_PHASE_OVER) || r;
}
