// GGUF files, versions 2 and 3, little-endian: a pure parser over bytes.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// Strict: every count, length and offset is checked before it is used, against the file's size and base/limits.h.
// Refused, with a text that names the field and its byte offset: anything truncated, a key or tensor name that comes
// twice, lengths past the end, tensor data that overlaps or lies outside the file, an offset that breaks the
// alignment, a row that is no multiple of its block, bool bytes other than 0 and 1 (KB_EBAD); more than a limit
// (KB_ELIMIT); version 1, big-endian files, arrays of arrays, weight kinds that quant/quant.h lacks (KB_EUNSUPPORTED).
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "quant/quant.h"

#define KB_GGUF_DIMS 4

struct kb_gguf_meta {
	struct kb_str key;
	struct kb_meta_value value;
	struct kb_str encoded; // the value as the file has it: u32 type, then the value; arrays: u32 type, u64 count
};

struct kb_gguf_tensor {
	struct kb_str name;
	const struct kb_ggml_info *kind;
	uint32_t n_dims;
	uint64_t dims[KB_GGUF_DIMS]; // dims[0] runs fastest; those from n_dims on are 1
	uint32_t rows, cols;         // cols is dims[0], rows the product of the others
	uint64_t offset, bytes;      // in the file
};

// Strings and values point into the bytes given to parse and live as long as they do.
struct kb_gguf {
	uint32_t version, alignment;
	uint64_t data_offset; // where tensor data begins
	uint32_t n_meta, n_tensors;
	struct kb_gguf_meta *meta;      // in the file's order
	struct kb_gguf_tensor *tensors; // in the file's order
	const struct kb_gguf_meta **meta_by_key;
};

// bytes[0, len) is the beginning of a file of file_size bytes. KB_EPARTIAL (no text in err): the head goes on past
// len; call again with more. Caveat: the head alone is read, so tensor data may be missing from bytes.
// On success finish() what it returned.
KB_MUST_CHECK int kb_gguf_parse(
	const uint8_t *bytes, uint64_t len, uint64_t file_size, struct kb_err *err, struct kb_gguf *ret);
void kb_gguf_finish(struct kb_gguf *g);

// One encoded value (kb_gguf_meta.encoded) that must fill len exactly. what names it in err.
KB_MUST_CHECK int kb_gguf_value_parse(
	const uint8_t *bytes, uint64_t len, const char *what, struct kb_err *err, struct kb_meta_value *ret);

// Finds keys in g, which must stay where it is as long as the source is used.
struct kb_meta_source kb_gguf_meta_source(const struct kb_gguf *g);
