// See models.h.
#include "firmware/api/models.h"
#include "base/log.h"
#include "storage/store.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// "name.kbm" -> name, of letters, digits, '.', '-', '_' and not hidden.
static bool model_name(const char *file, char ret[KB_MODEL_NAME_MAX + 1])
{
	size_t len = strlen(file);
	if (len <= 4 || len - 4 > KB_MODEL_NAME_MAX || strcmp(file + len - 4, ".kbm") != 0 || file[0] == '.')
		return false;
	for (size_t i = 0; i < len - 4; i++) {
		char c = file[i];
		bool is_alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		if (!is_alnum && !strchr(".-_", c))
			return false;
	}
	memcpy(ret, file, len - 4);
	ret[len - 4] = 0;
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct kb_model *)a)->name, ((const struct kb_model *)b)->name);
}

static int add_signed(void *ctx, const struct kb_installed *installed)
{
	struct kb_models *m = ctx;
	struct kb_err err = {0};
	if (installed->kind != KB_MANIFEST_MODEL || m->n == KB_MODELS_MAX)
		return 0;
	if (kb_installed_may_run(m->state, installed->active.digest, KB_ALLOW_TEST_KEYS, &err)) {
		kb_warn("models", "%s version %llu does not run: %s", installed->name,
			(unsigned long long)installed->active.version, err.text);
		return 0;
	}
	struct kb_model *row = &m->row[m->n++];
	*row = (struct kb_model){
		.created_s = (int64_t)installed->since_s, .bytes = installed->bytes, .version = installed->active.version};
	snprintf(row->name, sizeof row->name, "%s", installed->name);
	memcpy(row->digest, installed->active.digest, sizeof row->digest);
	memcpy(&row->id, row->digest, sizeof row->id);
	return 0;
}

// False: signed models are not what this box runs.
static bool scan_signed(struct kb_models *m)
{
	struct kb_err err = {0};
	uint64_t generation = m->state ? kb_installed_generation(m->state) : 0;
	if (!m->state || (generation && generation == m->generation))
		return m->is_signed;
	m->n = 0;
	int r = kb_store_is_signed(m->state, &err, &m->is_signed);
	if (r == 0 && m->is_signed)
		r = kb_installed_each(m->state, add_signed, m, &err); // in order of name
	if (r) {
		kb_error("models", "%s", err.text);
		m->n = 0;
		return true; // not knowing is no reason to run what nobody signed
	}
	m->generation = generation;
	return m->is_signed;
}

char *kb_models_path(const struct kb_models *m, const struct kb_model *row)
{
	char *path = NULL;
	if (row->version)
		return kb_installed_path(m->dir, row->digest);
	return asprintf(&path, "%s/%s.kbm", m->dir, row->name) < 0 ? NULL : path;
}

void kb_models_scan(struct kb_models *m)
{
	if (scan_signed(m))
		return;
	DIR *d = opendir(m->dir);
	struct dirent *e;
	m->n = 0;
	while (d && (e = readdir(d)) && m->n < KB_MODELS_MAX) {
		struct kb_model *row = &m->row[m->n];
		struct stat st;
		char path[1024];
		if (!model_name(e->d_name, row->name))
			continue;
		snprintf(path, sizeof path, "%s/%s", m->dir, e->d_name);
		if (stat(path, &st) || !S_ISREG(st.st_mode))
			continue;
		row->created_s = st.st_mtime;
		row->bytes = (uint64_t)st.st_size;
		row->id = st.st_ino;
		row->version = 0;
		m->n++;
	}
	if (d)
		closedir(d);
	qsort(m->row, m->n, sizeof *m->row, by_name);
}

const struct kb_model *kb_models_find(const struct kb_models *m, struct kb_str name)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (strlen(m->row[i].name) == name.len && memcmp(m->row[i].name, name.data, name.len) == 0)
			return &m->row[i];
	return NULL;
}
