// See models.h.
#include "firmware/api/models.h"

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

void kb_models_scan(struct kb_models *m)
{
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
		row->inode = st.st_ino;
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
