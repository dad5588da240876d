// Model families as rows of one table. The layer loop (forward.c) is the same for all of them; what differs is here
// or in the file's metadata. A family's name is GGUF's general.architecture.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "op/op.h"

// What a family's layers have beyond the common ones, as bits.
enum kb_feature {
	KB_FEATURE_QK_NORM = 1 << 0,    // RMS norm of each query and key head, before the rotation
	KB_FEATURE_POST_NORMS = 1 << 1, // RMS norm of attention's and feed-forward's output, before it is added
	KB_FEATURE_QKV_BIAS = 1 << 2,   // biases of q, k, v must be there (in other families they may be)
};

struct kb_family {
	const char *arch;
	enum kb_rope_kind rope;
	enum kb_act act;
	uint32_t features;
	bool scales_embedding; // x = sqrt(width) * embedding

	// Sliding windows: of each window_period layers the last sees everything, the others attention.sliding_window
	// positions (window_default where the file does not say). 0: the family has no windows.
	uint32_t window_period, window_default;
	// Rotation base of the windowed layers where the file does not say (rope.freq_base_swa); 0: that of the others,
	// and its scaling too.
	float window_rope_base;

	// Caps of attention scores and of logits where the file does not say; 0: none.
	float score_softcap, logit_softcap;
	// The size (told by its number of layers) whose attention scale is 1/sqrt(width / heads); else 1/sqrt(head_dim).
	uint32_t wide_scale_layers;
};

// NULL for an architecture that is not in the table.
const struct kb_family *kb__family_find(struct kb_str arch);
// "gemma2, gemma3, ...", for messages.
void kb__family_names(char *ret_text, size_t size);
