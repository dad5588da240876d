// kotobako import: a GGUF file becomes a model image.
#include "base/clock.h"
#include "firmware/ctl/ctl.h"
#include "firmware/ctl/progress.h"
#include "storage/import_gguf.h"
#include "storage/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int step(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
	return kb_ctl_interrupted;
}

// Where the image goes: --out, or STATE/models/NAME.kbm.
static int destination(struct kb_ctl *ctl, const struct kb_ctl_args *args, char **ret_path, struct kb_err *err)
{
	const char *name = args->option[KB_IMPORT_NAME].text;
	char from_file[KB_MAX_MODEL_NAME + 1];
	if (args->option[KB_IMPORT_OUT].is_set) {
		if (name)
			return kb_fail(err, KB_EARG, "--name and --out exclude each other: --out names the file itself");
		*ret_path = strdup(args->option[KB_IMPORT_OUT].text);
		return *ret_path ? 0 : kb_fail(err, KB_ENOMEM, "out of memory");
	}
	if (!name) {
		kb_model_name_from_file(args->arg[0], from_file);
		name = from_file;
	}
	int r = kb_model_path(ctl->models, name, err, ret_path);
	if (r == 0) {
		r = kb_ctl_make_directory(ctl->models, err);
		if (r)
			free(*ret_path);
	}
	return r;
}

static void say(const struct kb_import_report *report, const char *path, uint64_t spent_ms)
{
	char in[16], out[16];
	fprintf(stderr, "%s: %u tensors, %.1f million weights, %s -> %s in %.1f s\n", path, report->tensors,
		(double)report->parameters / 1e6, kb_ctl_bytes(report->bytes_in, in), kb_ctl_bytes(report->bytes_out, out),
		(double)spent_ms / 1000);
	for (uint32_t i = 0; i < report->n_kinds; i++) {
		char text[160];
		kb_import_kind_text(&report->kinds[i], text, sizeof text);
		fprintf(stderr, "  %s\n", text);
	}
}

int kb_ctl_import(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_err err = {0};
	char *path = NULL, label[64];
	const char *slash = strrchr(args->arg[0], '/');
	if (destination(ctl, args, &path, &err))
		return kb_ctl_fail(err.code == KB_EARG || err.code == KB_EBAD ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	kb_ctl_catch_interrupt(true);
	struct kb_ctl_progress progress;
	uint64_t started_ms = kb_clock_ms();
	snprintf(label, sizeof label, "importing %.40s", slash ? slash + 1 : args->arg[0]);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), label, started_ms);
	struct kb_import_options o = {
		.replace = args->option[KB_IMPORT_REPLACE].is_set, .progress = {.step = step, .ctx = &progress}};
	struct kb_import_report report;
	int r = kb_import_gguf(args->arg[0], path, &o, &err, &report);
	kb_ctl_progress_end(&progress);
	if (r == 0)
		say(&report, path, kb_clock_ms() - started_ms);
	free(path);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; nothing was kept");
	if (r == KB_EEXISTS)
		return kb_ctl_fail(KB_CTL_FAILED, "%s (--replace replaces it, --name gives another name)", err.text);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}
