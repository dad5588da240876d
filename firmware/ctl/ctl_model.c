// kotobako model list|show|verify|digest|remove: the images in STATE/models.
#include "base/clock.h"
#include "firmware/ctl/ctl.h"
#include "firmware/ctl/progress.h"
#include "firmware/ctl/text.h"
#include "net/x509.h"
#include "storage/models.h"
#include "storage/verity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#define SHOWN_BYTES 72u // of a metadata text

// Text out of a file, on one line.
static void print_text(const char *data, size_t len, size_t max)
{
	struct kb_buf clean = {0};
	size_t n = len < max ? len : max;
	while (n < len && n > 0 && ((uint8_t)data[n] & 0xc0) == 0x80)
		n--; // a whole character
	if (kb_ctl_text_clean(&clean, data, n) == 0) {
		for (size_t i = 0; i < clean.len; i++)
			putchar(clean.data[i] == '\n' || clean.data[i] == '\t' ? ' ' : clean.data[i]);
		if (n < len)
			printf("... (%zu bytes)", len);
	}
	kb_buf_finish(&clean);
}

static void add_json(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct kb_model_entry *m)
{
	char hash[2 * KB_HASH_BYTES + 1];
	yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
	yyjson_mut_obj_add_strcpy(doc, o, "name", m->name);
	yyjson_mut_obj_add_uint(doc, o, "bytes", m->file_bytes);
	if (m->error.code) {
		yyjson_mut_obj_add_strcpy(doc, o, "error", m->error.text);
		return;
	}
	kb_hex(m->total, sizeof m->total, hash);
	yyjson_mut_obj_add_uint(doc, o, "parameters", m->parameters);
	yyjson_mut_obj_add_strcpy(doc, o, "architecture", m->arch);
	yyjson_mut_obj_add_strcpy(doc, o, "title", m->title);
	yyjson_mut_obj_add_strcpy(doc, o, "license", m->license);
	yyjson_mut_obj_add_strcpy(doc, o, "weights", m->weights);
	yyjson_mut_obj_add_strcpy(doc, o, "sha256", hash);
}

static int list_json(const struct kb_model_list *list)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *rows = yyjson_mut_arr(doc);
	yyjson_mut_doc_set_root(doc, rows);
	for (uint32_t i = 0; i < list->n; i++)
		add_json(doc, rows, &list->models[i]);
	char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
	yyjson_mut_doc_free(doc);
	if (!text)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	puts(text);
	free(text);
	return KB_CTL_OK;
}

static int list(const char *models, const struct kb_ctl_args *args)
{
	struct kb_err err;
	struct kb_model_list found;
	if (kb_models_list(models, &err, &found))
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	if (args->option[KB_MODEL_JSON].is_set) {
		int status = list_json(&found);
		kb_model_list_finish(&found);
		return status;
	}
	if (found.n == 0)
		fprintf(stderr, "no models in %s: kotobako import FILE.gguf brings one in\n", models);
	int status = KB_CTL_OK;
	for (uint32_t i = 0; i < found.n; i++) {
		const struct kb_model_entry *m = &found.models[i];
		char size[16];
		printf("%-32s %8s  ", m->name, kb_ctl_bytes(m->file_bytes, size));
		if (m->error.code) {
			printf("damaged: %s\n", m->error.text);
			status = KB_CTL_FAILED;
			continue;
		}
		printf("%-8.8s %8.1fM  ", m->arch, (double)m->parameters / 1e6);
		print_text(m->weights, strlen(m->weights), sizeof m->weights);
		putchar('\n');
	}
	kb_model_list_finish(&found);
	return status;
}

static void show_meta(const struct kb_image_meta *m)
{
	printf("  ");
	print_text(m->key.data, m->key.len, m->key.len);
	printf(" = ");
	const struct kb_meta_value *v = &m->value;
	if (v->is_array)
		printf("[%" PRIu64 " values]", v->count);
	else if (v->type == KB_META_STRING && v->len >= 8)
		print_text((const char *)v->data + 8, v->len - 8, SHOWN_BYTES);
	else if (v->type == KB_META_BOOL)
		printf("%s", v->data[0] ? "true" : "false");
	else
		printf("%.*g", v->type == KB_META_F32 ? 7 : 15, kb_meta_array_f64(v, 0));
	putchar('\n');
}

// False where it cannot be opened, which is then said.
static bool open_image(const char *models, const char *name, char **ret_path, struct kb_image **ret)
{
	struct kb_err err;
	char *path = NULL;
	if (kb_model_find(models, name, &err, &path)) {
		kb_ctl_fail(KB_CTL_FAILED, "%s (kotobako model list shows what there is)", err.text);
		return false;
	}
	if (kb_image_open(path, &err, ret)) {
		kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
		free(path);
		return false;
	}
	*ret_path = path;
	return true;
}

static int show(const char *models, const struct kb_ctl_args *args)
{
	struct kb_image *image = NULL;
	char *path = NULL, size[16], hash[2 * KB_HASH_BYTES + 1];
	if (!open_image(models, args->arg[1], &path, &image))
		return KB_CTL_FAILED;
	const struct kb_image_info *info = kb_image_info(image);
	kb_hex(info->total, sizeof info->total, hash);
	printf("file        %s\nsize        %s\nparameters  %.1f million\ntensors     %u in %u segments\nsha256      %s\n",
		path, kb_ctl_bytes(info->file_bytes, size), (double)info->parameters / 1e6, info->n_tensors, info->n_segments,
		hash);
	uint32_t inexact = 0;
	for (uint32_t i = 0; i < info->n_tensors; i++)
		inexact += !kb_image_tensor_at(image, i)->is_exact;
	if (inexact)
		printf("weights     %u of %u tensors were re-quantised at import\n", inexact, info->n_tensors);
	else
		printf("weights     every weight as in the source, bit for bit\n");
	printf("metadata\n");
	for (uint32_t i = 0; i < info->n_meta; i++)
		show_meta(kb_image_meta_at(image, i));
	kb_image_close(image);
	free(path);
	return KB_CTL_OK;
}

static int step(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
	return kb_ctl_interrupted;
}

static int verify(const char *models, const struct kb_ctl_args *args)
{
	struct kb_image *image = NULL;
	struct kb_err err;
	struct kb_ctl_progress progress;
	char *path = NULL, hash[2 * KB_HASH_BYTES + 1];
	int status = KB_CTL_OK;
	if (!open_image(models, args->arg[1], &path, &image))
		return KB_CTL_FAILED;
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "verifying", kb_clock_ms());
	int r = kb_image_verify(image, &(struct kb_progress){.step = step, .ctx = &progress}, &err);
	kb_ctl_progress_end(&progress);
	if (r == 0) {
		kb_hex(kb_image_info(image)->total, KB_HASH_BYTES, hash);
		printf("%s: intact, sha256 %s\n", args->arg[1], hash);
	} else {
		status = r == KB_ECANCELLED ? kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped")
									: kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	}
	kb_image_close(image);
	free(path);
	return status;
}

static int digest(const char *models, const struct kb_ctl_args *args)
{
	struct kb_err err;
	struct kb_ctl_progress progress;
	uint8_t hash[KB_VERITY_HASH];
	char *path = NULL, text[2 * KB_VERITY_HASH + 1];
	if (kb_model_find(models, args->arg[1], &err, &path))
		return kb_ctl_fail(KB_CTL_FAILED, "%s (kotobako model list shows what there is)", err.text);
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "reading", kb_clock_ms());
	int r = kb_verity_file(path, &(struct kb_progress){.step = step, .ctx = &progress}, &err, hash);
	kb_ctl_progress_end(&progress);
	if (r == 0) {
		kb_hex(hash, sizeof hash, text);
		printf("sha256:%s %s\n", text, path);
	}
	free(path);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped");
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static int remove_model(const char *models, const struct kb_ctl_args *args)
{
	struct kb_err err;
	char *path;
	if (kb_model_find(models, args->arg[1], &err, &path))
		return kb_ctl_fail(KB_CTL_FAILED, "%s (kotobako model list shows what there is)", err.text);
	int status = KB_CTL_OK;
	if (unlink(path)) // an engine that has it open goes on with it until it ends
		status = kb_ctl_fail(KB_CTL_FAILED, "removing %s: %s", path, strerror(errno));
	free(path);
	return status;
}

static const struct {
	const char *name;
	int n_args;
	int (*run)(const char *models, const struct kb_ctl_args *args);
} actions[] = {
	{"list", 1, list},
	{"show", 2, show},
	{"verify", 2, verify},
	{"digest", 2, digest},
	{"remove", 2, remove_model},
};

int kb_ctl_model(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
		if (strcmp(args->arg[0], actions[i].name) != 0)
			continue;
		if (args->n != actions[i].n_args)
			return kb_ctl_fail(KB_CTL_USAGE, "model %s wants %s", actions[i].name,
				actions[i].n_args == 2 ? "a model's name" : "nothing after it");
		char *models = kb_ctl_path(ctl->state, "models");
		int status = models ? actions[i].run(models, args) : kb_ctl_fail(KB_CTL_FAILED, "out of memory");
		free(models);
		return status;
	}
	return kb_ctl_fail(KB_CTL_USAGE, "model %s: it knows list, show, verify, digest and remove", args->arg[0]);
}
