#version 460
// rope_keep.glsl as a dispatch of its own. Groups: (head_dim / 4 / 16, tokens).
#define KB_RAW_POINTERS
#include "push.h"
#include "math.glsl"
layout(constant_id = 0) const uint HALVES = 0;
#include "rope_keep.glsl"
layout(local_size_x = 16) in;
layout(push_constant) uniform Push {
	kb_push_rope p;
};

void main()
{
	rope_keep(p, 2 * gl_GlobalInvocationID.x, gl_WorkGroupID.y, 0, 1);
}
