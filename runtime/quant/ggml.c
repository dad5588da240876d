/* see quant.h. Field order and bit order of the blocks: ggml-common.h and gguf-py's quants.py of llama.cpp. */
#include "base/half.h"
#include "quant/unpacked.h"

#include <math.h>

#define QK_K 256u

static uint16_t load_u16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return v;
}

static uint32_t load_u32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

// 16 bytes: low nibbles are columns 0-15, high nibbles 16-31.
static void split_nibbles(const uint8_t *qs, uint8_t *q)
{
	for (uint32_t i = 0; i < 16; i++) {
		q[i] = qs[i] & 15;
		q[i + 16] = qs[i] >> 4;
	}
}

static void add_fifth_bits(uint32_t bits, uint8_t *q)
{
	for (uint32_t i = 0; i < 32; i++)
		q[i] = (uint8_t)(q[i] | (bits >> i & 1) << 4);
}

// { f16 d; u8 qs[16]; }
static void unpack_q4_0(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	split_nibbles(b + 2, u->q);
}

// { f16 d, m; u8 qs[16]; }
static void unpack_q4_1(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	u->m = load_u16(b + 2);
	split_nibbles(b + 4, u->q);
}

// { f16 d; u8 qh[4]; u8 qs[16]; }
static void unpack_q5_0(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	split_nibbles(b + 6, u->q);
	add_fifth_bits(load_u32(b + 2), u->q);
}

// { f16 d, m; u8 qh[4]; u8 qs[16]; }
static void unpack_q5_1(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	u->m = load_u16(b + 2);
	split_nibbles(b + 8, u->q);
	add_fifth_bits(load_u32(b + 4), u->q);
}

// { f16 d; i8 qs[32]; }
static void unpack_q8_0(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	memcpy(u->q, b + 2, 32);
}

// { f16 d; u8 qs[16]; } where a nibble is an index into 16 signed values.
static void unpack_iq4_nl(const uint8_t *b, struct kb_unpacked *u)
{
	static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
	unpack_q4_0(b, u);
	for (uint32_t i = 0; i < 32; i++)
		u->q[i] = (uint8_t)values[u->q[i]];
}

// 12 bytes hold eight 6-bit scales and eight 6-bit mins: the first four of each in the low bits of bytes 0-3 and
// 4-7, the others split between bytes 8-11 and the top two bits of the bytes before.
static void unpack_k4_scales(const uint8_t *s, struct kb_unpacked *u)
{
	for (uint32_t i = 0; i < 4; i++) {
		u->scale[i] = s[i] & 63;
		u->min[i] = s[4 + i] & 63;
		u->scale[4 + i] = (uint8_t)((s[8 + i] & 15) | (s[i] >> 6) << 4);
		u->min[4 + i] = (uint8_t)((s[8 + i] >> 4) | (s[4 + i] >> 6) << 4);
	}
}

// Four runs of 32 bytes, each 64 columns: low nibbles, then high nibbles.
static void unpack_k4_nibbles(const uint8_t *qs, uint8_t *q)
{
	for (uint32_t run = 0; run < 4; run++, qs += 32, q += 64) {
		for (uint32_t i = 0; i < 32; i++) {
			q[i] = qs[i] & 15;
			q[i + 32] = qs[i] >> 4;
		}
	}
}

// { f16 d, dmin; u8 scales[12]; u8 qs[128]; }
static void unpack_q4_k(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	u->m = load_u16(b + 2);
	unpack_k4_scales(b + 4, u);
	unpack_k4_nibbles(b + 16, u->q);
}

// { f16 d, dmin; u8 scales[12]; u8 qh[32]; u8 qs[128]; }: bit s of qh[i] belongs to column 32s+i.
static void unpack_q5_k(const uint8_t *b, struct kb_unpacked *u)
{
	u->d = load_u16(b);
	u->m = load_u16(b + 2);
	unpack_k4_scales(b + 4, u);
	unpack_k4_nibbles(b + 48, u->q);
	for (uint32_t s = 0; s < 8; s++)
		for (uint32_t i = 0; i < 32; i++)
			u->q[32 * s + i] = (uint8_t)(u->q[32 * s + i] | (b[16 + i] >> s & 1) << 4);
}

// Runs of 32 bytes, each 128 columns: 2-bit field s of byte i is column 32s+i.
static void split_pairs(const uint8_t *qs, uint8_t *q)
{
	for (uint32_t s = 0; s < 4; s++)
		for (uint32_t i = 0; i < 32; i++)
			q[32 * s + i] = qs[i] >> (2 * s) & 3;
}

// { u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d; }
static void unpack_q6_k(const uint8_t *b, struct kb_unpacked *u)
{
	const uint8_t *ql = b, *qh = b + 128;
	for (uint32_t half = 0; half < 2; half++, ql += 64, qh += 32) {
		uint8_t *q = u->q + 128 * half;
		split_pairs(qh, q);
		for (uint32_t i = 0; i < 64; i++) {
			q[i] = (uint8_t)(q[i] << 4 | (ql[i] & 15));
			q[i + 64] = (uint8_t)(q[i + 64] << 4 | ql[i] >> 4);
		}
	}
	memcpy(u->scale, b + 192, 16);
	u->d = load_u16(b + 208);
	u->m = 0;
}

// { u8 hmask[32]; u8 qs[64]; u8 scales[12]; f16 d; }: value 2-bit q, minus 4 where the mask bit is clear; scale 6-bit
// minus 32. The same product as Q6_K's with q - 32 shifted into Q6_K's unsigned range.
static void unpack_q3_k(const uint8_t *b, struct kb_unpacked *u)
{
	const uint8_t *s = b + 96;
	split_pairs(b + 32, u->q);
	split_pairs(b + 64, u->q + 128);
	for (uint32_t k = 0; k < 8; k++)
		for (uint32_t i = 0; i < 32; i++)
			u->q[32 * k + i] = (uint8_t)(28 + u->q[32 * k + i] + 4 * (b[i] >> k & 1));
	for (uint32_t i = 0; i < 16; i++) {
		uint32_t low = s[i & 7] >> (i < 8 ? 0 : 4) & 15;
		uint32_t high = s[8 + (i & 3)] >> (2 * (i >> 2)) & 3;
		u->scale[i] = (uint8_t)((int)(low | high << 4) - 32);
	}
	u->d = load_u16(b + 108);
	u->m = 0;
}

// { u8 scales[16]; u8 qs[64]; f16 d, dmin; }: (d * low nibble) * q - (dmin * high nibble), a nibble pair a 16 columns.
static void decode_q2_k(const uint8_t *b, float *w)
{
	uint8_t q[QK_K];
	float d = kb_f32_from_f16(load_u16(b + 80));
	float dmin = kb_f32_from_f16(load_u16(b + 82));
	split_pairs(b + 16, q);
	split_pairs(b + 48, q + 128);
	for (uint32_t i = 0; i < QK_K; i++) {
		float scale = d * (float)(b[i / 16] & 15);
		float min = dmin * (float)(b[i / 16] >> 4);
		float product = scale * (float)q[i];
		w[i] = product - min;
	}
}

// Nearest Q8_0 of 32 weights: the scale is rounded to f16 first and the values to it, which is never worse than
// rounding both from the unrounded scale.
static void quantise_q8_0(const float *w, struct kb_unpacked *u)
{
	float peak = 0;
	for (uint32_t i = 0; i < KB_BLOCK_COLS; i++)
		peak = fabsf(w[i]) > peak ? fabsf(w[i]) : peak;
	u->d = kb_f16_from_f32(peak / 127.0f);
	float d = kb_f32_from_f16(u->d);
	float inverse = d > 0 && isfinite(d) ? 1.0f / d : 0.0f;
	for (uint32_t i = 0; i < KB_BLOCK_COLS; i++) {
		float x = w[i] * inverse;
		x = x < 127.0f ? x : 127.0f; // also where x is no number
		x = x > -127.0f ? x : -127.0f;
		// In [2^23, 2^24) a float has no fraction, so the sum is rounded to even and its low bits are the integer.
		u->q[i] = (uint8_t)kb_f32_bits(x + 0x1.8p23f);
	}
}

// ---

#define EXACT 1
#define REQUANTISED 0

typedef void unpack_fn(const uint8_t *block, struct kb_unpacked *ret);

static const struct kind {
	struct kb_ggml_info info;
	unpack_fn *unpack; // NULL: wide values, or Q2_K
} kinds[] = {
	{{KB_GGML_F32, "F32", 1, 4, KB_FMT_F32, EXACT}, NULL},
	{{KB_GGML_F16, "F16", 1, 2, KB_FMT_F16, EXACT}, NULL},
	{{KB_GGML_BF16, "BF16", 1, 2, KB_FMT_BF16, EXACT}, NULL},
	{{KB_GGML_Q4_0, "Q4_0", 32, 18, KB_FMT_Q4_0, EXACT}, unpack_q4_0},
	{{KB_GGML_Q4_1, "Q4_1", 32, 20, KB_FMT_Q4_1, EXACT}, unpack_q4_1},
	{{KB_GGML_Q5_0, "Q5_0", 32, 22, KB_FMT_Q5_0, EXACT}, unpack_q5_0},
	{{KB_GGML_Q5_1, "Q5_1", 32, 24, KB_FMT_Q5_1, EXACT}, unpack_q5_1},
	{{KB_GGML_Q8_0, "Q8_0", 32, 34, KB_FMT_Q8_0, EXACT}, unpack_q8_0},
	{{KB_GGML_Q2_K, "Q2_K", QK_K, 84, KB_FMT_Q8_0, REQUANTISED}, NULL},
	{{KB_GGML_Q3_K, "Q3_K", QK_K, 110, KB_FMT_Q6_K, EXACT}, unpack_q3_k},
	{{KB_GGML_Q4_K, "Q4_K", QK_K, 144, KB_FMT_Q4_K, EXACT}, unpack_q4_k},
	{{KB_GGML_Q5_K, "Q5_K", QK_K, 176, KB_FMT_Q5_K, EXACT}, unpack_q5_k},
	{{KB_GGML_Q6_K, "Q6_K", QK_K, 210, KB_FMT_Q6_K, EXACT}, unpack_q6_k},
	{{KB_GGML_IQ4_NL, "IQ4_NL", 32, 18, KB_FMT_Q8_0, EXACT}, unpack_iq4_nl},
};

const struct kb_ggml_info *kb_ggml_find(uint32_t type)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if ((uint32_t)kinds[i].info.type == type)
			return &kinds[i].info;
	return NULL;
}

static unpack_fn *unpacker(const struct kb_ggml_info *g)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (kinds[i].info.type == g->type)
			return kinds[i].unpack;
	return NULL;
}

static void unpack_wide(const uint8_t *src, size_t size, struct kb_unpacked *u)
{
	memcpy(u->wide, src, KB_BLOCK_COLS * size);
}

static void decode_wide(const struct kb_ggml_info *g, const uint8_t *src, uint32_t cols, float *row)
{
	if (g->type == KB_GGML_F32)
		memcpy(row, src, (size_t)cols * 4);
	for (uint32_t i = 0; i < cols && g->type == KB_GGML_F16; i++)
		row[i] = kb_f32_from_f16(load_u16(src + 2 * (size_t)i));
	for (uint32_t i = 0; i < cols && g->type == KB_GGML_BF16; i++)
		row[i] = kb_f32_from_bf16(load_u16(src + 2 * (size_t)i));
}

void kb_ggml_decode_row(const struct kb_ggml_info *g, const void *src, uint32_t cols, float *row)
{
	const uint8_t *block = src;
	struct kb_unpacked u = {0};
	if (g->block_cols == 1) {
		decode_wide(g, block, cols, row);
		return;
	}
	unpack_fn *unpack = unpacker(g);
	for (uint32_t c = 0; c + g->block_cols <= cols; c += g->block_cols, block += g->block_bytes) {
		if (!unpack) {
			decode_q2_k(block, row + c);
			continue;
		}
		unpack(block, &u);
		kb__unpacked_weights(g->format, &u, row + c);
	}
}

void kb__ggml_unpack_row(
	const struct kb_ggml_info *g, const uint8_t *block, uint32_t cols, kb_unpacked_sink *sink, void *ctx)
{
	struct kb_unpacked u = {0};
	float w[QK_K];
	unpack_fn *unpack = unpacker(g);
	uint32_t step = g->block_cols == 1 ? KB_BLOCK_COLS : g->block_cols;
	size_t bytes = g->block_cols == 1 ? (size_t)KB_BLOCK_COLS * g->block_bytes : g->block_bytes;
	uint32_t n = 0;
	for (uint32_t c = 0; c + step <= cols; c += step, block += bytes) {
		if (unpack) {
			unpack(block, &u);
			sink(ctx, n++, &u);
		} else if (g->block_cols == 1) {
			unpack_wide(block, g->block_bytes, &u);
			sink(ctx, n++, &u);
		} else {
			decode_q2_k(block, w);
			for (uint32_t i = 0; i < QK_K; i += KB_BLOCK_COLS) {
				quantise_q8_0(w + i, &u);
				sink(ctx, n++, &u);
			}
		}
	}
}
