#include "efi/efi_var.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#define ATTRIBUTES 4u
static const uint8_t kept_for_good[ATTRIBUTES] = {7}; // non-volatile, boot services, run time

static int path_of(const char *vars, const char *name, char *ret, size_t size)
{
	const int n = snprintf(ret, size, "%s/%s", vars, name);
	if (n > 0 && (size_t)n < size)
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

/* see efi_var.h */
ssize_t kb_efi_get(const char *vars, const char *name, void *ret, size_t size)
{
	uint8_t bytes[ATTRIBUTES + KB_EFI_VALUE_MAX];
	char path[256];
	int fd = path_of(vars, name, path, sizeof path) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, bytes, sizeof bytes); // efivarfs gives a variable as a whole
	close(fd);
	if (n < (ssize_t)ATTRIBUTES || (size_t)n - ATTRIBUTES > size) {
		errno = n < 0 ? errno : EOVERFLOW;
		return -1;
	}
	memcpy(ret, bytes + ATTRIBUTES, (size_t)n - ATTRIBUTES);
	return n - (ssize_t)ATTRIBUTES;
}

// efivarfs protects what it does not know from a hasty rm.
static void make_mutable(const char *path)
{
	unsigned int flags = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_IMMUTABLE_FL)) {
		flags &= ~(unsigned int)FS_IMMUTABLE_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags); // where it does not go, the write says so
	}
	close(fd);
}

/* see efi_var.h */
int kb_efi_set(const char *vars, const char *name, const void *value, size_t len)
{
	uint8_t bytes[ATTRIBUTES + KB_EFI_VALUE_MAX], old[KB_EFI_VALUE_MAX];
	char path[256];
	if (len > KB_EFI_VALUE_MAX || path_of(vars, name, path, sizeof path))
		return -1;
	if (kb_efi_get(vars, name, old, sizeof old) == (ssize_t)len && memcmp(old, value, len) == 0)
		return 0;
	make_mutable(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	memcpy(bytes, kept_for_good, ATTRIBUTES);
	memcpy(bytes + ATTRIBUTES, value, len);
	const ssize_t n = write(fd, bytes, ATTRIBUTES + len);
	const int why = errno;
	// A plain file, as in tests, keeps what was longer before; efivarfs has no sizes to cut.
	const int cut = n == (ssize_t)(ATTRIBUTES + len) ? ftruncate(fd, n) : 0;
	(void)cut;
	close(fd);
	errno = why;
	return n == (ssize_t)(ATTRIBUTES + len) ? 0 : -1;
}

/* see efi_var.h */
int kb_efi_delete(const char *vars, const char *name)
{
	char path[256];
	if (path_of(vars, name, path, sizeof path))
		return -1;
	make_mutable(path);
	return unlink(path) && errno != ENOENT ? -1 : 0;
}

/* see efi_var.h */
int kb_efi_writable(const char *vars, bool writable)
{
	const unsigned long flags = MS_REMOUNT | MS_NODEV | MS_NOSUID | MS_NOEXEC;
	return mount(NULL, vars, NULL, flags | (writable ? 0 : MS_RDONLY), NULL);
}

/* see efi_var.h */
size_t kb_efi_utf16(const char *text, uint8_t *ret, size_t size)
{
	const size_t len = strlen(text) + 1;
	if (2 * len > size)
		return 0;
	for (size_t i = 0; i < len; i++) {
		ret[2 * i] = (uint8_t)text[i];
		ret[2 * i + 1] = 0;
	}
	return 2 * len;
}

/* see efi_var.h */
void kb_efi_ascii(const uint8_t *utf16, size_t len, char *ret, size_t size)
{
	size_t n = 0;
	for (size_t i = 0; i + 1 < len && n + 1 < size && (utf16[i] || utf16[i + 1]); i += 2)
		ret[n++] = utf16[i + 1] || utf16[i] < ' ' || utf16[i] > '~' ? '?' : (char)utf16[i];
	ret[n] = 0;
}

/* see efi_var.h */
int kb_efi_get_text(const char *vars, const char *name, char *ret, size_t size)
{
	uint8_t value[KB_EFI_VALUE_MAX];
	const ssize_t n = kb_efi_get(vars, name, value, sizeof value);
	if (n < 0)
		return -1;
	kb_efi_ascii(value, (size_t)n, ret, size);
	return 0;
}

/* see efi_var.h */
int kb_efi_set_text(const char *vars, const char *name, const char *text)
{
	uint8_t value[2 * KB_EFI_TEXT_MAX];
	const size_t n = kb_efi_utf16(text, value, sizeof value);
	if (n)
		return kb_efi_set(vars, name, value, n);
	errno = EOVERFLOW;
	return -1;
}

/* see efi_var.h */
void kb_efi_entry(int slot, char ret[static KB_EFI_ENTRY_MAX])
{
	snprintf(ret, KB_EFI_ENTRY_MAX, "app_%c.efi", slot ? 'b' : 'a');
}

/* see efi_var.h */
int kb_efi_slot(const char *entry)
{
	char name[KB_EFI_ENTRY_MAX];
	for (int slot = 0; slot < 2; slot++) {
		kb_efi_entry(slot, name);
		if (strcmp(entry, name) == 0)
			return slot;
	}
	return -1;
}
