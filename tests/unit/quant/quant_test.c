// Oracles: gguf-py's dequantize (tests/data/quant_golden.bin, made by make_quant_golden.py), the compiler's _Float16.
#include "base/half.h"
#include "harness/kt.h"
#include "quant/quant.h"

#include <math.h>
#include <stdio.h>

static uint8_t *golden;
static size_t golden_len;

static int read_golden(void **state)
{
	(void)state;
	FILE *f = fopen("tests/data/quant_golden.bin", "rb");
	assert_non_null(f);
	golden = malloc(1 << 20);
	golden_len = fread(golden, 1, 1 << 20, f);
	fclose(f);
	return 0;
}

static int free_golden(void **state)
{
	(void)state;
	free(golden);
	return 0;
}

struct record {
	const struct kb_ggml_info *g;
	uint32_t rows, cols;
	const uint8_t *src;
	size_t stride;
	const uint8_t *want; // f32 (rows, cols), unaligned
	uint64_t panel_hash;
};

// False at the end.
static int next_record(size_t *at, struct record *r)
{
	uint32_t head[4];
	if (*at == golden_len)
		return 0;
	memcpy(head, golden + *at, sizeof head);
	*r = (struct record){.g = kb_ggml_find(head[0]), .rows = head[1], .cols = head[2]};
	assert_non_null(r->g);
	assert_int_equal(head[3], r->rows * (r->cols / r->g->block_cols) * r->g->block_bytes);
	r->src = golden + *at + sizeof head;
	r->stride = head[3] / r->rows;
	r->want = r->src + head[3];
	*at += sizeof head + head[3] + 4 * (size_t)r->rows * r->cols;
	memcpy(&r->panel_hash, golden + *at, 8);
	*at += 8;
	return 1;
}

static void decodes_as_gguf_py(void **state)
{
	(void)state;
	struct record r;
	unsigned kinds = 0;
	for (size_t at = 0; next_record(&at, &r); kinds++) {
		float *row = malloc(r.cols * sizeof *row);
		for (uint32_t i = 0; i < r.rows; i++) {
			kb_ggml_decode_row(r.g, r.src + i * r.stride, r.cols, row);
			for (uint32_t c = 0; c < r.cols; c++) {
				uint32_t want;
				memcpy(&want, r.want + 4 * (i * r.cols + c), 4);
				if (kb_f32_bits(row[c]) != want)
					fail_msg("%s row %u column %u: %.9g (%08x), gguf-py has %.9g (%08x)", r.g->name, i, c,
						(double)row[c], kb_f32_bits(row[c]), (double)kb_f32_from_bits(want), want);
			}
		}
		free(row);
	}
	assert_int_equal(kinds, 14);
}

static uint64_t fnv(const uint8_t *p, size_t n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static void lays_panels_out_as_the_header_says(void **state)
{
	(void)state;
	struct record r;
	unsigned checked = 0;
	for (size_t at = 0; next_record(&at, &r);) {
		if (!r.panel_hash)
			continue;
		size_t n = kb_format_panel_bytes(r.g->format, r.cols);
		uint8_t *panel = malloc(n);
		memset(panel, 0xa5, n);
		kb_quant_pack_panel(r.g, r.src, r.stride, r.rows, r.cols, panel);
		if (fnv(panel, n) != r.panel_hash)
			fail_msg("%s: the panel differs from make_quant_golden.py's", r.g->name);
		free(panel);
		checked++;
	}
	assert_int_equal(checked, 5);
}

static uint32_t seed = 1;
static uint32_t draw(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed >> 8;
}

// Random blocks, with every 16-bit field a finite f16 below 0.25 so that no NaN hides a difference.
static uint8_t *random_rows(const struct kb_ggml_info *g, uint32_t rows, uint32_t cols, size_t *ret_stride)
{
	size_t stride = (size_t)(cols / g->block_cols) * g->block_bytes;
	uint8_t *src = malloc(rows * stride);
	for (size_t i = 0; i < rows * stride; i++)
		src[i] = (uint8_t)draw();
	for (size_t i = 1; i < rows * stride; i += 2)
		src[i] &= g->type == KB_GGML_BF16 || g->type == KB_GGML_F32 ? 0xbf : 0xb3;
	*ret_stride = stride;
	return src;
}

static void pack(
	const struct kb_ggml_info *g, const uint8_t *src, size_t stride, uint32_t rows, uint32_t cols, uint8_t *panels)
{
	size_t panel = kb_format_panel_bytes(g->format, cols);
	for (uint32_t r = 0; r < rows; r += KB_PANEL_ROWS) {
		uint32_t n = rows - r < KB_PANEL_ROWS ? rows - r : KB_PANEL_ROWS;
		kb_quant_pack_panel(g, src + r * stride, stride, n, cols, panels + r / KB_PANEL_ROWS * panel);
	}
}

static const uint32_t types[] = {0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 30};
static const struct shape {
	uint32_t rows, cols;
} shapes[] = {{1, 256}, {15, 512}, {16, 256}, {17, 768}, {33, 1280}, {5, 32}, {40, 96}, {16, 576}};

static void one_shape_is_exact(const struct kb_ggml_info *g, uint32_t rows, uint32_t cols)
{
	size_t stride;
	uint8_t *src = random_rows(g, rows, cols, &stride);
	uint64_t bytes = kb_format_bytes(g->format, rows, cols);
	assert_int_equal(bytes, (rows + 15) / 16 * kb_format_panel_bytes(g->format, cols));
	uint8_t *panels = malloc(bytes);
	float *a = malloc(cols * 4), *b = malloc(cols * 4);
	memset(panels, 0x5a, bytes);
	pack(g, src, stride, rows, cols, panels);
	for (uint32_t r = 0; r < rows; r++) {
		kb_ggml_decode_row(g, src + r * stride, cols, a);
		kb_quant_decode_row(g->format, panels, cols, r, b);
		if (memcmp(a, b, cols * 4) != 0)
			fail_msg("%s %ux%u: row %u changed by packing", g->name, rows, cols, r);
	}
	for (uint32_t r = rows; r < (rows + 15) / 16 * 16; r++) {
		kb_quant_decode_row(g->format, panels, cols, r, b);
		for (uint32_t c = 0; c < cols; c++)
			assert_true(b[c] == 0.0f);
	}
	free(a);
	free(b);
	free(panels);
	free(src);
}

static void packing_keeps_exact_kinds_bit_for_bit(void **state)
{
	(void)state;
	for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
		const struct kb_ggml_info *g = kb_ggml_find(types[t]);
		assert_non_null(g);
		assert_int_equal(g->is_exact, types[t] != KB_GGML_Q2_K);
		for (size_t s = 0; s < sizeof shapes / sizeof shapes[0] && g->is_exact; s++)
			if (shapes[s].cols % (g->block_cols < 32 ? 32 : g->block_cols) == 0)
				one_shape_is_exact(g, shapes[s].rows, shapes[s].cols);
	}
}

// Q8_0 of a block whose largest weight is P is off by at most half a step, P / 254, plus what rounding the scale to
// f16 costs at the ends of the range (2^-11 of P, or half an f16 subnormal times 127).
static void q2_k_requantised_stays_close(void **state)
{
	(void)state;
	const struct kb_ggml_info *g = kb_ggml_find(KB_GGML_Q2_K);
	const uint32_t rows = 20, cols = 1024;
	size_t stride;
	uint8_t *src = random_rows(g, rows, cols, &stride);
	uint8_t *panels = malloc(kb_format_bytes(g->format, rows, cols));
	float *a = malloc(cols * 4), *b = malloc(cols * 4);
	double err2 = 0, sum2 = 0;
	pack(g, src, stride, rows, cols, panels);
	for (uint32_t r = 0; r < rows; r++) {
		kb_ggml_decode_row(g, src + r * stride, cols, a);
		kb_quant_decode_row(g->format, panels, cols, r, b);
		for (uint32_t c = 0; c < cols; c += 32) {
			float peak = 0;
			for (uint32_t i = c; i < c + 32; i++)
				peak = fmaxf(peak, fabsf(a[i]));
			for (uint32_t i = c; i < c + 32; i++) {
				double e = fabs((double)a[i] - (double)b[i]);
				assert_true(e <= (double)peak * (1 / 254.0 + 1 / 2048.0) + 127 * 0x1p-25);
				err2 += e * e;
				sum2 += (double)a[i] * (double)a[i];
			}
		}
	}
	double relative = sqrt(err2 / sum2);
	print_message("# Q2_K as Q8_0: RMS error %.5f of the weights' RMS\n", relative);
	assert_true(relative < 0.005 && relative > 0); // measured 0.0042
	free(a);
	free(b);
	free(panels);
	free(src);
}

static void hostile_scales_are_harmless(void **state)
{
	(void)state;
	for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
		const struct kb_ggml_info *g = kb_ggml_find(types[t]);
		size_t stride = (size_t)(256 / g->block_cols) * g->block_bytes;
		uint8_t *src = malloc(stride), *panel = malloc(kb_format_panel_bytes(g->format, 256));
		float row[256];
		memset(src, 0xff, stride); // every field is a NaN
		kb_quant_pack_panel(g, src, stride, 1, 256, panel);
		kb_quant_decode_row(g->format, panel, 256, 0, row);
		memset(src, 0x7c, stride); // infinities among them
		kb_quant_pack_panel(g, src, stride, 1, 256, panel);
		kb_quant_decode_row(g->format, panel, 256, 0, row);
		free(panel);
		free(src);
	}
}

static void sizes_that_do_not_fit_are_zero(void **state)
{
	(void)state;
	assert_int_equal(kb_format_bytes(KB_FMT_Q4_K, 16, 256), 16 * 148);
	assert_int_equal(kb_format_bytes(KB_FMT_Q4_1, 17, 32), 2 * 16 * 20);
	assert_int_equal(kb_format_bytes(KB_FMT_Q6_K, 1, 256), 16 * 212);
	assert_int_equal(kb_format_bytes(KB_FMT_Q4_K, 16, 128), 0);
	assert_int_equal(kb_format_bytes(KB_FMT_F32, 16, 33), 0);
	assert_int_equal(kb_format_bytes(KB_FMT_F32, 16, 0), 0);
	assert_int_equal(kb_format_bytes(KB_FMT_F32, 0, 32), 0);
	assert_int_equal(kb_format_bytes(KB_FMT_F32, UINT64_MAX, 32), 0);
	assert_int_equal(kb_format_bytes(KB_FMT_F32, UINT64_MAX / 64, 4096), 0);
	assert_int_equal(kb_format_bytes(KB_FMT_F32, 1, UINT64_C(1) << 33), 0);
	assert_int_equal(kb_format_bytes(KB_FMTS, 16, 256), 0);
	assert_null(kb_ggml_find(4));
	assert_null(kb_ggml_find(UINT32_MAX));
}

__extension__ typedef _Float16 compiler_half;

static void halves_convert_as_the_compiler_does(void **state)
{
	(void)state;
	compiler_half h;
	for (uint32_t bits = 0; bits < 0x10000; bits++) {
		uint16_t b16 = (uint16_t)bits;
		memcpy(&h, &b16, 2);
		float want = (float)h, got = kb_f32_from_f16(b16);
		if ((bits & 0x7fff) > 0x7c00) {
			assert_true(isnan(got));
			continue;
		}
		assert_int_equal(kb_f32_bits(got), kb_f32_bits(want));
		assert_int_equal(kb_f16_from_f32(got), b16);
	}
	for (uint32_t i = 0; i < 3000000; i++) { // around every exponent, ties included
		uint32_t bits = (draw() << 16 ^ draw()) & (i & 1 ? 0xfffff000u : 0xffffffffu);
		float f = kb_f32_from_bits(bits);
		uint16_t want;
		if (isnan(f)) {
			assert_true((kb_f16_from_f32(f) & 0x7fff) > 0x7c00);
			continue;
		}
		h = (compiler_half)f;
		memcpy(&want, &h, 2);
		if (kb_f16_from_f32(f) != want)
			fail_msg("f16 of %.9g: %04x, the compiler has %04x", (double)f, kb_f16_from_f32(f), want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_as_gguf_py),
		cmocka_unit_test(lays_panels_out_as_the_header_says),
		cmocka_unit_test(packing_keeps_exact_kinds_bit_for_bit),
		cmocka_unit_test(q2_k_requantised_stays_close),
		cmocka_unit_test(hostile_scales_are_harmless),
		cmocka_unit_test(sizes_that_do_not_fit_are_zero),
		cmocka_unit_test(halves_convert_as_the_compiler_does),
	};
	return cmocka_run_group_tests_name("quant/quant", tests, read_golden, free_golden);
}
