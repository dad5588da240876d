#version 460
// Paged causal attention, the universal kernel. Groups: (heads, tokens). Positions go in chunks of 64, counted from
// position 0 so that they fall alike for every step: a lane scores one position, then owns pairs of dimensions.
#include "push.h"
#include "math.glsl"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_attention p;
};
shared float q[256];
shared float prob[64];
shared uint slot[64];
shared float part[64];

float group_max(float v, uint lane)
{
	part[lane] = v;
	barrier();
	[[unroll]] for (uint half_ = 32; half_ > 0; half_ /= 2) {
		if (lane < half_)
			part[lane] = max(part[lane], part[lane + half_]);
		barrier();
	}
	float r = part[0];
	barrier();
	return r;
}

float group_sum(float v, uint lane)
{
	part[lane] = v;
	barrier();
	[[unroll]] for (uint half_ = 32; half_ > 0; half_ /= 2) {
		if (lane < half_)
			part[lane] += part[lane + half_];
		barrier();
	}
	float r = part[0];
	barrier();
	return r;
}

float score(uint at)
{
	precise float s = 0.0;
	for (uint i = 0; i < p.head_dim / 2; i++) {
		vec2 k = unpackHalf2x16(p.k_cache.v[at + i]);
		s = fma(q[2 * i], k.x, s);
		s = fma(q[2 * i + 1], k.y, s);
	}
	s *= p.scale;
	return p.softcap > 0.0 ? p.softcap * tanh_exact(s / p.softcap) : s;
}

void main()
{
	uint lane = gl_LocalInvocationID.x, head = gl_WorkGroupID.x, t = gl_WorkGroupID.y;
	uint kv_head = head / (p.heads / p.kv_heads);
	uint position = p.position.v[t], table = p.seq.v[t] * p.head.v[KB_HEAD_PAGES];
	uint first = p.window > 0 && position + 1 > p.window ? position + 1 - p.window : 0;
	uint row = p.kv_heads * p.head_dim / 2, pairs = p.head_dim / 2;
	for (uint i = lane; i < p.head_dim; i += 64)
		q[i] = p.q.v[(t * p.heads + head) * p.head_dim + i];
	barrier();
	precise float top = -3.0e38, total = 0.0;
	precise vec2 acc0 = vec2(0.0), acc1 = vec2(0.0);
	for (uint chunk = first / 64 * 64; chunk <= position; chunk += 64) {
		uint at = chunk + lane;
		bool seen = at >= first && at <= position;
		float s = -3.0e38;
		slot[lane] = 0;
		if (seen) {
			slot[lane] = (p.page_table.v[table + at / KB_PAGE] * KB_PAGE + at % KB_PAGE) * row + kv_head * pairs;
			s = score(slot[lane]);
		}
		precise float new_top = max(top, group_max(s, lane));
		precise float e = seen ? exp_exact(s - new_top) : 0.0;
		precise float keep = exp_exact(top - new_top);
		prob[lane] = e;
		total = fma(total, keep, group_sum(e, lane));
		top = new_top;
		acc0 *= keep;
		acc1 *= keep;
		uint n = min(position - chunk + 1, 64);
		for (uint j = first > chunk ? first - chunk : 0; j < n; j++) {
			if (lane < pairs)
				acc0 = fma(vec2(prob[j]), unpackHalf2x16(p.v_cache.v[slot[j] + lane]), acc0);
			if (lane + 64 < pairs)
				acc1 = fma(vec2(prob[j]), unpackHalf2x16(p.v_cache.v[slot[j] + lane + 64]), acc1);
		}
		barrier();
	}
	uint to = (t * p.heads + head) * p.head_dim;
	if (lane < pairs) {
		p.outp.v[to + 2 * lane] = acc0.x / total;
		p.outp.v[to + 2 * lane + 1] = acc0.y / total;
	}
	if (lane + 64 < pairs) {
		p.outp.v[to + 2 * lane + 128] = acc1.x / total;
		p.outp.v[to + 2 * lane + 129] = acc1.y / total;
	}
}
