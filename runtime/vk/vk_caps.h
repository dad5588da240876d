// What Vulkan devices there are, which one is used and why: plain facts for `kotobako doctor` and for choosing
// kernels. Needs no Vulkan header.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_VK_DEVICES_MAX 16u
#define KB_VK_HEAPS_MAX 8u

enum kb_vk_type { KB_VK_OTHER, KB_VK_INTEGRATED, KB_VK_DISCRETE, KB_VK_VIRTUAL, KB_VK_CPU };
extern const char *const kb_vk_type_names[];

struct kb_vk_heap {
	uint64_t bytes;
	bool device_local, host_visible;
};

struct kb_vk_caps {
	uint32_t index; // in the loader's order
	char name[256], driver[128];
	enum kb_vk_type type;
	uint32_t api_major, api_minor, api_patch;
	uint32_t vendor_id, device_id, driver_version;
	uint8_t cache_uuid[16];
	uint64_t storage_range_max, allocation_max; // bytes
	uint32_t shared_max, invocations_max, push_max;
	uint32_t groups_max[3];
	uint32_t subgroup, subgroup_min, subgroup_max;
	uint32_t subgroup_ops; // VkSubgroupFeatureFlags, as far as compute shaders have them
	// Buffer device addresses ...; 64-bit integers; 8-bit loads; import: host pointers in place.
	bool addresses, subgroup_control, sync2, int64, storage8, import;
	// Cooperative matrices of a subgroup: signed bytes, 16 x 16 x 32, 32-bit sums.
	bool byte_matrices;
	uint64_t import_alignment;
	uint32_t n_heaps;
	struct kb_vk_heap heaps[KB_VK_HEAPS_MAX];
	bool usable, used;
	char reason[192]; // why it is used, could be used, or is refused
	char path[16];    // "tuned", "stream" or "universal": the kernels that this device gets
	char path_reason[160];
};

// "basic ballot arithmetic" for subgroup_ops. ret: NUL-terminated, cut to size.
void kb_vk_subgroup_text(uint32_t subgroup_ops, char *ret, size_t size);

// The kernels for a device: writes caps->path and caps->path_reason. Stream and universal need only what `usable`
// needs.
void kb_vk_choose_path(struct kb_vk_caps *caps);

// Lists every device, with `used` set on the one that kb_vk_create(wish) would take. wish: an index, part of a
// name, or NULL for the best. No device at all is KB_OK and *ret_n 0; KB_EDEVICE when Vulkan itself fails.
KB_MUST_CHECK int kb_vk_enumerate(
	const char *wish, struct kb_err *err, struct kb_vk_caps ret[KB_VK_DEVICES_MAX], uint32_t *ret_n);
