// kotobako model update URL: brings a box's models to what the catalog of a mirror says. Each step is the command that
// an administrator would give, in a process of its own: the catalog is fetched and accepted, then each image that is
// newer than what is installed is fetched and installed. What was cut goes on the next time.
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/ctl_install.h"
#include "storage/box_catalog.h"
#include "storage/installed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MAX 16
#define FOLDER "incoming/update"
#define PENDING_MAX KB_CATALOG_IMAGES_MAX

struct pending {
	char name[KB_MAX_MODEL_NAME + 1];
	uint64_t version;
	bool is_done;
};

struct update {
	const struct kb_ctl *ctl;
	const char *url, *ca;
	char *folder;
	bool all; // also what this box does not have
	struct pending list[PENDING_MAX];
	uint32_t n, current;
};

// Runs this program with these words and waits; its exit status.
static int run(const struct update *u, const char *const *words, bool with_client)
{
	const char *argv[WORDS_MAX] = {u->ctl->program, "--state", u->ctl->state};
	int n = 3;
	if (with_client && u->ctl->has_client) {
		argv[n++] = "--client";
		argv[n++] = u->ctl->client;
	}
	if (u->ctl->tpm) {
		argv[n++] = "--tpm";
		argv[n++] = u->ctl->tpm;
	}
	while (*words && n < WORDS_MAX - 1)
		argv[n++] = *words++;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	int status = 0;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : KB_CTL_FAILED;
}

// NAME of the mirror into the folder; there already is fine. *ret_path: free() it.
static int fetch(const struct update *u, const char *name, char **ret_path)
{
	char *url = NULL, *path = kb_ctl_path(u->folder, name);
	const size_t len = strlen(u->url);
	*ret_path = path;
	if (!path || asprintf(&url, "%s%s%s", u->url, len && u->url[len - 1] == '/' ? "" : "/", name) < 0)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	const char *words[] = {"image", "fetch", url, path, u->ca ? "--ca" : NULL, u->ca, NULL};
	int status = access(path, F_OK) == 0 ? KB_CTL_OK : run(u, words, true);
	free(url);
	return status;
}

static int take_catalog(const struct update *u)
{
	char *path = kb_ctl_path(u->folder, KB_CATALOG_NAME);
	if (path)
		unlink(path); // of an earlier try
	free(path);
	int status = fetch(u, KB_CATALOG_NAME, &path);
	if (status == KB_CTL_OK)
		status = run(u, (const char *const[]){"catalog", "install", path, NULL}, false);
	if (path)
		unlink(path);
	free(path);
	return status;
}

// What the catalog has newer than the box.
static int look(struct update *u, struct kb_err *err)
{
	struct kb_state *state = NULL;
	struct kb_buf bytes = {0};
	struct kb_catalog c;
	struct kb_catalog_image image;
	int r = kb_ctl_state(u->ctl, false, err, &state);
	r = r ? r : kb_box_catalog_get(state, err, &bytes, &c);
	for (size_t at = 0; r == 0 && kb_catalog_next(&c, &at, &image);) {
		struct pending *p = &u->list[u->n];
		struct kb_installed now = {0};
		*p = (struct pending){.version = image.version};
		memcpy(p->name, image.model.data, image.model.len);
		r = kb_installed_get(state, p->name, err, &now);
		if (r == KB_OK && now.active.version >= p->version)
			u->current++;
		else if (r == KB_OK || (r == KB_ENOTFOUND && u->all))
			u->n++;
		r = r == KB_ENOTFOUND ? KB_OK : r;
	}
	kb_state_close(state);
	kb_buf_finish(&bytes);
	return r;
}

static int take_one(const struct update *u, struct pending *p)
{
	char name[KB_MAX_MODEL_NAME + 32], *path;
	snprintf(name, sizeof name, "%s-%" PRIu64 ".kbm", p->name, p->version);
	int status = fetch(u, name, &path);
	if (status == KB_CTL_OK) {
		status = run(u, (const char *const[]){"model", "install", path, NULL}, false);
		if (status != KB_CTL_INTERRUPTED)
			unlink(path); // a wrong one would be wrong the next time too
	}
	free(path);
	p->is_done = status == KB_CTL_OK;
	return status;
}

// Twice, because an adapter may stand before the model that it belongs to.
static int take_all(struct update *u)
{
	int status = KB_CTL_OK;
	uint32_t done = 0;
	for (int pass = 0; pass < 2; pass++) {
		status = KB_CTL_OK;
		for (uint32_t i = 0; i < u->n && status != KB_CTL_INTERRUPTED && !kb_ctl_interrupted; i++)
			if (!u->list[i].is_done) {
				int s = take_one(u, &u->list[i]);
				status = s ? s : status;
				done += s == KB_CTL_OK;
			}
		if (status == KB_CTL_OK || done == 0)
			break;
	}
	printf("%" PRIu32 " models were current, %" PRIu32 " were updated, %" PRIu32 " could not be\n", u->current, done,
		u->n - done);
	return kb_ctl_interrupted ? KB_CTL_INTERRUPTED : status;
}

// --- a folder --------------------------------------------------------------------------------------

static int is_image(const struct dirent *e)
{
	const size_t len = strlen(e->d_name), end = sizeof ".kbm" - 1;
	return e->d_name[0] != '.' && len > end && strcmp(e->d_name + len - end, ".kbm") == 0;
}

// Whether the box has what the image says that it is, or something newer. Sealed ones do not say: then not.
static bool is_behind(const struct update *u, const char *path)
{
	struct kb_state *state = NULL;
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_manifest m;
	struct kb_installed now = {0};
	struct kb_err err = {0};
	char name[KB_MAX_MODEL_NAME + 1] = {0};
	int fd = -1, r = kb_ctl_image_open(path, O_RDONLY, &err, &fd, &bytes, &h);
	r = r ? r : kb_manifest_parse(h->manifest.bytes, h->manifest.len, &err, &m);
	r = r ? r : kb_ctl_state(u->ctl, true, &err, &state);
	if (r == 0 && state) {
		memcpy(name, m.model.data, m.model.len);
		r = kb_installed_get(state, name, &err, &now);
	}
	kb_state_close(state);
	if (fd >= 0)
		close(fd);
	kb_buf_finish(&bytes);
	free(h);
	return r == 0 && state && now.active.version >= m.version;
}

// What the folder's files say decides nothing but what is tried: the installer proves each.
static int take_folder(struct update *u)
{
	struct dirent **files = NULL;
	int n = scandir(u->url, &files, is_image, alphasort), status = KB_CTL_OK;
	if (n < 0)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", u->url, strerror(errno));
	char *catalog = kb_ctl_path(u->url, KB_CATALOG_NAME);
	if (catalog && access(catalog, F_OK) == 0)
		status = run(u, (const char *const[]){"catalog", "install", catalog, NULL}, false);
	free(catalog);
	uint32_t done = 0;
	for (int pass = 0; pass == 0 || (pass == 1 && done); pass++) // an adapter may stand before its model
		for (int i = 0; i < n; i++) {
			char *path = files[i] ? kb_ctl_path(u->url, files[i]->d_name) : NULL;
			bool is_over = !path || kb_ctl_interrupted || is_behind(u, path);
			if (path && is_over)
				u->current++;
			if (path && !is_over && run(u, (const char *const[]){"model", "install", path, NULL}, false) == KB_CTL_OK)
				is_over = ++done > 0;
			if (path && is_over) {
				free(files[i]);
				files[i] = NULL;
			}
			free(path);
		}
	for (int i = 0; i < n; i++) {
		u->n += files[i] != NULL;
		free(files[i]);
	}
	free(files);
	printf("%" PRIu32 " images were here already, %" PRIu32 " were installed, %" PRIu32 " could not be\n", u->current,
		done, u->n);
	return kb_ctl_interrupted ? KB_CTL_INTERRUPTED : u->n ? KB_CTL_FAILED : status;
}

static int take_mirror(struct update *u)
{
	struct kb_err err = {0};
	u->folder = kb_ctl_path(u->ctl->models, FOLDER);
	int r = u->folder ? kb_ctl_make_directory(u->folder, &err) : kb_fail(&err, KB_ENOMEM, "out of memory");
	int status = r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : take_catalog(u);
	if (status == KB_CTL_OK) {
		r = look(u, &err);
		status = r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : take_all(u);
	}
	free(u->folder);
	return status;
}

int kb_ctl_update(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_value *o = args->option;
	struct update *u = calloc(1, sizeof *u);
	if (!u)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	u->ctl = ctl;
	u->url = args->arg[1];
	u->ca = o[KB_MODEL_CA].is_set ? o[KB_MODEL_CA].text : NULL;
	u->all = o[KB_MODEL_ALL].is_set;
	kb_ctl_catch_interrupt(false);
	int status = strncmp(u->url, "https://", 8) == 0 ? take_mirror(u) : take_folder(u);
	free(u);
	return status;
}
