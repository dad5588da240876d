// --doctor: devices, limits, what is used and why; with an image, what it takes in memory.
#include "base/log.h"
#include "firmware/engine/engine.h"
#include "firmware/engine/trim.h"
#include "vk/vk_caps.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESIDENT_FACTOR 1.15 // resident memory may be this times the image, plus KV cache and activations

static double mb(uint64_t bytes)
{
	return (double)bytes / 1e6;
}

static const char *yes(bool b)
{
	return b ? "yes" : "no";
}

static void print_device(const struct kb_vk_caps *c)
{
	char ops[160];
	kb_vk_subgroup_text(c->subgroup_ops, ops, sizeof ops);
	printf("%c %u  %s\n", c->used ? '*' : ' ', c->index, c->name);
	printf("      %s: %s\n", c->used ? "used" : c->usable ? "could be used" : "not used", c->reason);
	printf("      driver %s, %s, Vulkan %u.%u.%u\n", c->driver, kb_vk_type_names[c->type], c->api_major, c->api_minor,
		c->api_patch);
	if (c->usable)
		printf("      kernels %s: %s\n", c->path, c->path_reason);
	printf("      buffers to %.0f MB, allocations to %.0f MB; shared memory %u KiB, %u invocations, %u groups\n",
		mb(c->storage_range_max), mb(c->allocation_max), c->shared_max / 1024, c->invocations_max, c->groups_max[0]);
	printf("      subgroups of %u (%u to %u): %s\n", c->subgroup, c->subgroup_min, c->subgroup_max, ops);
	printf("      buffer addresses %s, weights in place %s, synchronization2 %s, cooperative matrices of bytes %s\n",
		yes(c->addresses), yes(c->import), yes(c->sync2), yes(c->byte_matrices));
	for (uint32_t i = 0; i < c->n_heaps; i++)
		printf("      heap %u: %.0f MB%s%s\n", i, mb(c->heaps[i].bytes), c->heaps[i].device_local ? ", device" : "",
			c->heaps[i].host_visible ? ", host sees it" : "");
}

static int print_devices(const struct kb_engine_options *o)
{
	struct kb_vk_caps caps[KB_VK_DEVICES_MAX];
	uint32_t n = 0;
	struct kb_err err = {0};
	int rc = kb_vk_enumerate(o->device, &err, caps, &n);
	if (rc) {
		printf("Vulkan: %s\n", err.text);
		return rc;
	}
	printf("Vulkan devices: %u\n", n);
	for (uint32_t i = 0; i < n; i++)
		print_device(&caps[i]);
	if (n == 0)
		printf("  none: install Mesa's drivers (Debian: mesa-vulkan-drivers); lavapipe needs no graphics processor\n");
	return 0;
}

// One token through everything, so that what is resident is what a working engine has.
static int warm_up(struct kb_engine *e, struct kb_err *err)
{
	const struct kb_model_info *info = kb_model_info(e->model);
	uint32_t token[KB_STEP_TOKENS_MAX] = {0}, position[KB_STEP_TOKENS_MAX], seq[KB_STEP_TOKENS_MAX] = {0};
	uint32_t n = info->max_tokens, last = n - 1;
	uint32_t *row = kb_model_page_row(e->model, 0);
	const float *logits;
	for (uint32_t i = 0; i < info->kv_pages; i++)
		row[i] = i;
	if (n > info->kv_pages * KB_KV_PAGE_TOKENS)
		n = info->kv_pages * KB_KV_PAGE_TOKENS;
	last = n - 1;
	for (uint32_t i = 0; i < n; i++)
		position[i] = i;
	const struct kb_batch batch = {
		.n_tokens = n,
		.n_out = 1,
		.token = token,
		.position = position,
		.slot = position,
		.seq = seq,
		.out_row = &last,
	};
	return kb_model_step(e->model, &batch, err, &logits);
}

static int print_memory(const struct kb_engine_options *o)
{
	struct kb_engine e;
	struct kb_err err = {0};
	uint32_t us = 0;
	int rc = kb_engine_open(&e, o, NULL, NULL, &err);
	if (rc) {
		printf("\n%s: %s\n", o->image, err.text);
		return rc;
	}
	rc = kb_ping_run(e.ping, &err, &us);
	printf("\nhealth check: %s", rc ? err.text : "");
	if (rc == 0)
		printf("right result in %.2f ms", us / 1e3);
	if (rc == 0)
		rc = warm_up(&e, &err);
	kb_trim(); // as a resting engine does
	const struct kb_model_info *info = kb_model_info(e.model);
	const struct kb_image_info *image = kb_image_info(e.image);
	uint64_t resident = kb_engine_resident(&e);
	double bound = RESIDENT_FACTOR * (double)image->file_bytes + (double)info->kv_bytes + (double)info->scratch_bytes;
	printf("\nmodel: %s (%s), %.1f M parameters, %u layers, context %u\n", info->name, info->arch,
		(double)info->parameters / 1e6, info->layers, info->context);
	printf("on: %s\n", e.backend->device);
	if (e.backend->residents)
		printf("small steps: one dispatch, %u groups side by side\n", e.backend->residents);
	printf("sandbox: %s\n", o->no_sandbox ? "off" : e.sandbox.has_landlock ? "seccomp and landlock" : "seccomp");
	printf("memory plan:\n");
	printf("  image        %9.1f MB on disk\n", mb(image->file_bytes));
	printf("  weights      %9.1f MB %s (%.1f MB read for each token)\n", mb(info->weight_bytes),
		e.backend->imports_in_place ? "used in place" : "copied to the device", mb(info->weight_bytes_per_token));
	printf("  KV cache     %9.1f MB for %u tokens (%llu bytes each)\n", mb(info->kv_bytes),
		info->kv_pages * KB_KV_PAGE_TOKENS, (unsigned long long)info->kv_bytes_per_token);
	printf("  activations  %9.1f MB for steps of %u tokens\n", mb(info->scratch_bytes), info->max_tokens);
	printf("  allocated    %9.1f MB, imported %.1f MB, copied %.1f MB\n", mb(e.backend->bytes_allocated),
		mb(e.backend->bytes_imported), mb(e.backend->bytes_copied));
	if (rc)
		printf("a step failed: %s\n", err.text);
	else
		printf("resident: %.1f MB; bound %.2f x image + KV cache + activations = %.1f MB: %s\n", mb(resident),
			RESIDENT_FACTOR, bound / 1e6, (double)resident <= bound ? "PASS" : "over");
	kb_engine_close(&e);
	return rc ? rc : (double)resident <= bound ? 0 : KB_ELIMIT;
}

int kb_mode_doctor(const struct kb_engine_options *o, char **arguments)
{
	struct kb_engine_options with_image = *o;
	with_image.image = arguments[0];
	int rc = print_devices(o);
	if (rc == 0 && with_image.image)
		rc = print_memory(&with_image);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
