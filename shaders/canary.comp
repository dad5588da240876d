#version 460
// The last dispatch of every graph: copies the head's canary to where the host looks for it.
#include "push.h"
layout(local_size_x = 1) in;
layout(push_constant) uniform Push {
	kb_push_canary p;
};

void main()
{
	p.result.v[0] = p.head.v[KB_HEAD_CANARY];
}
