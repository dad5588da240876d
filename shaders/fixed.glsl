// x in fixed point, for dot products of whole numbers. A block of 32 numbers of a row of x is stored as numbers of 16
// bits times a power of two, each as two signed digits of 8 bits: x = scale * (256 * high + low). Sums of products with
// quantised weights are then exact, so every kernel may take them in whatever order its device does best, and still all
// give the same bits; only the additions of blocks are rounded, in one order. The error is at most 2^-15 of the block's
// largest number, a power of two rounded up.
//
// A block is 20 words: 8 of high digits, 8 of low digits, scale, then the sums of x (f32, scaled) over columns 0-15,
// over 16-31 and over all. Digits lie in the order in which the weights' bytes come out of their words: see ORDER.
// In memory blocks are cut into quads of 16 bytes, and the same quad of neighbouring rows of x lies side by side.
#define FIXED_QUADS 5 // of 16 bytes, a block
#define ORDER_PLAIN 0 // byte c of word j is column 4j + c
#define ORDER_PAIRS 1 // byte c of word 2j + i is column 8j + 2c + i: the low and the high nibbles of a word

// Where quad k of block i of row t is, with memory laid out for `rows` rows.
uint fixed_at(uint i, uint k, uint t, uint rows)
{
	return (i * FIXED_QUADS + k) * rows + t;
}

struct Fixed {
	uvec4 quad[FIXED_QUADS];
};

// Makes a block of 32 numbers; order: a constant.
Fixed fixed_make(vec4 x[8], uint order)
{
	Fixed r;
	uint most = 0u, high[8], low[8];
	int sum0 = 0, sum1 = 0;
	[[unroll]] for (uint k = 0; k < 8; k++) {
		[[unroll]] for (uint c = 0; c < 4; c++) most = max(most, floatBitsToUint(x[k][c]) & 0x7fffffffu);
		high[k] = low[k] = 0u;
	}
	// The least power of two that leaves numbers of at most 127 * 256 + 127 (a little more is rounded up to the next);
	// at least 2^-112, so that its inverse is a number too.
	uint e = clamp((most + 0x10200u) >> 23, 15u, 254u);
	float scale = uintBitsToFloat((e - 14u) << 23), inverse = uintBitsToFloat((268u - e) << 23);
	[[unroll]] for (uint k = 0; k < 32; k++) {
		int q = most < 0x7f800000u ? int(roundEven(x[k / 4][k % 4] * inverse)) : 0;
		int h = (q + 128) >> 8;
		uint word = order == ORDER_PLAIN ? k / 4 : k / 8 * 2 + k % 2, at = order == ORDER_PLAIN ? k % 4 : k % 8 / 2;
		high[word] |= (uint(h) & 255u) << (8u * at);
		low[word] |= (uint(q - 256 * h) & 255u) << (8u * at);
		if (k < 16)
			sum0 += q;
		else
			sum1 += q;
	}
	if (most >= 0x7f800000u) // not a number, or infinite: so is everything made of it
		scale = uintBitsToFloat(0x7fc00000u);
	r.quad[0] = uvec4(high[0], high[1], high[2], high[3]);
	r.quad[1] = uvec4(high[4], high[5], high[6], high[7]);
	r.quad[2] = uvec4(low[0], low[1], low[2], low[3]);
	r.quad[3] = uvec4(low[4], low[5], low[6], low[7]);
	precise vec4 rest = vec4(scale, scale * float(sum0), scale * float(sum1), scale * float(sum0 + sum1));
	r.quad[4] = floatBitsToUint(rest);
	return r;
}
