#version 460
// Element-wise ops. Groups: (width / KB_CHUNK, rows). KIND is a specialization constant: KB_ROWS_*.
#include "push.h"
#include "math.glsl"
layout(constant_id = 0) const uint KIND = 0;
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_rows p;
};

void main()
{
	uint t = gl_WorkGroupID.y, base = t * p.width;
	uint end = min((gl_WorkGroupID.x + 1) * KB_CHUNK, p.width);
	uint from = KIND == KB_ROWS_GATHER ? p.index.v[t] * p.width : base;
	for (uint i = gl_WorkGroupID.x * KB_CHUNK + gl_LocalInvocationID.x; i < end; i += 64) {
		precise float a = p.a.v[from + i];
		precise float r = a;
		if (KIND <= KB_ROWS_GELU_ERF)
			r = activate(KIND, a) * p.b.v[base + i];
		else if (KIND == KB_ROWS_ADD)
			r = a + p.b.v[base + i];
		else if (KIND == KB_ROWS_SOFTCAP)
			r = p.cap * tanh_exact(a / p.cap);
		p.outp.v[base + i] = r;
	}
}
