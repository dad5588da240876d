// Every op on the reference and on Vulkan. TAP. Without arguments in the environment it runs itself for each row of
// `configs`, in a process of its own, because the driver reads its vector width once.
//   KB_CHECKOP_PATH=universal|tuned|stream|auto  one run in this process
//   KB_CHECKOP_QUICK=1                    fewer shapes
//   KB_CHECKOP_LAYERS=1                   validation layers on
//   KB_CHECKOP_OP=matmul                  only this
//   KB_CHECKOP_BENCH=1                    speeds instead of checks
//   KB_DEVICE=index or name               which device
#include "unit/op/checkop.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct config {
	const char *path, *bits, *layers, *quick;
} configs[] = {
	{"tuned", "256", "1", "0"},
	{"tuned", "128", "0", "1"},
	{"tuned", "512", "0", "1"},
	{"universal", "256", "0", "0"},
	{"stream", "256", "0", "0"},
};

static void on_message(void *ctx, const char *text)
{
	(void)ctx;
	printf("# validation: %s\n", text);
}

static bool is_set(const char *name)
{
	const char *v = getenv(name);
	return v && *v && strcmp(v, "0") != 0;
}

static enum kb_op_vk_path path_of(const char *name)
{
	static const char *const names[] = {
		[KB_OP_VK_UNIVERSAL] = "universal", [KB_OP_VK_TUNED] = "tuned", [KB_OP_VK_STREAM] = "stream"};
	for (int i = KB_OP_VK_UNIVERSAL; i <= KB_OP_VK_STREAM; i++)
		if (!strcmp(name, names[i]))
			return (enum kb_op_vk_path)i;
	return KB_OP_VK_AUTO;
}

// One run in this process. Returns the exit status; counts go to `fd` for the parent.
static int run_here(const char *path, unsigned number, int fd)
{
	struct kb_err err = {0};
	struct kb_op_vk_options vo = {.path = path_of(path),
		.device = getenv("KB_DEVICE"),
		.validate = is_set("KB_CHECKOP_LAYERS"),
		.profile = is_set("KB_CHECKOP_BENCH"),
		.message = on_message};
	struct checkop o = {.number = number, .quick = is_set("KB_CHECKOP_QUICK")};
	char title[96];
	if (kb_op_ref_create(&err, &o.ref) != KB_OK || kb_op_vk_create(&vo, &err, &o.vk) != KB_OK) {
		printf("not ok %u - [%s] device\n# %s\n", ++number, path, err.text);
		if (o.ref)
			o.ref->ops->destroy(o.ref);
		return 1;
	}
	const struct kb_vk_caps *caps = kb_op_vk_caps(o.vk);
	snprintf(title, sizeof title, "%s, subgroup %u%s", caps->path, caps->subgroup, vo.validate ? ", layers" : "");
	o.title = title;
	printf("# %s: %s\n", title, o.vk->device);
	if (vo.profile) {
		o.failures = (unsigned)(bench(o.vk) != 0);
	} else {
		check_all(&o, getenv("KB_CHECKOP_OP"));
		printf("%s %u - [%s] %u validation messages\n", kb_op_vk_messages(o.vk) ? "not ok" : "ok", ++o.number, title,
			kb_op_vk_messages(o.vk));
		o.failures += kb_op_vk_messages(o.vk) != 0;
	}
	o.vk->ops->destroy(o.vk);
	o.ref->ops->destroy(o.ref);
	fflush(stdout);
	if (fd >= 0 && write(fd, &o.number, sizeof o.number) != sizeof o.number)
		return 1;
	return o.failures != 0;
}

// A child that is run by exec, so that the driver starts anew.
static int run_child(const struct config *c, const char *self, unsigned *number)
{
	int fds[2], status = 1;
	char fd[16], start[16];
	if (pipe(fds))
		return 1;
	snprintf(fd, sizeof fd, "%d", fds[1]);
	snprintf(start, sizeof start, "%u", *number);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		setenv("KB_CHECKOP_PATH", c->path, 1);
		setenv("KB_CHECKOP_LAYERS", c->layers, 1);
		setenv("KB_CHECKOP_QUICK", c->quick, 1);
		setenv("KB_CHECKOP_FD", fd, 1);
		setenv("KB_CHECKOP_START", start, 1);
		setenv("LP_NATIVE_VECTOR_WIDTH", c->bits, 1);
		execl(self, self, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	unsigned reached = 0;
	bool told = read(fds[0], &reached, sizeof reached) == sizeof reached;
	close(fds[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !told) {
		printf("not ok %u - [%s %s bits] ended early with status %#x\n", ++*number, c->path, c->bits, (unsigned)status);
		return 1;
	}
	*number = reached;
	return status != 0;
}

int main(int argc, char **argv)
{
	const char *path = getenv("KB_CHECKOP_PATH"), *fd = getenv("KB_CHECKOP_FD"), *start = getenv("KB_CHECKOP_START");
	unsigned number = 0;
	int bad = 0;
	(void)argc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (path || is_set("KB_CHECKOP_BENCH")) {
		number = start ? (unsigned)strtoul(start, NULL, 10) : 0;
		bad = run_here(path ? path : "auto", number, fd ? (int)strtol(fd, NULL, 10) : -1);
		return bad;
	}
	for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
		bad |= run_child(&configs[i], argv[0], &number);
	printf("1..%u\n", number);
	return bad;
}
