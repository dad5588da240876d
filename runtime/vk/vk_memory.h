// Buffers with device addresses. Every buffer is one allocation of at most 1 GiB.
#pragma once
#include "vk/vk_device.h"

#define KB_VK_ALLOCATION_MAX (1ull << 30)

struct kb_vk_buffer {
	VkBuffer buffer;
	VkDeviceMemory memory;
	uint64_t size, address;
	void *host;    // mapped, coherent; NULL where the host cannot see it
	bool in_place; // imported host bytes
};

enum kb_vk_place {
	KB_VK_HOST,  // visible and coherent; cached where there is such memory, because the host reads results
	KB_VK_DEVICE // the device's own; mapped too where that costs nothing
};

// Zeroed. KB_ELIMIT above 1 GiB or the device's limit, KB_ENOMEM. `what` names the use in error texts.
KB_MUST_CHECK int kb_vk_buffer_create(struct kb_vk *vk, enum kb_vk_place place, uint64_t size, const char *what,
	struct kb_err *err, struct kb_vk_buffer *ret);
// Uses the host bytes themselves. bytes: page-aligned, readable up to the end of their last page, and valid until
// destroy. KB_EUNSUPPORTED where the device cannot: then copy.
KB_MUST_CHECK int kb_vk_buffer_import(
	struct kb_vk *vk, const void *bytes, uint64_t size, struct kb_err *err, struct kb_vk_buffer *ret);
// Copies host bytes into a buffer, in chunks; asks the kernel to drop pages of `bytes` that have been copied.
KB_MUST_CHECK int kb_vk_buffer_write(
	struct kb_vk *vk, struct kb_vk_buffer *b, const void *bytes, uint64_t size, struct kb_err *err);
void kb_vk_buffer_destroy(struct kb_vk *vk, struct kb_vk_buffer *b);
