#version 460
// y[t] = W x[t] on GPUs, many rows of x: a group of 64 lanes makes a tile of 64 rows by 32 rows of x, a lane one of 8
// by 4 in registers (8 by 8 was slower: too few lanes at once). A block of 32 columns at a time is decoded once into
// shared memory (8 KiB, and 4 KiB of x), columns outermost, so that lanes write and read neighbouring words. Sums are
// kept by slices of the columns, as matmul_stream.comp's lanes have them, and added in the same order: a row of x gives
// the same bits in either kernel. Measured on an NVIDIA H200.
#define KB_WIDE_LOADS
#include "push.h"
#include "format.glsl"
#include "matmul_common.glsl"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
const uint TOKENS = 32;
shared vec4 weights[32 * 16]; // column, four rows
shared vec4 xs[32 * 8];       // column, four rows of x
float acc[32], total[32];     // row, row of x

// A lane loads half of the columns of one row of x.
void load_x(uint lane, uint from)
{
	uint t = lane % TOKENS, k0 = lane / TOKENS * 16;
	[[unroll]] for (uint k = 0; k < 4; k++) {
		vec4 four = Fours(p.x).v[from + k0 / 4 + k];
		[[unroll]] for (uint c = 0; c < 4; c++) xs[(k0 + 4 * k + c) * 8 + t / 4][t % 4] = four[c];
	}
}

void multiply(uint across, uint down)
{
	for (uint k = 0; k < 32; k++) {
		vec4 w[2], x = xs[k * 8 + down];
		[[unroll]] for (uint i = 0; i < 2; i++) w[i] = weights[k * 16 + 8 * i + across];
		[[unroll]] for (uint r = 0; r < 8; r++) {
			[[unroll]] for (uint t = 0; t < 4; t++) {
				precise float sum = fma(w[r / 4][r % 4], x[t], acc[r * 4 + t]);
				acc[r * 4 + t] = sum;
			}
		}
	}
}

void close_slice()
{
	[[unroll]] for (uint i = 0; i < 32; i++) {
		precise float sum = total[i] + acc[i];
		total[i] = sum;
		acc[i] = 0.0;
	}
}

void main()
{
	uint lane = gl_LocalInvocationID.x, across = lane % 8, down = lane / 8;
	Part m = part_of(p, gl_WorkGroupID.x, 64);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * TOKENS, blocks = p.cols / 32, per = slice_blocks(blocks);
	// Lanes past the last panel read the last one again, and rows of x past the end the last of them.
	uint panel = min(m.unit * 64 + lane, m.rows - 1) / KB_PANEL * p.panel_words;
	uint from = min(t0 + lane % TOKENS, count - 1) * (p.cols / 4);
	[[unroll]] for (uint i = 0; i < 32; i++) acc[i] = total[i] = 0.0;
	uint left = per;
	for (uint i = 0; i < blocks; i++) {
		Block b = block_read(m.w, panel, i, lane % KB_PANEL);
		barrier(); // the last block is used up
		[[unroll]] for (uint k = 0; k < 32; k++) weights[k * 16 + lane / 4][lane % 4] = block_weight(b, k);
		load_x(lane, from + i * 8);
		barrier();
		multiply(across, down);
		if (--left == 0) {
			close_slice();
			left = per;
		}
	}
	if (left != per)
		close_slice();
	[[unroll]] for (uint t = 0; t < 4; t++) {
		uint token = t0 + 4 * down + t;
		[[unroll]] for (uint r = 0; r < 8; r++) {
			uint row = m.unit * 64 + 32 * (r / 4) + 4 * across + r % 4;
			precise float y = total[r * 4 + t];
			if (m.has_bias && row < m.rows)
				y += m.bias.v[row];
			if (token < count && row < m.rows)
				m.y.v[token * m.rows + row] = y;
		}
	}
}
