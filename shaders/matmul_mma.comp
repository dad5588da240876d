#version 460
// y[t] = W x[t] on GPUs with cooperative matrices of bytes (16 x 16 x 32), quantised weights, many rows of x: a group of
// four subgroups of 32 lanes makes a tile of 64 rows by 64 rows of x, a subgroup one of 32 by 32. x is in fixed point
// (fixed.glsl), so that products of a block are whole numbers and exact. Scales are applied block by block and sums taken
// by slices in the order of matmul_dot.comp: the same bits. Which lane holds which number of a matrix is not known; so a
// matrix of places is loaded first, and says for each number its row and column.
// 14 KiB shared (Q6_K 18): with two buffers and room for the whole tile (37) it was slower, for fewer groups ran side by
// side. The next block is loaded while one is worked on; two ahead was slower too. Measured on an NVIDIA H200.
#define KB_WIDE_LOADS
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#include "push.h"
#include "format.glsl"
#include "fixed.glsl"
#include "format_dot.glsl"
#include "matmul_common.glsl"
layout(push_constant) uniform Push {
	kb_push_matmul p;
};
const uint TILE = 64;
#define SUBGROUPS 4 // eight of 32 rows by 16 were faster for small matrices and slower for large ones
#define DOWNS (8 / SUBGROUPS) // matrices of a subgroup along rows of x
#define LANES (32 * SUBGROUPS)
layout(local_size_x = LANES) in;
const uint STRIDE = 3; // quads from a row of 32 bytes to the next: 2 and a gap, against bank conflicts
shared uvec4 weights[SCALES * TILE * STRIDE]; // half that is not zero, row
shared uvec4 digits[2 * TILE * STRIDE];       // digit, row of x
shared float row_a[SCALES * TILE], row_b[SCALES * TILE]; // half, row
shared float x_scale[TILE], x_sum[SCALES * TILE];        // half, row of x
shared float tile[SUBGROUPS * 256];                      // subgroup: one matrix

#define A coopmat<int8_t, gl_ScopeSubgroup, 16, 32, gl_MatrixUseA>
#define B coopmat<int8_t, gl_ScopeSubgroup, 32, 16, gl_MatrixUseB>
#define WHOLE coopmat<int, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>
#define REAL coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>

#define HELD 8 // numbers of a matrix that a lane holds: 256 of 32 lanes

void put_weights(uint row, Block b)
{
	[[unroll]] for (uint h = 0; h < SCALES; h++) {
		uint at = h * TILE + row;
		[[unroll]] for (uint k = 0; k < 2; k++) {
			uvec4 four = uvec4(0u);
			if (SCALES == 1 || k == h) {
				[[unroll]] for (uint c = 0; c < 4; c++) four[c] = block_bytes(b, 4 * k + c);
			}
			weights[at * STRIDE + k] = four;
		}
		row_a[at] = b.a[h];
		row_b[at] = b.b[h];
	}
}

void put_x(uint t, Fixed x)
{
	[[unroll]] for (uint k = 0; k < 4; k++) digits[((k / 2) * TILE + t) * STRIDE + k % 2] = x.quad[k];
	vec4 rest = uintBitsToFloat(x.quad[4]);
	x_scale[t] = rest[0];
	[[unroll]] for (uint h = 0; h < SCALES; h++) x_sum[h * TILE + t] = SCALES == 1 ? rest[3] : rest[1 + h];
}

// acc[row of x / 16 * 2 + row / 16] += what a block adds; across, down: first row and first row of x of this subgroup.
void multiply(inout REAL acc[2 * DOWNS], uint across, uint down, uint row_of[HELD], uint column_of[HELD])
{
	A a[2 * SCALES];
	float scale_a[2 * SCALES * HELD], scale_b[2 * SCALES * HELD];
	[[unroll]] for (uint k = 0; k < 2 * SCALES; k++) {
		uint at = (k % SCALES) * TILE + across + k / SCALES * 16;
		coopMatLoad(a[k], weights, at * STRIDE, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint i = 0; i < HELD; i++) {
			scale_a[k * HELD + i] = row_a[at + row_of[i]];
			scale_b[k * HELD + i] = OFFSET != 0 ? row_b[at + row_of[i]] : 0.0;
		}
	}
	[[unroll]] for (uint c = 0; c < DOWNS; c++) {
		B high, low;
		uint t = down + 16 * c;
		float of_x[HELD], sum_x[SCALES * HELD];
		coopMatLoad(high, digits, t * STRIDE, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
		coopMatLoad(low, digits, (TILE + t) * STRIDE, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
		[[unroll]] for (uint i = 0; i < HELD; i++) {
			of_x[i] = x_scale[t + column_of[i]];
			[[unroll]] for (uint h = 0; h < SCALES; h++)
				sum_x[h * HELD + i] = OFFSET != 0 ? x_sum[h * TILE + t + column_of[i]] : 0.0;
		}
		[[unroll]] for (uint r = 0; r < 2; r++) {
			REAL sum[SCALES];
			[[unroll]] for (uint h = 0; h < SCALES; h++) {
				WHOLE whole = coopMatMulAdd(a[r * SCALES + h], high, WHOLE(0));
				whole = coopMatMulAdd(a[r * SCALES + h], low, whole * 256);
				sum[h] = REAL(whole);
			}
			[[unroll]] for (uint i = 0; i < HELD; i++) {
				precise float y = acc[c * 2 + r][i];
				[[unroll]] for (uint h = 0; h < SCALES; h++) {
					precise float scale = scale_a[(r * SCALES + h) * HELD + i] * of_x[i];
					y = fma(sum[h][i], scale, y);
				}
#if OFFSET
				[[unroll]] for (uint h = 0; h < SCALES; h++)
					y = fma(scale_b[(r * SCALES + h) * HELD + i], sum_x[h * HELD + i], y);
#endif
				acc[c * 2 + r][i] = y;
			}
		}
	}
}

void load(Words m, uint panel, uint from, uint i, uint lane, inout Block w, inout Fixed x)
{
	if (lane < TILE) {
		w = block_read(m, panel, i, lane % KB_PANEL);
	} else if (lane < 2 * TILE) {
		[[unroll]] for (uint k = 0; k < FIXED_QUADS; k++) x.quad[k] = Quads(p.x).v[fixed_at(i, k, from, p.x_rows)];
	}
}

void main()
{
	uint lane = gl_LocalInvocationID.x, across = gl_SubgroupID % 2 * 32, down = gl_SubgroupID / 2 * 16 * DOWNS;
	Part m = part_of(p, gl_WorkGroupID.x, TILE);
	uint count = row_count(p), t0 = gl_WorkGroupID.y * TILE, blocks = p.cols / 32, per = slice_blocks(blocks);
	// The first 64 lanes bring rows, the others rows of x; those past the end bring the last one again.
	uint panel = min(m.unit * TILE + lane % TILE, m.rows - 1) / KB_PANEL * p.panel_words;
	uint from = min(t0 + lane % TILE, count - 1);
	uint row_of[HELD], column_of[HELD];
	REAL places, acc[2 * DOWNS], total[2 * DOWNS];
	for (uint i = lane; i < 256; i += LANES) tile[i] = float(i);
	barrier();
	coopMatLoad(places, tile, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
	[[unroll]] for (uint k = 0; k < HELD; k++) {
		row_of[k] = uint(places[k]) / 16;
		column_of[k] = uint(places[k]) % 16;
	}
	[[unroll]] for (uint k = 0; k < 2 * DOWNS; k++) acc[k] = total[k] = REAL(0.0);
	Block w;
	Fixed x;
	load(m.w, panel, from, 0, lane, w, x);
	uint left = per;
	for (uint i = 0; i < blocks; i++) {
		if (lane < TILE)
			put_weights(lane, w);
		else if (lane < 2 * TILE)
			put_x(lane - TILE, x);
		barrier();
		load(m.w, panel, from, min(i + 1, blocks - 1), lane, w, x); // on its way meanwhile
		multiply(acc, across, down, row_of, column_of);
		if (--left == 0 || i + 1 == blocks) { // the end of a slice
			[[unroll]] for (uint k = 0; k < 2 * DOWNS; k++) {
				total[k] = total[k] + acc[k];
				acc[k] = REAL(0.0);
			}
			left = per;
		}
		barrier(); // the block is used up
	}
	[[unroll]] for (uint k = 0; k < 2 * DOWNS; k++) {
		coopMatStore(total[k], tile, gl_SubgroupID * 256, 16, gl_CooperativeMatrixLayoutColumnMajor);
		barrier();
		[[unroll]] for (uint i = 0; i < HELD; i++) {
			uint at = gl_SubgroupInvocationID + 32 * i, row = m.unit * TILE + across + k % 2 * 16 + at % 16;
			uint token = t0 + down + k / 2 * 16 + at / 16;
			precise float y = tile[gl_SubgroupID * 256 + at];
			if (m.has_bias && row < m.rows)
				y += m.bias.v[row];
			if (token < count && row < m.rows)
				m.y.v[token * m.rows + row] = y;
		}
		barrier();
	}
}
