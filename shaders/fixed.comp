#version 460
// Rows of x in fixed point, for the matmuls that follow: see fixed.glsl. Groups: (64 blocks of a row, rows).
#define KB_WIDE_LOADS
#include "push.h"
#include "fixed.glsl"
layout(constant_id = 0) const uint ORDER = 0;
layout(local_size_x = 64) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
	uvec4 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Fours {
	vec4 v[];
};
layout(push_constant) uniform Push {
	kb_push_fixed p;
};

void main()
{
	uint i = gl_GlobalInvocationID.x, blocks = p.cols / 32;
	if (i >= blocks)
		return;
	uint t = gl_WorkGroupID.y;
	vec4 x[8];
	[[unroll]] for (uint k = 0; k < 8; k++) x[k] = Fours(p.x).v[(t * blocks + i) * 8 + k];
	Fixed f = fixed_make(x, ORDER);
	[[unroll]] for (uint k = 0; k < FIXED_QUADS; k++) Quads(p.outp).v[fixed_at(i, k, t, p.rows)] = f.quad[k];
}
