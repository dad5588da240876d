#version 460
// y[t] = W x[t] on GPUs, few rows of x: weights stream from memory and are used once. Groups: (units of a panel, rows of
// x / NT). A lane has ROWS rows of the panel and one of 32 slices of the columns: neighbouring lanes read neighbouring
// rows in loads of 16 bytes, x is loaded once for ROWS rows (what is loaded of x, not of weights, was the limit with
// one), and a matrix of few rows still keeps the device busy. The lanes of a row meet in shared memory, in the order of
// slices; matmul_tile.comp adds in the same order. 8 KiB shared, no subgroup operations. Measured on an NVIDIA H200.
#define KB_WIDE_LOADS
#include "push.h"
#include "format.glsl"
#include "math.glsl"
#include "matmul_common.glsl"
#if LO > 8 // ROWS blocks have to stay in registers
#define ROWS 2
#else
#define ROWS 4
#endif
#define ACROSS (KB_PANEL / ROWS) // lanes of a slice
layout(constant_id = 0) const uint NT = 1;  // rows of x at once: 1, 2, 4 or 8
layout(constant_id = 1) const uint GLU = 0; // 1 + activation: the unit is a panel of gate and one of up, y their glu
layout(local_size_x = ACROSS * SLICES) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
const uint PANELS = GLU != 0 ? 2 : 1;
const uint ROUND = 4 / PANELS; // rows of x that fit in `part`
shared float part[4 * SLICES * KB_PANEL]; // row of x, panel, slice, row
float acc[64];                            // row of x, panel, row of the lane

void block_times_x(Block b[2 * ROWS], uint at[8], uint i)
{
	[[unroll]] for (uint k = 0; k < 8; k++) {
		vec4 x[8];
		[[unroll]] for (uint t = 0; t < NT; t++) x[t] = Fours(p.x).v[at[t] + i * 8 + k];
		[[unroll]] for (uint c = 0; c < 4; c++) {
			[[unroll]] for (uint j = 0; j < PANELS * ROWS; j++) {
				float weight = block_weight(b[j], 4 * k + c);
				[[unroll]] for (uint t = 0; t < NT; t++) {
					precise float sum = fma(weight, x[t][c], acc[t * PANELS * ROWS + j]);
					acc[t * PANELS * ROWS + j] = sum;
				}
			}
		}
	}
}

// Blocks i to end - 1.
void columns(Words w[2], uint panel, uint at[8], uint row, uint i, uint end)
{
	while (i < end) {
		Block b[2 * ROWS];
		[[unroll]] for (uint j = 0; j < PANELS; j++) {
			[[unroll]] for (uint r = 0; r < ROWS; r++) b[j * ROWS + r] = block_read(w[j], panel, i, row + r * ACROSS);
		}
		block_times_x(b, at, i);
		i++;
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
	uint lane = gl_LocalInvocationID.x;
	Part m = part_of(p, gl_WorkGroupID.x, KB_PANEL);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * NT, blocks = p.cols / 32, per = slice_blocks(blocks);
	Words w[2] = Words[2](m.w, p.w1); // p.w1 is used only as the other half of a glu
	uint at[8], from = lane / ACROSS * per;
	[[unroll]] for (uint t = 0; t < NT; t++)
		at[t] = min(t0 + t, count - 1) * (p.cols / 4); // rows past the end repeat the last one and are not stored
	[[unroll]] for (uint i = 0; i < NT * PANELS * ROWS; i++) acc[i] = 0.0;
	columns(w, m.unit * p.panel_words, at, lane % ACROSS, from, min(from + per, blocks));
	[[unroll]] for (uint first = 0; first < NT; first += ROUND) {
		if (first > 0)
			barrier();
		meet(m, lane, t0, first, count - t0);
	}
}
