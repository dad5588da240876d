// kotobako image build: a signed image of a model, not signed yet.
#include "base/clock.h"
#include "base/hex.h"
#include "base/version.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/progress.h"
#include "storage/bundle_write.h"
#include "storage/models.h"
#include "storage/verity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int step(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
	return kb_ctl_interrupted;
}

static struct kb_str str(const char *text)
{
	return (struct kb_str){text, text ? strlen(text) : 0};
}

// "FILE.kbm" is a file, anything else a model of the box.
static int find_model(const struct kb_ctl *ctl, const char *what, struct kb_err *err, struct kb_model_entry *ret)
{
	size_t n = strlen(what), suffix = sizeof KB_MODEL_SUFFIX - 1;
	bool is_file = n > suffix && strcmp(what + n - suffix, KB_MODEL_SUFFIX) == 0;
	int r = KB_OK;
	if (!is_file) {
		r = kb_ctl_model_path(ctl, what, err, &ret->path);
		if (r == KB_OK)
			snprintf(ret->name, sizeof ret->name, "%s", what);
	} else if (!(ret->path = strdup(what))) {
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	}
	if (r != KB_OK)
		return r;
	kb_model_describe(ret);
	if (ret->error.code) {
		*err = ret->error;
		free(ret->path);
		ret->path = NULL;
	}
	return ret->error.code;
}

// What the options say, or what the model says of itself.
static int fill(const struct kb_ctl_value *o, const struct kb_model_entry *model, uint8_t *base, struct kb_err *err,
	struct kb_manifest *m)
{
	*m = (struct kb_manifest){.model = str(o[KB_IMAGE_MODEL].is_set ? o[KB_IMAGE_MODEL].text : model->name),
		.version = o[KB_IMAGE_VERSION].count,
		.created = kb_ctl_now(),
		.family = str(model->arch),
		.licence = str(o[KB_IMAGE_LICENCE].is_set ? o[KB_IMAGE_LICENCE].text : model->license),
		.origin = str(o[KB_IMAGE_ORIGIN].text),
		.recipe = str(o[KB_IMAGE_RECIPE].is_set ? o[KB_IMAGE_RECIPE].text : model->weights),
		.quality = str(o[KB_IMAGE_QUALITY].text),
		.min_firmware = o[KB_IMAGE_FIRMWARE].is_set ? o[KB_IMAGE_FIRMWARE].count : KB_FIRMWARE,
		.device_memory = o[KB_IMAGE_MEMORY].is_set ? o[KB_IMAGE_MEMORY].count : model->file_bytes};
	if (!o[KB_IMAGE_VERSION].is_set)
		return kb_fail(err, KB_EARG, "--version is wanted: it counts up with each image of a model");
	if (!m->model.len)
		return kb_fail(err, KB_EARG, "--model is wanted: the name that boxes list it by");
	if (!m->licence.len)
		return kb_fail(err, KB_EARG, "--licence is wanted: the model itself does not say one");
	if (o[KB_IMAGE_BASE].is_set) {
		m->kind = KB_MANIFEST_ADAPTER;
		m->base = base;
		if (kb_unhex(o[KB_IMAGE_BASE].text, base, KB_MANIFEST_HASH))
			return kb_fail(err, KB_EARG, "--base wants a digest of 64 hexadecimal digits (kotobako model digest)");
	}
	return KB_OK;
}

// A model that is damaged is not packed.
static int prove(const char *path, const struct kb_progress *progress, struct kb_err *err)
{
	struct kb_image *image = NULL;
	int r = kb_image_open(path, err, &image);
	r = r ? r : kb_image_verify(image, progress, err);
	kb_image_close(image);
	return r;
}

static int say(const char *path, struct kb_err *err)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_manifest m;
	uint8_t digest[KB_VERITY_HASH];
	char hex[2 * KB_VERITY_HASH + 1];
	int fd = -1, r = kb_ctl_image_open(path, 0, err, &fd, &bytes, &h);
	r = r ? r : kb_manifest_parse(h->manifest.bytes, h->manifest.len, err, &m);
	if (r == 0) {
		kb_verity_digest(m.payload_bytes, m.payload_root, digest);
		kb_hex(digest, sizeof digest, hex);
		printf("%s: %.*s version %" PRIu64 ", sha256:%s, to be signed (kotobako image sign)\n", path, (int)m.model.len,
			m.model.data, m.version, hex);
	}
	if (fd >= 0)
		close(fd);
	kb_buf_finish(&bytes);
	free(h);
	return r;
}

static int write_image(const struct kb_ctl_args *args, struct kb_bundle_parts *parts, struct kb_err *err)
{
	struct kb_ctl_progress progress;
	const struct kb_progress p = {.step = step, .ctx = &progress};
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "verifying", kb_clock_ms());
	int r = prove(parts->payload, &p, err);
	kb_ctl_progress_end(&progress);
	if (r)
		return r;
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "building", kb_clock_ms());
	r = kb_bundle_write(parts, args->arg[2], &p, err);
	kb_ctl_progress_end(&progress);
	return r;
}

int kb_ctl_image_build(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_value *o = args->option;
	struct kb_bundle_parts *parts = calloc(1, sizeof *parts);
	struct kb_model_entry model = {0};
	struct kb_buf roots = {0};
	struct kb_err err = {0};
	uint8_t base[KB_MANIFEST_HASH];
	int r = parts ? KB_OK : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r == 0 && !o[KB_IMAGE_ROOTS].is_set)
		r = kb_fail(&err, KB_EARG, "--roots is wanted: the fleet's chain (kotobako root build)");
	if (r == 0)
		r = find_model(ctl, args->arg[1], &err, &model);
	if (r == 0)
		r = kb_ctl_chain_read(o[KB_IMAGE_ROOTS].text, &err, &roots, &parts->chain);
	if (r == 0)
		r = kb_chain_check(&parts->chain, true, &err);
	if (r == 0)
		r = fill(o, &model, base, &err, &parts->manifest);
	if (r == 0) {
		parts->payload = model.path;
		parts->replace = o[KB_IMAGE_REPLACE].is_set;
		r = write_image(args, parts, &err);
	}
	r = r ? r : say(args->arg[2], &err);
	free(model.path);
	kb_buf_finish(&roots);
	free(parts);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; nothing was kept");
	return r ? kb_ctl_fail(r == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}
