#version 460
// y[t] = W x[t] on GPUs, quantised weights, few rows of x: weights stream from memory and are used once, by dot products
// of bytes (fixed.glsl, format_dot.glsl). Groups: (units of a panel, rows of x / NT). A lane has ROWS rows of the panel
// and one of 32 slices of the columns: neighbouring lanes read neighbouring rows in loads of 16 bytes. With OWN the group
// makes its own blocks of x from f32 (one row of x; OWN is their number); else they come from memory. The lanes of a row
// meet in shared memory, in the order of slices. 8 KiB shared and OWN blocks of x, no subgroup operations.
#define KB_WIDE_LOADS
#include "push.h"
#include "format.glsl"
#include "fixed.glsl"
#include "format_dot.glsl"
#include "math.glsl"
#include "matmul_common.glsl"
layout(constant_id = 0) const uint NT = 1;  // rows of x at once: 1, 2, 4 or 8
layout(constant_id = 1) const uint GLU = 0; // 1 + activation: the unit is a panel of gate and one of up, y their glu
layout(constant_id = 2) const uint OWN = 0; // p.cols / 32, or 0
layout(local_size_x = 256, local_size_x_id = 3) in; // 128, 256 or 512
const uint ACROSS = gl_WorkGroupSize.x / SLICES;   // lanes of a slice
const uint ROWS = KB_PANEL / ACROSS;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
const uint PANELS = GLU != 0 ? 2 : 1;
const uint ROUND = 4 / PANELS; // rows of x that fit in `part`
shared float part[4 * SLICES * KB_PANEL]; // row of x, panel, slice, row
shared uvec4 own[OWN * FIXED_QUADS + 1];
float acc[64]; // row of x, panel, row of the lane

void make_own(uint lane)
{
	for (uint i = lane; i < OWN; i += gl_WorkGroupSize.x) {
		vec4 x[8];
		[[unroll]] for (uint k = 0; k < 8; k++) x[k] = Fours(p.x).v[i * 8 + k];
		Fixed f = fixed_make(x, ORDER);
		[[unroll]] for (uint k = 0; k < FIXED_QUADS; k++) own[i * FIXED_QUADS + k] = f.quad[k];
	}
}

uvec4 x_quad(uint t, uint i, uint k)
{
	if (OWN != 0)
		return own[i * FIXED_QUADS + k];
	return Quads(p.x).v[fixed_at(i, k, t, p.x_rows)];
}

void block_times_x(Block b[8], uint at[8], uint i)
{
	[[unroll]] for (uint t = 0; t < NT; t++) {
		int sum[8 * SCALES];
		[[unroll]] for (uint j = 0; j < PANELS * ROWS * SCALES; j++) sum[j] = 0;
		// High digits, shifted up, then low ones: whole numbers, so the order does not matter.
		[[unroll]] for (uint digit = 0; digit < 2; digit++) {
			[[unroll]] for (uint k = 0; k < 2; k++) {
				uvec4 x = x_quad(at[t], i, 2 * digit + k);
				[[unroll]] for (uint j = 0; j < PANELS * ROWS; j++) {
					[[unroll]] for (uint c = 0; c < 4; c++)
						sum[j * SCALES + k * (SCALES - 1)] += dot_bytes(block_bytes(b[j], 4 * k + c), x[c], 0);
				}
			}
			if (digit == 0) {
				[[unroll]] for (uint j = 0; j < PANELS * ROWS * SCALES; j++) sum[j] *= 256;
			}
		}
		vec4 rest = uintBitsToFloat(x_quad(at[t], i, 4));
		[[unroll]] for (uint j = 0; j < PANELS * ROWS; j++) {
			int of_row[SCALES];
			[[unroll]] for (uint h = 0; h < SCALES; h++) of_row[h] = sum[j * SCALES + h];
			acc[t * PANELS * ROWS + j] = add_block(acc[t * PANELS * ROWS + j], b[j], of_row, rest);
		}
	}
}

void blocks_read(out Block b[8], Words w[2], uint panel, uint row, uint i)
{
	[[unroll]] for (uint j = 0; j < PANELS; j++) {
		[[unroll]] for (uint r = 0; r < ROWS; r++) b[j * ROWS + r] = block_read(w[j], panel, i, row + r * ACROSS);
	}
}

void store(Part m, uint t, uint row, float sum)
{
	uint out_row = m.unit * KB_PANEL + row;
	if (out_row >= m.rows)
		return;
	precise float y = sum;
	if (m.has_bias)
		y += m.bias.v[out_row];
	m.y.v[t * m.rows + out_row] = y;
}

// Rows first to first + ROUND - 1 of this group's rows of x, of which `count` are there.
void meet(Part m, uint lane, uint t0, uint first, uint count)
{
	uint row = lane % ACROSS, slice = lane / ACROSS;
	[[unroll]] for (uint i = 0; i < ROUND * PANELS; i++) {
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			if (first * PANELS + i < NT * PANELS)
				part[(i * SLICES + slice) * KB_PANEL + row + r * ACROSS] = acc[(first * PANELS + i) * ROWS + r];
		}
	}
	barrier();
	uint t = lane / KB_PANEL, out_row = lane % KB_PANEL;
	if (t < ROUND && first + t < min(NT, count)) {
		precise float sum[2];
		[[unroll]] for (uint j = 0; j < PANELS; j++) {
			sum[j] = 0.0;
			[[unroll]] for (uint s = 0; s < SLICES; s++)
				sum[j] += part[((t * PANELS + j) * SLICES + s) * KB_PANEL + out_row];
		}
		if (GLU != 0) {
			precise float r = activate(GLU - 1, sum[0]) * sum[1];
			store(m, t0 + first + t, out_row, r);
		} else {
			store(m, t0 + first + t, out_row, sum[0]);
		}
	}
}

void main()
{
	uint lane = gl_LocalInvocationID.x, row = lane % ACROSS;
	Part m = part_of(p, gl_WorkGroupID.x, KB_PANEL);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * NT, blocks = p.cols / 32, per = slice_blocks(blocks);
	Words w[2] = Words[2](m.w, p.w1); // p.w1 is used only as the other half of a glu
	uint at[8], i = lane / ACROSS * per, end = min(i + per, blocks), panel = m.unit * p.panel_words;
	Block b[8], next[8];
	if (i < end)
		blocks_read(b, w, panel, row, i);
	if (OWN != 0) {
		make_own(lane);
		barrier();
	}
	[[unroll]] for (uint t = 0; t < NT; t++)
		at[t] = min(t0 + t, count - 1); // rows past the end repeat the last one
	[[unroll]] for (uint k = 0; k < NT * PANELS * ROWS; k++) acc[k] = 0.0;
	while (i < end) {
		blocks_read(next, w, panel, row, min(i + 1, end - 1)); // under way while this block is worked on
		block_times_x(b, at, i);
		b = next;
		i++;
	}
	[[unroll]] for (uint first = 0; first < NT; first += ROUND) {
		if (first > 0)
			barrier();
		meet(m, lane, t0, first, count - t0);
	}
}
