#include "vk/vk_caps.h"
#include <stdio.h>
#include <string.h>
#include <vulkan/vulkan.h>

const char *const kb_vk_type_names[] = {
	[KB_VK_OTHER] = "other",
	[KB_VK_INTEGRATED] = "integrated GPU",
	[KB_VK_DISCRETE] = "discrete GPU",
	[KB_VK_VIRTUAL] = "virtual GPU",
	[KB_VK_CPU] = "CPU",
};

/* see vk_caps.h */
void kb_vk_subgroup_text(uint32_t subgroup_ops, char *ret, size_t size)
{
	static const char *const names[] = {
		"basic", "vote", "arithmetic", "ballot", "shuffle", "shuffle-relative", "clustered", "quad"};
	size_t len = 0;
	if (size)
		ret[0] = 0;
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		if (!(subgroup_ops >> i & 1) || len >= size)
			continue;
		int n = snprintf(ret + len, size - len, "%s%s", len ? " " : "", names[i]);
		len += n > 0 ? (size_t)n : 0;
	}
}

// What the tuned kernels need beyond the universal ones. A row a condition, so that the reason can be told.
static const char *tuned_lacks(const struct kb_vk_caps *c)
{
	const uint32_t ops =
		VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
	if (c->subgroup != 4 && c->subgroup != 8 && c->subgroup != 16)
		return "its subgroups are not of 4, 8 or 16 lanes";
	if ((c->subgroup_ops & ops) != ops)
		return "it has no subgroup broadcast and arithmetic";
	if (!c->int64)
		return "it has no 64-bit integers";
	if (!c->storage8)
		return "it has no 8-bit loads";
	return NULL;
}

/* see vk_caps.h */
void kb_vk_choose_path(struct kb_vk_caps *c)
{
	const char *lacks = tuned_lacks(c);
	const bool is_gpu = c->type == KB_VK_DISCRETE || c->type == KB_VK_INTEGRATED || c->type == KB_VK_VIRTUAL;
	snprintf(c->path, sizeof c->path, "%s", is_gpu ? "stream" : lacks ? "universal" : "tuned");
	if (is_gpu)
		snprintf(c->path_reason, sizeof c->path_reason, "a GPU: loads of 16 bytes, register tiles");
	else if (lacks)
		snprintf(c->path_reason, sizeof c->path_reason, "tuned kernels do not fit: %s", lacks);
	else
		snprintf(c->path_reason, sizeof c->path_reason,
			"a CPU device with subgroups of %u lanes: lane = row, no shared memory", c->subgroup);
}
