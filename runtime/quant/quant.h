// Weight formats: GGML blocks as they come from files, and the panel layout that the shaders read.
//
// Source blocks: https://github.com/ggml-org/ggml (ggml-common.h names the fields; GGUF type numbers below).
//
// Panel layout. A matrix W[rows][cols] (cols a multiple of 32) is cut into panels of KB_PANEL_ROWS rows; the
// last panel is padded with zero rows. Panels follow one another. A panel is a run of super-blocks, each
//     [super section] [block 0] [block 1] ... [block super_blocks-1]      32 columns a block
// and a block is
//     [lo section] [hi section] [scale section]
// Every section holds one entry a row, rows one after another (row r of the panel at r * entry bytes), so
// that lanes that own neighbouring rows read neighbouring memory. All words little-endian.
//   lo    4-bit kinds: 4 words, nibble i of word j is column 8j+i.  8-bit: 8 words, byte i of word j is 4j+i.
//         F16/BF16: 16 words of two.  F32: 32 words.
//   hi    5-bit kinds: 1 word, bit k is the fifth bit of column k.  Q6_K: 2 words, 2-bit field i of word j is 16j+i.
//   scale Q4_0, Q5_0, Q8_0: f16 d.  Q4_1, Q5_1: f16 d, f16 m.  Q4_K, Q5_K: u8 scale, u8 min (6-bit values).
//         Q6_K: i8 scale of columns 0-15, i8 scale of columns 16-31.
//   super Q4_K, Q5_K: f16 d, f16 dmin.  Q6_K: f16 d, f16 zero.  Others: empty, and super_blocks is 1.
// The weight is then, in f32 (q unsigned unless said):
//   Q4_0 d*(q-8)   Q4_1 d*q+m   Q5_0 d*(q-16)   Q5_1 d*q+m   Q8_0 d*q (q signed)
//   Q4_K, Q5_K (d*scale)*q - (dmin*min)   Q6_K (d*scale)*(q-32)
// Packing keeps quantised values and scales bit-exact. Kinds without a panel format of their own become the
// nearest one that holds them: Q3_K as Q6_K and IQ4_NL as Q8_0 without loss; Q2_K as Q8_0, re-quantised.
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

#define KB_PANEL_ROWS 16u // one lavapipe kernel step: 8 lanes x 2 rows; a quarter of a 64-wide subgroup
#define KB_BLOCK_COLS 32u // every supported kind has a multiple of this

// GGUF's tensor type numbers.
enum kb_ggml_type {
	KB_GGML_F32 = 0,
	KB_GGML_F16 = 1,
	KB_GGML_Q4_0 = 2,
	KB_GGML_Q4_1 = 3,
	KB_GGML_Q5_0 = 6,
	KB_GGML_Q5_1 = 7,
	KB_GGML_Q8_0 = 8,
	KB_GGML_Q2_K = 10,
	KB_GGML_Q3_K = 11,
	KB_GGML_Q4_K = 12,
	KB_GGML_Q5_K = 13,
	KB_GGML_Q6_K = 14,
	KB_GGML_IQ4_NL = 20,
	KB_GGML_BF16 = 30,
};

// Panel formats. Stored in model images: do not renumber.
enum kb_format {
	KB_FMT_F32 = 0,
	KB_FMT_F16 = 1,
	KB_FMT_BF16 = 2,
	KB_FMT_Q4_0 = 3,
	KB_FMT_Q4_1 = 4,
	KB_FMT_Q5_0 = 5,
	KB_FMT_Q5_1 = 6,
	KB_FMT_Q8_0 = 7,
	KB_FMT_Q4_K = 8,
	KB_FMT_Q5_K = 9,
	KB_FMT_Q6_K = 10,
	KB_FMTS,
};

// One row a format: section sizes in bytes per row.
struct kb_format_info {
	const char *name; // "Q4_K"
	uint8_t lo, hi, scale, super;
	uint8_t super_blocks; // blocks of 32 columns in a super-block
};
extern const struct kb_format_info kb_formats[KB_FMTS];

// One row a source kind.
struct kb_ggml_info {
	enum kb_ggml_type type;
	const char *name;
	uint16_t block_cols, block_bytes;
	enum kb_format format; // what it becomes
	uint8_t is_exact;      // nonzero: dequantised values are the same bits before and after
};
// NULL for a type that is not supported.
const struct kb_ggml_info *kb_ggml_find(uint32_t type);

// Bytes of one block of 32 columns x 16 rows, of one super-block, of one panel, of the whole matrix.
// kb_format_bytes gives 0 where cols does not fit the format or the product overflows.
size_t kb_format_block_bytes(enum kb_format f);
size_t kb_format_super_bytes(enum kb_format f);
size_t kb_format_panel_bytes(enum kb_format f, uint32_t cols);
uint64_t kb_format_bytes(enum kb_format f, uint64_t rows, uint64_t cols);

// Source row (block_bytes * cols / block_cols bytes) -> f32[cols], by GGML's formulas in f32.
void kb_ggml_decode_row(const struct kb_ggml_info *g, const void *src, uint32_t cols, float *ret_row);

// Packs up to 16 source rows (nrows, one after another, src_stride bytes apart) into one panel.
// ret_panel: kb_format_panel_bytes(g->format, cols) bytes.
void kb_quant_pack_panel(
	const struct kb_ggml_info *g, const void *src, size_t src_stride, uint32_t nrows, uint32_t cols, void *ret_panel);

// Row of a packed matrix -> f32[cols]: the reference reading of the layout above.
void kb_quant_decode_row(enum kb_format f, const void *panels, uint32_t cols, uint64_t row, float *ret_row);
