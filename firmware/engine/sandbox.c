#include "firmware/engine/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// --- landlock -----------------------------------------------------------------
// https://docs.kernel.org/userspace-api/landlock.html; there is no libc wrapper.

enum {
	FILE_READ = LANDLOCK_ACCESS_FS_READ_FILE,
	FILE_WRITE = FILE_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE | LANDLOCK_ACCESS_FS_IOCTL_DEV,
	TREE_READ = FILE_READ | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE, // EXECUTE: dlopen maps code
	TREE_WRITE = TREE_READ | FILE_WRITE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |
				 LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REFER,
	NOT_FOR_FILES = LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |
					LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REFER,
};

static const struct {
	const char *path;
	uint64_t access;
} system_paths[] = {
	{"/usr", TREE_READ}, // libraries, ICD manifests
	{"/lib", TREE_READ},
	{"/lib64", TREE_READ},
	{"/etc", TREE_READ},
	{"/proc", TREE_READ},
	{"/sys", TREE_READ},
	{"/run/opengl-driver", TREE_READ},
	{"/dev/null", FILE_WRITE},
	{"/dev/dri", TREE_READ | FILE_WRITE},
	{"/dev/nvidiactl", FILE_WRITE},
	{"/dev/nvidia0", FILE_WRITE},
	{"/dev/nvidia1", FILE_WRITE},
	{"/dev/nvidia2", FILE_WRITE},
	{"/dev/nvidia3", FILE_WRITE},
	{"/dev/nvidia4", FILE_WRITE},
	{"/dev/nvidia5", FILE_WRITE},
	{"/dev/nvidia6", FILE_WRITE},
	{"/dev/nvidia7", FILE_WRITE},
	{"/dev/nvidia-uvm", FILE_WRITE},
	{"/dev/nvidia-caps", TREE_READ | FILE_WRITE},
	{"/dev/nvidia-modeset", FILE_WRITE},
};

// What is missing on this machine needs no rule.
static int landlock_allow(int ruleset, const char *path, uint64_t access, uint64_t handled)
{
	struct stat st;
	int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return 0;
	int rc = -1;
	if (fstat(fd, &st) == 0) {
		if (!S_ISDIR(st.st_mode))
			access &= ~(uint64_t)NOT_FOR_FILES;
		struct landlock_path_beneath_attr rule = {.allowed_access = access & handled, .parent_fd = fd};
		rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	}
	close(fd);
	return rc;
}

// Accesses that ABI version abi knows: naming a newer one is EINVAL.
static struct landlock_ruleset_attr landlock_attr(long abi)
{
	struct landlock_ruleset_attr attr = {.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
	if (abi >= 2)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (abi >= 4)
		attr.handled_access_net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP;
	if (abi >= 5)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	if (abi >= 6)
		attr.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL;
	return attr;
}

static int landlock_begin(struct kb_sandbox *s, struct kb_err *err)
{
	s->has_landlock = false;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return 0; // kernel without landlock
	struct landlock_ruleset_attr attr = landlock_attr(abi);
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (ruleset < 0)
		return kb_fail(err, KB_EIO, "landlock: creating the rules: %s", strerror(errno));
	int rc = 0;
	for (size_t i = 0; i < sizeof system_paths / sizeof *system_paths && rc == 0; i++)
		rc = landlock_allow(ruleset, system_paths[i].path, system_paths[i].access, attr.handled_access_fs);
	if (rc == 0 && s->image)
		rc = landlock_allow(ruleset, s->image, FILE_READ, attr.handled_access_fs);
	if (rc == 0 && s->cache_dir)
		rc = landlock_allow(ruleset, s->cache_dir, TREE_WRITE, attr.handled_access_fs);
	if (rc == 0)
		rc = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
	int number = errno;
	close(ruleset);
	if (rc)
		return kb_fail(err, KB_EIO, "landlock: %s", strerror(number));
	s->has_landlock = true;
	return 0;
}

// Most of the machine's memory is this process's, and it can be started again: where memory is short it goes first
// (proc(5)).
static void go_first(void)
{
	static const char adjust[] = "500";
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = write(fd, adjust, sizeof adjust - 1);
	(void)n;
	close(fd);
}

int kb_sandbox_begin(struct kb_sandbox *s, struct kb_err *err)
{
	const struct rlimit none = {0, 0};
	go_first(); // before it is not dumpable: /proc/self is root's then
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return kb_fail(err, KB_EIO, "switching core dumps off: %s", strerror(errno));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return kb_fail(err, KB_EIO, "no_new_privs: %s", strerror(errno));
	return landlock_begin(s, err);
}

// --- seccomp ------------------------------------------------------------------

// System calls that need no look at their arguments: they act on memory, threads and descriptors that are there.
static const int allowed[] = {
	// descriptors
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(pread64),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(pwrite64),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendmsg),
	SCMP_SYS(shutdown),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(statx),
	SCMP_SYS(lseek),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(flock),
	SCMP_SYS(fcntl),
	SCMP_SYS(dup),
	SCMP_SYS(pipe2),
	SCMP_SYS(eventfd2),
	SCMP_SYS(memfd_create),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(select),
	SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	// memory: executable too, since lavapipe compiles shaders to machine code
	SCMP_SYS(mmap),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(mprotect),
	SCMP_SYS(madvise),
	SCMP_SYS(mincore),
	SCMP_SYS(msync),
	SCMP_SYS(brk),
	SCMP_SYS(membarrier),
	SCMP_SYS(get_mempolicy),
	// threads and signals
	SCMP_SYS(futex),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(set_tid_address),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_setaffinity),
	SCMP_SYS(sched_getparam),
	SCMP_SYS(sched_getscheduler),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(getcpu),
	// time and facts
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	SCMP_SYS(uname),
	SCMP_SYS(sysinfo),
	SCMP_SYS(getrusage),
	SCMP_SYS(getrlimit),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
};

static int allow(scmp_filter_ctx f, int call, struct scmp_arg_cmp arg)
{
	return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, call, 1, &arg);
}

static int allow_with_arguments(scmp_filter_ctx f, bool has_nvidia)
{
	int rc = 0;
	// Threads of this process only; glibc falls back to clone when clone3, whose flags lie in memory, is missing.
	rc |= allow(f, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
	rc |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	// abort() and pthread_cancel(): signals to ourselves.
	rc |= allow(f, SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
	rc |= allow(f, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
	rc |= allow(f, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA, 0));
	rc |= allow(f, SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0, 0)); // asking, not setting
	// Device control by the driver's letter: DRM, its fences, NVIDIA's.
	rc |= allow(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, 'd' << 8));
	rc |= allow(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, '>' << 8));
	rc |= allow(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO, 0));
	rc |= allow(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIOCLEX, 0));
	if (has_nvidia) {
		rc |= allow(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, 'F' << 8));
		rc |= allow(
			f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, ~(scmp_datum_t)0xff, 0)); // nvidia-uvm's plain numbers
	}
	return rc;
}

int kb_sandbox_close(bool has_nvidia, struct kb_err *err)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!f)
		return kb_fail(err, KB_ENOMEM, "seccomp: out of memory");
	int rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1); // the driver's threads too
	for (size_t i = 0; i < sizeof allowed / sizeof *allowed && rc == 0; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (rc == 0)
		rc = allow_with_arguments(f, has_nvidia);
	if (rc == 0)
		rc = seccomp_load(f);
	seccomp_release(f);
	if (rc)
		return kb_fail(err, KB_EIO, "seccomp: %s", strerror(rc < 0 ? -rc : EINVAL));
	return 0;
}
