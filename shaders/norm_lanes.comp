#version 460
// RMS norm by one subgroup a vector, two elements a lane at a time. Groups: (vectors of a row, rows). The width is a
// multiple of 2 * SG, so that no lane is ever idle; see matmul_lanes.comp about loops.
#define KB_RAW_POINTERS
#include "push.h"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Long {
	uint64_t v[];
};
layout(constant_id = 0) const uint SG = 8;
layout(constant_id = 1) const uint ADDS = 0;
layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push {
	kb_push_norm p;
};

vec2 get(uint64_t at, uint i)
{
	return uintBitsToFloat(unpackUint2x32(Long(at).v[i]));
}

void put(uint64_t at, uint i, vec2 v)
{
	Long(at).v[i] = packUint2x32(floatBitsToUint(v));
}

void main()
{
	uint lane = gl_SubgroupInvocationID, n = p.width / 2;
	uint64_t base = uint64_t(gl_WorkGroupID.y * p.groups + gl_WorkGroupID.x) * (4 * p.width);
	precise float sum = 0.0;
	uint i = lane;
	do {
		precise vec2 x = get(p.x + base, i);
		if (ADDS != 0) {
			x = x + get(p.add + base, i);
			put(p.x + base, i, x);
		}
		sum = sum + x.x * x.x;
		sum = sum + x.y * x.y;
		i += SG;
	} while (i < n);
	precise float total = subgroupBroadcast(sum, 0);
	[[unroll]] for (uint l = 1; l < SG; l++) total = total + subgroupBroadcast(sum, l);
	precise float scale = 1.0 / sqrt(total / float(p.width) + p.eps);
	i = lane;
	do {
		precise vec2 x = get(p.x + base, i) * scale;
		x = x * get(p.weight, i);
		put(p.outp + base, i, x);
		i += SG;
	} while (i < n);
}
