#version 460
// Paged causal attention, the universal kernel. One group of 64 lanes serves HEADS query heads that share a kv head, for
// one token. Groups: (heads / HEADS, tokens). Positions go in chunks of 64, counted from position 0 so that they fall
// alike for every step. A lane has one of 8 slices of the dimensions and one of 8 groups of positions: so q and the sums
// stay in registers and K and V are read once for all heads. For weighing, a lane is a position.
#include "push.h"
#include "math.glsl"
layout(constant_id = 0) const uint HEADS = 1;
layout(constant_id = 1) const uint SLICE = 4; // words of a slice: head_dim / 16, rounded up
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
	kb_push_attention p;
};
shared uint slot[64];        // word of the cache where a position's row begins
shared float weight[8 * 64]; // head, position
shared float part[8 * 64 * 2];
float q[64], acc[64]; // head, element of the slice
float top[8], total[8];

// Word w of this lane's slice; false past the end of the head.
bool word_of(uint slice, uint w, out uint word)
{
	word = slice * SLICE + w;
	return word < p.head_dim / 2;
}

// part[0..63] of every lane -> the largest of all.
float most_of_group(float v, uint lane)
{
	part[lane] = v;
	barrier();
	float r = part[lane / 8 * 8];
	[[unroll]] for (uint i = 1; i < 8; i++) r = max(r, part[lane / 8 * 8 + i]);
	part[64 + lane / 8] = r; // eight lanes write the same
	barrier();
	r = part[64];
	[[unroll]] for (uint i = 1; i < 8; i++) r = max(r, part[64 + i]);
	barrier();
	return r;
}

// weight[head][position] = q . k over all slices, for positions low .. high of the chunk.
void scores(uint lane, uint low, uint high)
{
	uint slice = lane % 8, group = lane / 8;
	[[unroll]] for (uint i = 0; i < 8; i++) {
		uint j = clamp(i * 8 + group, low, high);
		precise float sum[8];
		[[unroll]] for (uint h = 0; h < HEADS; h++) sum[h] = 0.0;
		[[unroll]] for (uint w = 0; w < SLICE; w++) {
			uint word;
			bool is_in = word_of(slice, w, word);
			vec2 k = unpackHalf2x16(is_in ? p.k_cache.v[slot[j] + word] : 0u);
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				sum[h] = fma(q[(h * SLICE + w) * 2], k.x, sum[h]);
				sum[h] = fma(q[(h * SLICE + w) * 2 + 1], k.y, sum[h]);
			}
		}
		[[unroll]] for (uint h = 0; h < HEADS; h++) {
			part[(group * 8 + slice) * 8 + h] = sum[h];
		}
		barrier();
		// Lane = (group, head): the sum over slices, in order.
		if (slice < HEADS) {
			precise float s = 0.0;
			[[unroll]] for (uint k = 0; k < 8; k++) s += part[(group * 8 + k) * 8 + slice];
			s *= p.scale;
			weight[slice * 64 + i * 8 + group] = p.softcap > 0.0 ? p.softcap * tanh_exact(s / p.softcap) : s;
		}
		barrier();
	}
}

void weigh(uint lane, bool is_seen)
{
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		float s = is_seen ? weight[h * 64 + lane] : -3.0e38;
		precise float most = max(top[h], most_of_group(s, lane));
		precise float keep = exp_exact(top[h] - most), e = is_seen ? exp_exact(s - most) : 0.0;
		precise float sum = fma(total[h], keep, e); // this lane's positions only
		total[h] = sum;
		top[h] = most;
		weight[h * 64 + lane] = e;
		[[unroll]] for (uint w = 0; w < 2 * SLICE; w++) {
			precise float kept = acc[h * SLICE * 2 + w] * keep;
			acc[h * SLICE * 2 + w] = kept;
		}
	}
	barrier();
}

void values(uint lane, uint low, uint high)
{
	uint slice = lane % 8, group = lane / 8;
	[[unroll]] for (uint i = 0; i < 8; i++) {
		uint j = i * 8 + group, at = slot[clamp(j, low, high)]; // weights outside are 0
		float e[8];
		[[unroll]] for (uint h = 0; h < HEADS; h++) e[h] = weight[h * 64 + j];
		[[unroll]] for (uint w = 0; w < SLICE; w++) {
			uint word;
			bool is_in = word_of(slice, w, word);
			vec2 v = unpackHalf2x16(is_in ? p.v_cache.v[at + word] : 0u);
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				uint a = (h * SLICE + w) * 2;
				precise float x = fma(e[h], v.x, acc[a]), y = fma(e[h], v.y, acc[a + 1]);
				acc[a] = x;
				acc[a + 1] = y;
			}
		}
	}
	barrier(); // before slot and weight are written again
}

// Sums over the 8 groups of positions, and over all lanes for the divisor; lane = (group 0, slice) stores.
void store(uint lane, uint to)
{
	uint slice = lane % 8;
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		part[lane] = total[h];
		barrier();
		precise float all = 0.0;
		for (uint i = 0; i < 64; i++)
			all += part[i];
		barrier();
		[[unroll]] for (uint w = 0; w < 2 * SLICE; w++) {
			part[lane] = acc[h * SLICE * 2 + w];
			barrier();
			precise float sum = 0.0;
			[[unroll]] for (uint g = 0; g < 8; g++) sum += part[g * 8 + slice];
			uint word;
			if (lane < 8 && word_of(slice, w / 2, word))
				p.outp.v[to + h * p.head_dim + 2 * word + w % 2] = sum / all;
			barrier();
		}
	}
}

void main()
{
	uint lane = gl_LocalInvocationID.x, head = gl_WorkGroupID.x * HEADS, t = gl_WorkGroupID.y;
	uint kv_head = head / (p.heads / p.kv_heads);
	uint position = p.position.v[t], table = p.seq.v[t] * p.head.v[KB_HEAD_PAGES];
	uint first = p.window > 0 && position + 1 > p.window ? position + 1 - p.window : 0;
	uint to = (t * p.heads + head) * p.head_dim;
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		[[unroll]] for (uint w = 0; w < 2 * SLICE; w++) {
			uint word;
			bool is_in = word_of(lane % 8, w / 2, word);
			q[h * SLICE * 2 + w] = is_in ? p.q.v[to + h * p.head_dim + 2 * word + w % 2] : 0.0;
			acc[h * SLICE * 2 + w] = 0.0;
		}
		top[h] = -3.0e38;
		total[h] = 0.0;
	}
	uint chunk = first / 64 * 64;
	do {
		uint low = max(first, chunk) - chunk, high = min(position, chunk + 63) - chunk;
		uint at = chunk + clamp(lane, low, high);
		slot[lane] = ((p.page_table.v[table + at / KB_PAGE] * KB_PAGE + at % KB_PAGE) * p.kv_heads + kv_head) *
			(p.head_dim / 2);
		barrier();
		scores(lane, low, high);
		weigh(lane, lane >= low && lane <= high);
		values(lane, low, high);
		chunk += 64;
	} while (chunk <= position);
	store(lane, to);
}
