#version 460
// rope_keep.glsl as a dispatch of its own. Groups: (APART * head_dim / 4 / 16, tokens).
#define KB_RAW_POINTERS
#include "push.h"
#include "math.glsl"
layout(constant_id = 0) const uint HALVES = 0;
layout(constant_id = 1) const uint APART = 1; // heads that go side by side, at most kv_heads
#include "rope_keep.glsl"
layout(local_size_x = 16) in;
layout(push_constant) uniform Push {
	kb_push_rope p;
};

void main()
{
	uint lane = gl_WorkGroupID.x / APART * 16 + gl_LocalInvocationID.x;
	rope_keep(p, 2 * lane, gl_WorkGroupID.y, gl_WorkGroupID.x % APART, APART);
}
