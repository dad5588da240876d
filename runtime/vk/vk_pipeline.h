// Compute pipelines. All share one layout: push constants only, no descriptors.
#pragma once
#include "vk/vk_device.h"

#define KB_VK_SPEC_MAX 8u // specialization constants, ids 0..7, all u32

struct kb_vk_pipeline_desc {
	const char *name;
	const uint32_t *spirv;
	size_t spirv_bytes;
	uint32_t subgroup; // required size, used where the device can choose; 0: its own
	uint32_t n_spec;
	uint32_t spec[KB_VK_SPEC_MAX];
};

KB_MUST_CHECK int kb_vk_pipeline_create(
	struct kb_vk *vk, const struct kb_vk_pipeline_desc *d, struct kb_err *err, VkPipeline *ret);

// The cache file: header (magic, device, driver, checksum) and the driver's bytes. A file that is missing, foreign
// or damaged gives an empty cache. It is opened once and written in place,
// so that both work inside a sandbox that was closed in between.
KB_MUST_CHECK int kb_vk_cache_open(struct kb_vk *vk, struct kb_err *err);
KB_MUST_CHECK int kb_vk_cache_save(struct kb_vk *vk, struct kb_err *err);
