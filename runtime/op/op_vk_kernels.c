#include "op/op_vk_internal.h"
#include "op/spv.h"
#include <stdlib.h>
#include <string.h>

#define SPV(name) #name, kb_spv_##name, &kb_spv_##name##_size
#define FIXED(KERNEL, PATHS, name)                                                                      \
	{KERNEL, PATHS, KB_FMT_Q4_0, SPV(name##_q4_0)}, {KERNEL, PATHS, KB_FMT_Q4_1, SPV(name##_q4_1)},     \
		{KERNEL, PATHS, KB_FMT_Q5_0, SPV(name##_q5_0)}, {KERNEL, PATHS, KB_FMT_Q5_1, SPV(name##_q5_1)}, \
		{KERNEL, PATHS, KB_FMT_Q8_0, SPV(name##_q8_0)}, {KERNEL, PATHS, KB_FMT_Q4_K, SPV(name##_q4_k)}, \
		{KERNEL, PATHS, KB_FMT_Q5_K, SPV(name##_q5_k)},                                                 \
	{                                                                                                   \
		KERNEL, PATHS, KB_FMT_Q6_K, SPV(name##_q6_k)                                                    \
	}
#define PLAIN(KERNEL, PATHS, name)                                                              \
	{KERNEL, PATHS, KB_FMT_F32, SPV(name##_f32)}, {KERNEL, PATHS, KB_FMT_F16, SPV(name##_f16)}, \
	{                                                                                           \
		KERNEL, PATHS, KB_FMT_BF16, SPV(name##_bf16)                                            \
	}
#define BY_FORMAT(KERNEL, PATHS, name) PLAIN(KERNEL, PATHS, name), FIXED(KERNEL, PATHS, name)
#define LANES (1u << KB_OP_VK_TUNED)
#define STREAM (1u << KB_OP_VK_STREAM)
#define EVERY (1u << KB_OP_VK_UNIVERSAL | LANES | STREAM)

// Rows for fewer paths come before those that they replace.
static const struct kb_kernel_row rows[] = {
	BY_FORMAT(KB_KERNEL_EMBED, EVERY, embed),
	BY_FORMAT(KB_KERNEL_MATMUL, LANES, matmul_lanes),
	PLAIN(KB_KERNEL_MATMUL, STREAM, matmul_stream),
	FIXED(KB_KERNEL_MATMUL, STREAM, matmul_dot),
	BY_FORMAT(KB_KERNEL_MATMUL, EVERY, matmul),
	PLAIN(KB_KERNEL_MATMUL_TILE, STREAM, matmul_tile),
	FIXED(KB_KERNEL_MATMUL_TILE, STREAM, matmul_dot_tile),
	FIXED(KB_KERNEL_MATMUL_MATRICES, STREAM, matmul_mma),
	{KB_KERNEL_FIXED, STREAM, KB_ANY_FORMAT, SPV(fixed)},
	{KB_KERNEL_NORM_LANES, LANES, KB_ANY_FORMAT, SPV(norm_lanes)},
	{KB_KERNEL_NORM_FIXED, STREAM, KB_ANY_FORMAT, SPV(norm_fixed)},
	{KB_KERNEL_NORM, EVERY, KB_ANY_FORMAT, SPV(norm)},
	{KB_KERNEL_ROPE, EVERY, KB_ANY_FORMAT, SPV(rope)},
	{KB_KERNEL_ROPE_KEEP, LANES | STREAM, KB_ANY_FORMAT, SPV(rope_keep)},
	{KB_KERNEL_KV_WRITE, EVERY, KB_ANY_FORMAT, SPV(kv_write)},
	{KB_KERNEL_ATTENTION, EVERY, KB_ANY_FORMAT, SPV(attention)},
	{KB_KERNEL_ATTENTION_LANES, LANES, KB_ANY_FORMAT, SPV(attention_lanes)},
	{KB_KERNEL_ATTENTION_STREAM, STREAM, KB_ANY_FORMAT, SPV(attention_stream)},
	{KB_KERNEL_ROWS, EVERY, KB_ANY_FORMAT, SPV(rows)},
	{KB_KERNEL_CANARY, EVERY, KB_ANY_FORMAT, SPV(canary)},
	BY_FORMAT(KB_KERNEL_CHAIN, LANES, chain),
	{KB_KERNEL_RESIDENT, LANES, KB_ANY_FORMAT, SPV(resident)},
};

static const struct kb_kernel_row *find_row(const struct kb_op_vk *b, enum kb_kernel kernel, int format)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].kernel == kernel && (rows[i].paths >> b->path & 1) &&
			(rows[i].format == KB_ANY_FORMAT || rows[i].format == format))
			return &rows[i];
	return NULL;
}

/* see op_vk_internal.h */
int kb__op_vk_pipeline(struct kb_op_vk *b, enum kb_kernel kernel, int format, uint32_t n_spec, const uint32_t *spec,
	struct kb_err *err, const struct kb_pipeline **ret)
{
	static const uint32_t none[1];
	const struct kb_kernel_row *row = find_row(b, kernel, format);
	spec = spec ? spec : none; // memcmp and memcpy want a pointer even for nothing
	if (!row)
		return kb_fail(err, KB_EUNSUPPORTED, "op_vk: no kernel %d for weight format %d", (int)kernel, format);
	for (uint32_t i = 0; i < b->n_pipelines; i++) {
		const struct kb_pipeline *p = b->pipelines[i];
		if (p->row == row && p->n_spec == n_spec && !memcmp(p->spec, spec, n_spec * sizeof *spec)) {
			*ret = p;
			return KB_OK;
		}
	}
	if (b->n_pipelines == b->cap_pipelines) {
		uint32_t cap = b->cap_pipelines ? 2 * b->cap_pipelines : 32;
		struct kb_pipeline **grown = realloc(b->pipelines, cap * sizeof(struct kb_pipeline *));
		if (!grown)
			return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
		b->pipelines = grown;
		b->cap_pipelines = cap;
	}
	struct kb_pipeline *p = calloc(1, sizeof *p);
	if (!p)
		return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
	struct kb_vk_pipeline_desc d = {
		.name = row->name,
		.spirv = row->spirv,
		.spirv_bytes = *row->bytes,
		.subgroup = row->paths == LANES || kernel == KB_KERNEL_MATMUL_MATRICES ? b->caps.subgroup : 0,
		.n_spec = n_spec,
	};
	*p = (struct kb_pipeline){.row = row, .n_spec = n_spec};
	memcpy(p->spec, spec, n_spec * sizeof *spec);
	memcpy(d.spec, spec, n_spec * sizeof *spec);
	int rc = kb_vk_pipeline_create(b->vk, &d, err, &p->pipeline);
	if (rc != KB_OK) {
		free(p);
		return rc;
	}
	b->pipelines[b->n_pipelines++] = p;
	b->is_cache_dirty = true;
	*ret = p;
	return KB_OK;
}

/* see op_vk_internal.h */
void kb__op_vk_pipelines_finish(struct kb_op_vk *b)
{
	for (uint32_t i = 0; i < b->n_pipelines; i++) {
		vkDestroyPipeline(b->vk->device, b->pipelines[i]->pipeline, NULL);
		free(b->pipelines[i]);
	}
	free(b->pipelines);
}
