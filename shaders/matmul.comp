#version 460
// y[t] = W x[t]: the universal kernel. Groups: (panels, rows of x / NT). 64 lanes: 16 rows x 4 slices; slice s takes
// blocks s, s + 4, ... and the four sums of a row meet in shared memory, always in the same order.
#include "push.h"
#include "format.glsl"
#include "matmul_common.glsl"
layout(constant_id = 0) const uint NT = 1; // rows of x at once
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
shared float part[64];

void main()
{
	uint row = gl_LocalInvocationID.x % 16, slice = gl_LocalInvocationID.x / 16;
	Part m = part_of(p, gl_WorkGroupID.x, KB_PANEL);
	uint panel = m.unit * p.panel_words;
	uint count = row_count(p), t0 = gl_WorkGroupID.y * NT;
	precise float acc[NT];
	uint x[NT];
	[[unroll]] for (uint t = 0; t < NT; t++) {
		acc[t] = 0.0;
		x[t] = min(t0 + t, count - 1) * p.cols; // rows past the end repeat the last one and are not stored
	}
	for (uint i = slice; i < p.cols / 32; i += 4) {
		Block b = block_read(m.w, panel, i, row);
		[[unroll]] for (uint k = 0; k < 32; k++) {
			float w = block_weight(b, k);
			[[unroll]] for (uint t = 0; t < NT; t++) acc[t] = fma(w, p.x.v[x[t] + i * 32 + k], acc[t]);
		}
	}
	uint out_row = m.unit * KB_PANEL + row;
	[[unroll]] for (uint t = 0; t < NT; t++) {
		part[gl_LocalInvocationID.x] = acc[t];
		barrier();
		if (slice == 0 && out_row < m.rows && t0 + t < count) {
			precise float y = (part[row] + part[row + 16]) + (part[row + 32] + part[row + 48]);
			if (m.has_bias)
				y += m.bias.v[out_row];
			m.y.v[(t0 + t) * m.rows + out_row] = y;
		}
		barrier();
	}
}
