// Speeds of each kernel beside what the device can do.
#include "base/clock.h"
#include "op/spv.h"
#include "shaders/push.h"
#include "unit/op/checkop.h"
#include "vk/vk_graph.h"
#include "vk/vk_memory.h"
#include "vk/vk_pipeline.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPEAT_MAX 64
#define MEASURE_NS 250000000ull

// What the device can do: multiply-adds without loads; bytes moved and nothing done with them; per ns.
static struct limits {
	double mac, byte;
} limits;

// How much of the time a kernel at the device's limit would need as well, in percent.
static double share(double mac, double bytes, double ns)
{
	if (limits.mac <= 0 || limits.byte <= 0)
		return 0;
	double by_mac = mac / limits.mac, by_byte = bytes / limits.byte;
	return 100 * (by_mac > by_byte ? by_mac : by_byte) / ns;
}

// Memory of one measurement.
struct bench_memory {
	struct kb_backend *b;
	struct kb_mem mem[8];
	int n;
};

static kb_addr take(struct bench_memory *m, uint64_t bytes)
{
	struct kb_err err;
	if (m->n == 8 || m->b->ops->alloc(m->b, KB_MEM_DEVICE, bytes, "bench", &err, &m->mem[m->n]) != KB_OK)
		return 0;
	return m->mem[m->n++].addr;
}

static void give_back(struct bench_memory *m)
{
	for (int i = 0; i < m->n; i++)
		m->b->ops->free(m->b, &m->mem[i]);
	m->n = 0;
}

// Nanoseconds of one run of `node`, the best of several graphs of `repeat` nodes; 0: failed.
static double measure(
	struct kb_backend *b, const struct kb_node *node, uint32_t repeat, uint32_t tokens, uint32_t position)
{
	struct kb_err err = {0};
	struct kb_node nodes[REPEAT_MAX];
	struct kb_mem step = {0};
	struct kb_graph *g = NULL;
	double best = 0;
	uint32_t pages = position / KB_KV_PAGE_TOKENS + 1;
	if (b->ops->alloc(b, KB_MEM_HOST, 4 * (16 + 5 * 256 + pages), "step", &err, &step) != KB_OK)
		return 0;
	uint32_t *w = step.host;
	w[0] = w[1] = tokens;
	w[2] = pages;
	for (uint32_t t = 0; t < tokens; t++) {
		w[16 + 256 + t] = position - (tokens - 1 - t);
		w[16 + 512 + t] = position - (tokens - 1 - t);
	}
	for (uint32_t i = 0; i < pages; i++)
		w[16 + 5 * 256 + i] = i;
	for (uint32_t i = 0; i < repeat; i++)
		nodes[i] = *node;
	kb_addr s = step.addr;
	struct kb_graph_desc d = {.nodes = nodes,
		.n_nodes = repeat,
		.step = {s, s + 4 * 16, s + 4 * (16 + 256), s + 4 * (16 + 512), s + 4 * (16 + 768), s + 4 * (16 + 5 * 256),
			s + 4 * (16 + 1024)},
		.max_tokens = tokens,
		.max_out = tokens};
	int rc = b->ops->graph_create(b, &d, &err, &g);
	uint64_t begin = kb_clock_ns();
	for (int i = 0; rc == KB_OK && (i < 3 || kb_clock_ns() - begin < MEASURE_NS); i++) {
		uint64_t t0 = kb_clock_ns();
		w[3]++;
		rc = b->ops->graph_run(b, g, &err);
		double ns = (double)(kb_clock_ns() - t0) / repeat;
		best = i > 0 && (best == 0 || ns < best) ? ns : best;
	}
	if (rc != KB_OK)
		printf("# %s\n", err.text);
	b->ops->graph_destroy(b, g);
	b->ops->free(b, &step);
	return rc == KB_OK ? best : 0;
}

static void bench_matmul(struct kb_backend *b, enum kb_format f, uint32_t rows, uint32_t cols, uint32_t tokens)
{
	struct bench_memory m = {.b = b};
	uint64_t bytes;
	void *panels = random_panels(f, rows, cols, &bytes);
	struct kb_err err;
	struct kb_mem w = {0};
	if (!panels || b->ops->import(b, panels, bytes, &err, &w) != KB_OK) {
		free(panels);
		return;
	}
	struct kb_node n = {.op = KB_OP_MATMUL, .name = "matmul"};
	n.matmul.w = (struct kb_matrix){.format = f, .rows = rows, .cols = cols, .addr = w.addr};
	n.matmul.x = take(&m, 4ull * cols * tokens);
	n.matmul.y = take(&m, 4ull * rows * tokens);
	double mac = (double)rows * cols * tokens;
	// On a GPU a submission takes longer than the work of one.
	uint32_t repeat = kb_op_vk_caps(b)->type != KB_VK_CPU ? 16 : mac > 5e7 ? 1 : 4;
	double ns = measure(b, &n, repeat, tokens, tokens);
	if (ns > 0)
		printf("%-8s %6u x %-5u %4u tokens  %9.1f us  %7.2f GMAC/s  %7.2f GB/s  %3.0f %% of the limit\n",
			kb_formats[f].name, rows, cols, tokens, ns / 1e3, mac / ns, (double)bytes / ns,
			share(mac, (double)bytes, ns));
	give_back(&m);
	b->ops->free(b, &w);
	free(panels);
}

static void bench_attention(
	struct kb_backend *b, uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint32_t tokens, uint32_t context)
{
	struct bench_memory m = {.b = b};
	struct kb_node n = {.op = KB_OP_ATTENTION, .name = "attention"};
	uint64_t cache = 2ull * (context + 16) * kv_heads * head_dim;
	n.attention = (struct kb_node_attention){.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .scale = 0.1f};
	n.attention.q = take(&m, 4ull * heads * head_dim * tokens);
	n.attention.out = take(&m, 4ull * heads * head_dim * tokens);
	n.attention.k_cache = take(&m, cache);
	n.attention.v_cache = take(&m, cache);
	double mac = 2.0 * heads * head_dim * tokens * (context - (tokens - 1) / 2.0);
	double ns = measure(b, &n, 8, tokens, context - 1);
	if (ns > 0)
		printf("attention %2u/%u heads of %3u, %3u tokens after %4u  %9.1f us  %7.2f GMAC/s  %7.2f GB/s  %3.0f %% of "
			   "the limit\n",
			heads, kv_heads, head_dim, tokens, context - tokens, ns / 1e3, mac / ns, 2 * (double)cache / ns,
			share(mac, 2 * (double)cache, ns));
	give_back(&m);
}

static void bench_small(struct kb_backend *b, uint32_t tokens)
{
	static const char *const names[] = {"norm 576", "rope 9/3 x 64", "kv_write 3 x 64", "glu 1536", "add 576"};
	struct bench_memory m = {.b = b};
	kb_addr a = take(&m, 4ull * 8192 * 256), c = take(&m, 4ull * 8192 * 256), d = take(&m, 4ull * 8192 * 256),
			e = take(&m, 4ull * 8192 * 256);
	struct kb_node n[] = {
		{.op = KB_OP_NORM, .norm = {a, c, d, e, 576, 1, 1e-5f, KB_COUNT_TOKENS}},
		{.op = KB_OP_ROPE, .rope = {a, c, e, 9, 3, 64, 64, 1, KB_ROPE_PAIRS}},
		{.op = KB_OP_KV_WRITE, .kv_write = {a, c, d, e, 3, 64}},
		{.op = KB_OP_GLU, .glu = {a, c, d, 1536, KB_ACT_SILU}},
		{.op = KB_OP_ADD, .add = {a, c, 576}},
	};
	for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
		n[i].name = names[i];
		printf("%-16s %3u tokens  %9.1f us\n", names[i], tokens, measure(b, &n[i], 32, tokens, tokens) / 1e3);
	}
	give_back(&m);
}

// A kernel that does only one thing: what a group of it does, and how much of that in all.
struct pure {
	const char *name;
	const uint32_t *spirv;
	const size_t *spirv_bytes;
	uint32_t groups, rounds;
	double work;
};

// Work a nanosecond, the best of five runs.
static double run_rate(struct kb_vk *vk, const struct pure *k, const struct kb_vk_buffer *memory)
{
	struct kb_err err;
	VkPipeline pipeline = NULL;
	struct kb_vk_graph *g = NULL;
	double best = 0;
	const uint32_t one[KB_VK_COUNTERS] = {1, 1};
	struct kb_push_fma push = {.outp = memory->address, .rounds = k->rounds, .factor = 0.5f};
	struct kb_vk_pipeline_desc p = {.name = k->name, .spirv = k->spirv, .spirv_bytes = *k->spirv_bytes};
	struct kb_vk_dispatch d = {.name = k->name, .push_size = sizeof push, .x = k->groups};
	memcpy(d.push, &push, sizeof push);
	if (kb_vk_pipeline_create(vk, &p, &err, &pipeline) == KB_OK) {
		d.pipeline = pipeline;
		if (kb_vk_graph_create(vk, &d, 1, one, 0, false, &err, &g) == KB_OK)
			for (int i = 0; i < 5; i++) {
				uint64_t begin = kb_clock_ns();
				if (kb_vk_graph_run(g, one, &err) != KB_OK)
					break;
				double rate = k->work / (double)(kb_clock_ns() - begin);
				best = rate > best ? rate : best;
			}
	}
	kb_vk_graph_destroy(g);
	vkDestroyPipeline(vk->device, pipeline, NULL);
	return best;
}

static double copy_rate(struct kb_vk *vk, const struct kb_vk_buffer *from, const struct kb_vk_buffer *to)
{
	VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
		.commandPool = vk->pool,
		.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
		.commandBufferCount = 1};
	VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
	VkBufferCopy region = {.size = from->size};
	VkCommandBuffer cmd;
	struct kb_err err;
	double best = 0;
	if (vkAllocateCommandBuffers(vk->device, &info, &cmd) || vkBeginCommandBuffer(cmd, &begin))
		return 0;
	vkCmdCopyBuffer(cmd, from->buffer, to->buffer, 1, &region);
	if (vkEndCommandBuffer(cmd))
		return 0;
	for (int i = 0; i < 5; i++) {
		uint64_t t0 = kb_clock_ns();
		if (kb_vk_submit(vk, cmd, &err) != KB_OK)
			break;
		double rate = 2.0 * (double)from->size / (double)(kb_clock_ns() - t0); // read and written
		best = rate > best ? rate : best;
	}
	return best;
}

static void find_limits(const char *device)
{
	enum { LANES = 64, SUMS = 16, ROUNDS = 20000, CHUNK = 16384, CHUNKS = 16 }; // as in bench_fma, bench_read
	struct kb_err err;
	struct kb_vk *vk;
	struct kb_vk_buffer a = {0}, b = {0};
	if (kb_vk_create(&(struct kb_vk_options){.device = device}, &err, &vk) != KB_OK)
		return;
	const bool is_cpu = vk->caps.type == KB_VK_CPU;
	const uint64_t bytes = is_cpu ? 64u << 20 : KB_VK_ALLOCATION_MAX; // beyond any cache
	struct pure fma = {"fma", kb_spv_bench_fma, &kb_spv_bench_fma_size, is_cpu ? 64 : 8192, ROUNDS, 0};
	struct pure read = {
		"read", kb_spv_bench_read, &kb_spv_bench_read_size, (uint32_t)(bytes / CHUNK / CHUNKS), CHUNKS, (double)bytes};
	fma.work = (double)LANES * SUMS * ROUNDS * fma.groups;
	if (kb_vk_buffer_create(vk, KB_VK_DEVICE, bytes, "bench", &err, &a) == KB_OK &&
		kb_vk_buffer_create(vk, KB_VK_DEVICE, bytes, "bench", &err, &b) == KB_OK) {
		double copy = copy_rate(vk, &a, &b), loads = run_rate(vk, &read, &b);
		limits = (struct limits){.mac = run_rate(vk, &fma, &a), .byte = loads > copy ? loads : copy};
		printf(
			"limits: %.1f GMAC/s without loads; %.1f GB/s read by loads, %.1f read and written by the driver's copy\n",
			limits.mac, loads, copy);
	}
	kb_vk_buffer_destroy(vk, &a);
	kb_vk_buffer_destroy(vk, &b);
	kb_vk_destroy(vk);
}

int bench(struct kb_backend *vk)
{
	static const enum kb_format formats[] = {KB_FMT_Q4_1, KB_FMT_Q8_0, KB_FMT_Q4_K, KB_FMT_Q6_K, KB_FMT_Q4_0,
		KB_FMT_Q5_0, KB_FMT_Q5_1, KB_FMT_Q5_K, KB_FMT_F16, KB_FMT_BF16, KB_FMT_F32};
	static const uint32_t tokens[] = {1, 2, 4, 8, 128};
	const char *only = getenv("KB_CHECKOP_OP");
	const char *format = getenv("KB_CHECKOP_FORMAT");
	printf("# %s, %s kernels\n", vk->device, kb_op_vk_caps(vk)->path);
	find_limits(getenv("KB_DEVICE"));
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
		if ((only && strcmp(only, "matmul") != 0) || (format && strcmp(format, kb_formats[formats[i]].name) != 0))
			continue;
		for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
			bench_matmul(vk, formats[i], 1536, 768, tokens[t]);
			if (kb_op_vk_caps(vk)->type != KB_VK_CPU) { // sizes of 8 billion weights
				bench_matmul(vk, formats[i], 4096, 4096, tokens[t]);
				bench_matmul(vk, formats[i], 6144, 4096, tokens[t]);
				bench_matmul(vk, formats[i], 28672, 4096, tokens[t]);
				bench_matmul(vk, formats[i], 4096, 14336, tokens[t]);
			}
			if (i < 2) {
				bench_matmul(vk, formats[i], 576, 1536, tokens[t]);
				if (tokens[t] == 1)
					bench_matmul(vk, formats[i], 49152, 576, tokens[t]);
			}
		}
	}
	if (!only || !strcmp(only, "attention")) {
		bench_attention(vk, 9, 3, 64, 1, 256);
		bench_attention(vk, 9, 3, 64, 1, 2048);
		bench_attention(vk, 9, 3, 64, 128, 128);
		bench_attention(vk, 9, 3, 64, 128, 1024);
		bench_attention(vk, 4, 1, 256, 1, 512);
		bench_attention(vk, 4, 1, 256, 128, 512);
		if (kb_op_vk_caps(vk)->type != KB_VK_CPU) {
			bench_attention(vk, 32, 8, 128, 1, 640);
			bench_attention(vk, 32, 8, 128, 1, 4096);
			bench_attention(vk, 32, 8, 128, 256, 512);
		}
	}
	if (!only || !strcmp(only, "small")) {
		bench_small(vk, 1);
		bench_small(vk, 128);
	}
	return 0;
}
