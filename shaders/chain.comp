#version 460
// Ops of a model's layers, one after another in one dispatch: for devices that run a few groups at a time and take long to
// start one (lavapipe: 60-90 us a dispatch, 8 dispatches a layer). Each group takes every n-th of an op's groups.
// lavapipe does not jump over what is masked off, so each op also costs one round of the other kinds' loops (about 1 us).
#define KB_RAW_POINTERS
#include "push.h"
#include "lanes.glsl"
#include "format_pair.glsl"
#include "matmul_common.glsl"
#include "math.glsl"
layout(constant_id = 0) const uint SG = 8;
layout(constant_id = 1) const uint NT = 1;
layout(constant_id = 2) const uint PAIRS = 1;
layout(constant_id = 3) const uint ACT = 0; // KB_ROWS_* of the matmuls that have a glu
layout(constant_id = 4) const uint HEADS = 1;
layout(constant_id = 5) const uint DIM = 64;
layout(constant_id = 6) const uint CAPPED = 0;
layout(constant_id = 7) const uint HALVES = 0;
#include "norm_lanes.glsl"
#include "matmul_lanes.glsl"
#include "rope_keep.glsl"
#include "attention_lanes.glsl"
#include "chain_meet.glsl"
layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push {
	kb_push_chain p;
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Head {
	kb_chain_op v;
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Norm {
	kb_push_norm v;
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Matmul {
	kb_push_matmul v;
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer RopeKeep {
	kb_push_rope v;
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Attention {
	kb_push_attention v;
};

void main()
{
	uint i = p.first;
	bool met = true;
	do {
		uint64_t at = p.ops + i * KB_CHAIN_OP_BYTES, push = at + 16;
		kb_chain_op op = Head(at).v;
		uint n = op.x * ((Words(p.head).v[op.counter] + op.per - 1) / op.per);
		uint g = gl_WorkGroupID.x;
		if (g < n) {
			if (op.kind == KB_CHAIN_NORM) {
				kb_push_norm a = Norm(push).v;
				uint k = g;
				do {
					norm_lanes(a, uvec2(k % op.x, k / op.x), (a.flags & KB_NORM_ADD) != 0);
					k += gl_NumWorkGroups.x;
				} while (k < n);
			}
			if (op.kind == KB_CHAIN_MATMUL) {
				kb_push_matmul a = Matmul(push).v;
				uint k = g;
				do {
					matmul_lanes(a, uvec2(k % op.x, k / op.x), (a.flags & KB_MM_GLU) != 0, ACT);
					k += gl_NumWorkGroups.x;
				} while (k < n);
			}
			if (op.kind == KB_CHAIN_ROPE_KEEP) {
				kb_push_rope a = RopeKeep(push).v;
				uint k = g, pieces = (a.rot / 4 + SG - 1) / SG; // of a head; op.x is a multiple of it
				do {
					uint j = k % op.x;
					rope_keep(a, 2 * (j % pieces * SG + gl_SubgroupInvocationID), k / op.x, j / pieces, op.x / pieces);
					k += gl_NumWorkGroups.x;
				} while (k < n);
			}
			if (op.kind == KB_CHAIN_ATTENTION) {
				kb_push_attention a = Attention(push).v;
				uint k = g;
				do {
					attention_lanes(a, uvec2(k % op.x, k / op.x));
					k += gl_NumWorkGroups.x;
				} while (k < n);
			}
		}
		i++;
		if (i < p.end)
			met = chain_meet(p.meet, i, p.patience);
	} while (i < p.end && met);
}
