// Inside runtime/model: the model itself, shared by model.c and forward.c.
#pragma once
#include "model/model.h"
#include "model/weights.h"

#define KB_TOKEN_BUCKETS 9u // graphs for 1, 2, 4 ... 256 tokens
#define KB_OUT_BUCKETS 10u  // and for no logits, or 1, 2, 4 ... 256 rows of them

// Activations of one step: (tokens, ...) each.
struct kb_scratch {
	kb_addr x, h, y;  // (width) the residual, a normed copy, what is to be added
	kb_addr q, att;   // (heads, head_dim)
	kb_addr k, v;     // (kv_heads, head_dim)
	kb_addr gate, up; // (ff)
};

struct kb_model {
	struct kb_backend *backend;
	struct kb_hparams h;
	struct kb_weights w;
	struct kb_model_info info;
	char name[128]; // general.name

	struct kb_mem arrays;             // the step's
	struct kb_mem logits;             // f32 (max_out, vocab)
	struct kb_mem rope;               // f32 (2, rot / 2): inverse frequencies of the others, then of windowed layers
	struct kb_mem scratch;            // what struct kb_scratch points into
	struct kb_mem *k_cache, *v_cache; // (layers) f16 (slot, kv_heads, head_dim)
	struct kb_step_arrays step;
	struct kb_step_head *head; // host views of the step's arrays
	uint32_t *token, *position, *slot, *seq, *page_table, *out_row;
	uint32_t *last_position; // (max_seqs) of the step being checked

	struct kb_scratch s;
	char (*node_names)[24];                                    // see forward.c
	struct kb_graph *graphs[KB_TOKEN_BUCKETS][KB_OUT_BUCKETS]; // made when first needed
};
