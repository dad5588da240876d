#version 460
// attention_lanes.glsl as a dispatch of its own.
#define KB_RAW_POINTERS
#include "push.h"
#include "math.glsl"
#include "lanes.glsl"
layout(constant_id = 0) const uint HEADS = 1;
layout(constant_id = 1) const uint SG = 8;   // lanes of a subgroup: 4, 8 or 16
layout(constant_id = 2) const uint DIM = 64; // head_dim, a multiple of 4
layout(constant_id = 3) const uint CAPPED = 0;
#include "attention_lanes.glsl"
layout(local_size_x_id = 1) in;
layout(push_constant) uniform Push {
	kb_push_attention p;
};

void main()
{
	attention_lanes(p, gl_WorkGroupID.xy);
}
