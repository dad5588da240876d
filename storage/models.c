/* see models.h */
#include "storage/models.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool kb_model_name_valid(const char *name)
{
	size_t n = strnlen(name, KB_MAX_MODEL_NAME + 1);
	if (n == 0 || n > KB_MAX_MODEL_NAME || !is_alnum(name[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(name[i]) && !strchr("._-", name[i]))
			return false;
	return true;
}

void kb_model_name_from_file(const char *path, char ret_name[static KB_MAX_MODEL_NAME + 1])
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	size_t len = strlen(base), n = 0;
	if (len > 5 && strcasecmp(base + len - 5, ".gguf") == 0)
		len -= 5;
	for (size_t i = 0; i < len && n < KB_MAX_MODEL_NAME; i++) {
		char c = base[i] >= 'A' && base[i] <= 'Z' ? (char)(base[i] - 'A' + 'a') : base[i];
		bool plain = is_alnum(c);
		if (!plain && !strchr("._", c))
			c = '-';
		// Separators: none in front, one in a row.
		if (plain || (n > 0 && is_alnum(ret_name[n - 1])))
			ret_name[n++] = c;
	}
	while (n > 0 && !is_alnum(ret_name[n - 1]))
		n--;
	ret_name[n] = 0;
	if (n == 0)
		memcpy(ret_name, "model", sizeof "model");
}

int kb_model_path(const char *directory, const char *name, struct kb_err *err, char **ret_path)
{
	char *path;
	if (!kb_model_name_valid(name))
		return kb_fail(err, KB_EBAD, "'%.80s' is no model name: 1 to %u of a-z 0-9 . _ -, the first a letter or digit",
			name, KB_MAX_MODEL_NAME);
	if (asprintf(&path, "%s/%s" KB_MODEL_SUFFIX, directory, name) < 0)
		return kb_fail(err, KB_ENOMEM, "no memory for a path");
	*ret_path = path;
	return 0;
}

int kb_model_find(const char *directory, const char *name, struct kb_err *err, char **ret_path)
{
	struct stat st;
	char *path;
	int r = kb_model_path(directory, name, err, &path);
	if (r)
		return r;
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		free(path);
		return kb_fail(err, KB_ENOTFOUND, "there is no model '%s' in %s", name, directory);
	}
	*ret_path = path;
	return 0;
}

// --- listing -----------------------------------------------------------------

static void copy_str(const struct kb_meta_source *m, const char *key, char *ret, size_t size)
{
	struct kb_str s;
	if (kb_meta_str(m, key, &s) == 0)
		snprintf(ret, size, "%.*s", (int)(s.len < size ? s.len : size - 1), s.data);
}

// Shares of stored bytes by source kind, largest first.
static void describe_weights(const struct kb_image *image, char *ret, size_t size)
{
	const struct kb_ggml_info *kinds[16] = {0};
	uint64_t bytes[16] = {0}, all = 0;
	uint32_t n = 0, tensors = kb_image_info(image)->n_tensors;
	for (uint32_t i = 0; i < tensors; i++) {
		const struct kb_image_tensor *t = kb_image_tensor_at(image, i);
		uint32_t k = 0;
		while (k < n && kinds[k] != t->source)
			k++;
		if (k == 16)
			continue;
		n += k == n;
		kinds[k] = t->source;
		bytes[k] += t->bytes;
		all += t->bytes;
	}
	size_t used = 0;
	ret[0] = 0;
	for (int shown = 0; shown < 3; shown++) {
		uint32_t best = 0;
		for (uint32_t k = 1; k < n; k++)
			best = bytes[k] > bytes[best] ? k : best;
		unsigned percent = all ? (unsigned)((bytes[best] * 100 + all / 2) / all) : 0;
		if (n == 0 || percent == 0 || used >= size)
			return;
		used += (size_t)snprintf(ret + used, size - used, "%s%s %u %%", shown ? ", " : "", kinds[best]->name, percent);
		bytes[best] = 0;
	}
}

/* see models.h */
void kb_model_describe(struct kb_model_entry *e)
{
	struct kb_image *image;
	struct stat st;
	if (stat(e->path, &st) == 0)
		e->file_bytes = (uint64_t)st.st_size;
	if (kb_image_open(e->path, &e->error, &image) != 0)
		return;
	struct kb_meta_source m = kb_image_meta_source(image);
	e->parameters = kb_image_info(image)->parameters;
	memcpy(e->total, kb_image_info(image)->total, sizeof e->total);
	copy_str(&m, "general.architecture", e->arch, sizeof e->arch);
	copy_str(&m, "general.name", e->title, sizeof e->title);
	copy_str(&m, "general.license", e->license, sizeof e->license);
	describe_weights(image, e->weights, sizeof e->weights);
	kb_image_close(image);
}

static int by_name(const void *a, const void *b)
{
	const struct kb_model_entry *x = a, *y = b;
	return strcmp(x->name, y->name);
}

// True, with the name, for "NAME.kbm".
static bool model_of_file(const char *file, char ret_name[static KB_MAX_MODEL_NAME + 1])
{
	size_t n = strlen(file), suffix = sizeof KB_MODEL_SUFFIX - 1;
	if (n <= suffix || n - suffix > KB_MAX_MODEL_NAME || strcmp(file + n - suffix, KB_MODEL_SUFFIX) != 0)
		return false;
	memcpy(ret_name, file, n - suffix);
	ret_name[n - suffix] = 0;
	return kb_model_name_valid(ret_name);
}

static int collect(DIR *d, const char *directory, struct kb_model_list *list, struct kb_err *err)
{
	struct dirent *entry;
	char name[KB_MAX_MODEL_NAME + 1];
	while ((entry = readdir(d))) {
		if (!model_of_file(entry->d_name, name))
			continue;
		if (list->n == KB_MAX_MODELS)
			return kb_fail(err, KB_ELIMIT, "more than %u models in %s", KB_MAX_MODELS, directory);
		struct kb_model_entry *more = realloc(list->models, (list->n + 1) * sizeof *more);
		if (!more)
			return kb_fail(err, KB_ENOMEM, "no memory to list %s", directory);
		list->models = more;
		struct kb_model_entry *e = &more[list->n];
		*e = (struct kb_model_entry){0};
		memcpy(e->name, name, sizeof name);
		int r = kb_model_path(directory, name, err, &e->path);
		if (r)
			return r;
		list->n++;
		kb_model_describe(e);
	}
	return 0;
}

int kb_models_list(const char *directory, struct kb_err *err, struct kb_model_list *ret)
{
	struct kb_model_list list = {0};
	DIR *d = opendir(directory);
	int r = 0;
	if (d) {
		r = collect(d, directory, &list, err);
		closedir(d);
	} else if (errno != ENOENT) {
		r = kb_fail(err, kb_err_from_errno(errno), "opening %s: %s", directory, strerror(errno));
	}
	if (r) {
		kb_model_list_finish(&list);
		return r;
	}
	if (list.n)
		qsort(list.models, list.n, sizeof *list.models, by_name);
	*ret = list;
	return 0;
}

void kb_model_list_finish(struct kb_model_list *list)
{
	for (uint32_t i = 0; i < list->n; i++)
		free(list->models[i].path);
	free(list->models);
	*list = (struct kb_model_list){0};
}
