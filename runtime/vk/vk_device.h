// One opened Vulkan device with its queue. One thread at a time.
#pragma once
#include "base/err.h"
#include "vk/vk_caps.h"
#include <stdio.h>
#include <vulkan/vulkan.h>

#define KB_VK_PUSH_MAX 128u // bytes of push constants: the least that Vulkan promises

struct kb_vk_options {
	const char *device;     // an index, part of a name, or NULL: the best
	bool validate;          // validation layer, synchronisation validation included; KB_EUNSUPPORTED without it
	bool import;            // host pointers may be used in place where that works
	const char *cache_path; // pipeline cache file, or NULL: none is kept
	uint64_t wait_ns;       // longest wait for one submission; 0: 60 s
	void (*message)(void *ctx, const char *text); // each validation message; may be NULL
	void *message_ctx;
};

struct kb_vk {
	struct kb_vk_caps caps;
	VkInstance instance;
	VkDebugUtilsMessengerEXT messenger;
	VkPhysicalDevice gpu;
	VkPhysicalDeviceMemoryProperties memory;
	VkDevice device;
	VkQueue queue;
	uint32_t family;
	VkCommandPool pool;
	VkFence fence;
	VkPipelineLayout layout;
	VkPipelineCache cache;
	char *cache_path;
	FILE *cache_file;    // NULL: none is kept
	size_t cache_loaded; // bytes that came from the file
	uint64_t wait_ns;
	float timestamp_ns; // one tick; 0: no timestamps
	bool lost;          // set by the first loss; everything later is KB_EDEVICE
	uint32_t messages;  // validation messages so far
	void (*message)(void *ctx, const char *text);
	void *message_ctx;
	PFN_vkGetMemoryHostPointerPropertiesEXT host_pointer_properties; // NULL: no import
};

// Sets LP_NATIVE_VECTOR_WIDTH where it is unset and helps lavapipe (so does kb_vk_enumerate): call it before other
// threads read the environment.
KB_MUST_CHECK int kb_vk_create(const struct kb_vk_options *o, struct kb_err *err, struct kb_vk **ret);
void kb_vk_destroy(struct kb_vk *vk);

// Fills err from a VkResult ("%s: VK_ERROR_... (what it means)") and returns the code; notes a lost device.
int kb_vk_fail(struct kb_vk *vk, struct kb_err *err, VkResult r, const char *doing);
// Submits one command buffer and waits for it, at most vk->wait_ns. KB_EDEVICE: lost or timed out.
KB_MUST_CHECK int kb_vk_submit(struct kb_vk *vk, VkCommandBuffer cmd, struct kb_err *err);
