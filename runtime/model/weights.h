// The tensors of a model, found by name, checked and made readable for the backend.
#pragma once
#include "model/hparams.h"
#include "model/model.h"

enum kb_layer_matrix { KB_W_Q, KB_W_K, KB_W_V, KB_W_OUT, KB_W_GATE, KB_W_UP, KB_W_DOWN, KB_LAYER_MATRICES };
enum kb_layer_vector {
	KB_V_ATTN_NORM,
	KB_V_Q_BIAS,
	KB_V_K_BIAS,
	KB_V_V_BIAS,
	KB_V_Q_NORM,
	KB_V_K_NORM,
	KB_V_OUT_BIAS,
	KB_V_POST_ATTN_NORM,
	KB_V_FF_NORM,
	KB_V_POST_FF_NORM,
	KB_LAYER_VECTORS
};

struct kb_layer_weights {
	struct kb_matrix matrix[KB_LAYER_MATRICES];
	kb_addr vector[KB_LAYER_VECTORS]; // f32; 0 where the layer has none
};

struct kb_weights {
	struct kb_mem *segments; // (n_segments), imported
	uint32_t n_segments;
	struct kb_matrix embed, output; // the same where the model ties them
	kb_addr output_norm;
	struct kb_layer_weights *layers; // (layers)
	float *rope_factors;             // (rot / 2) divisors of the angles; NULL: none
	uint64_t parameters, bytes, bytes_per_token;
};

// Imports every segment and resolves every tensor that h->family needs; fills h->vocab where it is 0. Errors name
// the tensor. On failure, finish releases what was taken.
KB_MUST_CHECK int kb__weights_init(struct kb_weights *w, struct kb_backend *backend,
	const struct kb_model_source *source, const struct kb_model_options *options, struct kb_hparams *h,
	struct kb_err *err);
// Safe on a zeroed struct.
void kb__weights_finish(struct kb_weights *w, struct kb_backend *backend);
