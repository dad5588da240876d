// Two neighbouring rows of a block, read in 64-bit pieces: where loads are done lane by lane, their number is the
// cost. See format.glsl for the layout; here a weight is a * q + b, with a and b left out of the inner sums.
#include "format.glsl"
#define BLOCK_BYTES (4 * BLOCK_WORDS)
#if FMT == 4 || FMT == 6 || FMT == 8 || FMT == 9
#define OFFSET 2 // b is a value of its own
#elif FMT == 3 || FMT == 5 || FMT == 7 || FMT == 10
#define OFFSET 1 // b is a times a constant
#else
#define OFFSET 0
#endif

struct Pair {
	uint lo[2 * LO]; // row, word
#if HI
	uint hi[2 * HI];
#endif
#if FMT > 2
	float a[2 * SCALES], b[2 * SCALES]; // row, half
#endif
};

#define PIECE (64 / LO) // columns of a 64-bit piece

// The 64-bit pieces that hold column k of both rows; at: address of the block; row: of the panel, even.
void pair_read(inout Pair r, uint64_t at, uint row, uint k)
{
	Long lo = Long(at + row * (4 * LO));
	[[unroll]] for (uint i = 0; i < 2; i++) {
		uint j = k / PIECE + i * (LO / 2);
		uvec2 two = unpackUint2x32(lo.v[j]);
		r.lo[2 * j] = two.x;
		r.lo[2 * j + 1] = two.y;
	}
}

// Everything else of a pair; super_at: address of its super-block.
Pair pair_begin(uint64_t at, uint64_t super_at, uint row)
{
	Pair r;
#if HI
	Long hi = Long(at + 64 * LO + row * (4 * HI));
	[[unroll]] for (uint j = 0; j < HI; j++) {
		uvec2 two = unpackUint2x32(hi.v[j]);
		r.hi[2 * j] = two.x;
		r.hi[2 * j + 1] = two.y;
	}
#endif
#if SCALE == 16
	uvec2 s = unpackUint2x32(Long(at + 64 * (LO + HI) + row * 4).v[0]);
	vec2 s0 = unpackHalf2x16(s.x), s1 = unpackHalf2x16(s.y);
	r.a[0] = s0.x;
	r.a[1] = s1.x;
	r.b[0] = s0.y;
	r.b[1] = s1.y;
#elif SCALE == 8
	uint s = Words(at + 64 * (LO + HI) + row * 2).v[0];
#endif
#if SUPER
	uvec2 super = unpackUint2x32(Long(super_at + row * 4).v[0]);
	vec2 d0 = unpackHalf2x16(super.x), d1 = unpackHalf2x16(super.y);
#endif
#if FMT == 3 || FMT == 5 || FMT == 7
	vec2 d = unpackHalf2x16(s);
	r.a[0] = d.x;
	r.a[1] = d.y;
#elif FMT == 8 || FMT == 9
	r.a[0] = d0.x * float(int(s & 255u));
	r.a[1] = d1.x * float(int(s >> 16 & 255u));
	r.b[0] = -(d0.y * float(int(s >> 8 & 255u)));
	r.b[1] = -(d1.y * float(int(s >> 24)));
#elif FMT == 10
	r.a[0] = d0.x * float(bitfieldExtract(int(s), 0, 8));
	r.a[1] = d0.x * float(bitfieldExtract(int(s), 8, 8));
	r.a[2] = d1.x * float(bitfieldExtract(int(s), 16, 8));
	r.a[3] = d1.x * float(bitfieldExtract(int(s), 24, 8));
#endif
#if OFFSET == 1
	[[unroll]] for (uint j = 0; j < 2 * SCALES; j++) r.b[j] = (FMT == 3 ? -8.0 : FMT == 5 ? -16.0 : FMT == 7 ? -128.0 : -32.0) * r.a[j];
#endif
	return r;
}

// Four-bit fields are masked where they lie and not shifted down, which leaves q * 16^(k % 8); x is multiplied by the
// inverse beforehand (powers of two: exact). The highest field is shifted, because its top bit would be a sign.
#if LO == 4 || LO == 8
#define IN_PLACE 1
#else
#define IN_PLACE 0
#endif

float place_scale(uint k)
{
	uint fields = 32 / LO, field = k % fields;
	return IN_PLACE == 0 || field == fields - 1 ? 1.0 : uintBitsToFloat((127 - LO * field) << 23);
}

// q of column k of row 0 or 1, divided by place_scale(k). F16, BF16, F32: the weight itself.
float pair_quant(Pair r, uint row, uint k)
{
#if FMT == 0
	return uintBitsToFloat(r.lo[row * LO + k]);
#elif FMT == 1
	vec2 two = unpackHalf2x16(r.lo[row * LO + k / 2]);
	return k % 2 == 0 ? two.x : two.y;
#elif FMT == 2
	uint w = r.lo[row * LO + k / 2];
	return uintBitsToFloat(k % 2 == 0 ? w << 16 : w & 0xffff0000u);
#elif FMT == 7
	uint q = r.lo[row * LO + k / 4] ^ 0x80808080u; // q + 128
	return float(int(k % 4 == 3 ? q >> 24 : q & 255u << k % 4 * 8));
#else
	uint at = k % 8 == 7 ? 0 : k % 8 * 4; // where bit 0 of q is put
	uint q = r.lo[row * LO + k / 8];
	q = k % 8 == 7 ? q >> 28 : q & 15u << at;
#if HI
	uint bits = HI == 1 ? k : k % 16 * 2; // where the high bits are
	uint h = r.hi[HI == 1 ? row : row * 2 + k / 16];
	h = bits > at + 4 ? h >> bits - (at + 4) : h << (at + 4) - bits;
	q |= h & (HI == 1 ? 1u : 3u) << (at + 4);
#endif
	return float(int(q));
#endif
}
