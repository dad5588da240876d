// f16 and bf16 <-> f32, one number at a time. IEEE 754 binary16, round to nearest even; no tables, no CPU flags.
#pragma once
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files and shaders are little-endian, and so is the host");

static inline float kb_f32_from_bits(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

static inline uint32_t kb_f32_bits(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, 4);
	return bits;
}

static inline float kb_f32_from_bf16(uint16_t h)
{
	return kb_f32_from_bits((uint32_t)h << 16);
}

static inline float kb_f32_from_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
	uint32_t rest = h & 0x7fffu;
	if (rest >= 0x7c00u) // infinity and NaN keep their payload
		return kb_f32_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
	if (rest >= 0x400u)
		return kb_f32_from_bits(sign | ((rest << 13) + 0x38000000u));
	// Subnormal or zero: rest * 2^-24, exact in f32.
	float magnitude = (float)rest * 0x1p-24f;
	return kb_f32_from_bits(sign | kb_f32_bits(magnitude));
}

static inline uint16_t kb_f16_from_f32(float f)
{
	uint32_t bits = kb_f32_bits(f);
	uint32_t sign = bits >> 16 & 0x8000u;
	uint32_t rest = bits & 0x7fffffffu;
	if (rest > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
	if (rest >= 0x477ff000u) // rounds to 65536 or is larger
		return (uint16_t)(sign | 0x7c00u);
	if (rest >= 0x38800000u) {
		uint32_t half = rest - 0x38000000u;
		return (uint16_t)(sign | (half + 0xfffu + (half >> 13 & 1u)) >> 13);
	}
	// Below 2^-14: adding 0.5 leaves the f16 subnormal, rounded to even, in the low bits of the sum.
	uint32_t sum = kb_f32_bits(kb_f32_from_bits(rest) + 0.5f);
	return (uint16_t)(sign | (sum - 0x3f000000u));
}
