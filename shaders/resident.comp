#version 460
// Do as many groups as there are run side by side? They meet at every op of an empty chain, or give up.
#define KB_RAW_POINTERS
#include "push.h"
#include "lanes.glsl"
#include "chain_meet.glsl"
layout(constant_id = 0) const uint SG = 8;
layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push {
	kb_push_chain p;
};

void main()
{
	uint i = p.first;
	bool met;
	do {
		met = chain_meet(p.meet, i, p.patience);
	} while (++i < p.end && met);
}
