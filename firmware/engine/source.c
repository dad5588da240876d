#include "firmware/engine/source.h"

static int find_tensor(void *ctx, const char *name, struct kb_source_tensor *ret)
{
	struct kb_image_tensor t;
	int rc = kb_image_tensor(ctx, name, &t);
	if (rc)
		return rc;
	*ret = (struct kb_source_tensor){
		.format = t.format,
		.rows = t.rows,
		.cols = t.cols,
		.segment = t.segment,
		.offset = t.offset,
		.bytes = t.bytes,
	};
	return 0;
}

static int find_segment(void *ctx, uint32_t i, const void **ret_bytes, uint64_t *ret_size)
{
	return kb_image_segment(ctx, i, ret_bytes, ret_size);
}

struct kb_model_source kb_source_of_image(struct kb_image *image)
{
	return (struct kb_model_source){
		.meta = kb_image_meta_source(image),
		.ctx = image,
		.tensor = find_tensor,
		.n_segments = kb_image_info(image)->n_segments,
		.segment = find_segment,
	};
}
