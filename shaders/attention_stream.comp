#version 460
// Paged causal attention on GPUs. One group of 256 lanes serves HEADS query heads that share a kv head, for one token.
// Groups: (heads / HEADS, tokens). Positions go in chunks of 256, counted from position 0 so that they fall alike for
// every step. For scores a lane is a position, reads its K alone in loads of 16 bytes and q from shared memory; for
// values it has one word of V and every so many positions. What is reckoned for a head does not depend on HEADS.
// head_dim is a multiple of 8, at most 256. 12 KiB shared, no subgroup operations.
#include "push.h"
#include "math.glsl"
layout(constant_id = 0) const uint HEADS = 1; // 1, 2 or 4
layout(constant_id = 1) const uint DIM = 64;  // p.head_dim
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
	uvec4 v[];
};
layout(push_constant) uniform Push {
	kb_push_attention p;
};
shared vec4 qs[4 * 64];       // head, four dimensions
shared uint slot[256];        // word of the cache where a position's row begins
shared float weight[4 * 256]; // head, position
shared float part[4 * 16];    // head, 16 positions
shared vec2 sums[256];
float top[4], total[4];
vec2 acc[4];

float score(float sum)
{
	precise float s = sum * p.scale;
	return p.softcap > 0.0 ? p.softcap * tanh_exact(s / p.softcap) : s;
}

// s[h] = q . k at this lane's position.
void scores(uint row, out float s[4])
{
	precise float sum[4];
	[[unroll]] for (uint h = 0; h < HEADS; h++) sum[h] = 0.0;
	[[unroll]] for (uint d = 0; d < DIM / 8; d++) {
		uvec4 words = Quads(p.k_cache).v[row / 4 + d];
		vec4 k0 = vec4(unpackHalf2x16(words.x), unpackHalf2x16(words.y));
		vec4 k1 = vec4(unpackHalf2x16(words.z), unpackHalf2x16(words.w));
		[[unroll]] for (uint h = 0; h < HEADS; h++) {
			vec4 q0 = qs[h * 64 + 2 * d], q1 = qs[h * 64 + 2 * d + 1];
			[[unroll]] for (uint c = 0; c < 4; c++) sum[h] = fma(q0[c], k0[c], sum[h]);
			[[unroll]] for (uint c = 0; c < 4; c++) sum[h] = fma(q1[c], k1[c], sum[h]);
		}
	}
	[[unroll]] for (uint h = 0; h < HEADS; h++) s[h] = score(sum[h]);
}

// weight = e^(score - largest so far); sums so far are brought to the new largest.
void weigh(uint lane, bool is_seen, float s[4])
{
	[[unroll]] for (uint h = 0; h < HEADS; h++) weight[h * 256 + lane] = is_seen ? s[h] : -3.0e38;
	barrier();
	if (lane < 16 * HEADS) {
		float most = weight[lane * 16];
		[[unroll]] for (uint i = 1; i < 16; i++) most = max(most, weight[lane * 16 + i]);
		part[lane] = most;
	}
	barrier();
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		float most = top[h];
		[[unroll]] for (uint i = 0; i < 16; i++) most = max(most, part[h * 16 + i]);
		precise float keep = exp_exact(top[h] - most), e = is_seen ? exp_exact(s[h] - most) : 0.0;
		precise float sum = fma(total[h], keep, e); // this lane's positions only
		precise vec2 kept = acc[h] * keep;
		total[h] = sum;
		acc[h] = kept;
		top[h] = most;
		weight[h * 256 + lane] = e;
	}
	barrier();
}

// Positions first, first + every, ... up to high; word: of the row. Eight loads are under way at once.
void values(uint word, uint first, uint every, uint high)
{
	for (uint j = first; j <= high; j += 8 * every) {
		vec2 v[8];
		[[unroll]] for (uint i = 0; i < 8; i++)
			v[i] = unpackHalf2x16(p.v_cache.v[slot[min(j + i * every, high)] + word]);
		[[unroll]] for (uint i = 0; i < 8; i++) {
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				float e = j + i * every <= high ? weight[h * 256 + j + i * every] : 0.0;
				precise vec2 sum = vec2(fma(e, v[i].x, acc[h].x), fma(e, v[i].y, acc[h].y));
				acc[h] = sum;
			}
		}
	}
}

// Over all lanes, 16 at a time, in order: the divisors, left in part[0 .. HEADS - 1].
void divisors(uint lane)
{
	[[unroll]] for (uint h = 0; h < HEADS; h++) weight[h * 256 + lane] = total[h];
	barrier();
	precise float sum = 0.0;
	if (lane < 16 * HEADS) {
		[[unroll]] for (uint i = 0; i < 16; i++) sum += weight[lane * 16 + i];
		part[lane] = sum;
	}
	barrier();
	sum = 0.0;
	if (lane < HEADS) {
		[[unroll]] for (uint i = 0; i < 16; i++) sum += part[lane * 16 + i];
	}
	barrier();
	if (lane < HEADS)
		part[lane] = sum;
	barrier();
}

void main()
{
	uint lane = gl_LocalInvocationID.x, head = gl_WorkGroupID.x * HEADS, t = gl_WorkGroupID.y;
	uint kv_head = head / (p.heads / p.kv_heads), words = DIM / 2;
	uint word = lane % words, group = lane / words, groups = 256 / words;
	uint position = p.position.v[t], table = p.seq.v[t] * p.head.v[KB_HEAD_PAGES];
	uint first = p.window > 0 && position + 1 > p.window ? position + 1 - p.window : 0;
	uint to = (t * p.heads + head) * DIM;
	for (uint i = lane; i < HEADS * DIM; i += 256)
		qs[i / DIM * 64 + i % DIM / 4][i % 4] = p.q.v[to + i];
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		acc[h] = vec2(0.0);
		top[h] = -3.0e38;
		total[h] = 0.0;
	}
	uint chunk = first / 256 * 256;
	do {
		uint low = max(first, chunk) - chunk, high = min(position, chunk + 255) - chunk;
		uint at = chunk + clamp(lane, low, high);
		uint row = ((p.page_table.v[table + at / KB_PAGE] * KB_PAGE + at % KB_PAGE) * p.kv_heads + kv_head) * words;
		float s[4];
		slot[lane] = row;
		barrier(); // the first time for qs too
		scores(row, s);
		weigh(lane, lane >= low && lane <= high, s);
		if (group < groups)
			values(word, group, groups, high);
		barrier(); // before slot and weight are written again
		chunk += 256;
	} while (chunk <= position);
	divisors(lane);
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		sums[lane] = acc[h];
		barrier();
		if (lane < words) {
			precise vec2 sum = vec2(0.0);
			for (uint g = 0; g < groups; g++)
				sum += sums[g * words + lane];
			precise vec2 r = sum / part[h];
			p.outp.v[to + h * DIM + 2 * lane] = r.x;
			p.outp.v[to + h * DIM + 2 * lane + 1] = r.y;
		}
		barrier();
	}
}
