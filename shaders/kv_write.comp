#version 460
// k and v rows -> f16 cache at the token's slot. Groups: (pairs / 64, tokens).
#include "push.h"
#include "math.glsl"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_kv_write p;
};

void main()
{
	uint i = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y;
	uint slot = p.slot.v[t];
	if (2 * i >= p.width || slot == 0xffffffffu)
		return;
	uint from = t * p.width + 2 * i, to = slot * (p.width / 2) + i;
	p.k_cache.v[to] = half_bits(p.k.v[from]) | half_bits(p.k.v[from + 1]) << 16;
	p.v_cache.v[to] = half_bits(p.v.v[from]) | half_bits(p.v.v[from + 1]) << 16;
}
