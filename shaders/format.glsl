// Reading weights in panel layout (runtime/quant/quant.h). FMT is one of the numbers of enum kb_format.
// A weight is fma(a, q, b): exact for every format, because a * q has at most 24 significant bits or is rounded
// once together with b.
#if FMT == 0
#define LO 32
#elif FMT == 1 || FMT == 2
#define LO 16
#elif FMT == 7
#define LO 8
#else
#define LO 4
#endif
#if FMT == 5 || FMT == 6 || FMT == 9
#define HI 1
#elif FMT == 10
#define HI 2
#else
#define HI 0
#endif
#if FMT == 4 || FMT == 6
#define SCALE 16 // words of the scale section of a block
#elif FMT <= 2
#define SCALE 0
#else
#define SCALE 8
#endif
#if FMT >= 8
#define SUPER 16 // words of the super section
#define SUPER_BLOCKS 8
#else
#define SUPER 0
#define SUPER_BLOCKS 1
#endif
#if FMT == 10
#define SCALES 2 // scales of a row in a block
#else
#define SCALES 1
#endif
#define BLOCK_WORDS (16 * LO + 16 * HI + SCALE)

#ifdef KB_WIDE_LOADS // 16 bytes at once; matrices and rows of x begin at multiples of 16
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
	uvec4 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Fours {
	vec4 v[];
};
#endif

struct Block {
	uint lo[LO];
#if HI
	uint hi[HI];
#endif
#if FMT > 2
	float a[SCALES], b[SCALES];
#endif
};

// Word of block `i` of the panel that starts at word `panel`.
uint block_word(uint panel, uint i)
{
#if SUPER_BLOCKS > 1
	return panel + i / SUPER_BLOCKS * (SUPER + SUPER_BLOCKS * BLOCK_WORDS) + SUPER + i % SUPER_BLOCKS * BLOCK_WORDS;
#else
	return panel + i * BLOCK_WORDS;
#endif
}

// `row`: of the panel.
Block block_read(Words w, uint panel, uint i, uint row)
{
	Block r;
	uint at = block_word(panel, i);
#ifdef KB_WIDE_LOADS
	[[unroll]] for (uint j = 0; j < LO; j += 4) {
		uvec4 four = Quads(w).v[(at + row * LO + j) / 4];
		r.lo[j] = four.x;
		r.lo[j + 1] = four.y;
		r.lo[j + 2] = four.z;
		r.lo[j + 3] = four.w;
	}
#else
	[[unroll]] for (uint j = 0; j < LO; j++) r.lo[j] = w.v[at + row * LO + j];
#endif
#if HI
	[[unroll]] for (uint j = 0; j < HI; j++) r.hi[j] = w.v[at + 16 * LO + row * HI + j];
#endif
#if SUPER
	vec2 d = unpackHalf2x16(w.v[panel + i / SUPER_BLOCKS * (SUPER + SUPER_BLOCKS * BLOCK_WORDS) + row]);
#endif
#if SCALE == 16
	vec2 s = unpackHalf2x16(w.v[at + 16 * (LO + HI) + row]);
#elif SCALE == 8
	uint s = w.v[at + 16 * (LO + HI) + row / 2] >> (row % 2 * 16);
#endif
#if FMT == 3 // Q4_0
	r.a[0] = unpackHalf2x16(s).x;
	r.b[0] = -8.0 * r.a[0];
#elif FMT == 5 // Q5_0
	r.a[0] = unpackHalf2x16(s).x;
	r.b[0] = -16.0 * r.a[0];
#elif FMT == 4 || FMT == 6 // Q4_1, Q5_1
	r.a[0] = s.x;
	r.b[0] = s.y;
#elif FMT == 7 // Q8_0
	r.a[0] = unpackHalf2x16(s).x;
	r.b[0] = 0.0;
#elif FMT == 8 || FMT == 9 // Q4_K, Q5_K
	r.a[0] = d.x * float(s & 255u);
	r.b[0] = -(d.y * float(s >> 8 & 255u));
#elif FMT == 10 // Q6_K
	r.a[0] = d.x * float(bitfieldExtract(int(s), 0, 8));
	r.a[1] = d.x * float(bitfieldExtract(int(s), 8, 8));
	r.b[0] = -32.0 * r.a[0];
	r.b[1] = -32.0 * r.a[1];
#endif
	return r;
}

// Column k of the block; k is a constant once loops are unrolled.
float block_weight(Block r, uint k)
{
#if FMT == 0
	return uintBitsToFloat(r.lo[k]);
#elif FMT == 1
	vec2 two = unpackHalf2x16(r.lo[k / 2]);
	return k % 2 == 0 ? two.x : two.y;
#elif FMT == 2
	return uintBitsToFloat(k % 2 == 0 ? r.lo[k / 2] << 16 : r.lo[k / 2] & 0xffff0000u);
#elif FMT == 7
	return r.a[0] * float(bitfieldExtract(int(r.lo[k / 4]), int(k % 4 * 8), 8));
#else
	uint q = r.lo[k / 8] >> (k % 8 * 4) & 15u;
#if HI == 1
	q |= (r.hi[0] >> k & 1u) << 4;
#elif HI == 2
	q |= (r.hi[k / 16] >> (k % 16 * 2) & 3u) << 4;
#endif
	return fma(r.a[SCALES == 1 ? 0 : k / 16], float(int(q)), r.b[SCALES == 1 ? 0 : k / 16]);
#endif
}
