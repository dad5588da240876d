// What there is to serve. See mirror.h.
#include "base/clock.h"
#include "base/log.h"
#include "firmware/ctl/mirror.h"
#include "firmware/ctl/progress.h"
#include "net/x509.h"
#include "storage/box_catalog.h"
#include "storage/models.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

// No path, no hidden file: one word that is safe in a URL.
static bool is_name(const char *name)
{
	const size_t len = strlen(name);
	return len > 0 && len <= KB_MIRROR_NAME_MAX && name[0] != '.' &&
		   strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

static int show_progress(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
	return kb_ctl_interrupted;
}

static void add(struct kb_mirror *m, struct kb_state *state, const struct kb_installed *model)
{
	struct kb_mirror_view *v = &m->views[m->n_views];
	struct kb_ctl_progress progress;
	struct kb_err err = {0};
	snprintf(v->name, sizeof v->name, "%s-%" PRIu64 KB_MODEL_SUFFIX, model->name, model->active.version);
	memcpy(v->digest, model->active.digest, sizeof v->digest);
	v->is_wanted = true;
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), model->name, kb_clock_ms());
	int r = kb_bundle_view_open(
		state, m->ctl->models, model, &(struct kb_progress){show_progress, &progress}, &err, &v->view);
	kb_ctl_progress_end(&progress);
	if (r)
		kb_warn("mirror", "%s is not served: %s", v->name, err.text);
	else
		m->n_views++;
}

struct refresh {
	struct kb_mirror *m;
	struct kb_installed fresh[KB_MIRROR_VIEWS_MAX];
	uint32_t n;
};

static int look(void *ctx, const struct kb_installed *model)
{
	struct refresh *r = ctx;
	for (uint32_t i = 0; i < r->m->n_views; i++)
		if (memcmp(r->m->views[i].digest, model->active.digest, KB_MANIFEST_HASH) == 0) {
			r->m->views[i].is_wanted = true;
			return KB_OK;
		}
	if (r->n < KB_MIRROR_VIEWS_MAX)
		r->fresh[r->n++] = *model;
	return KB_OK;
}

static void drop_unwanted(struct kb_mirror *m)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < m->n_views; i++)
		if (m->views[i].is_wanted)
			m->views[n++] = m->views[i];
		else
			kb_bundle_view_close(m->views[i].view);
	m->n_views = n;
}

/* see mirror.h */
int kb_mirror_refresh(struct kb_mirror *m, struct kb_err *err)
{
	char *path = kb_ctl_path(m->ctl->state, "state.mdb");
	struct stat st = {0};
	struct kb_state *state = NULL;
	struct refresh *r = calloc(1, sizeof *r);
	bool is_same = path && stat(path, &st) == 0 && memcmp(&st.st_mtim, &m->looked, sizeof m->looked) == 0;
	free(path);
	if (m->dir >= 0 || is_same) {
		free(r);
		return KB_OK;
	}
	int rc = r ? kb_ctl_state(m->ctl, false, err, &state) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (rc == KB_OK) {
		r->m = m;
		for (uint32_t i = 0; i < m->n_views; i++)
			m->views[i].is_wanted = false;
		rc = kb_installed_each(state, look, r, err);
		if (rc == KB_OK)
			drop_unwanted(m);
		m->catalog.len = 0;
		if (rc == KB_OK && kb_box_catalog_file(state, err, &m->catalog))
			kb_buf_finish(&m->catalog); // most boxes have none
		for (uint32_t i = 0; rc == KB_OK && i < r->n && m->n_views < KB_MIRROR_VIEWS_MAX; i++)
			add(m, state, &r->fresh[i]);
		m->looked = st.st_mtim;
	}
	kb_state_close(state);
	free(r);
	return rc;
}

/* see mirror.h */
void kb_mirror_finish(struct kb_mirror *m)
{
	for (uint32_t i = 0; i < m->n_views; i++)
		kb_bundle_view_close(m->views[i].view);
	m->n_views = 0;
	if (m->dir >= 0)
		close(m->dir);
	kb_buf_finish(&m->catalog);
	kb_buf_finish(&m->ca);
	kb_buf_finish(&m->cert);
	kb_wipe(&m->key);
}

static void list_one(yyjson_mut_doc *doc, yyjson_mut_val *list, const char *name, uint64_t bytes)
{
	yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
	yyjson_mut_obj_add_strcpy(doc, o, "name", name);
	yyjson_mut_obj_add_uint(doc, o, "bytes", bytes);
}

static void list_files(yyjson_mut_doc *doc, yyjson_mut_val *list, int dir)
{
	int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = again >= 0 ? fdopendir(again) : NULL;
	struct stat st;
	if (!d && again >= 0)
		close(again);
	for (struct dirent *e; d && yyjson_mut_arr_size(list) < KB_MIRROR_FILES_MAX && (e = readdir(d));)
		if (is_name(e->d_name) && fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			list_one(doc, list, e->d_name, (uint64_t)st.st_size);
	if (d)
		closedir(d);
}

/* see mirror.h */
int kb_mirror_list(const struct kb_mirror *m, struct kb_buf *ret)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc), *list = yyjson_mut_obj_add_arr(doc, o, "images");
	yyjson_mut_doc_set_root(doc, o);
	if (m->dir >= 0)
		list_files(doc, list, m->dir);
	if (m->catalog.len)
		list_one(doc, list, KB_CATALOG_NAME, m->catalog.len);
	for (uint32_t i = 0; i < m->n_views; i++)
		list_one(doc, list, m->views[i].name, kb_bundle_view_bytes(m->views[i].view));
	char *text = yyjson_mut_write(doc, 0, NULL);
	yyjson_mut_doc_free(doc);
	int r = text ? kb_buf_puts(ret, text) : KB_ENOMEM;
	free(text);
	return r;
}

/* see mirror.h */
int kb_mirror_open(const struct kb_mirror *m, const char *name, struct kb_mirror_image *ret)
{
	struct stat st;
	*ret = (struct kb_mirror_image){.fd = -1};
	for (uint32_t i = 0; i < m->n_views; i++)
		if (strcmp(m->views[i].name, name) == 0) {
			ret->view = m->views[i].view;
			ret->bytes = kb_bundle_view_bytes(ret->view);
			return KB_OK;
		}
	if (m->catalog.len && strcmp(name, KB_CATALOG_NAME) == 0) {
		ret->memory = &m->catalog;
		ret->bytes = m->catalog.len;
		return KB_OK;
	}
	if (m->dir < 0 || !is_name(name))
		return KB_ENOTFOUND;
	// Nothing outside the folder, and nothing that blocks.
	ret->fd = openat(m->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (ret->fd >= 0 && fstat(ret->fd, &st) == 0 && S_ISREG(st.st_mode)) {
		ret->bytes = (uint64_t)st.st_size;
		return KB_OK;
	}
	kb_mirror_close(ret);
	return KB_ENOTFOUND;
}

/* see mirror.h */
int kb_mirror_read(const struct kb_mirror_image *i, uint64_t at, uint8_t *ret, size_t len, struct kb_err *err)
{
	if (i->view)
		return kb_bundle_view_read(i->view, at, ret, len, err);
	if (i->memory) {
		memcpy(ret, i->memory->data + at, len);
		return KB_OK;
	}
	while (len) {
		ssize_t n = pread(i->fd, ret, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return kb_fail(err, KB_EIO, "reading at byte %" PRIu64 ": %s", at, n ? strerror(errno) : "it shrank");
		ret += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return KB_OK;
}

/* see mirror.h */
void kb_mirror_close(struct kb_mirror_image *i)
{
	if (i->fd >= 0)
		close(i->fd);
	i->fd = -1;
}
