// Inside of the Vulkan backend: kernels (data rows), plan (nodes -> dispatches), backend (memory, runs).
#pragma once
#include "op/op.h"
#include "op/op_vk.h"
#include "vk/vk_graph.h"
#include "vk/vk_memory.h"
#include "vk/vk_pipeline.h"

enum kb_kernel {
	KB_KERNEL_EMBED,
	KB_KERNEL_NORM,
	KB_KERNEL_NORM_FIXED, // also makes its result fixed point
	KB_KERNEL_NORM_LANES, // width a multiple of two subgroups
	KB_KERNEL_MATMUL,
	KB_KERNEL_MATMUL_TILE,     // many rows of x
	KB_KERNEL_MATMUL_MATRICES, // many rows of x in fixed point, with byte_matrices
	KB_KERNEL_FIXED,           // x in fixed point
	KB_KERNEL_ROPE,
	KB_KERNEL_KV_WRITE,
	KB_KERNEL_ROPE_KEEP, // both
	KB_KERNEL_ATTENTION,
	KB_KERNEL_ATTENTION_LANES,  // head_dim a multiple of 4
	KB_KERNEL_ATTENTION_STREAM, // head_dim a multiple of 8
	KB_KERNEL_ROWS,
	KB_KERNEL_CANARY,
	KB_KERNEL_CHAIN,    // several of the tuned ones in one dispatch
	KB_KERNEL_RESIDENT, // asks whether groups run side by side
};

#define KB_ANY_FORMAT (-1)

// One row a SPIR-V module. Rows are searched in order: the first that fits is used.
struct kb_kernel_row {
	enum kb_kernel kernel;
	uint32_t paths; // bits 1 << enum kb_op_vk_path
	int format;     // enum kb_format, or KB_ANY_FORMAT
	const char *name;
	const uint32_t *spirv;
	const size_t *bytes;
};

struct kb_pipeline {
	const struct kb_kernel_row *row;
	uint32_t n_spec, spec[KB_VK_SPEC_MAX];
	VkPipeline pipeline;
};

struct kb_op_vk {
	struct kb_backend base; // first: a kb_backend* is one of these
	struct kb_vk *vk;
	struct kb_vk_caps caps;
	enum kb_op_vk_path path; // the one used: not KB_OP_VK_AUTO
	bool profile, is_cache_dirty;
	uint32_t fault_after, runs;
	double ns_per_work;             // as measured so far
	struct kb_pipeline **pipelines; // plans hold pointers to them while more are made
	uint32_t n_pipelines, cap_pipelines;
	struct kb_op_vk_mem *mems; // list of everything allocated, to find host pointers
};

struct kb_op_vk_mem {
	struct kb_op_vk_mem *next;
	struct kb_vk_buffer buffer;
};

// Finds or makes the pipeline of a kernel. Pipelines live as long as the backend.
KB_MUST_CHECK int kb__op_vk_pipeline(struct kb_op_vk *b, enum kb_kernel kernel, int format, uint32_t n_spec,
	const uint32_t *spec, struct kb_err *err, const struct kb_pipeline **ret);
void kb__op_vk_pipelines_finish(struct kb_op_vk *b);

// Where a plan is gathered. finish() frees the lists.
struct kb_plan {
	struct kb_op_vk *b;
	const struct kb_graph_desc *desc;
	struct kb_vk_dispatch *list;
	const struct kb_pipeline **pipelines; // of list
	uint32_t n, cap;
	struct kb_vk_range fixed; // where x lies in fixed point; empty where nothing needs it
	kb_addr fixed_x;          // what lies there: this x,
	uint32_t fixed_order;     // in this order of digits; x is 0 for nothing
	struct kb_vk_range parts; // of attention that is split,
	kb_addr arrived;          // and how many of them there are; zero between runs
};

// The chains of a graph: what their shader reads, and where its groups meet.
struct kb_chains {
	struct kb_vk_buffer buffer; // ops, then words of `meet`; empty where there are no chains
	uint64_t meet_offset, meet_bytes;
};
// Bytes for the parts of split attention, and for the counters of them.
uint64_t kb__op_vk_parts_bytes(const struct kb_op_vk *b, const struct kb_graph_desc *desc, uint64_t *ret_arrived);
// Bytes of memory for x in fixed point; to be set as p->fixed before kb__op_vk_plan.
uint64_t kb__op_vk_fixed_bytes(const struct kb_op_vk *b, const struct kb_graph_desc *desc);
KB_MUST_CHECK int kb__op_vk_plan(struct kb_plan *p, struct kb_err *err);
// Makes runs of dispatches into chains where that pays: see shaders/chain.comp. ret is filled even on failure.
KB_MUST_CHECK int kb__op_vk_chain(struct kb_plan *p, struct kb_chains *ret, struct kb_err *err);
// To be called before and after each run. KB_EDEVICE: the groups of a chain did not meet.
void kb__op_vk_chains_clear(struct kb_chains *c);
KB_MUST_CHECK int kb__op_vk_chains_check(const struct kb_chains *c, struct kb_err *err);
// Tries how many groups run side by side and sets b->base.residents.
KB_MUST_CHECK int kb__op_vk_residents(struct kb_op_vk *b, struct kb_err *err);
// The last dispatch: head.canary -> result.
KB_MUST_CHECK int kb__op_vk_plan_canary(struct kb_plan *p, kb_addr result, struct kb_err *err);
#define KB_NODE_RANGES_MAX 4u
// What a node reads and writes, at the largest step. Returns how many.
uint32_t kb__op_vk_access(
	const struct kb_graph_desc *d, const struct kb_node *n, struct kb_vk_range ret[KB_NODE_RANGES_MAX]);
// How many matmuls from node i (a matmul) on read the same x and can be one dispatch; at most `most`.
uint32_t kb__op_vk_same_x(const struct kb_graph_desc *d, uint32_t i, uint32_t most);
// Whether nodes i to i + 2 are gate, up and glu, and nobody else needs what the first two write.
bool kb__op_vk_glu_fits(const struct kb_graph_desc *d, uint32_t i);
// Whether node i (rope) and the next (kv_write) can be one dispatch.
bool kb__op_vk_rope_keeps(const struct kb_graph_desc *d, uint32_t i);
void kb__op_vk_plan_finish(struct kb_plan *p);
