// kotobako-init: PID 1 in the initrd and in the root. See init.h.
#include "efi/efi_var.h"
#include "firmware/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char disk_path[] = "/usr/bin/kotobako-disk", mapped[] = "/dev/mapper/state";
static const char boot_path[] = "/usr/bin/kotobako-boot", own_path[] = "/usr/bin/kotobako-init";
enum { POLICY_MAX = 1 << 16 }; // bytes of what the stub leaves for the disk
static uid_t state_uid;        // nftw has no argument for it

static void must_mount(const char *from, const char *to, const char *type, unsigned long flags, const char *data)
{
	if (mount(from, to, type, flags, data))
		kb_init_die("mount %s on %s (%s): %s", from, to, type, strerror(errno));
}

static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

// What the stub put into the initrd: the signatures over measurements that open the disk, and the key they are of.
static void keep_policy(void)
{
	static const char *const names[] = {"tpm2-pcr-signature.json", "tpm2-pcr-public-key.pem"};
	static char text[POLICY_MAX];
	must_mount("tmpfs", "/root/run", "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=755,size=16m");
	mkdir("/root/run/systemd", 0755);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char from[64], to[64];
		snprintf(from, sizeof from, "/.extra/%s", names[i]);
		snprintf(to, sizeof to, "/root/run/systemd/%s", names[i]);
		ssize_t n = kb_init_read(from, text, sizeof text);
		int fd = n > 0 ? open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
		if (fd < 0 || write(fd, text, (size_t)n) != n)
			kb_init_say("%s: %s: the TPM will not open the disk", from, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
}

void kb_init_stage_initrd(void)
{
	static const struct mounted {
		const char *type, *at;
	} early[] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};
	for (size_t i = 0; i < sizeof early / sizeof *early; i++) {
		mkdir(early[i].at, 0755);
		must_mount(early[i].type, early[i].at, early[i].type, MS_NOSUID | MS_NOEXEC, NULL);
	}
	open_console();
	kb_init_say("stage initrd");
	char line[KB_INIT_TEXT_MAX] = "", text[256], name[64], device[64];
	struct kb_verity v;
	kb_init_load_modules("/modules.list");
	if (mount("efivarfs", KB_EFI_VARS, "efivarfs", MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_RDONLY, NULL))
		kb_init_say("the firmware's variables: %s", strerror(errno));
	const bool is_read = kb_init_read("/proc/cmdline", line, sizeof line) >= 0;
	if (kb_init_option(line, "kb.recovery", text, sizeof text) > 0)
		kb_init_stage_recovery();
	if (kb_init_trial_open(line))
		kb_init_say("stage trial: this system has to prove itself");
	kb_init_mark("its kernel started, its root was not verified");
	kb_init_watchdog_open();
	if (!is_read || kb_init_option(line, "kb.verity", text, sizeof text) < 0 || kb_init_parse_verity(text, &v) ||
		kb_init_option(line, "kb.root", name, sizeof name) < 0)
		kb_init_die("the command line has no kb.root= and kb.verity=: this kernel was not packed by the image's build");
	if (kb_init_find_partition(name, 20000, device, sizeof device))
		kb_init_die("no disk has a partition named %s", name);
	if (kb_init_open_verity(&v, device))
		kb_init_die("dm-verity over %s: %s", device, strerror(errno));
	mkdir("/root", 0755);
	if (mount("/dev/dm-0", "/root", "erofs", MS_RDONLY | MS_NODEV | MS_NOSUID, NULL))
		kb_init_die("the root on %s does not mount: %s (it is not the one that this kernel was signed with)", device,
			strerror(errno));
	kb_init_say("stage verity: %s on %s", name, device);
	kb_init_mark("its root was verified, its services did not start");
	for (size_t i = 0; i < sizeof early / sizeof *early; i++) {
		char to[32];
		snprintf(to, sizeof to, "/root%s", early[i].at);
		must_mount(early[i].at, to, NULL, MS_MOVE, NULL);
	}
	keep_policy();
	// What the initrd held is freed: the program is in the root as well.
	unlink("/init");
	unlink("/modules.list");
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		kb_init_die("moving into the root: %s", strerror(errno));
	execl(own_path, own_path, "root", (char *)NULL);
	kb_init_die("%s: %s", own_path, strerror(errno));
}

static int give(const char *path, const struct stat *s, int type, struct FTW *f)
{
	(void)type, (void)f;
	if (s->st_uid != state_uid && lchown(path, state_uid, state_uid))
		kb_init_say("%s: %s", path, strerror(errno));
	return 0;
}

// Runs a program as root and waits for it; its exit status. That may take as long as a person needs to find a key.
static int run(const char *path, const char *word, const char *argument)
{
	int status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		execl(path, path, word, argument, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		kb_init_die("fork: %s", strerror(errno));
	const int trial_s = kb_init_trial_seconds();
	const int64_t until = kb_init_now() + trial_s * INT64_C(1000);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (trial_s && kb_init_now() > until)
			kb_init_die("%s %s did not come back within %d s", path, word, trial_s);
		kb_init_watchdog_feed();
		usleep(20000);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// The state partition belongs to the service that keeps it: a fresh one was made by the image's build, as root.
static void mount_state(uid_t uid)
{
	char device[64];
	if (kb_init_find_partition("state", 5000, device, sizeof device))
		kb_init_die("no disk has a partition named state");
	const int status = run(disk_path, "open", device);
	if (status)
		kb_init_die("%s open %s ended with %d: see above", disk_path, device, status);
	must_mount(mapped, "/state", "ext4", MS_NODEV | MS_NOSUID | MS_NOEXEC, "errors=panic");
	state_uid = uid;
	nftw("/state", give, 8, FTW_PHYS | FTW_MOUNT);
	chmod("/state", 0700);
	kb_init_say("stage state: %s", device);
}

// Which slot this start is of, and what is to be done about it: kotobako-boot knows. Seconds of a trial, or 0.
static int settle(void)
{
	const int status = run(boot_path, "start", NULL);
	if (status == KB_INIT_EXIT_TRIAL)
		return kb_init_trial_seconds() ? kb_init_trial_seconds() : KB_INIT_TRIAL_S;
	if (status)
		kb_init_say("%s start ended with %d: updates of the system are not possible", boot_path, status);
	kb_init_trial_close();
	return 0;
}

static void see_to_clock(void)
{
	const int64_t forward = kb_init_clock_floor();
	if (forward)
		kb_init_say("the clock was %lld s behind what this box has seen: it was put forward", (long long)forward);
}

void kb_init_stage_root(void)
{
	static char text[KB_INIT_TEXT_MAX];
	static struct kb_service services[KB_INIT_SERVICES_MAX];
	char line[KB_INIT_TEXT_MAX], lockdown[128];
	unsigned wrong;
	must_mount("tmpfs", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=1777,size=64m");
	kb_init_groups_open();
	mount("securityfs", "/sys/kernel/security", "securityfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL);
	kb_init_load_modules("/usr/lib/kotobako/modules.list");
	kb_init_watchdog_open();
	// From here on nothing can be loaded into the kernel, not even by root.
	if (kb_init_write("/proc/sys/kernel/modules_disabled", "1"))
		kb_init_say("modules cannot be closed: %s", strerror(errno));
	if (kb_init_read("/sys/kernel/security/lockdown", lockdown, sizeof lockdown) > 0) {
		lockdown[strcspn(lockdown, "\n")] = 0;
		kb_init_say("lockdown: %s", lockdown);
	}
	kb_init_say("tpm: %s", access("/dev/tpmrm0", F_OK) ? "none" : "there");
	if (kb_init_read("/etc/kotobako/services", text, sizeof text) < 0)
		kb_init_die("/etc/kotobako/services: %s", strerror(errno));
	int n = kb_init_parse_services(text, services, &wrong);
	if (n <= 0)
		kb_init_die("/etc/kotobako/services:%u is not NAME UID WHEN COMMAND", wrong);
	if (kb_init_read("/proc/cmdline", line, sizeof line) < 0)
		line[0] = 0;
	kb_init_trial_open(line);
	mount_state(services[0].uid);
	see_to_clock();
	// What kotobako-disk may have left for it.
	mkdir("/run/kotobako", 0755);
	if (chown("/run/kotobako", services[0].uid, services[0].uid))
		kb_init_say("/run/kotobako: %s", strerror(errno));
	// The daemon counts in the TPM what must not be taken back; the screen is drawn under its user.
	static const char *const devices[] = {"/dev/tpmrm0", "/dev/tty1"};
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
		if (chown(devices[i], services[0].uid, services[0].uid) && errno != ENOENT)
			kb_init_say("%s: %s", devices[i], strerror(errno));
	const int trial_s = settle();
	if (kb_init_loopback_up())
		kb_init_say("lo: %s", strerror(errno));
	kb_init_mark("its services started, it did not prove itself");
	kb_init_supervise(services, n, trial_s);
}

int main(int argc, char **argv)
{
	if (getpid() != 1) {
		fprintf(stderr, "kotobako-init is PID 1 of the box's image; it does nothing elsewhere\n");
		return 2;
	}
	if (argc == 2 && strcmp(argv[1], "root") == 0)
		kb_init_stage_root();
	kb_init_stage_initrd();
}
