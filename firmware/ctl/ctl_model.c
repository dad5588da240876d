// kotobako model list|show|verify|digest|remove: the models of the box. What is installed and rolled back:
// ctl_install.c.
#include "base/clock.h"
#include "base/hex.h"
#include "firmware/ctl/ctl_install.h"
#include "firmware/ctl/progress.h"
#include "firmware/ctl/text.h"
#include "storage/installed.h"
#include "storage/store.h"
#include "storage/verity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#define SHOWN_BYTES 72u // of a metadata text

static void add_json(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct kb_model_entry *m)
{
	char hash[2 * KB_HASH_BYTES + 1];
	yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
	yyjson_mut_obj_add_strcpy(doc, o, "name", m->name);
	yyjson_mut_obj_add_uint(doc, o, "bytes", m->file_bytes);
	if (m->version)
		yyjson_mut_obj_add_uint(doc, o, "version", m->version);
	if (m->previous)
		yyjson_mut_obj_add_uint(doc, o, "previous_version", m->previous);
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

static int list(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_err err;
	struct kb_model_list found;
	struct kb_state *state = NULL;
	int r = kb_ctl_state(ctl, true, &err, &state);
	r = r ? r : kb_store_list(state, ctl->models, &err, &found);
	kb_state_close(state);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	if (args->option[KB_MODEL_JSON].is_set) {
		int status = list_json(&found);
		kb_model_list_finish(&found);
		return status;
	}
	if (found.n == 0)
		fprintf(stderr, "no models in %s: kotobako import FILE.gguf brings one in\n", ctl->models);
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
		kb_ctl_text_line(m->weights, strlen(m->weights), sizeof m->weights);
		if (m->version)
			printf("  version %" PRIu64, m->version);
		if (m->previous)
			printf(" (before: %" PRIu64 ")", m->previous);
		putchar('\n');
	}
	kb_model_list_finish(&found);
	return status;
}

static void show_meta(const struct kb_image_meta *m)
{
	printf("  ");
	kb_ctl_text_line(m->key.data, m->key.len, m->key.len);
	printf(" = ");
	const struct kb_meta_value *v = &m->value;
	if (v->is_array)
		printf("[%" PRIu64 " values]", v->count);
	else if (v->type == KB_META_STRING && v->len >= 8)
		kb_ctl_text_line((const char *)v->data + 8, v->len - 8, SHOWN_BYTES);
	else if (v->type == KB_META_BOOL)
		printf("%s", v->data[0] ? "true" : "false");
	else
		printf("%.*g", v->type == KB_META_F32 ? 7 : 15, kb_meta_array_f64(v, 0));
	putchar('\n');
}

// False where it cannot be opened, which is then said.
static bool open_image(const struct kb_ctl *ctl, const char *name, char **ret_path, struct kb_image **ret)
{
	struct kb_err err;
	char *path = NULL;
	if (kb_ctl_model_path(ctl, name, &err, &path)) {
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

static int show(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_image *image = NULL;
	char *path = NULL, size[16], hash[2 * KB_HASH_BYTES + 1];
	if (!open_image(ctl, args->arg[1], &path, &image))
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

static int verify(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_image *image = NULL;
	struct kb_err err;
	struct kb_ctl_progress progress;
	char *path = NULL, hash[2 * KB_HASH_BYTES + 1];
	int status = KB_CTL_OK;
	if (!open_image(ctl, args->arg[1], &path, &image))
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

static int digest(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_err err;
	struct kb_ctl_progress progress;
	uint8_t hash[KB_VERITY_HASH];
	char *path = NULL, text[2 * KB_VERITY_HASH + 1];
	if (kb_ctl_model_path(ctl, args->arg[1], &err, &path))
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

static int remove_model(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_state *state = NULL;
	struct kb_err err;
	bool is_signed = false;
	char *path = NULL;
	int r = kb_ctl_state(ctl, true, &err, &state);
	r = r ? r : kb_store_is_signed(state, &err, &is_signed);
	if (r == 0 && is_signed) {
		r = kb_ctl_remove_installed(ctl, state, args->arg[1], &err);
	} else if (r == 0) {
		r = kb_model_find(ctl->models, args->arg[1], &err, &path);
		if (r == 0 && unlink(path)) // an engine that has it open goes on with it until it ends
			r = kb_fail(&err, kb_err_from_errno(errno), "removing %s: %s", path, strerror(errno));
	}
	free(path);
	kb_state_close(state);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s (kotobako model list shows what there is)", err.text) : KB_CTL_OK;
}

static const struct kb_ctl_action actions[] = {
	{"list", 0, 0, KB_OPTION(KB_MODEL_JSON), list},
	{"show", 1, 1, 0, show},
	{"verify", 1, 1, 0, verify},
	{"digest", 1, 1, 0, digest},
	{"remove", 1, 1, 0, remove_model},
	{"install", 1, 1, KB_OPTION(KB_MODEL_KEEP) | KB_OPTION(KB_MODEL_KEY), kb_ctl_install},
	{"rollback", 1, 1, 0, kb_ctl_rollback},
	{"upload", 1, 1, 0, kb_ctl_upload},
	{"update", 1, 1, KB_OPTION(KB_MODEL_CA) | KB_OPTION(KB_MODEL_ALL), kb_ctl_update},
	{0},
};

int kb_ctl_model(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("model", actions, ctl, args);
}
