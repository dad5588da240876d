// Quantised weights as bytes, for dot products of whole numbers. Included after format.glsl and fixed.glsl.
// spirv-val and drivers know the instruction; this glslc has no name for it yet.
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int dot_bytes(uint a, uint b, spirv_literal int packed_4x8);
#if FMT == 7
#define ORDER ORDER_PLAIN
#else
#define ORDER ORDER_PAIRS
#endif
#if FMT == 7
#define OFFSET 0
#else
#define OFFSET 1 // b is not always zero
#endif

// Bytes 4j to 4j + 3 in ORDER; j is a constant once loops are unrolled.
uint block_bytes(Block r, uint j)
{
#if FMT == 7
	return r.lo[j];
#else
	uint q = (j % 2 == 0 ? r.lo[j / 2] : r.lo[j / 2] >> 4) & 0x0f0f0f0fu;
#if HI == 1
	uint h = r.hi[0] >> (j / 2 * 8 + j % 2);
	q |= (h & 1u) << 4 | (h & 4u) << 10 | (h & 16u) << 16 | (h & 64u) << 22;
#elif HI == 2
	uint h = r.hi[j / 4] >> (j / 2 % 2 * 16 + j % 2 * 2);
	q |= (h & 3u) << 4 | (h & 48u) << 8 | (h & 768u) << 12 | (h & 12288u) << 16;
#endif
	return q;
#endif
}

// acc + what a block adds: sum[i] is of whole numbers, over all columns or (two scales) a half of them; x is the last
// quad of the block of x.
float add_block(float acc, Block r, int sum[SCALES], vec4 x)
{
	precise float y = acc;
	[[unroll]] for (uint i = 0; i < SCALES; i++) {
		precise float scale = r.a[i] * x[0]; // exact: a power of two
		y = fma(float(sum[i]), scale, y);
	}
#if OFFSET
	[[unroll]] for (uint i = 0; i < SCALES; i++) y = fma(r.b[i], SCALES == 1 ? x[3] : x[1 + i], y);
#endif
	return y;
}
