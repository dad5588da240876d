// kotobako-boot start|check|arm: see boot.h.
#include "efi/efi_var.h"
#include "firmware/boot/boot.h"
#include "firmware/boot/esp.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STAGED "/os/kernel.efi" // storage/os_install.h

// `kotobako os WORD [TEXT]` under the daemon's user; its exit status, or -1.
static int os(const struct kb_boot *b, const char *word, const char *text)
{
	int status;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		if (!b->at.under && (setgroups(0, NULL) || setgid(b->owner) || setuid(b->owner)))
			_exit(126);
		execl(b->at.program, "kotobako", "--state", b->at.state, "os", "--boot", b->at.facts, word, text, (char *)NULL);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool write_facts(const struct kb_boot *b)
{
	char text[2 * KB_BOOT_PATH];
	const int len =
		snprintf(text, sizeof text, "slot=%c\ndefault=%c\narmed=%d\nversion=%s\nboard=%s\ndevice=%s\ntrial=%s\n",
			'a' + b->slot, 'a' + b->default_slot, b->is_armed, b->version, b->board, b->device, b->trial);
	if (!b->at.under)
		mkdir("/run/kotobako", 0755);
	int fd = open(b->at.facts, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	const bool is_good = fd >= 0 && write(fd, text, (size_t)len) == len;
	if (!is_good)
		fprintf(stderr, "boot: %s: %s\n", b->at.facts, strerror(errno));
	if (fd >= 0)
		close(fd);
	return is_good;
}

// A slot that starts by itself: the variable is what counts, the file is for a firmware that forgets.
static int make_default(const struct kb_boot *b, int slot)
{
	char entry[KB_EFI_ENTRY_MAX], have[64] = "", conf[128], folder[KB_BOOT_PATH + 16];
	kb_efi_entry(slot, entry);
	if (kb_efi_set_text(b->at.vars, KB_EFI_DEFAULT, entry) ||
		kb_efi_get_text(b->at.vars, KB_EFI_DEFAULT, have, sizeof have) || strcmp(have, entry) != 0) {
		fprintf(stderr, "boot: %s cannot be made the one that starts by itself: %s\n", entry, strerror(errno));
		return -1;
	}
	kb_efi_delete(b->at.vars, KB_EFI_TRIAL);
	kb_efi_delete(b->at.vars, KB_EFI_RECOVERIES);
	if (kb_boot_mount(b, true) == 0) {
		const int len = kb_esp_conf(slot, conf, sizeof conf);
		snprintf(folder, sizeof folder, "%s/loader", b->at.esp);
		kb_esp_write(folder, "loader.conf", conf, (size_t)len);
		kb_boot_unmount(b);
	}
	return 0;
}

static int start(struct kb_boot *b)
{
	const bool was_known = b->default_slot >= 0;
	if (!was_known)
		b->default_slot = b->slot;
	// The daemon's user writes the slot that does not run; what lies there is proven when it is started.
	if (!b->at.under && chown(b->device, b->owner, b->owner))
		fprintf(stderr, "boot: %s: %s\n", b->device, strerror(errno));
	if (!write_facts(b))
		return KB_BOOT_FAILED;
	kb_boot_assert(b);
	char entry[64];
	if (kb_efi_get_text(b->at.vars, KB_EFI_DEFAULT, entry, sizeof entry) && make_default(b, b->default_slot))
		return KB_BOOT_FAILED;
	const int settled = os(b, "settle", NULL);
	switch (settled) {
	case KB_SETTLED_TRIAL:
		return KB_BOOT_TRIAL;
	case KB_SETTLED:
	case KB_SETTLED_RETURNED:
		kb_efi_delete(b->at.vars, KB_EFI_TRIAL);
		kb_efi_delete(b->at.vars, KB_EFI_RECOVERIES);
		return KB_BOOT_OK;
	case KB_SETTLED_ARM:
		return KB_BOOT_OK;
	default:
		fprintf(stderr, "boot: kotobako os settle ended with %d\n", settled);
		return KB_BOOT_FAILED;
	}
}

static int check(struct kb_boot *b)
{
	if (os(b, "check", NULL)) // it says why, and writes that down
		return KB_BOOT_RESTART;
	if (make_default(b, b->slot))
		return KB_BOOT_RESTART;
	b->default_slot = b->slot;
	write_facts(b); // for whoever asks while it runs
	return os(b, "proven", NULL) ? KB_BOOT_RESTART : KB_BOOT_OK;
}

// The kernel of the other slot, read back from the disk.
static int copy_kernel(const struct kb_boot *b, const char *staged)
{
	char entry[KB_EFI_ENTRY_MAX], folder[KB_BOOT_PATH + 16], path[KB_BOOT_PATH + 48];
	kb_efi_entry(1 - b->slot, entry);
	snprintf(folder, sizeof folder, "%s/EFI/Linux", b->at.esp);
	snprintf(path, sizeof path, "%s/%s", folder, entry);
	if (kb_boot_mount(b, true))
		return -1;
	int r = kb_esp_copy(staged, folder, entry);
	kb_boot_unmount(b);
	if (r || kb_boot_mount(b, false))
		return -1;
	r = kb_esp_same(staged, path) ? 0 : -1;
	if (r)
		fprintf(stderr, "boot: %s is not what was written\n", path);
	kb_boot_unmount(b);
	return r;
}

static int arm(struct kb_boot *b)
{
	char staged[KB_BOOT_PATH + 32], entry[KB_EFI_ENTRY_MAX];
	struct stat st;
	snprintf(staged, sizeof staged, "%s" STAGED, b->at.state);
	kb_efi_entry(1 - b->slot, entry);
	if (lstat(staged, &st) == 0 && copy_kernel(b, staged)) {
		os(b, "failed", "its kernel could not be written to the boot partition");
		return KB_BOOT_FAILED;
	}
	if (kb_efi_delete(b->at.vars, KB_EFI_TRIAL) || kb_efi_set_text(b->at.vars, KB_EFI_ONE_SHOT, entry)) {
		fprintf(stderr, "boot: %s cannot be started once: %s\n", entry, strerror(errno));
		os(b, "failed", "the firmware did not take that it is to be started once");
		return KB_BOOT_FAILED;
	}
	return os(b, "armed", NULL) ? KB_BOOT_FAILED : KB_BOOT_RESTART;
}

// Of a box, or of a folder that stands in for one.
static void set_paths(struct kb_boot_paths *at, const char *under)
{
	const char *top = under ? under : "";
	at->under = under;
	snprintf(at->vars, sizeof at->vars, "%s%s", top, under ? "/vars" : KB_EFI_VARS);
	snprintf(at->state, sizeof at->state, "%s/state", top);
	snprintf(at->cmdline, sizeof at->cmdline, "%s%s", top, under ? "/cmdline" : "/proc/cmdline");
	snprintf(at->facts, sizeof at->facts, "%s%s", top, under ? "/boot" : "/run/kotobako/boot");
	snprintf(at->esp, sizeof at->esp, "%s%s", top, under ? "/esp" : "/run/esp");
	snprintf(at->program, sizeof at->program, "%s%s", top, under ? "/kotobako" : "/usr/bin/kotobako");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(struct kb_boot *b);
	} words[] = {{"start", start}, {"check", check}, {"arm", arm}};
	static struct kb_boot b;
	const bool is_played = argc == 4 && strcmp(argv[1], "--under") == 0 && strlen(argv[2]) < KB_BOOT_PATH / 2;
	const char *word = argc == 2 ? argv[1] : is_played ? argv[3] : "";
	set_paths(&b.at, is_played ? argv[2] : NULL);
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(word, words[i].word) != 0)
			continue;
		if (!is_played && kb_efi_writable(b.at.vars, true))
			fprintf(stderr, "boot: the firmware's variables: %s\n", strerror(errno));
		const int status = kb_boot_look(&b) ? words[i].run(&b) : KB_BOOT_FAILED;
		if (!is_played)
			kb_efi_writable(b.at.vars, false);
		return status;
	}
	fprintf(
		stderr, "kotobako-boot [--under DIR] start|check|arm: slots and the firmware's variables; it is for PID 1\n");
	return KB_BOOT_USAGE;
}
