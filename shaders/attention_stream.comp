#version 460
// Paged causal attention on GPUs. One group of 256 lanes serves HEADS query heads that share a kv head, for one token.
// Groups: (heads / HEADS, tokens). Positions go in chunks of 256, counted from position 0, and chunks in at most
// KB_ATTENTION_RANGES ranges, so that they fall alike for every step. For scores a lane is a position, reads its K alone
// in loads of 16 bytes and q from shared memory; for values it has one word of V and every so many positions. Each chunk
// is reckoned by itself and added to its range, each range to the whole, in order. With SPLIT a range is a group of its
// own (groups: heads * KB_ATTENTION_RANGES; HEADS is 1): it leaves what it has at p.parts and counts itself at p.arrived;
// the last one adds them up. What is reckoned for a head depends on neither HEADS nor SPLIT.
// head_dim is a multiple of 8, at most 256. 12 KiB shared, no subgroup operations.
#include "push.h"
#include "math.glsl"
layout(constant_id = 0) const uint HEADS = 1; // 1, 2 or 4
layout(constant_id = 1) const uint DIM = 64;  // p.head_dim
layout(constant_id = 2) const uint SPLIT = 0;
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
	uvec4 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Parts {
	vec4 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Arrived {
	uint v[];
};
layout(push_constant) uniform Push {
	kb_push_attention p;
};
shared vec4 qs[4 * 64];       // head, four dimensions
shared uint slot[256];        // word of the cache where a position's row begins
shared float weight[4 * 256]; // head, position
shared float part[4 * 16];    // head, 16 positions
shared vec2 sums[256];
shared uint arrived;
// Of one head: the largest score, and sums over positions of e^(score - top) and of that times V. A lane has the sums of
// some positions only.
struct State {
	float top, total;
	vec2 acc;
};
const State NOTHING = State(-3.0e38, 0.0, vec2(0.0));

State add(State a, State b)
{
	float most = max(a.top, b.top);
	precise float of_a = exp_exact(a.top - most), of_b = exp_exact(b.top - most), total = b.total * of_b;
	precise vec2 acc = b.acc * of_b;
	total = fma(a.total, of_a, total);
	acc = vec2(fma(a.acc.x, of_a, acc.x), fma(a.acc.y, of_a, acc.y));
	return State(most, total, acc);
}

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

// weight = e^(score - largest of the chunk), and what this lane's position adds to the sum of them.
void weigh(uint lane, bool is_seen, float s[4], inout State c[4])
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
		float most = part[h * 16];
		[[unroll]] for (uint i = 1; i < 16; i++) most = max(most, part[h * 16 + i]);
		precise float e = is_seen ? exp_exact(s[h] - most) : 0.0;
		c[h] = State(most, e, vec2(0.0));
		weight[h * 256 + lane] = e;
	}
	barrier();
}

// Positions first, first + every, ... up to high; word: of the row. So many loads are under way at once.
#define UNDER_WAY 16
void values(uint word, uint first, uint every, uint high, inout State c[4])
{
	for (uint j = first; j <= high; j += UNDER_WAY * every) {
		vec2 v[UNDER_WAY];
		[[unroll]] for (uint i = 0; i < UNDER_WAY; i++)
			v[i] = unpackHalf2x16(p.v_cache.v[slot[min(j + i * every, high)] + word]);
		[[unroll]] for (uint i = 0; i < UNDER_WAY; i++) {
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				float e = j + i * every <= high ? weight[h * 256 + j + i * every] : 0.0;
				precise vec2 sum = vec2(fma(e, v[i].x, c[h].acc.x), fma(e, v[i].y, c[h].acc.y));
				c[h].acc = sum;
			}
		}
	}
}

// Over all lanes, 16 at a time, in order: the divisors, left in part[0 .. HEADS - 1].
void divisors(uint lane, State all[4])
{
	[[unroll]] for (uint h = 0; h < HEADS; h++) weight[h * 256 + lane] = all[h].total;
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

void store(uint lane, uint to, State all[4])
{
	uint words = DIM / 2, groups = 256 / words;
	divisors(lane, all);
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		sums[lane] = all[h].acc;
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

// One range of `ranges` is done. False: others are not; else all of them are added up in `all`.
bool gather(uint lane, uint vector, uint range, uint ranges, inout State all)
{
	Parts parts = Parts(p.parts);
	uint at = vector * KB_ATTENTION_RANGES * 256 + lane;
	parts.v[at + range * 256] = vec4(all.top, all.total, all.acc);
	memoryBarrierBuffer();
	barrier();
	if (lane == 0)
		arrived = atomicAdd(Arrived(p.arrived).v[vector], 1u);
	barrier();
	if (arrived + 1 < ranges)
		return false;
	memoryBarrierBuffer();
	if (lane == 0)
		Arrived(p.arrived).v[vector] = 0u; // for the next run
	all = NOTHING;
	for (uint r = 0; r < ranges; r++) {
		vec4 b = parts.v[at + r * 256];
		all = add(all, State(b.x, b.y, b.zw));
	}
	return true;
}

void main()
{
	uint lane = gl_LocalInvocationID.x, t = gl_WorkGroupID.y;
	uint range = SPLIT != 0 ? gl_WorkGroupID.x % KB_ATTENTION_RANGES : 0;
	uint head = SPLIT != 0 ? gl_WorkGroupID.x / KB_ATTENTION_RANGES : gl_WorkGroupID.x * HEADS;
	uint kv_head = head / (p.heads / p.kv_heads), words = DIM / 2;
	uint word = lane % words, group = lane / words, groups = 256 / words;
	uint position = p.position.v[t], table = p.seq.v[t] * p.head.v[KB_HEAD_PAGES];
	uint first = p.window > 0 && position + 1 > p.window ? position + 1 - p.window : 0;
	uint chunk = first / 256, chunks = position / 256 + 1 - chunk, per = (chunks - 1) / KB_ATTENTION_RANGES + 1;
	uint ranges = (chunks - 1) / per + 1, end = chunk + chunks, left = per;
	if (SPLIT != 0) {
		if (range >= ranges)
			return;
		chunk += range * per;
		end = min(chunk + per, end);
	}
	uint to = (t * p.heads + head) * DIM;
	for (uint i = lane; i < HEADS * DIM; i += 256)
		qs[i / DIM * 64 + i % DIM / 4][i % 4] = p.q.v[to + i];
	State all[4], in_range[4];
	[[unroll]] for (uint h = 0; h < HEADS; h++) all[h] = in_range[h] = NOTHING;
	for (; chunk < end; chunk++) {
		uint begin = chunk * 256, low = max(first, begin) - begin, high = min(position, begin + 255) - begin;
		uint at = begin + clamp(lane, low, high);
		uint row = ((p.page_table.v[table + at / KB_PAGE] * KB_PAGE + at % KB_PAGE) * p.kv_heads + kv_head) * words;
		float s[4];
		State c[4];
		slot[lane] = row;
		barrier(); // the first time for qs too
		scores(row, s);
		weigh(lane, lane >= low && lane <= high, s, c);
		if (group < groups)
			values(word, group, groups, high, c);
		barrier(); // before slot and weight are written again
		[[unroll]] for (uint h = 0; h < HEADS; h++) in_range[h] = add(in_range[h], c[h]);
		if (--left == 0 || chunk + 1 == end) {
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				all[h] = add(all[h], in_range[h]);
				in_range[h] = NOTHING;
			}
			left = per;
		}
	}
	if (SPLIT != 0 && ranges > 1 && !gather(lane, t * p.heads + head, range, ranges, all[0]))
		return;
	store(lane, to, all);
}
