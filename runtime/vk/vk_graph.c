#include "vk/vk_graph.h"
#include "base/clock.h"
#include "vk/vk_memory.h"
#include <stdlib.h>
#include <string.h>

// A run of dispatches that is submitted as one.
struct segment {
	VkCommandBuffer cmd;
	uint32_t first, end;
};

struct kb_vk_graph {
	struct kb_vk *vk;
	struct kb_vk_dispatch *list;
	uint32_t n, counters_max[KB_VK_COUNTERS];
	bool *barrier; // before dispatch i
	uint32_t n_barriers;
	struct segment *segments;
	uint32_t n_segments;
	struct kb_vk_buffer commands; // VkDispatchIndirectCommand (n), written by the host before each run
	VkQueryPool queries;          // two timestamps a dispatch, when profiled
	uint64_t *ticks;
	struct kb_vk_profile *profile;
	double ns_per_work;
};

static bool overlap(const struct kb_vk_range *a, const struct kb_vk_range *b)
{
	return (a->write || b->write) && a->address < b->address + b->size && b->address < a->address + a->size;
}

static bool conflict(const struct kb_vk_dispatch *a, const struct kb_vk_dispatch *b)
{
	if (a->touches_all || b->touches_all)
		return true;
	for (uint32_t i = 0; i < a->n_ranges; i++)
		for (uint32_t j = 0; j < b->n_ranges; j++)
			if (overlap(&a->ranges[i], &b->ranges[j]))
				return true;
	return false;
}

// A barrier waits for everything before it, so only dispatches since the last one can conflict.
static void place_barriers(struct kb_vk_graph *g)
{
	uint32_t since = 0;
	for (uint32_t i = 1; i < g->n; i++) {
		for (uint32_t j = since; j < i && !g->barrier[i]; j++)
			g->barrier[i] = conflict(&g->list[j], &g->list[i]);
		if (g->barrier[i]) {
			since = i;
			g->n_barriers++;
		}
	}
}

static uint64_t work_of(const struct kb_vk_dispatch *d, const uint32_t counters[KB_VK_COUNTERS])
{
	return d->y_per_group ? d->work * counters[d->counter] : d->work;
}

// Cuts the list where the estimated time of a submission would pass the aim.
static void cut(struct kb_vk_graph *g, const uint32_t counters_max[KB_VK_COUNTERS], double ns_per_work)
{
	double ns = 0;
	g->n_segments = 0;
	for (uint32_t i = 0; i < g->n; i++) {
		double cost = (double)work_of(&g->list[i], counters_max) * ns_per_work;
		if (!i || ns + cost > (double)KB_VK_SUBMISSION_NS) {
			g->segments[g->n_segments++] = (struct segment){.first = i};
			ns = 0;
		}
		g->segments[g->n_segments - 1].end = i + 1;
		ns += cost;
	}
}

static void record_barrier(VkCommandBuffer cmd, VkPipelineStageFlags2 to_stage, VkAccessFlags2 to)
{
	VkMemoryBarrier2 m = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
		.srcStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
		.srcAccessMask = VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT | VK_ACCESS_2_SHADER_STORAGE_READ_BIT,
		.dstStageMask = to_stage,
		.dstAccessMask = to,
	};
	VkDependencyInfo d = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO, .memoryBarrierCount = 1, .pMemoryBarriers = &m};
	vkCmdPipelineBarrier2(cmd, &d);
}

// Groups along y. Where even the largest counter needs only one, it is one in every run.
static uint32_t groups_y(const struct kb_vk_dispatch *d, const uint32_t counters[KB_VK_COUNTERS])
{
	return d->y_per_group ? (counters[d->counter] + d->y_per_group - 1) / d->y_per_group : 1;
}

static void record_dispatch(struct kb_vk_graph *g, VkCommandBuffer cmd, uint32_t i, VkPipeline *bound)
{
	const struct kb_vk_dispatch *d = &g->list[i];
	if (g->barrier[i])
		record_barrier(cmd, VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
			VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT | VK_ACCESS_2_SHADER_STORAGE_READ_BIT);
	if (*bound != d->pipeline)
		vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, d->pipeline);
	*bound = d->pipeline;
	vkCmdPushConstants(cmd, g->vk->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, d->push_size, d->push);
	if (g->queries)
		vkCmdWriteTimestamp2(cmd, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, g->queries, 2 * i);
	if (groups_y(d, g->counters_max) == 1)
		vkCmdDispatch(cmd, d->x, 1, 1); // the device need not fetch counts: a microsecond or two on GPUs
	else
		vkCmdDispatchIndirect(cmd, g->commands.buffer, i * sizeof(VkDispatchIndirectCommand));
	if (g->queries)
		vkCmdWriteTimestamp2(cmd, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, g->queries, 2 * i + 1);
}

static VkResult record(struct kb_vk_graph *g, struct segment *s)
{
	VkCommandBufferAllocateInfo info = {
		.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
		.commandPool = g->vk->pool,
		.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
		.commandBufferCount = 1,
	};
	VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
	VkPipeline bound = NULL;
	VkResult r = vkAllocateCommandBuffers(g->vk->device, &info, &s->cmd);
	if (!r)
		r = vkBeginCommandBuffer(s->cmd, &begin);
	if (r)
		return r;
	if (g->queries)
		vkCmdResetQueryPool(s->cmd, g->queries, 2 * s->first, 2 * (s->end - s->first));
	// What earlier submissions wrote (the KV cache, the part before a cut) is made visible to this one.
	record_barrier(s->cmd, VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
		VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT | VK_ACCESS_2_SHADER_STORAGE_READ_BIT);
	for (uint32_t i = s->first; i < s->end; i++)
		record_dispatch(g, s->cmd, i, &bound);
	record_barrier(s->cmd, VK_PIPELINE_STAGE_2_HOST_BIT, VK_ACCESS_2_HOST_READ_BIT | VK_ACCESS_2_HOST_WRITE_BIT);
	return vkEndCommandBuffer(s->cmd);
}

static int create_queries(struct kb_vk_graph *g, struct kb_err *err)
{
	VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
		.queryType = VK_QUERY_TYPE_TIMESTAMP,
		.queryCount = 2 * g->n};
	g->ticks = calloc(2 * (size_t)g->n, sizeof *g->ticks);
	g->profile = calloc(g->n, sizeof *g->profile);
	if (!g->ticks || !g->profile)
		return kb_fail(err, KB_ENOMEM, "Vulkan: out of memory");
	VkResult r = vkCreateQueryPool(g->vk->device, &info, NULL, &g->queries);
	return r ? kb_vk_fail(g->vk, err, r, "creating timestamps") : KB_OK;
}

/* see vk_graph.h */
int kb_vk_graph_create(struct kb_vk *vk, const struct kb_vk_dispatch *list, uint32_t n,
	const uint32_t counters_max[KB_VK_COUNTERS], double ns_per_work, bool profile, struct kb_err *err,
	struct kb_vk_graph **ret)
{
	struct kb_vk_graph *g = calloc(1, sizeof *g);
	VkResult r = VK_SUCCESS;
	if (!n || !g) {
		free(g);
		return kb_fail(err, n ? KB_ENOMEM : KB_EARG, "Vulkan: %s", n ? "out of memory" : "an empty graph");
	}
	g->vk = vk;
	g->n = n;
	g->list = calloc(n, sizeof *g->list);
	g->barrier = calloc(n, sizeof *g->barrier);
	g->segments = calloc(n, sizeof *g->segments);
	int rc = KB_OK;
	if (!g->list || !g->barrier || !g->segments)
		rc = kb_fail(err, KB_ENOMEM, "Vulkan: out of memory");
	if (rc == KB_OK)
		rc = kb_vk_buffer_create(
			vk, KB_VK_HOST, n * sizeof(VkDispatchIndirectCommand), "dispatch counts", err, &g->commands);
	if (rc == KB_OK && profile && vk->timestamp_ns > 0)
		rc = create_queries(g, err);
	if (rc == KB_OK) {
		memcpy(g->list, list, n * sizeof *list);
		memcpy(g->counters_max, counters_max, sizeof g->counters_max);
		place_barriers(g);
		cut(g, counters_max, ns_per_work);
		for (uint32_t i = 0; i < g->n_segments && !r; i++)
			r = record(g, &g->segments[i]);
		if (r)
			rc = kb_vk_fail(vk, err, r, "recording a graph");
	}
	if (rc != KB_OK) {
		kb_vk_graph_destroy(g);
		return rc;
	}
	*ret = g;
	return KB_OK;
}

/* see vk_graph.h */
void kb_vk_graph_destroy(struct kb_vk_graph *g)
{
	if (!g)
		return;
	for (uint32_t i = 0; i < g->n_segments; i++)
		if (g->segments[i].cmd && !g->vk->lost)
			vkFreeCommandBuffers(g->vk->device, g->vk->pool, 1, &g->segments[i].cmd);
	vkDestroyQueryPool(g->vk->device, g->queries, NULL);
	kb_vk_buffer_destroy(g->vk, &g->commands);
	free(g->ticks);
	free(g->profile);
	free(g->list);
	free(g->barrier);
	free(g->segments);
	free(g);
}

static int read_profile(struct kb_vk_graph *g, const uint32_t counters[KB_VK_COUNTERS], struct kb_err *err)
{
	VkResult r = vkGetQueryPoolResults(g->vk->device, g->queries, 0, 2 * g->n, 2 * (size_t)g->n * sizeof *g->ticks,
		g->ticks, sizeof *g->ticks, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
	if (r)
		return kb_vk_fail(g->vk, err, r, "reading timestamps");
	for (uint32_t i = 0; i < g->n; i++) {
		struct kb_vk_profile *p = &g->profile[i];
		p->name = g->list[i].name;
		p->work = work_of(&g->list[i], counters);
		uint64_t ns = (uint64_t)((double)(g->ticks[2 * i + 1] - g->ticks[2 * i]) * (double)g->vk->timestamp_ns);
		p->ns += ns;
		p->ns_min = !p->runs || ns < p->ns_min ? ns : p->ns_min;
		p->runs++;
	}
	return KB_OK;
}

/* see vk_graph.h */
int kb_vk_graph_run(struct kb_vk_graph *g, const uint32_t counters[KB_VK_COUNTERS], struct kb_err *err)
{
	VkDispatchIndirectCommand *c = g->commands.host;
	uint64_t work = 0, begin = kb_clock_ns();
	int rc = KB_OK;
	for (uint32_t i = 0; i < g->n; i++) {
		const struct kb_vk_dispatch *d = &g->list[i];
		uint32_t y = groups_y(d, counters), most = groups_y(d, g->counters_max);
		if (y > most || (!y && most == 1))
			return kb_fail(err, KB_EARG, "Vulkan: %s: %u rows in a graph for %u", d->name, counters[d->counter],
				g->counters_max[d->counter]);
		c[i] = (VkDispatchIndirectCommand){.x = d->x, .y = y, .z = 1};
		work += work_of(d, counters);
	}
	for (uint32_t i = 0; i < g->n_segments && rc == KB_OK; i++)
		rc = kb_vk_submit(g->vk, g->segments[i].cmd, err);
	if (rc == KB_OK && work)
		g->ns_per_work = (double)(kb_clock_ns() - begin) / (double)work;
	if (rc == KB_OK && g->queries)
		rc = read_profile(g, counters, err);
	return rc;
}

/* see vk_graph.h */
double kb_vk_graph_rate(const struct kb_vk_graph *g)
{
	return g->ns_per_work;
}

/* see vk_graph.h */
void kb_vk_graph_counts(const struct kb_vk_graph *g, uint32_t ret[3])
{
	ret[0] = g->n;
	ret[1] = g->n_barriers;
	ret[2] = g->n_segments;
}

/* see vk_graph.h */
const struct kb_vk_profile *kb_vk_graph_profile(const struct kb_vk_graph *g, uint32_t *ret_n)
{
	*ret_n = g->profile ? g->n : 0;
	return g->profile;
}
