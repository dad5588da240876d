// What this start is: the command line, the firmware's variables, the disk's partitions. See boot.h.
#include "efi/boot_entry.h"
#include "firmware/boot/boot.h"
#include "firmware/boot/esp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX = 8192 };

static ssize_t read_text(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, ret, size - 1) : -1;
	if (fd >= 0)
		close(fd);
	ret[n > 0 ? n : 0] = 0;
	return n;
}

/* see boot.h */
int kb_boot_option(const char *text, const char *key, char *ret, size_t size)
{
	const size_t key_len = strlen(key);
	for (const char *at = text; *(at += strspn(at, " \t\n"));) {
		const size_t len = strcspn(at, " \t\n");
		if (len > key_len && len - key_len - 1 < size && memcmp(at, key, key_len) == 0 && at[key_len] == '=') {
			memcpy(ret, at + key_len + 1, len - key_len - 1);
			ret[len - key_len - 1] = 0;
			return (int)(len - key_len - 1);
		}
		at += len;
	}
	return -1;
}

// The block device whose uevent has KEY=value; "vda2".
static bool find_block(const char *key, const char *value, char *ret, size_t size)
{
	DIR *d = opendir("/sys/class/block");
	bool is_found = false;
	for (struct dirent *e; d && !is_found && (e = readdir(d));) {
		char path[320], text[1024], have[64];
		snprintf(path, sizeof path, "/sys/class/block/%s/uevent", e->d_name);
		if (e->d_name[0] == '.' || read_text(path, text, sizeof text) <= 0)
			continue;
		if (kb_boot_option(text, key, have, sizeof have) >= 0 && strcmp(have, value) == 0)
			is_found = snprintf(ret, size, "%s", e->d_name) < (int)size;
	}
	if (d)
		closedir(d);
	return is_found;
}

/* see boot.h */
int kb_boot_mount(const struct kb_boot *b, bool writable)
{
	char name[32], device[48];
	if (b->at.under)
		return 0;
	if (!find_block("PARTNAME", "esp", name, sizeof name)) {
		fprintf(stderr, "boot: no disk has a partition named esp\n");
		return -1;
	}
	snprintf(device, sizeof device, "/dev/%s", name);
	mkdir(b->at.esp, 0700);
	const unsigned long flags = MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOSYMFOLLOW;
	if (mount(device, b->at.esp, "vfat", flags | (writable ? 0 : MS_RDONLY), "umask=077") == 0)
		return 0;
	fprintf(stderr, "boot: %s: %s\n", device, strerror(errno));
	return -1;
}

/* see boot.h */
void kb_boot_unmount(const struct kb_boot *b)
{
	if (!b->at.under && umount2(b->at.esp, 0))
		fprintf(stderr, "boot: %s: %s\n", b->at.esp, strerror(errno));
}

// Where the firmware has forgotten it, the file on the boot partition says what starts by itself.
static int default_of_file(const struct kb_boot *b)
{
	char text[1024], path[KB_BOOT_PATH + 32];
	int slot = -1;
	snprintf(path, sizeof path, "%s/loader/loader.conf", b->at.esp);
	if (kb_boot_mount(b, false))
		return -1;
	if (read_text(path, text, sizeof text) > 0)
		slot = kb_esp_default(text);
	kb_boot_unmount(b);
	return slot;
}

// Where the root of the other slot lies.
static bool find_other(struct kb_boot *b)
{
	char other[16], name[32] = "";
	snprintf(other, sizeof other, "root_%c", b->slot ? 'a' : 'b');
	if (b->at.under)
		return snprintf(b->device, sizeof b->device, "%s/slot_%s", b->at.under, other + 5) < (int)sizeof b->device;
	if (!find_block("PARTNAME", other, name, sizeof name)) {
		fprintf(stderr, "boot: no disk has a partition named %s\n", other);
		return false;
	}
	snprintf(b->device, sizeof b->device, "/dev/%s", name);
	return true;
}

/* see boot.h */
bool kb_boot_look(struct kb_boot *b)
{
	static char line[TEXT_MAX];
	char root[16] = "", entry[64] = "";
	struct stat st;
	if (read_text(b->at.cmdline, line, sizeof line) <= 0 || kb_boot_option(line, "kb.root", root, sizeof root) < 0 ||
		(strcmp(root, "root_a") != 0 && strcmp(root, "root_b") != 0) ||
		kb_boot_option(line, "kb.version", b->version, sizeof b->version) < 0 ||
		kb_boot_option(line, "kb.board", b->board, sizeof b->board) < 0) {
		fprintf(
			stderr, "boot: the command line does not say slot, version and board (kb.root, kb.version, kb.board)\n");
		return false;
	}
	const char *vars = b->at.vars;
	b->slot = root[5] == 'b';
	b->default_slot =
		kb_efi_get_text(vars, KB_EFI_DEFAULT, entry, sizeof entry) == 0 ? kb_efi_slot(entry) : default_of_file(b);
	b->is_armed = kb_efi_get_text(vars, KB_EFI_ONE_SHOT, entry, sizeof entry) == 0 && kb_efi_slot(entry) == 1 - b->slot;
	if (kb_efi_get_text(vars, KB_EFI_TRIAL, b->trial, sizeof b->trial))
		b->trial[0] = 0;
	if (!find_other(b))
		return false;
	if (stat(b->at.state, &st)) {
		fprintf(stderr, "boot: %s: %s\n", b->at.state, strerror(errno));
		return false;
	}
	b->owner = st.st_uid;
	return true;
}

static bool read_number(const char *block, const char *file, uint64_t *ret)
{
	char path[128], text[32], *end;
	snprintf(path, sizeof path, "/sys/class/block/%s/%s", block, file);
	if (read_text(path, text, sizeof text) <= 0)
		return false;
	*ret = strtoull(text, &end, 10);
	return end != text;
}

// The partition that systemd-boot was started from, as the firmware's load options name it.
static bool look_at_esp(const struct kb_boot *b, struct kb_efi_partition *ret)
{
	char guid[64], name[32];
	uint64_t number, start, size, block = 512; // sysfs counts in 512 bytes, the table in blocks of the disk
	if (kb_efi_get_text(b->at.vars, KB_EFI_ESP, guid, sizeof guid) ||
		!find_block("PARTNAME", "esp", name, sizeof name) || kb_efi_guid(guid, ret->guid) ||
		!read_number(name, "partition", &number) || !read_number(name, "start", &start) ||
		!read_number(name, "size", &size))
		return false;
	if (!read_number(name, "../queue/logical_block_size", &block) || block < 512)
		block = 512;
	ret->number = (uint32_t)number;
	ret->start = start * 512 / block;
	ret->blocks = size * 512 / block;
	return true;
}

/* see boot.h */
void kb_boot_assert(const struct kb_boot *b)
{
	static const struct kb_efi_boot ours[] = {
		{"Kotobako", "\\EFI\\BOOT\\BOOTX64.EFI"}, {"Kotobako recovery", "\\EFI\\kotobako\\recovery.efi"}};
	struct kb_efi_partition esp;
	if (b->at.under)
		return; // a folder is no partition
	int n = look_at_esp(b, &esp) ? kb_efi_assert_boot(b->at.vars, ours, sizeof ours / sizeof *ours, &esp) : -1;
	if (n < 0)
		fprintf(stderr, "boot: the firmware's boot order could not be set: %s\n", strerror(errno));
	else if (n)
		fprintf(stderr, "boot: %d of the firmware's boot entries were brought up to date\n", n);
}
