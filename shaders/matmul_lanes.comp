#version 460
// y[t] = W x[t] for devices whose loads are done lane by lane (lavapipe): a lane owns pairs of rows and goes through
// all columns alone, so nothing is shared or reduced; x is loaded once a group, one element a lane, and handed round by
// broadcasts with constant lanes. Groups: (units of 2 * PAIRS * SG rows, rows of x / NT).
// Every variant does the same operations in the same order for one output: per half block a sum of q * x from zero,
// then y += a * sum, and at the end of the block y += b * (sum of x).
#define KB_RAW_POINTERS
#include "push.h"
#include "format_pair.glsl"
#include "matmul_common.glsl"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
layout(constant_id = 0) const uint NT = 1;    // rows of x at once
layout(constant_id = 1) const uint SG = 8;    // lanes of a subgroup: 4, 8 or 16
layout(constant_id = 2) const uint PAIRS = 1; // pairs of rows of a lane
layout(local_size_x_id = 1) in;
layout(push_constant) uniform Push {
	kb_push_matmul p;
};

// Sizes are those of the largest variant (glslang cannot size globals by such constants); the rest goes unused.
float acc[32]; // pair, row, token
float x[64]; // of this block: element i of token t is in x[t * 32 / SG + i / SG / 2 * 2 + i % 2], lane i / 2 % SG
float xsum[16]; // token, half of the block

float x_of(uint t, uint k)
{
	// Lane l loads columns 2 * (SG * j + l) and the next one in one piece.
	return subgroupBroadcast(x[t * (32 / SG) + k / (2 * SG) * 2 + k % 2], k / 2 % SG);
}

void add(uint i, float term)
{
	precise float sum = acc[i] + term; // precise: never fused, so that all variants agree
	acc[i] = sum;
}

void half_block(Pair w, uint pair, uint first)
{
	precise float s[16];
	[[unroll]] for (uint i = 0; i < 2 * NT; i++) s[i] = 0.0;
	[[unroll]] for (uint k = first; k < first + 16; k++) {
		float q0 = pair_quant(w, 0, k), q1 = pair_quant(w, 1, k);
		[[unroll]] for (uint t = 0; t < NT; t++) {
			float xk = x_of(t, k);
			s[t] = s[t] + q0 * xk;
			s[NT + t] = s[NT + t] + q1 * xk;
		}
	}
	[[unroll]] for (uint r = 0; r < 2; r++) {
		[[unroll]] for (uint t = 0; t < NT; t++) {
			uint i = (pair * 2 + r) * NT + t;
#if FMT > 2
			precise float part = w.a[r * SCALES + (SCALES > 1 ? first / 16 : 0)] * s[r * NT + t];
			add(i, part);
#else
			add(i, s[r * NT + t]);
#endif
		}
	}
}

void main()
{
	uint lane = gl_SubgroupInvocationID;
	uint unit_rows = 2 * PAIRS * SG;
	Part m = part_of(p, gl_WorkGroupID.x, unit_rows);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * NT;
	uint64_t at[4], super_at[4], xat[8];
	uint row[4];
	[[unroll]] for (uint j = 0; j < PAIRS; j++) {
		row[j] = m.unit * unit_rows + j * 2 * SG + 2 * lane;
		// Lanes past the last panel read the last one again.
		uint panel = min(row[j], m.rows - 1) / KB_PANEL;
		at[j] = m.w + uint64_t(panel) * (4 * p.panel_words);
	}
	[[unroll]] for (uint t = 0; t < NT; t++) xat[t] = p.x + uint64_t(min(t0 + t, count - 1)) * (4 * p.cols) + lane * 8;
	[[unroll]] for (uint i = 0; i < PAIRS * 2 * NT; i++) acc[i] = 0.0;
	[[unroll]] for (uint j = 0; j < PAIRS; j++) super_at[j] = at[j];
	for (uint i = 0; i < p.cols / 32; i++) {
#if SUPER
		if (i % SUPER_BLOCKS == 0) {
			[[unroll]] for (uint j = 0; j < PAIRS; j++) {
				super_at[j] = at[j];
				at[j] += 4 * SUPER;
			}
		}
#endif
		[[unroll]] for (uint t = 0; t < NT; t++) {
			[[unroll]] for (uint j = 0; j < 16 / SG; j++) {
				uvec2 two = unpackUint2x32(Long(xat[t]).v[j * SG]);
				x[t * (32 / SG) + 2 * j] = uintBitsToFloat(two.x);
				x[t * (32 / SG) + 2 * j + 1] = uintBitsToFloat(two.y);
			}
			xat[t] += 128;
		}
#if OFFSET
		[[unroll]] for (uint t = 0; t < NT; t++) {
			precise float sum0 = 0.0, sum1 = 0.0;
			[[unroll]] for (uint k = 0; k < 16; k++) {
				sum0 = sum0 + x_of(t, k);
				sum1 = sum1 + x_of(t, k + 16);
			}
			xsum[2 * t] = sum0;
			xsum[2 * t + 1] = sum1;
		}
#endif
		[[unroll]] for (uint j = 0; j < PAIRS; j++) {
			Pair w = pair_read(at[j], super_at[j], row[j] % KB_PANEL);
			half_block(w, j, 0);
			half_block(w, j, 16);
#if OFFSET
			[[unroll]] for (uint r = 0; r < 2; r++) {
				[[unroll]] for (uint t = 0; t < NT; t++) {
					uint o = (j * 2 + r) * NT + t;
#if SCALES == 1
					precise float part = w.b[r] * (xsum[2 * t] + xsum[2 * t + 1]);
					add(o, part);
#else
					precise float part0 = w.b[r * 2] * xsum[2 * t], part1 = w.b[r * 2 + 1] * xsum[2 * t + 1];
					add(o, part0);
					add(o, part1);
#endif
				}
			}
#endif
			at[j] += BLOCK_BYTES;
		}
	}
	[[unroll]] for (uint j = 0; j < PAIRS; j++) {
		[[unroll]] for (uint r = 0; r < 2; r++) {
			uint out_row = row[j] + r;
			float bias = m.has_bias && out_row < m.rows ? Floats(m.bias).v[out_row] : 0.0;
			[[unroll]] for (uint t = 0; t < NT; t++) {
				precise float y = acc[(j * 2 + r) * NT + t] + bias;
				if (out_row < m.rows && t0 + t < count)
					Floats(m.y).v[(t0 + t) * m.rows + out_row] = y;
			}
		}
	}
}
