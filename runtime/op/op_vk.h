// The Vulkan backend of op.h.
#pragma once
#include "op/op.h"
#include "vk/vk_caps.h"
#include <stdbool.h>

enum kb_op_vk_path {
	KB_OP_VK_AUTO,      // by the device's properties (kb_vk_choose_path)
	KB_OP_VK_UNIVERSAL, // 256 invocations, 16 KiB shared, f32, no subgroup operations: any Vulkan 1.3 device
	KB_OP_VK_TUNED,     // lane = row, x by subgroup broadcast; KB_EUNSUPPORTED where the device does not fit
	KB_OP_VK_STREAM     // as universal, with loads of 16 bytes and register tiles: GPUs
};

struct kb_op_vk_options {
	const char *device; // an index, part of a name, or NULL: the best
	enum kb_op_vk_path path;
	bool validate;          // validation and synchronisation validation layers; for tests
	bool no_import;         // always copy weights, even where they could be used in place
	bool no_chains;         // one dispatch an op (or fused ops), even where several could become one
	bool profile;           // timestamps around every dispatch: see kb_op_vk_profile
	uint32_t residents;     // tests: so many groups in a chain, whether they run side by side or not; 0: tried out
	uint32_t fault_after;   // tests: after so many good runs every run fails with KB_EDEVICE; 0: never
	const char *cache_path; // pipeline cache file, written when new pipelines were made; NULL: none
	void (*message)(void *ctx, const char *text); // each validation message; may be NULL
	void *message_ctx;
};

// Strings are copied. The backend is destroyed by its own ops->destroy.
KB_MUST_CHECK int kb_op_vk_create(const struct kb_op_vk_options *o, struct kb_err *err, struct kb_backend **ret);

// The following take only backends and graphs of kb_op_vk_create.

// Valid with the backend; path is what is really used.
const struct kb_vk_caps *kb_op_vk_caps(const struct kb_backend *b);
// Validation messages so far.
uint32_t kb_op_vk_messages(const struct kb_backend *b);

struct kb_op_vk_profile {
	const char *name; // of the node (the first, where several became one dispatch)
	uint64_t work;    // multiply-adds of the last run, 0 where the op counts none
	uint64_t ns;      // sum over runs
	uint64_t ns_min;  // the fastest run
	uint32_t runs;
};
// Entry i of the graph's profile; false past the end or without options.profile.
bool kb_op_vk_profile(const struct kb_graph *g, uint32_t i, struct kb_op_vk_profile *ret);
// Dispatches, barriers and submissions of one run.
void kb_op_vk_counts(const struct kb_graph *g, uint32_t ret[3]);
