#version 460
// Rotates q and k in place. Groups: (rot / 2 / 64, tokens): a lane owns one pair of dimensions of every head.
#include "push.h"
#include "math.glsl"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_rope p;
};

void turn(Floats v, uint at, uint a, uint b, vec2 cs)
{
	precise float x = v.v[at + a], y = v.v[at + b];
	precise float rx = fma(x, cs.x, -(y * cs.y)), ry = fma(x, cs.y, y * cs.x);
	v.v[at + a] = rx;
	v.v[at + b] = ry;
}

void main()
{
	uint i = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y;
	if (i >= p.rot / 2)
		return;
	bool halves = (p.flags & KB_ROPE_HALVES_FLAG) != 0;
	uint a = halves ? i : 2 * i, b = halves ? i + p.rot / 2 : 2 * i + 1;
	vec2 cs = cos_sin(p.position.v[t], p.inv_freq.v[i]) * p.mscale;
	for (uint h = 0; h < p.heads; h++)
		turn(p.q, (t * p.heads + h) * p.head_dim, a, b, cs);
	for (uint h = 0; h < p.kv_heads; h++)
		turn(p.k, (t * p.kv_heads + h) * p.head_dim, a, b, cs);
}
