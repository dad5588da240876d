#version 460
// y[t] = W x[t]: the universal kernel. Groups: (units of 64 rows, rows of x / NT). 64 lanes: 4 panels x 4 slices x 4
// groups of 4 rows; slice s takes blocks s, s + 4, ... and the four sums of a row meet in shared memory, always in the
// same order. A lane uses each x that it loads for four rows, and each weight for NT rows of x.
#include "push.h"
#include "format.glsl"
#include "matmul_common.glsl"
layout(constant_id = 0) const uint NT = 1; // rows of x at once, at most 4
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
shared float part[4 * 64 * 4]; // row of x, row, slice

void main()
{
	uint lane = gl_LocalInvocationID.x, slice = lane / 4 % 4;
	uint first = lane / 16 * KB_PANEL + lane % 4 * 4; // the lane's first row in the unit
	Part m = part_of(p, gl_WorkGroupID.x, 64);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * NT, blocks = p.cols / 32;
	// Lanes past the last panel read the last one again.
	uint panel = min(m.unit * 64 + first, m.rows - 1) / KB_PANEL * p.panel_words;
	float acc[16]; // row, row of x
	uint x[4];
	[[unroll]] for (uint t = 0; t < NT; t++)
		x[t] = min(t0 + t, count - 1) * p.cols; // rows past the end repeat the last one and are not stored
	[[unroll]] for (uint i = 0; i < 4 * NT; i++) acc[i] = 0.0;
	uint i = slice, n = (blocks + 3) / 4;
	do {
		if (i < blocks) {
			Block b[4];
			[[unroll]] for (uint r = 0; r < 4; r++) b[r] = block_read(m.w, panel, i, first % KB_PANEL + r);
			[[unroll]] for (uint k = 0; k < 32; k++) {
				float xk[4];
				[[unroll]] for (uint t = 0; t < NT; t++) xk[t] = p.x.v[x[t] + i * 32 + k];
				[[unroll]] for (uint r = 0; r < 4; r++) {
					float w = block_weight(b[r], k);
					[[unroll]] for (uint t = 0; t < NT; t++) {
						precise float sum = fma(w, xk[t], acc[r * NT + t]);
						acc[r * NT + t] = sum;
					}
				}
			}
		}
		i += 4;
	} while (--n > 0);
	[[unroll]] for (uint r = 0; r < 4; r++) {
		[[unroll]] for (uint t = 0; t < NT; t++) part[(t * 64 + first + r) * 4 + slice] = acc[r * NT + t];
	}
	barrier();
	uint out_row = m.unit * 64 + lane;
	if (out_row >= m.rows)
		return;
	[[unroll]] for (uint t = 0; t < NT; t++) {
		uint at = (t * 64 + lane) * 4;
		precise float y = (part[at] + part[at + 1]) + (part[at + 2] + part[at + 3]);
		if (m.has_bias)
			y += m.bias.v[out_row];
		if (t0 + t < count)
			m.y.v[(t0 + t) * m.rows + out_row] = y;
	}
}
