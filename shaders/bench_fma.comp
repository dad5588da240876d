#version 460
// For `make bench-op` only: how many multiply-adds a second the device does when nothing is loaded. 16 sums a lane.
#include "push.h"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_fma p;
};

void main()
{
	float s[16], f = p.factor + float(gl_LocalInvocationID.x);
	[[unroll]] for (uint i = 0; i < 16; i++) s[i] = float(i);
	uint n = p.rounds;
	do {
		[[unroll]] for (uint i = 0; i < 16; i++) s[i] = fma(s[i], f, p.factor);
	} while (--n > 0);
	float sum = 0.0;
	[[unroll]] for (uint i = 0; i < 16; i++) sum += s[i];
	p.outp.v[gl_GlobalInvocationID.x] = sum;
}
