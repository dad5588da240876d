// Operations: what a model is made of, as data. A graph is an array of nodes; a backend turns it once into
// something that it can run many times. Two backends: op_ref (plain C on the host, the specification) and
// op_vk (Vulkan compute). Nothing here knows of transformers' families, files or requests.
//
// Numbers: activations are f32, rows contiguous: x (tokens, width). Weights are kb_matrix in panel layout
// (quant/quant.h) or f32 vectors. The KV cache is f16 (slot, kv_head, head_dim), one K and one V area a layer.
//
// What changes from step to step is not in the nodes but in the step arrays (struct kb_step_arrays), which the
// caller writes before each run; so one recorded graph serves every step whose token count fits it.
//
// Batch invariance: for every op, the result for one token is the same bits whatever the other tokens of the
// step, their number, or the size of the graph. (Greedy answers must not depend on who else is asking.)
#pragma once
#include "base/err.h"
#include "quant/quant.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_KV_PAGE_TOKENS 16u   // slots of one KV page; a slot number is page * 16 + place in page
#define KB_STEP_TOKENS_MAX 256u // tokens of one step: bounds scratch memory and the time of one submission
#define KB_NO_SLOT UINT32_MAX   // a token whose K and V are not kept (padding)

// An address that nodes carry: a device address, or a host pointer for op_ref. 0 is "none".
typedef uint64_t kb_addr;

struct kb_mem {
	kb_addr addr;
	void *host; // NULL where the host cannot see it
	uint64_t size;
	void *priv; // the backend's
};

struct kb_matrix {
	enum kb_format format;
	uint32_t rows, cols; // y[rows] = W x[cols]
	kb_addr addr;        // first panel
};

// Head of the step, read by every node. All arrays are u32 and live in memory from alloc(HOST).
struct kb_step_head {
	uint32_t n_tokens;      // <= the graph's max_tokens
	uint32_t n_out;         // <= the graph's max_out
	uint32_t pages_per_seq; // row stride of page_table
	uint32_t canary;        // the caller changes it every step; op_vk checks that the last dispatch copied it out
};
struct kb_step_arrays {
	kb_addr head;       // struct kb_step_head
	kb_addr token;      // (tokens) token ids
	kb_addr position;   // (tokens) position in its sequence, from 0
	kb_addr slot;       // (tokens) KV slot to write, or KB_NO_SLOT
	kb_addr seq;        // (tokens) row of page_table
	kb_addr page_table; // (sequences, pages_per_seq) page numbers
	kb_addr out_row;    // (outputs) which tokens' rows go to the head
};

enum kb_count { KB_COUNT_TOKENS, KB_COUNT_OUT }; // which counter of kb_step_head bounds the rows of a node

enum kb_op {
	KB_OP_EMBED,     // out[t] = scale * table[token[t]]
	KB_OP_NORM,      // RMS norm of `groups` vectors of `width` a row; see struct kb_node_norm
	KB_OP_MATMUL,    // y[t] = W x[t] (+ bias)
	KB_OP_ROPE,      // rotates q and k in place by position
	KB_OP_KV_WRITE,  // k, v rows -> f16 cache at slot[t]
	KB_OP_ATTENTION, // paged, causal, optionally windowed
	KB_OP_GLU,       // out[t] = act(gate[t]) * up[t]
	KB_OP_ADD,       // x[t] += y[t]
	KB_OP_GATHER,    // out[i] = x[out_row[i]]
	KB_OP_SOFTCAP,   // x[t] = cap * tanh(x[t] / cap)
	KB_OPS,
};

enum kb_act { KB_ACT_SILU, KB_ACT_GELU_TANH, KB_ACT_GELU_ERF };
enum kb_rope_kind {
	KB_ROPE_PAIRS, // (x[2i], x[2i+1]): GGUF files of the llama family are permuted for this
	KB_ROPE_HALVES // (x[i], x[i+rot/2]): NeoX, Gemma, Qwen
};

struct kb_node_embed {
	struct kb_matrix table;
	kb_addr out; // (tokens, cols)
	float scale;
};
// For each of n rows: if add, x += add (x is updated in place). Then for each of `groups` vectors v of `width`
// in the row: out = v / sqrt(mean(v^2) + eps) * weight. out may be x when add is 0.
struct kb_node_norm {
	kb_addr x, add, out;
	kb_addr weight; // f32 (width), shared by the groups
	uint32_t width, groups;
	float eps;
	enum kb_count count;
};
struct kb_node_matmul {
	struct kb_matrix w;
	kb_addr x, y;
	kb_addr bias; // f32 (rows), or 0
	enum kb_count count;
};
// inv_freq: f32 (rot / 2), angle = position * inv_freq[i]; all scalings of the base are folded into it.
// Dimensions from rot on stay as they are. mscale multiplies sine and cosine (YaRN; else 1).
struct kb_node_rope {
	kb_addr q, k; // (tokens, heads, head_dim), (tokens, kv_heads, head_dim)
	kb_addr inv_freq;
	uint32_t heads, kv_heads, head_dim, rot;
	float mscale;
	enum kb_rope_kind kind;
};
struct kb_node_kv_write {
	kb_addr k, v;             // (tokens, kv_heads, head_dim)
	kb_addr k_cache, v_cache; // f16 (slot, kv_heads, head_dim)
	uint32_t kv_heads, head_dim;
};
// out[t][h] = softmax(scale * q[t][h] . K, capped) V over positions p of the token's own sequence with
// p <= position[t] and, where window > 0, p > position[t] - window. Query head h reads kv head h / (heads / kv_heads).
struct kb_node_attention {
	kb_addr q, out; // (tokens, heads, head_dim)
	kb_addr k_cache, v_cache;
	uint32_t heads, kv_heads, head_dim;
	uint32_t window; // 0: none
	float scale;
	float softcap; // 0: none; else s = cap * tanh(s / cap)
};
struct kb_node_glu {
	kb_addr gate, up, out; // (tokens, width); out may be gate
	uint32_t width;
	enum kb_act act;
};
struct kb_node_add {
	kb_addr x, y; // (tokens, width)
	uint32_t width;
};
struct kb_node_gather {
	kb_addr x, out; // (tokens, width) -> (outputs, width)
	uint32_t width;
};
struct kb_node_softcap {
	kb_addr x;
	uint32_t width;
	float cap;
	enum kb_count count;
};

struct kb_node {
	enum kb_op op;
	const char *name; // "blk.3.attn_q": for dumps and profiles; lives as long as the graph
	union {
		struct kb_node_embed embed;
		struct kb_node_norm norm;
		struct kb_node_matmul matmul;
		struct kb_node_rope rope;
		struct kb_node_kv_write kv_write;
		struct kb_node_attention attention;
		struct kb_node_glu glu;
		struct kb_node_add add;
		struct kb_node_gather gather;
		struct kb_node_softcap softcap;
	};
};

struct kb_graph_desc {
	const struct kb_node *nodes; // copied
	uint32_t n_nodes;
	struct kb_step_arrays step;
	uint32_t max_tokens, max_out; // the largest step this graph runs; dispatches are sized for it
};

enum kb_mem_kind {
	KB_MEM_HOST,  // host-visible, coherent, zeroed
	KB_MEM_DEVICE // the device's best memory; host may be NULL; zeroed
};

struct kb_graph;
struct kb_backend;

struct kb_backend_ops {
	// `what` names the use in reports ("kv cache"). Free with free; every mem before destroy.
	int (*alloc)(struct kb_backend *b, enum kb_mem_kind kind, uint64_t size, const char *what, struct kb_err *err,
		struct kb_mem *ret);
	// Makes page-aligned, read-only host bytes readable by nodes: in place where the device can (the bytes must
	// then stay valid until free), else by a chunked copy.
	int (*import)(struct kb_backend *b, const void *bytes, uint64_t size, struct kb_err *err, struct kb_mem *ret);
	void (*free)(struct kb_backend *b, struct kb_mem *mem);
	int (*graph_create)(
		struct kb_backend *b, const struct kb_graph_desc *desc, struct kb_err *err, struct kb_graph **ret);
	void (*graph_destroy)(struct kb_backend *b, struct kb_graph *g);
	// Blocks until the step is done. KB_EDEVICE: lost, timed out, or the canary did not come back.
	int (*graph_run)(struct kb_backend *b, struct kb_graph *g, struct kb_err *err);
	void (*destroy)(struct kb_backend *b);
};

struct kb_backend {
	const struct kb_backend_ops *ops;
	char device[128];                                       // "llvmpipe (LLVM 19.1.7, 256 bits)", "reference"
	bool imports_in_place;                                  // import() costs no memory
	uint32_t residents;                                     // groups that go through a whole step together; 0: none
	uint64_t bytes_allocated, bytes_imported, bytes_copied; // running totals, for doctor and metrics
};

// Plain C on the host. The slow, exact twin of everything.
KB_MUST_CHECK int kb_op_ref_create(struct kb_err *err, struct kb_backend **ret);
