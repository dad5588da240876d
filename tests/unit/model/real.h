// A real model on the Vulkan backend: its image (build/models, made by `make test-inputs`), opened as the engine does.
#pragma once
#include "harness/kt.h"
#include "model/model.h"
#include "op/op_vk.h"
#include "storage/image.h"

#include <stdio.h>

struct real {
	struct kb_image *image;
	struct kb_backend *backend;
	struct kb_model *model;
	const struct kb_model_info *info;
};

static int real_tensor(void *ctx, const char *name, struct kb_source_tensor *ret)
{
	struct kb_image_tensor t;
	int e = kb_image_tensor(ctx, name, &t);
	if (!e)
		*ret = (struct kb_source_tensor){.format = t.format,
			.rows = t.rows,
			.cols = t.cols,
			.segment = t.segment,
			.offset = t.offset,
			.bytes = t.bytes};
	return e;
}

static int real_segment(void *ctx, uint32_t i, const void **ret_bytes, uint64_t *ret_size)
{
	return kb_image_segment(ctx, i, ret_bytes, ret_size);
}

// Sequence 0 gets the pages in order, so a token's slot is its position.
static void real_open(struct real *r, const char *path, enum kb_op_vk_path kind, struct kb_model_options options)
{
	struct kb_err err = {0};
	struct kb_op_vk_options device = {.device = getenv("KB_DEVICE"), .path = kind};
	if (kb_image_open(path, &err, &r->image))
		fail_msg("%s (make test-inputs makes the images of the models)", err.text);
	struct kb_model_source source = {.meta = kb_image_meta_source(r->image),
		.ctx = r->image,
		.tensor = real_tensor,
		.n_segments = kb_image_info(r->image)->n_segments,
		.segment = real_segment};
	if (kb_op_vk_create(&device, &err, &r->backend) || kb_model_create(r->backend, &source, &options, &err, &r->model))
		fail_msg("%s: %s", path, err.text);
	r->info = kb_model_info(r->model);
	for (uint32_t i = 0; i < r->info->kv_pages; i++)
		kb_model_page_row(r->model, 0)[i] = i;
}

static void real_close(struct real *r)
{
	kb_model_destroy(r->model);
	r->backend->ops->destroy(r->backend);
	kb_image_close(r->image);
}
