#version 460
// norm_lanes.glsl as a dispatch of its own.
#define KB_RAW_POINTERS
#include "push.h"
layout(constant_id = 0) const uint SG = 8;
layout(constant_id = 1) const uint ADDS = 0;
#include "lanes.glsl"
#include "norm_lanes.glsl"
layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push {
	kb_push_norm p;
};

void main()
{
	norm_lanes(p, gl_WorkGroupID.xy, ADDS != 0);
}
