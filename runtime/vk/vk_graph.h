// A list of dispatches, recorded once and replayed. Group counts along y follow counters that the caller gives at
// each run, through indirect dispatch where they can differ; so one recording serves every size up to its own.
#pragma once
#include "vk/vk_device.h"

#define KB_VK_RANGES_MAX 10u
#define KB_VK_COUNTERS 2u
#define KB_VK_SUBMISSION_NS 100000000ull // aim of one submission: watchdogs of integrated GPUs bite at seconds

struct kb_vk_range {
	uint64_t address, size;
	bool write;
};

struct kb_vk_dispatch {
	const char *name; // lives as long as the graph
	VkPipeline pipeline;
	uint32_t push_size;
	uint8_t push[KB_VK_PUSH_MAX];
	uint32_t x;           // groups
	uint32_t y_per_group; // groups along y: counter / y_per_group, rounded up; 0: one group
	uint32_t counter;     // which counter
	uint64_t work;        // multiply-adds, for one unit of the counter
	bool touches_all;     // ordered against every other dispatch; ranges do not matter
	uint32_t n_ranges;
	struct kb_vk_range ranges[KB_VK_RANGES_MAX]; // memory it touches: barriers go where these overlap
};

// Filled by profiled runs, one a dispatch.
struct kb_vk_profile {
	const char *name;
	uint64_t work;   // of the last run
	uint64_t ns;     // sum over runs
	uint64_t ns_min; // the fastest run
	uint32_t runs;
};

struct kb_vk_graph;

// `list` is copied. counters_max: the largest counters of any run. ns_per_work: the time of a multiply-add on this
// device as known so far (kb_vk_graph_rate of an earlier graph), from which submissions are cut.
KB_MUST_CHECK int kb_vk_graph_create(struct kb_vk *vk, const struct kb_vk_dispatch *list, uint32_t n,
	const uint32_t counters_max[KB_VK_COUNTERS], double ns_per_work, bool profile, struct kb_err *err,
	struct kb_vk_graph **ret);
void kb_vk_graph_destroy(struct kb_vk_graph *g);
// Blocks until done. KB_EDEVICE: lost or timed out. KB_EARG: a counter above its maximum, or 0 where a dispatch that
// follows it always has one group (y_per_group is not below the maximum).
KB_MUST_CHECK int kb_vk_graph_run(struct kb_vk_graph *g, const uint32_t counters[KB_VK_COUNTERS], struct kb_err *err);
// Nanoseconds a multiply-add took in the last run; 0 before.
double kb_vk_graph_rate(const struct kb_vk_graph *g);
// Dispatches, barriers and submissions of one run.
void kb_vk_graph_counts(const struct kb_vk_graph *g, uint32_t ret[3]);
// ret: n entries, valid with the graph; empty unless created with profile.
const struct kb_vk_profile *kb_vk_graph_profile(const struct kb_vk_graph *g, uint32_t *ret_n);
