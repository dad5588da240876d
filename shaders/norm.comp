#version 460
// RMS norm. Groups: (vectors of a row, rows). Lane i sums elements i, i + LANES, ...; the partial sums meet in a tree.
#include "push.h"
layout(local_size_x = 64, local_size_x_id = 0) in; // a power of two, at most 256
const uint LANES = gl_WorkGroupSize.x;
layout(push_constant) uniform Push {
	kb_push_norm p;
};
shared float part[256];

void main()
{
	uint lane = gl_LocalInvocationID.x;
	uint base = (gl_WorkGroupID.y * p.groups + gl_WorkGroupID.x) * p.width;
	precise float sum = 0.0;
	for (uint i = lane; i < p.width; i += LANES) {
		precise float x = p.x.v[base + i];
		if ((p.flags & KB_NORM_ADD) != 0) {
			x += p.add.v[base + i];
			p.x.v[base + i] = x;
		}
		sum = fma(x, x, sum);
	}
	part[lane] = sum;
	barrier();
	[[unroll]] for (uint half_ = LANES / 2; half_ > 0; half_ /= 2) {
		if (lane < half_)
			part[lane] += part[lane + half_];
		barrier();
	}
	precise float scale = 1.0 / sqrt(part[0] / float(p.width) + p.eps);
	for (uint i = lane; i < p.width; i += LANES) {
		precise float x = p.x.v[base + i] * scale;
		p.outp.v[base + i] = (p.flags & KB_NORM_WEIGHT) != 0 ? x * p.weight.v[i] : x;
	}
}
