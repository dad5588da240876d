// kotobako bench and doctor: the engine does the work, so that this program needs no Vulkan.
#include "firmware/ctl/box.h"
#include "net/x509.h"
#include "storage/store.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENGINE "kotobako-engine"

extern char **environ;

// Beside this program, else by PATH. free() it.
static char *engine_path(void)
{
	char own[4096];
	ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
	char *slash = n > 0 ? memrchr(own, '/', (size_t)n) : NULL;
	if (slash) {
		*slash = 0;
		char *beside = kb_ctl_path(own, ENGINE);
		if (beside && access(beside, X_OK) == 0)
			return beside;
		free(beside);
	}
	return strdup(ENGINE);
}

// Runs the engine in the foreground; Ctrl-C reaches it too, as a member of the terminal's group.
static int run_engine(const char *const *argv)
{
	pid_t pid;
	int how = 0;
	char *path = engine_path();
	fflush(stdout);
	int r = path ? posix_spawnp(&pid, path, NULL, NULL, (char *const *)(uintptr_t)argv, environ) : ENOMEM;
	free(path);
	if (r)
		return kb_ctl_fail(
			KB_CTL_FAILED, "starting " ENGINE ": %s (it belongs beside kotobako, or in PATH)", strerror(r));
	while (waitpid(pid, &how, 0) < 0)
		if (errno != EINTR)
			return kb_ctl_fail(KB_CTL_FAILED, "waiting for " ENGINE ": %s", strerror(errno));
	if (WIFSIGNALED(how))
		return kb_ctl_fail(
			KB_CTL_FAILED, ENGINE " was ended by signal %d (%s)", WTERMSIG(how), strsignal(WTERMSIG(how)));
	return WEXITSTATUS(how) ? KB_CTL_FAILED : KB_CTL_OK;
}

// The image that is meant: --image, the named model, the only model. KB_ENOTFOUND with a text; free() *ret.
static int find_image(
	const struct kb_ctl *ctl, const char *image, const struct kb_ctl_args *args, char **ret, struct kb_err *err)
{
	if (image && args->n > 0)
		return kb_fail(err, KB_EARG, "a model's name and --image exclude each other");
	if (image) {
		*ret = strdup(image);
		return *ret ? 0 : kb_fail(err, KB_ENOMEM, "out of memory");
	}
	if (args->n > 0)
		return kb_ctl_model_path(ctl, args->arg[0], err, ret);
	struct kb_model_list list = {0};
	struct kb_state *state = NULL;
	int r = kb_ctl_state(ctl, true, err, &state);
	r = r ? r : kb_store_list(state, ctl->models, err, &list);
	kb_state_close(state);
	if (r == 0) {
		if (list.n != 1)
			r = kb_fail(
				err, KB_ENOTFOUND, "there are %u models in %s: name one, or give --image FILE", list.n, ctl->models);
		else if (!(*ret = strdup(list.models[0].path)))
			r = kb_fail(err, KB_ENOMEM, "out of memory");
	}
	kb_model_list_finish(&list);
	return r;
}

int kb_ctl_bench(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_value *o = args->option;
	struct kb_err err = {0};
	char *image = NULL;
	if (find_image(ctl, o[KB_BENCH_IMAGE].text, args, &image, &err))
		return kb_ctl_fail(err.code == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	const char *argv[16] = {ENGINE, "--bench", image};
	int n = 3;
	if (o[KB_BENCH_PROMPT].is_set) {
		argv[n++] = "--prompt";
		argv[n++] = o[KB_BENCH_PROMPT].text;
	}
	if (o[KB_BENCH_DECODE].is_set) {
		argv[n++] = "--decode";
		argv[n++] = o[KB_BENCH_DECODE].text;
	}
	if (o[KB_BENCH_JSON].is_set)
		argv[n++] = "--json";
	int status = run_engine(argv);
	free(image);
	return status;
}

// --- doctor: each check prints its line and says whether it is well
enum health { WELL, NOTE, ILL };

static enum health say(enum health h, const char *what, const char *text)
{
	static const char *const marks[] = {"ok  ", "note", "BAD "};
	printf("%s  %-12s %s\n", marks[h], what, text);
	return h;
}

static enum health check_state(const struct kb_ctl *ctl)
{
	struct stat st;
	char text[KB_ERR_TEXT_MAX];
	if (stat(ctl->state, &st)) {
		snprintf(text, sizeof text, "%s: %s; kotobakod or an import makes it", ctl->state, strerror(errno));
		return say(errno == ENOENT ? NOTE : ILL, "state", text);
	}
	bool is_open = (st.st_mode & 077) != 0;
	snprintf(text, sizeof text, is_open ? "%s: others may enter (mode %o); chmod 700 it" : "%s (mode %o)", ctl->state,
		st.st_mode & 07777);
	return say(!S_ISDIR(st.st_mode) ? ILL : is_open ? NOTE : WELL, "state", text);
}

static enum health check_models(const struct kb_ctl *ctl)
{
	struct kb_err err = {0};
	struct kb_model_list list = {0};
	struct kb_state *state = NULL;
	char text[KB_ERR_TEXT_MAX];
	bool is_signed = false;
	int r = kb_ctl_state(ctl, true, &err, &state);
	r = r ? r : kb_store_is_signed(state, &err, &is_signed);
	r = r ? r : kb_store_list(state, ctl->models, &err, &list);
	kb_state_close(state);
	if (r)
		return say(ILL, "models", err.text);
	enum health h = list.n ? WELL : NOTE;
	snprintf(text, sizeof text, "%u %sin %s%s", list.n, is_signed ? "signed ones " : "", ctl->models,
		list.n      ? ""
		: is_signed ? ": kotobako model install FILE"
					: ": kotobako import FILE.gguf");
	for (uint32_t i = 0; i < list.n; i++) {
		if (!list.models[i].error.code)
			continue;
		h = ILL;
		snprintf(text, sizeof text, "%s", list.models[i].error.text);
	}
	kb_model_list_finish(&list);
	return say(h, "models", text);
}

// Asks path of c, quietly.
static int ask_quietly(struct kb_http_client *c, const char *path, struct kb_err *err)
{
	struct kb_http_reply reply;
	struct kb_http_call call = {.method = "GET", .path = path, .idle_ms = 10000, .interrupt = &kb_ctl_interrupted};
	int r = kb_http_client_call(c, &call, &reply, err);
	if (r == 0 && reply.status != 200) {
		char text[KB_ERR_TEXT_MAX];
		kb_ctl_error_text(reply.status, (const char *)reply.body.data, reply.body.len, text);
		r = kb_fail(err, KB_EIO, "%s", text);
	}
	kb_buf_finish(&reply.body);
	return r;
}

static enum health check_daemon(const struct kb_ctl *ctl)
{
	struct kb_http_client *admin = NULL;
	struct kb_err err = {0};
	if (kb_ctl_admin_open(ctl, &admin))
		return ILL;
	int r = ask_quietly(admin, "/admin/status", &err);
	kb_http_client_destroy(admin);
	return r ? say(NOTE, "daemon", err.text) : say(WELL, "daemon", "answers on its admin socket");
}

static enum health check_certificate(const struct kb_ctl *ctl, const char *file, const char *what)
{
	struct kb_buf pem = {0};
	struct kb_err err = {0};
	char *path = kb_ctl_path(ctl->client, file), text[KB_ERR_TEXT_MAX];
	if (!path || kb_ctl_read_file(path, &pem, &err)) {
		free(path);
		return say(ILL, what, err.text);
	}
	bool is_long = kb_x509_server_fits((const char *)pem.data, NULL, 0); // no names: only the end is looked at
	snprintf(
		text, sizeof text, is_long ? "%s: valid for more than 30 days" : "%s: ends within 30 days, or is none", path);
	kb_buf_finish(&pem);
	free(path);
	return say(is_long ? WELL : ILL, what, text);
}

static enum health check_key(const struct kb_ctl *ctl)
{
	struct stat st;
	char *path = kb_ctl_path(ctl->client, KB_CTL_KEY), text[KB_ERR_TEXT_MAX];
	if (!path || stat(path, &st)) {
		snprintf(text, sizeof text, "%s: %s", path ? path : KB_CTL_KEY, strerror(errno));
		free(path);
		return say(ILL, "key", text);
	}
	bool is_open = (st.st_mode & 077) != 0;
	snprintf(
		text, sizeof text, is_open ? "%s: others may read it; chmod 600 it, or pair anew" : "%s: only yours", path);
	free(path);
	return say(is_open ? ILL : WELL, "key", text);
}

static enum health check_pairing(const struct kb_ctl *ctl)
{
	struct kb_ctl_where where;
	struct kb_http_client *box = NULL;
	struct kb_err err = {0};
	char text[KB_ERR_TEXT_MAX];
	if (kb_ctl_box_where(ctl, &where, &err))
		return say(err.code == KB_ENOTFOUND ? NOTE : ILL, "box", err.text);
	enum health h, worst = check_certificate(ctl, KB_CTL_CA, "box's CA");
	h = check_certificate(ctl, KB_CTL_CERT, "certificate");
	worst = h > worst ? h : worst;
	h = check_key(ctl);
	worst = h > worst ? h : worst;
	if (worst == ILL || kb_ctl_box_open(ctl, &box))
		return ILL;
	int r = ask_quietly(box, "/healthz", &err);
	kb_http_client_destroy(box);
	snprintf(text, sizeof text, "%.200s port %u: computes", where.host, where.port);
	return r ? say(ILL, "box", err.text) : say(WELL, "box", text);
}

int kb_ctl_doctor(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_err err = {0};
	char *image = NULL;
	if (args->option[KB_DOCTOR_IMAGE].is_set || args->n > 0) {
		if (find_image(ctl, args->option[KB_DOCTOR_IMAGE].text, args, &image, &err))
			return kb_ctl_fail(err.code == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	} else if (find_image(ctl, NULL, args, &image, &err)) {
		image = NULL; // none, or several: the device alone
	}
	bool is_ill = false;
	is_ill |= kb_tls_init(&err) != 0;
	is_ill |= check_state(ctl) == ILL;
	is_ill |= check_models(ctl) == ILL;
	is_ill |= check_daemon(ctl) == ILL;
	is_ill |= check_pairing(ctl) == ILL;
	putchar('\n');
	int status = run_engine((const char *const[]){ENGINE, "--doctor", image, NULL});
	free(image);
	return is_ill ? KB_CTL_FAILED : status;
}
