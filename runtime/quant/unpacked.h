// Inside runtime/quant: one source block or super-block, taken apart. Both the readers of GGML's blocks and the
// readers of panels fill it, and one function turns it into weights, so both sides use the same formulas.
#pragma once
#include "quant/quant.h"

#define KB_UNPACKED_COLS 256u

struct kb_unpacked {
	uint16_t d, m;                   // f16 bits; m: Q4_1, Q5_1 m; Q4_K, Q5_K dmin
	uint8_t q[KB_UNPACKED_COLS];     // as stored in panels (unsigned; Q8_0: the bits of an int8)
	uint8_t scale[16];               // K kinds; Q6_K: the bits of an int8, one a 16 columns
	uint8_t min[8];                  // Q4_K, Q5_K
	uint8_t wide[KB_BLOCK_COLS * 4]; // F32, F16, BF16: the values themselves
};

// Takes a source row apart; unit n of g->format (32 or 256 columns each) goes to sink(ctx, n, u), in order.
typedef void kb_unpacked_sink(void *ctx, uint32_t n, const struct kb_unpacked *u);
void kb__ggml_unpack_row(
	const struct kb_ggml_info *g, const uint8_t *src, uint32_t cols, kb_unpacked_sink *sink, void *ctx);

// The weights of one unit: 32 or 256.
void kb__unpacked_weights(enum kb_format f, const struct kb_unpacked *u, float *ret_weights);
