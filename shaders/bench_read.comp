#version 460
// For `make bench-op` only: how many bytes a second the device reads when nothing is done with them. A group reads 16
// KiB after another, a lane four times 16 bytes at once.
#include "push.h"
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
	uvec4 v[];
};
layout(push_constant) uniform Push {
	kb_push_fma p;
};

void main()
{
	uint lane = gl_LocalInvocationID.x;
	uvec4 sum = uvec4(0);
	for (uint i = 0; i < p.rounds; i++) {
		uint at = (gl_WorkGroupID.x * p.rounds + i) * 1024 + lane;
		[[unroll]] for (uint k = 0; k < 4; k++) sum ^= Quads(p.outp).v[at + 256 * k];
	}
	if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x12345678u) // so that the loads are not left out
		p.outp.v[0] = 0.0;
}
