#version 460
// matmul_lanes.glsl as a dispatch of its own.
#define KB_RAW_POINTERS
#include "push.h"
#include "lanes.glsl"
#include "format_pair.glsl"
#include "matmul_common.glsl"
#include "math.glsl"
layout(constant_id = 0) const uint NT = 1;    // rows of x at once
layout(constant_id = 1) const uint SG = 8;    // lanes of a subgroup: 4, 8 or 16
layout(constant_id = 2) const uint PAIRS = 1; // pairs of rows of a lane
layout(constant_id = 3) const uint GLU = 0;   // not 0: with a glu; 1 + KB_ROWS_*
#include "matmul_lanes.glsl"
layout(local_size_x_id = 1) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};

void main()
{
	matmul_lanes(p, gl_WorkGroupID.xy, GLU != 0, GLU - 1);
}
