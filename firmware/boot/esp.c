#include "firmware/boot/esp.h"
#include "efi/efi_var.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 16 };

static int fail(const char *what)
{
	fprintf(stderr, "boot: %s: %s\n", what, strerror(errno));
	return -1;
}

static int put(int fd, const char *bytes, size_t len)
{
	while (len) {
		const ssize_t n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

// path.new, open for writing; what an earlier try left goes.
static int open_new(const char *folder, const char *name, char *ret_path, size_t size)
{
	snprintf(ret_path, size, "%s/%s.new", folder, name);
	unlink(ret_path);
	return open(ret_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

// Under its name, on the disk.
static int put_in_place(int fd, const char *path_new, const char *folder, const char *name)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const bool is_good = directory >= 0 && !fsync(fd) && !rename(path_new, path) && !fsync(fd) && !fsync(directory);
	if (directory >= 0)
		close(directory);
	return is_good ? 0 : -1;
}

static int copy(int from, int to)
{
	static char piece[PIECE];
	ssize_t n;
	while ((n = read(from, piece, sizeof piece)) != 0)
		if ((n < 0 && errno != EINTR) || (n > 0 && put(to, piece, (size_t)n)))
			return -1;
	return 0;
}

/* see esp.h */
int kb_esp_copy(const char *from, const char *folder, const char *name)
{
	char path[512] = "";
	struct stat st;
	int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (in < 0)
		return fail(from);
	int out = -1, r = -1;
	if (fstat(in, &st) || !S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > (off_t)KB_ESP_FILE_MAX)
		fprintf(stderr, "boot: %s: not a plain file of at most %u bytes\n", from, KB_ESP_FILE_MAX);
	else if ((out = open_new(folder, name, path, sizeof path)) < 0)
		fail(path);
	else if (copy(in, out) || put_in_place(out, path, folder, name))
		fail(path);
	else
		r = 0;
	if (out >= 0)
		close(out);
	if (r && path[0])
		unlink(path);
	close(in);
	return r;
}

/* see esp.h */
int kb_esp_write(const char *folder, const char *name, const void *bytes, size_t len)
{
	char path[512];
	int fd = open_new(folder, name, path, sizeof path);
	if (fd < 0)
		return fail(path);
	int r = put(fd, bytes, len) || put_in_place(fd, path, folder, name) ? fail(path) : 0;
	close(fd);
	if (r)
		unlink(path);
	return r;
}

/* see esp.h */
bool kb_esp_same(const char *a, const char *b)
{
	static char pieces[2][PIECE];
	int fd[2] = {open(a, O_RDONLY | O_CLOEXEC), open(b, O_RDONLY | O_CLOEXEC)};
	ssize_t n[2] = {1, 1};
	bool is_same = fd[0] >= 0 && fd[1] >= 0;
	while (is_same && n[0] > 0) {
		for (int i = 0; i < 2; i++)
			n[i] = read(fd[i], pieces[i], PIECE); // of files: short at the end only
		is_same = n[0] >= 0 && n[0] == n[1] && memcmp(pieces[0], pieces[1], (size_t)n[0]) == 0;
	}
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return is_same;
}

/* see esp.h */
int kb_esp_default(const char *conf)
{
	static const char key[] = "default ";
	for (const char *line = conf; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char entry[KB_EFI_ENTRY_MAX] = "";
		if (strncmp(line, key, sizeof key - 1) != 0)
			continue;
		const char *value = line + sizeof key - 1;
		const size_t len = strcspn(value, " \r\n");
		if (len < sizeof entry)
			memcpy(entry, value, len);
		return kb_efi_slot(entry);
	}
	return -1;
}

/* see esp.h */
int kb_esp_conf(int slot, char *ret, size_t size)
{
	char entry[KB_EFI_ENTRY_MAX];
	kb_efi_entry(slot, entry);
	return snprintf(ret, size, "timeout 0\neditor no\ndefault %s\n", entry);
}
