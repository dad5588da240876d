#version 460
// y[t] = W x[t] on GPUs, quantised weights, many rows of x: a group of 128 lanes makes a tile of 64 rows by 32 rows of x,
// a lane one of 4 by 4 in registers. A block of 32 columns at a time is made into bytes in shared memory (2.5 KiB, and 3
// of x), words outermost, so that lanes write and read neighbouring words. x is in fixed point (fixed.glsl). Sums are
// kept by slices of the columns and added in the order of matmul_dot.comp: the same bits.
#define KB_WIDE_LOADS
#include "push.h"
#include "format.glsl"
#include "fixed.glsl"
#include "format_dot.glsl"
#include "matmul_common.glsl"
layout(local_size_x = 128) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
const uint TOKENS = 32;
shared uvec4 weights[8 * 16];    // word, four rows
shared uvec4 xs[16 * 8];         // digit, word, four rows of x
shared vec4 rest[32];            // of a block of x
shared vec2 scales[64 * SCALES]; // row, half: a and b
float acc[16], total[16];        // row, row of x

void put_weights(uint row, Block b)
{
	[[unroll]] for (uint k = 0; k < 8; k++) weights[k * 16 + row / 4][row % 4] = block_bytes(b, k);
	[[unroll]] for (uint h = 0; h < SCALES; h++) scales[row * SCALES + h] = vec2(b.a[h], b.b[h]);
}

void put_x(uint t, uint row, uint i)
{
	[[unroll]] for (uint k = 0; k < 4; k++) {
		uvec4 four = Quads(p.x).v[fixed_at(i, k, row, p.x_rows)];
		[[unroll]] for (uint c = 0; c < 4; c++) xs[(k * 4 + c) * 8 + t / 4][t % 4] = four[c];
	}
	rest[t] = uintBitsToFloat(Quads(p.x).v[fixed_at(i, 4, row, p.x_rows)]);
}

void multiply(uint across, uint down)
{
	int sum[16 * SCALES];
	[[unroll]] for (uint i = 0; i < 16 * SCALES; i++) sum[i] = 0;
	[[unroll]] for (uint digit = 0; digit < 2; digit++) {
		[[unroll]] for (uint k = 0; k < 8; k++) {
			uvec4 w = weights[k * 16 + across], x = xs[(digit * 8 + k) * 8 + down];
			[[unroll]] for (uint i = 0; i < 16; i++)
				sum[i * SCALES + k / 4 * (SCALES - 1)] += dot_bytes(w[i / 4], x[i % 4], 0);
		}
		if (digit == 0) {
			[[unroll]] for (uint i = 0; i < 16 * SCALES; i++) sum[i] *= 256;
		}
	}
	[[unroll]] for (uint i = 0; i < 16; i++) {
		Block b;
		int of_row[SCALES];
		[[unroll]] for (uint h = 0; h < SCALES; h++) {
			vec2 two = scales[(4 * across + i / 4) * SCALES + h];
			b.a[h] = two.x;
			b.b[h] = two.y;
			of_row[h] = sum[i * SCALES + h];
		}
		acc[i] = add_block(acc[i], b, of_row, rest[4 * down + i % 4]);
	}
}

void close_slice()
{
	[[unroll]] for (uint i = 0; i < 16; i++) {
		precise float sum = total[i] + acc[i];
		total[i] = sum;
		acc[i] = 0.0;
	}
}

void main()
{
	uint lane = gl_LocalInvocationID.x, across = lane % 16, down = lane / 16;
	Part m = part_of(p, gl_WorkGroupID.x, 64);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * TOKENS, blocks = p.cols / 32, per = slice_blocks(blocks);
	// Lanes past the last panel read the last one again, and rows of x past the end the last of them.
	uint panel = min(m.unit * 64 + lane, m.rows - 1) / KB_PANEL * p.panel_words;
	uint from = min(t0 + lane % TOKENS, count - 1);
	[[unroll]] for (uint i = 0; i < 16; i++) acc[i] = total[i] = 0.0;
	uint left = per;
	for (uint i = 0; i < blocks; i++) {
		Block b;
		if (lane < 64)
			b = block_read(m.w, panel, i, lane % KB_PANEL);
		barrier(); // the last block is used up
		if (lane < 64)
			put_weights(lane, b);
		else if (lane < 64 + TOKENS)
			put_x(lane - 64, from, i);
		barrier();
		multiply(across, down);
		if (--left == 0) {
			close_slice();
			left = per;
		}
	}
	if (left != per)
		close_slice();
	[[unroll]] for (uint i = 0; i < 16; i++) {
		uint token = t0 + 4 * down + i % 4, row = m.unit * 64 + 4 * across + i / 4;
		precise float y = total[i];
		if (m.has_bias && row < m.rows)
			y += m.bias.v[row];
		if (token < count && row < m.rows)
			m.y.v[token * m.rows + row] = y;
	}
}
