/* see quant.h */
#include "quant/quant.h"
#include "base/half.h"
#include "quant/unpacked.h"

const struct kb_format_info kb_formats[KB_FMTS] = {
	// name, lo, hi, scale, super, super_blocks
	[KB_FMT_F32] = {"F32", 128, 0, 0, 0, 1},
	[KB_FMT_F16] = {"F16", 64, 0, 0, 0, 1},
	[KB_FMT_BF16] = {"BF16", 64, 0, 0, 0, 1},
	[KB_FMT_Q4_0] = {"Q4_0", 16, 0, 2, 0, 1},
	[KB_FMT_Q4_1] = {"Q4_1", 16, 0, 4, 0, 1},
	[KB_FMT_Q5_0] = {"Q5_0", 16, 4, 2, 0, 1},
	[KB_FMT_Q5_1] = {"Q5_1", 16, 4, 4, 0, 1},
	[KB_FMT_Q8_0] = {"Q8_0", 32, 0, 2, 0, 1},
	[KB_FMT_Q4_K] = {"Q4_K", 16, 0, 2, 4, 8},
	[KB_FMT_Q5_K] = {"Q5_K", 16, 4, 2, 4, 8},
	[KB_FMT_Q6_K] = {"Q6_K", 16, 8, 2, 4, 8},
};

size_t kb_format_block_bytes(enum kb_format f)
{
	const struct kb_format_info *i = &kb_formats[f];
	return (size_t)KB_PANEL_ROWS * (i->lo + i->hi + i->scale);
}

size_t kb_format_super_bytes(enum kb_format f)
{
	const struct kb_format_info *i = &kb_formats[f];
	return (size_t)KB_PANEL_ROWS * i->super + i->super_blocks * kb_format_block_bytes(f);
}

size_t kb_format_panel_bytes(enum kb_format f, uint32_t cols)
{
	return cols / (KB_BLOCK_COLS * kb_formats[f].super_blocks) * kb_format_super_bytes(f);
}

uint64_t kb_format_bytes(enum kb_format f, uint64_t rows, uint64_t cols)
{
	uint64_t bytes;
	if ((unsigned)f >= KB_FMTS || rows == 0 || rows > UINT64_MAX - (KB_PANEL_ROWS - 1))
		return 0;
	uint64_t unit = (uint64_t)KB_BLOCK_COLS * kb_formats[f].super_blocks;
	uint64_t panels = (rows + KB_PANEL_ROWS - 1) / KB_PANEL_ROWS;
	if (cols == 0 || cols > UINT32_MAX || cols % unit != 0)
		return 0;
	if (__builtin_mul_overflow(panels, (uint64_t)kb_format_panel_bytes(f, (uint32_t)cols), &bytes))
		return 0;
	return bytes;
}

static float add(float a, float b)
{
	return a + b; // apart, so that no compiler fuses it with the product before it
}

static void weights_k_with_min(const struct kb_unpacked *u, float *w)
{
	float d = kb_f32_from_f16(u->d), dmin = kb_f32_from_f16(u->m);
	for (uint32_t b = 0; b < 8; b++) {
		float scale = d * (float)u->scale[b];
		float min = dmin * (float)u->min[b];
		for (uint32_t i = 32 * b; i < 32 * b + 32; i++)
			w[i] = add(scale * (float)u->q[i], -min);
	}
}

static void weights_q6_k(const struct kb_unpacked *u, float *w)
{
	float d = kb_f32_from_f16(u->d);
	for (uint32_t b = 0; b < 16; b++) {
		float scale = d * (float)(int8_t)u->scale[b];
		for (uint32_t i = 16 * b; i < 16 * b + 16; i++)
			w[i] = scale * (float)((int)u->q[i] - 32);
	}
}

static void weights_wide(enum kb_format f, const struct kb_unpacked *u, float *w)
{
	for (uint32_t i = 0; i < KB_BLOCK_COLS; i++) {
		uint16_t half;
		memcpy(&half, u->wide + (f == KB_FMT_F32 ? 0 : 2 * i), 2);
		if (f == KB_FMT_F32)
			memcpy(w + i, u->wide + 4 * i, 4);
		else
			w[i] = f == KB_FMT_F16 ? kb_f32_from_f16(half) : kb_f32_from_bf16(half);
	}
}

void kb__unpacked_weights(enum kb_format f, const struct kb_unpacked *u, float *w)
{
	float d = kb_f32_from_f16(u->d), m = kb_f32_from_f16(u->m);
	switch (f) {
	case KB_FMT_F32:
	case KB_FMT_F16:
	case KB_FMT_BF16:
		weights_wide(f, u, w);
		return;
	case KB_FMT_Q4_0:
		for (uint32_t i = 0; i < 32; i++)
			w[i] = d * (float)((int)u->q[i] - 8);
		return;
	case KB_FMT_Q5_0:
		for (uint32_t i = 0; i < 32; i++)
			w[i] = d * (float)((int)u->q[i] - 16);
		return;
	case KB_FMT_Q4_1:
	case KB_FMT_Q5_1:
		for (uint32_t i = 0; i < 32; i++)
			w[i] = add(d * (float)u->q[i], m);
		return;
	case KB_FMT_Q8_0:
		for (uint32_t i = 0; i < 32; i++)
			w[i] = d * (float)(int8_t)u->q[i];
		return;
	case KB_FMT_Q4_K:
	case KB_FMT_Q5_K:
		weights_k_with_min(u, w);
		return;
	case KB_FMT_Q6_K:
		weights_q6_k(u, w);
		return;
	case KB_FMTS:
		return;
	}
}

// --- packing -----------------------------------------------------------------

struct panel_row {
	enum kb_format format;
	uint32_t row; // of the panel
	uint8_t *panel;
};

// Eight bytes below 16 -> one word of nibbles, first byte lowest.
static uint32_t squeeze_nibbles(const uint8_t *q)
{
	uint64_t x;
	memcpy(&x, q, 8);
	x &= UINT64_C(0x0f0f0f0f0f0f0f0f);
	x = (x | x >> 4) & UINT64_C(0x00ff00ff00ff00ff);
	x = (x | x >> 8) & UINT64_C(0x0000ffff0000ffff);
	return (uint32_t)(x | x >> 16);
}

static void store_lo(enum kb_format f, const struct kb_unpacked *u, const uint8_t *q, uint8_t *lo)
{
	uint32_t word;
	if (kb_formats[f].lo > 32) {
		memcpy(lo, u->wide, kb_formats[f].lo);
	} else if (f == KB_FMT_Q8_0) {
		memcpy(lo, q, 32);
	} else {
		for (uint32_t j = 0; j < 4; j++) {
			word = squeeze_nibbles(q + 8 * j);
			memcpy(lo + 4 * j, &word, 4);
		}
	}
}

static void store_hi(enum kb_format f, const uint8_t *q, uint8_t *hi)
{
	uint32_t words[2] = {0, 0};
	if (f == KB_FMT_Q6_K) {
		for (uint32_t i = 0; i < 32; i++)
			words[i / 16] |= (uint32_t)(q[i] >> 4 & 3) << (2 * (i % 16));
	} else {
		for (uint32_t i = 0; i < 32; i++)
			words[0] |= (uint32_t)(q[i] >> 4 & 1) << i;
	}
	memcpy(hi, words, kb_formats[f].hi);
}

static void store_scale(enum kb_format f, const struct kb_unpacked *u, uint32_t block, uint8_t *scale)
{
	switch (f) {
	case KB_FMT_Q4_K:
	case KB_FMT_Q5_K:
		scale[0] = u->scale[block];
		scale[1] = u->min[block];
		return;
	case KB_FMT_Q6_K:
		memcpy(scale, u->scale + 2 * (size_t)block, 2);
		return;
	default:
		memcpy(scale, &u->d, 2);
		if (kb_formats[f].scale == 4)
			memcpy(scale + 2, &u->m, 2);
	}
}

static void store_unit(void *ctx, uint32_t n, const struct kb_unpacked *u)
{
	const struct panel_row *p = ctx;
	const struct kb_format_info *info = &kb_formats[p->format];
	uint8_t *super = p->panel + n * kb_format_super_bytes(p->format);
	uint8_t *block = super + (size_t)KB_PANEL_ROWS * info->super;
	if (info->super) {
		memcpy(super + (size_t)p->row * info->super, &u->d, 2);
		memcpy(super + (size_t)p->row * info->super + 2, &u->m, 2);
	}
	for (uint32_t b = 0; b < info->super_blocks; b++, block += kb_format_block_bytes(p->format)) {
		const uint8_t *q = u->q + (size_t)KB_BLOCK_COLS * b;
		uint8_t *hi = block + (size_t)KB_PANEL_ROWS * info->lo;
		uint8_t *scale = hi + (size_t)KB_PANEL_ROWS * info->hi;
		store_lo(p->format, u, q, block + (size_t)p->row * info->lo);
		if (info->hi)
			store_hi(p->format, q, hi + (size_t)p->row * info->hi);
		if (info->scale)
			store_scale(p->format, u, b, scale + (size_t)p->row * info->scale);
	}
}

void kb_quant_pack_panel(
	const struct kb_ggml_info *g, const void *src, size_t src_stride, uint32_t nrows, uint32_t cols, void *panel)
{
	struct panel_row p = {.format = g->format, .panel = panel};
	if (nrows < KB_PANEL_ROWS)
		memset(panel, 0, kb_format_panel_bytes(g->format, cols));
	for (p.row = 0; p.row < nrows && p.row < KB_PANEL_ROWS; p.row++)
		kb__ggml_unpack_row(g, (const uint8_t *)src + p.row * src_stride, cols, store_unit, &p);
}

// --- reading panels ----------------------------------------------------------

static void load_block(enum kb_format f, const uint8_t *block, uint32_t row, uint32_t b, struct kb_unpacked *u)
{
	const struct kb_format_info *info = &kb_formats[f];
	const uint8_t *lo = block + (size_t)row * info->lo;
	const uint8_t *hi = block + (size_t)KB_PANEL_ROWS * info->lo + (size_t)row * info->hi;
	const uint8_t *scale = block + (size_t)KB_PANEL_ROWS * (info->lo + info->hi) + (size_t)row * info->scale;
	uint8_t *q = u->q + (size_t)KB_BLOCK_COLS * b;
	if (info->lo > 32) {
		memcpy(u->wide, lo, info->lo);
		return;
	}
	for (uint32_t i = 0; i < KB_BLOCK_COLS; i++) {
		q[i] = info->lo == 32 ? lo[i] : lo[i / 2] >> (4 * (i % 2)) & 15;
		if (info->hi == 4)
			q[i] = (uint8_t)(q[i] | (hi[i / 8] >> (i % 8) & 1) << 4);
		else if (info->hi == 8)
			q[i] = (uint8_t)(q[i] | (hi[i / 4] >> (2 * (i % 4)) & 3) << 4);
	}
	if (f == KB_FMT_Q6_K) {
		memcpy(u->scale + 2 * (size_t)b, scale, 2);
	} else if (info->super) {
		u->scale[b] = scale[0];
		u->min[b] = scale[1];
	} else {
		memcpy(&u->d, scale, 2);
		if (info->scale == 4)
			memcpy(&u->m, scale + 2, 2);
	}
}

void kb_quant_decode_row(enum kb_format f, const void *panels, uint32_t cols, uint64_t row, float *ret_row)
{
	const struct kb_format_info *info = &kb_formats[f];
	const uint8_t *super = (const uint8_t *)panels + row / KB_PANEL_ROWS * kb_format_panel_bytes(f, cols);
	uint32_t r = (uint32_t)(row % KB_PANEL_ROWS);
	uint32_t unit = KB_BLOCK_COLS * info->super_blocks;
	for (uint32_t c = 0; c + unit <= cols; c += unit, super += kb_format_super_bytes(f)) {
		struct kb_unpacked u = {0};
		const uint8_t *block = super + (size_t)KB_PANEL_ROWS * info->super;
		if (info->super) {
			memcpy(&u.d, super + (size_t)r * info->super, 2);
			memcpy(&u.m, super + (size_t)r * info->super + 2, 2);
		}
		for (uint32_t b = 0; b < info->super_blocks; b++)
			load_block(f, block + b * kb_format_block_bytes(f), r, b, &u);
		kb__unpacked_weights(f, &u, ret_row + c);
	}
}
