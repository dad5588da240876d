#version 460
// Paged causal attention for devices whose loads are done lane by lane (lavapipe). One subgroup serves HEADS query heads
// that share a kv head, for one token. Page by page: lanes are positions for the scores, then dimensions for the values.
// Groups: (heads / HEADS, tokens). Positions outside the window read a position inside it and weigh nothing, so that
// stale cache contents cannot matter. Loops test at their end: lavapipe runs a body once more after a test at its top.
#define KB_RAW_POINTERS
#include "push.h"
#include "math.glsl"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Long {
	uint64_t v[];
};
layout(constant_id = 0) const uint HEADS = 1;
layout(constant_id = 1) const uint SG = 8;   // lanes of a subgroup: 4, 8 or 16
layout(constant_id = 2) const uint DIM = 64; // head_dim, a multiple of 4
layout(constant_id = 3) const uint CAPPED = 0;
layout(local_size_x_id = 1) in;
layout(push_constant) uniform Push {
	kb_push_attention p;
};

const uint QS = (DIM + 2 * SG - 1) / (2 * SG); // pieces of two floats that a lane holds of a query head
const uint VS = (DIM + 4 * SG - 1) / (4 * SG); // pieces of four halves that a lane owns of a value
const uint STEPS = KB_PAGE / SG;               // score registers of a page

float q[128];   // head, piece, element
float acc[128]; // head, piece, element
float s[64];    // head, step: scores, then weights
float top[16], total[16];

float q_of(uint h, uint d)
{
	return subgroupBroadcast(q[(h * QS + d / (2 * SG)) * 2 + d % 2], d / 2 % SG);
}

void scores(uint64_t page, uint row_bytes, uint low, uint high)
{
	uint lane = gl_SubgroupInvocationID;
	[[unroll]] for (uint j = 0; j < STEPS; j++) {
		Long k = Long(page + clamp(j * SG + lane, low, high) * row_bytes);
		precise float sum[16];
		[[unroll]] for (uint h = 0; h < HEADS; h++) sum[h] = 0.0;
		[[unroll]] for (uint c = 0; c < DIM / 4; c++) {
			uvec2 two = unpackUint2x32(k.v[c]);
			vec2 a = unpackHalf2x16(two.x), b = unpackHalf2x16(two.y);
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				sum[h] = sum[h] + q_of(h, 4 * c) * a.x;
				sum[h] = sum[h] + q_of(h, 4 * c + 1) * a.y;
				sum[h] = sum[h] + q_of(h, 4 * c + 2) * b.x;
				sum[h] = sum[h] + q_of(h, 4 * c + 3) * b.y;
			}
		}
		bool seen = j * SG + lane >= low && j * SG + lane <= high;
		[[unroll]] for (uint h = 0; h < HEADS; h++) {
			precise float v = sum[h] * p.scale;
			if (CAPPED != 0)
				v = p.softcap * tanh_exact(v / p.softcap);
			s[h * STEPS + j] = seen ? v : -3.0e38;
		}
	}
}

// subgroupMax, unrolled: as a group operation it is a loop with branches here.
float most_of(float v)
{
	float r = subgroupBroadcast(v, 0);
	[[unroll]] for (uint l = 1; l < SG; l++) r = max(r, subgroupBroadcast(v, l));
	return r;
}

// Scores -> weights, with sums so far brought to the new maximum.
void weigh()
{
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		float most = s[h * STEPS];
		[[unroll]] for (uint j = 1; j < STEPS; j++) most = max(most, s[h * STEPS + j]);
		most = max(top[h], most_of(most));
		precise float keep = exp_exact(top[h] - most);
		precise float sum = total[h] * keep;
		top[h] = most;
		[[unroll]] for (uint j = 0; j < STEPS; j++) {
			// A score of -3e38 is below every other by more than exp_exact's reach: 0.
			s[h * STEPS + j] = exp_exact(s[h * STEPS + j] - most);
			sum = sum + s[h * STEPS + j];
		}
		total[h] = sum;
		[[unroll]] for (uint i = 0; i < VS * 4; i++) {
			precise float kept = acc[h * VS * 4 + i] * keep;
			acc[h * VS * 4 + i] = kept;
		}
	}
}

void values(uint64_t page, uint row_bytes, uint low, uint high)
{
	uint lane = gl_SubgroupInvocationID;
	[[unroll]] for (uint c = 0; c < VS; c++) {
		uint64_t at = page + min(c * SG + lane, DIM / 4 - 1) * 8;
		[[unroll]] for (uint j = 0; j < KB_PAGE; j++) {
			uvec2 two = unpackUint2x32(Long(at + clamp(j, low, high) * row_bytes).v[0]);
			vec2 a = unpackHalf2x16(two.x), b = unpackHalf2x16(two.y);
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				float w = subgroupBroadcast(s[h * STEPS + j / SG], j % SG);
				uint i = (h * VS + c) * 4;
				precise float s0 = acc[i] + w * a.x, s1 = acc[i + 1] + w * a.y;
				precise float s2 = acc[i + 2] + w * b.x, s3 = acc[i + 3] + w * b.y;
				acc[i] = s0;
				acc[i + 1] = s1;
				acc[i + 2] = s2;
				acc[i + 3] = s3;
			}
		}
	}
}

void main()
{
	uint lane = gl_SubgroupInvocationID, head = gl_WorkGroupID.x * HEADS, t = gl_WorkGroupID.y;
	uint kv_head = head / (p.heads / p.kv_heads);
	uint position = Words(p.position).v[t];
	uint first = p.window > 0 && position + 1 > p.window ? position + 1 - p.window : 0;
	uint row_bytes = p.kv_heads * DIM * 2;
	uint64_t table = p.page_table + uint64_t(Words(p.seq).v[t]) * (4 * Words(p.head).v[KB_HEAD_PAGES]);
	uint64_t from = p.q + uint64_t(t * p.heads + head) * (4 * DIM);
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		[[unroll]] for (uint i = 0; i < QS; i++) {
			uvec2 two = unpackUint2x32(Long(from + h * 4 * DIM).v[min(i * SG + lane, DIM / 2 - 1)]);
			q[(h * QS + i) * 2] = uintBitsToFloat(two.x);
			q[(h * QS + i) * 2 + 1] = uintBitsToFloat(two.y);
		}
		top[h] = -3.0e38;
		total[h] = 0.0;
		[[unroll]] for (uint i = 0; i < VS * 4; i++) acc[h * VS * 4 + i] = 0.0;
	}
	uint page = first / KB_PAGE;
	do {
		uint at = page * KB_PAGE;
		uint low = max(first, at) - at, high = min(position, at + KB_PAGE - 1) - at;
		uint64_t skip = uint64_t(Words(table).v[page]) * (KB_PAGE * row_bytes) + kv_head * DIM * 2;
		scores(p.k_cache + skip, row_bytes, low, high);
		weigh();
		values(p.v_cache + skip, row_bytes, low, high);
		page++;
	} while (page * KB_PAGE <= position);
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		precise float sum = subgroupAdd(total[h]);
		uint to = (t * p.heads + head + h) * DIM;
		[[unroll]] for (uint c = 0; c < VS; c++) {
			uint d = (c * SG + lane) * 4;
			if (d < DIM) {
				[[unroll]] for (uint e = 0; e < 4; e++)
					Floats(p.outp).v[to + d + e] = acc[(h * VS + c) * 4 + e] / sum;
			}
		}
	}
}
