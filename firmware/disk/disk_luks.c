/* see disk.h */
#include "firmware/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// The header's label is its mark: set last, when everything is in place.
#define LABEL "kb_state"
#define RECOVERY_SLOT 0
#define HEADERS_BYTES (1u << 20)          // LUKS2: two headers of at most 4 MiB, by default in the first 32 KiB
#define KEYS_BYTES (16u << 20)            // LUKS2: headers and key slots, by default
#define KEY_FILE "/run/kotobako-recovery" // memory; there while the TPM's slot is made
#define PCR_KEY "/run/systemd/tpm2-pcr-public-key.pem"

static const char mapped[] = "/dev/mapper/" KB_DISK_NAME;

static int fail(const char *what, int r)
{
	fprintf(stderr, "disk: %s: %s\n", what, strerror(r < 0 ? -r : r));
	return -1;
}

// Runs a program of the root, without a shell; its exit status 0 or not.
static int run(const char *const *argv)
{
	static char *const environment[] = {
		(char *)(unsigned long)"PATH=/usr/bin:/usr/sbin", (char *)(unsigned long)"LANG=C", NULL};
	pid_t pid = fork();
	if (pid == 0) {
		execve(argv[0], (char *const *)(unsigned long)argv, environment);
		_exit(127);
	}
	int status = 0;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	fprintf(stderr, "disk: %s ended with %d\n", argv[0], WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return -1;
}

int kb_disk_phase(const char *phase)
{
	return run((const char *const[]){"/usr/lib/systemd/systemd-pcrextend", phase, NULL});
}

static int write_key(const char *recovery)
{
	int fd = open(KEY_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	const size_t len = strlen(recovery);
	bool is_good = fd >= 0 && write(fd, recovery, len) == (ssize_t)len;
	if (fd >= 0)
		close(fd);
	return is_good ? 0 : fail(KEY_FILE, errno);
}

// The TPM gets a slot of its own, bound to kernels that our key has signed the measurement of, in place of any before.
// In two steps: a slot of another TPM for the same kernels would be taken for this one's.
static int enroll(const char *device, const char *recovery)
{
	int r = run((const char *const[]){"/usr/bin/systemd-cryptenroll", "--wipe-slot=tpm2", device, NULL});
	if (r || write_key(recovery))
		return -1;
	r = run((const char *const[]){"/usr/bin/systemd-cryptenroll", "--unlock-key-file=" KEY_FILE,
		"--tpm2-device=/dev/tpmrm0", "--tpm2-pcrs=", "--tpm2-public-key=" PCR_KEY, "--tpm2-public-key-pcrs=11", device,
		NULL});
	unlink(KEY_FILE);
	return r;
}

static int load(const char *device, struct crypt_device **ret)
{
	int r = crypt_init(ret, device);
	r = r ? r : crypt_load(*ret, CRYPT_LUKS2, NULL);
	if (r) {
		crypt_free(*ret);
		*ret = NULL;
	}
	return r;
}

static bool is_blank(const char *device)
{
	static unsigned char bytes[HEADERS_BYTES];
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, bytes, sizeof bytes) : -1;
	if (fd >= 0)
		close(fd);
	return n == (ssize_t)sizeof bytes && bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof bytes - 1) == 0;
}

enum kb_disk_state kb_disk_look(const char *device)
{
	struct crypt_device *cd = NULL;
	if (load(device, &cd)) // it repairs one header by the other
		return is_blank(device) ? KB_DISK_BLANK : KB_DISK_FOREIGN;
	const char *label = crypt_get_label(cd);
	bool is_made = label && strcmp(label, LABEL) == 0;
	crypt_free(cd);
	return is_made ? KB_DISK_MADE : KB_DISK_UNFINISHED;
}

// A random volume key, and one slot for the recovery key: 256 random bits want no costly derivation.
static int format(const char *device, const char *recovery)
{
	struct crypt_device *cd = NULL;
	const struct crypt_pbkdf_type pbkdf = {
		.type = CRYPT_KDF_PBKDF2, .hash = "sha512", .iterations = 1000, .flags = CRYPT_PBKDF_NO_BENCHMARK};
	struct crypt_params_luks2 params = {.sector_size = 4096, .pbkdf = &pbkdf};
	int r = crypt_init(&cd, device);
	r = r ? r : crypt_format(cd, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL, 64, &params);
	r = r ? r : crypt_set_pbkdf_type(cd, &pbkdf);
	if (r == 0)
		r = crypt_keyslot_add_by_volume_key(cd, RECOVERY_SLOT, NULL, 0, recovery, strlen(recovery));
	r = r == RECOVERY_SLOT
			? crypt_activate_by_passphrase(cd, KB_DISK_NAME, RECOVERY_SLOT, recovery, strlen(recovery), 0)
			: r;
	crypt_free(cd);
	return r == RECOVERY_SLOT ? 0 : fail(device, r);
}

static int mark(const char *device)
{
	struct crypt_device *cd = NULL;
	int r = load(device, &cd);
	r = r ? r : crypt_set_label(cd, LABEL, NULL);
	crypt_free(cd);
	return r ? fail(device, r) : 0;
}

int kb_disk_make(const char *device)
{
	unsigned char key[KB_RECOVERY_BYTES];
	char recovery[KB_RECOVERY_TEXT];
	if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
		return fail("random numbers", errno);
	kb_recovery_print(key, recovery);
	explicit_bzero(key, sizeof key);
	int r = format(device, recovery);
	r = r ? r : enroll(device, recovery);
	r = r ? r
		  : run((const char *const[]){
				"/usr/sbin/mke2fs", "-q", "-t", "ext4", "-O", "verity,^fast_commit", "-L", LABEL, mapped, NULL});
	r = r ? r : mark(device);
	if (r == 0)
		fprintf(stderr,
			"disk: the recovery key, shown this once; write it down and keep it away from the box:\ndisk:   %s\n",
			recovery);
	explicit_bzero(recovery, sizeof recovery);
	return r;
}

int kb_disk_open(const char *device)
{
	struct crypt_device *cd = NULL;
	int r = load(device, &cd);
	r = r ? r : crypt_activate_by_token_pin(cd, KB_DISK_NAME, "systemd-tpm2", CRYPT_ANY_TOKEN, NULL, 0, NULL, 0);
	crypt_free(cd);
	return r < 0 ? fail("the TPM does not open it", r) : 0;
}

int kb_disk_recover(const char *device, const char recovery[static KB_RECOVERY_TEXT])
{
	struct crypt_device *cd = NULL;
	int r = load(device, &cd);
	r = r ? r : crypt_activate_by_passphrase(cd, KB_DISK_NAME, CRYPT_ANY_SLOT, recovery, strlen(recovery), 0);
	crypt_free(cd);
	if (r < 0)
		return fail("the recovery key does not open it", r);
	if (enroll(device, recovery))
		fprintf(stderr, "disk: this TPM got no slot: the recovery key is wanted at the next start too\n");
	return 0;
}

// Zeros over everything before the data: a partition that was never made.
static int wipe(const char *device)
{
	static const unsigned char zeros[HEADERS_BYTES];
	int fd = open(device, O_WRONLY | O_CLOEXEC);
	bool is_good = fd >= 0;
	for (off_t at = 0; is_good && at < (off_t)KEYS_BYTES; at += HEADERS_BYTES)
		is_good = pwrite(fd, zeros, sizeof zeros, at) == (ssize_t)sizeof zeros;
	is_good = is_good && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return is_good ? 0 : fail(device, errno);
}

int kb_disk_destroy(const char recovery[static KB_RECOVERY_TEXT])
{
	struct crypt_device *cd = NULL;
	char device[256] = "";
	int r = crypt_init_by_name(&cd, KB_DISK_NAME);
	// Without a name it is only tried.
	r = r ? r : crypt_activate_by_passphrase(cd, NULL, RECOVERY_SLOT, recovery, strlen(recovery), 0);
	if (r == RECOVERY_SLOT) {
		snprintf(device, sizeof device, "%s", crypt_get_device_name(cd));
		const int slots = crypt_keyslot_max(CRYPT_LUKS2);
		for (int i = 0; i < slots; i++)
			if (crypt_keyslot_status(cd, i) >= CRYPT_SLOT_ACTIVE)
				(void)crypt_keyslot_destroy(cd, i);
	}
	crypt_free(cd);
	return r == RECOVERY_SLOT ? wipe(device) : fail("the recovery key is not this disk's", r);
}
