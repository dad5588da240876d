#version 460
// RMS norm. Groups: (vectors of a row, rows). Lane i sums elements i, i + LANES, ...; the partial sums meet in a tree.
// With KB_FIXED there is one vector a row, and it is also written in fixed point for the matmuls that follow (fixed.glsl).
#include "push.h"
layout(local_size_x = 64, local_size_x_id = 0) in; // a power of two, at most 256
const uint LANES = gl_WorkGroupSize.x;
#ifdef KB_FIXED
#include "fixed.glsl"
layout(constant_id = 1) const uint WIDTH = 32; // p.width
layout(constant_id = 2) const uint ORDER = 0;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
	uvec4 v[];
};
shared float result[WIDTH + WIDTH / 32]; // a gap a block, against bank conflicts
#endif
layout(push_constant) uniform Push {
	kb_push_norm p;
};
shared float part[256];

// A lane has so many numbers on their way at once: one after another they would cost a memory's latency each.
const uint UNDER_WAY = 16;
float x[UNDER_WAY];

// Numbers i, i + LANES, ... of the vector that begins at base; those that are not there are 0.
void load(uint base, uint i)
{
	[[unroll]] for (uint k = 0; k < UNDER_WAY; k++) x[k] = i + k * LANES < p.width ? p.x.v[base + i + k * LANES] : 0.0;
}

void load_and_add(uint base, uint i)
{
	float more[UNDER_WAY];
	load(base, i);
	[[unroll]] for (uint k = 0; k < UNDER_WAY; k++)
		more[k] = i + k * LANES < p.width ? p.add.v[base + i + k * LANES] : 0.0;
	[[unroll]] for (uint k = 0; k < UNDER_WAY; k++) {
		precise float sum = x[k] + more[k];
		x[k] = sum;
		if (i + k * LANES < p.width)
			p.x.v[base + i + k * LANES] = sum;
	}
}

void store(uint base, uint i, float scale)
{
	float weight[UNDER_WAY];
	[[unroll]] for (uint k = 0; k < UNDER_WAY; k++)
		weight[k] = (p.flags & KB_NORM_WEIGHT) != 0 && i + k * LANES < p.width ? p.weight.v[i + k * LANES] : 1.0;
	[[unroll]] for (uint k = 0; k < UNDER_WAY; k++) {
		precise float y = x[k] * scale;
		if ((p.flags & KB_NORM_WEIGHT) != 0)
			y *= weight[k];
		if (i + k * LANES < p.width)
			p.outp.v[base + i + k * LANES] = y;
#ifdef KB_FIXED
		if (i + k * LANES < p.width)
			result[i + k * LANES + (i + k * LANES) / 32] = y;
#endif
	}
}

#ifdef KB_FIXED
void store_fixed(uint lane, uint row)
{
	barrier();
	for (uint i = lane; i < WIDTH / 32; i += LANES) {
		vec4 four[8];
		[[unroll]] for (uint k = 0; k < 32; k++) four[k / 4][k % 4] = result[i * 33 + k];
		Fixed f = fixed_make(four, ORDER);
		[[unroll]] for (uint k = 0; k < FIXED_QUADS; k++)
			Quads(p.digits).v[fixed_at(i, k, row, p.rows)] = f.quad[k];
	}
}
#endif

void main()
{
	uint lane = gl_LocalInvocationID.x;
	uint base = (gl_WorkGroupID.y * p.groups + gl_WorkGroupID.x) * p.width;
	precise float sum = 0.0;
	for (uint i = lane; i < p.width; i += UNDER_WAY * LANES) {
		if ((p.flags & KB_NORM_ADD) != 0)
			load_and_add(base, i);
		else
			load(base, i);
		[[unroll]] for (uint k = 0; k < UNDER_WAY; k++) sum = fma(x[k], x[k], sum);
	}
	part[lane] = sum;
	barrier();
	[[unroll]] for (uint half_ = LANES / 2; half_ > 0; half_ /= 2) {
		if (lane < half_)
			part[lane] += part[lane + half_];
		barrier();
	}
	precise float scale = 1.0 / sqrt(part[0] / float(p.width) + p.eps);
	for (uint i = lane; i < p.width; i += UNDER_WAY * LANES) {
		if (p.width > UNDER_WAY * LANES) // else they are still there
			load(base, i);
		store(base, i, scale);
	}
#ifdef KB_FIXED
	store_fixed(lane, gl_WorkGroupID.y);
#endif
}
