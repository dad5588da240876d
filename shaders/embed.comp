#version 460
// out[t] = scale * row token[t] of the table. Groups: (blocks / 64, tokens); a lane does one block of 32 columns.
#include "push.h"
#include "format.glsl"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_embed p;
};

void main()
{
	uint block = gl_GlobalInvocationID.x;
	uint t = gl_WorkGroupID.y;
	if (block >= p.blocks)
		return;
	uint row = p.token.v[t];
	Block b = block_read(p.table, row / KB_PANEL * p.panel_words, block, row % KB_PANEL);
	[[unroll]] for (uint k = 0; k < 32; k++) p.outp.v[t * p.cols + block * 32 + k] = p.scale * block_weight(b, k);
}
