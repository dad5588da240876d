// What the host and the shaders share: push constants, the step head, constants. Read by C and by GLSL.
// Pointers come first in each struct, so that both languages lay it out alike.
#ifndef KB_SHADERS_PUSH_H
#define KB_SHADERS_PUSH_H

#ifdef GL_core_profile // GLSL
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_control_flow_attributes : require
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words
{
	uint v[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Floats
{
	float v[];
};
#ifdef KB_RAW_POINTERS // shaders that reckon with addresses themselves
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#define KB_WORDS uint64_t
#define KB_FLOATS uint64_t
#else
#define KB_WORDS Words
#define KB_FLOATS Floats
#endif
#define KB_U32 uint
#define KB_F32 float
#else
#include <stdint.h>
#define KB_WORDS uint64_t
#define KB_FLOATS uint64_t
#define KB_U32 uint32_t
#define KB_F32 float
#endif

// Words of the step head (struct kb_step_head).
#define KB_HEAD_TOKENS 0
#define KB_HEAD_OUT 1
#define KB_HEAD_PAGES 2
#define KB_HEAD_CANARY 3

#define KB_PAGE 16        // KV slots of a page
#define KB_PANEL 16       // rows of a panel
#define KB_FUSED_MAX 3    // matrices that one matmul dispatch can serve
#define KB_MM_BIAS 1      // flags of matmul: bit i: matrix i has a bias
#define KB_MM_COUNT_OUT 8 // rows of x are counted by the head's n_out
#define KB_MM_GLU 16      // matrices 0 and 1 are gate and up
#define KB_NORM_ADD 1     // flags of norm
#define KB_NORM_WEIGHT 2
#define KB_ROPE_HALVES_FLAG 1 // flags of rope
#define KB_ROPE_KEEP_FLAG 2   // also write k and v to the cache
#define KB_CHUNK 1024         // floats of a row that one group of an element-wise op serves

// Attention: sums that a lane may keep over all heads that it serves; heads of one group.
#define KB_ATTENTION_LANE_FLOATS 32
#define KB_ATTENTION_HEADS_MAX 8
// attention_stream: positions go in chunks of 256, chunks in up to so many ranges.
#define KB_ATTENTION_RANGES 16
#define KB_ATTENTION_PART_FLOATS (4 * 256) // of a range, head and token

struct kb_push_embed {
	KB_WORDS table, token;
	KB_FLOATS outp;
	KB_U32 cols, blocks, panel_words;
	KB_F32 scale;
};
struct kb_push_norm {
	KB_FLOATS x, add, outp, weight;
	KB_WORDS digits; // where the result goes in fixed point, with KB_FIXED
	KB_U32 width, groups, flags;
	KB_F32 eps;
	KB_U32 rows, unused; // rows: as x_rows of matmul
};
struct kb_push_matmul {
	KB_WORDS w0, w1, w2;
	KB_FLOATS y0, y1, y2;
	KB_FLOATS bias0, bias1, bias2;
	KB_FLOATS x;
	KB_WORDS head;
	KB_U32 rows0, rows1, rows2; // 0: no such matrix
	KB_U32 cols, panel_words, flags;
	KB_U32 x_rows, unused; // x_rows: for which memory of x in fixed point is laid out
};
struct kb_push_fixed {
	KB_FLOATS x;
	KB_WORDS outp;
	KB_U32 cols, rows; // rows: as x_rows of matmul
};
struct kb_push_rope {
	KB_FLOATS q, k, v, inv_freq;
	KB_WORDS position, slot, k_cache, v_cache;
	KB_U32 heads, kv_heads, head_dim, rot, flags;
	KB_F32 mscale;
};
struct kb_push_kv_write {
	KB_FLOATS k, v;
	KB_WORDS slot, k_cache, v_cache;
	KB_U32 width; // kv_heads * head_dim
};
struct kb_push_attention {
	KB_FLOATS q, outp;
	KB_WORDS k_cache, v_cache, head, position, seq, page_table;
	KB_WORDS parts, arrived; // attention_stream with SPLIT: see there
	KB_U32 heads, kv_heads, head_dim, window;
	KB_F32 scale, softcap;
};
// Element-wise ops: glu (a: gate, b: up), add (a: x, b: y, outp: x), gather (a: x, index), softcap (a: x, outp: x).
struct kb_push_rows {
	KB_FLOATS a, b, outp;
	KB_WORDS index;
	KB_U32 width, kind;
	KB_F32 cap;
};
struct kb_push_fma {
	KB_FLOATS outp;
	KB_U32 rounds;
	KB_F32 factor;
};
// A chain: several dispatches as one. Its groups (one a thread of the device) go through the same list of ops together
// and wait for each other after each, at counters that the host clears before every run. What is needed of an op: its
// head, and 16 bytes on its push constants. Several chains of a graph share one list.
struct kb_push_chain {
	KB_WORDS ops, meet, head;
	KB_U32 first, end; // ops first to end - 1
	KB_U32 patience;   // rounds to wait for the others before giving up
	KB_U32 unused;
};
struct kb_chain_op {
	KB_U32 kind;
	KB_U32 x;            // groups along x
	KB_U32 per, counter; // rows a group along y, and the word of the step head that counts them
};
struct kb_push_canary {
	KB_WORDS head, result;
};

// kind of kb_chain_op
#define KB_CHAIN_NORM 0
#define KB_CHAIN_MATMUL 1
#define KB_CHAIN_ROPE_KEEP 2
#define KB_CHAIN_ATTENTION 3
#define KB_CHAIN_OP_BYTES 144 // stride of ops
// Words at `meet`: one that says that a group gave up, then a counter for each op.
#define KB_CHAIN_GAVE_UP 0
#define KB_CHAIN_MEET 1

// kind of kb_push_rows
#define KB_ROWS_SILU 0
#define KB_ROWS_GELU_TANH 1
#define KB_ROWS_GELU_ERF 2
#define KB_ROWS_ADD 3
#define KB_ROWS_GATHER 4
#define KB_ROWS_SOFTCAP 5

#endif
