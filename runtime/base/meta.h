// Model metadata as every room reads it: typed values found by key, in GGUF's own encoding.
// Encoding: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "Metadata KV" (little-endian).
// The bytes belong to the source and stay valid as long as it is open.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kb_meta_type {
	KB_META_U8,
	KB_META_I8,
	KB_META_U16,
	KB_META_I16,
	KB_META_U32,
	KB_META_I32,
	KB_META_F32,
	KB_META_BOOL,
	KB_META_STRING,
	KB_META_ARRAY,
	KB_META_U64,
	KB_META_I64,
	KB_META_F64,
	KB_META_TYPES,
};

// A slice; not NUL-terminated.
struct kb_str {
	const char *data;
	size_t len;
};

struct kb_meta_value {
	enum kb_meta_type type; // of the value, or of the elements where is_array
	bool is_array;
	uint64_t count;      // elements; 1 for a scalar
	const uint8_t *data; // first element. Strings: u64 length, then bytes, one after another
	size_t len;          // bytes from data to the end of the value; already checked against count
};

// Where metadata comes from: a model image, a GGUF file, a test's table.
struct kb_meta_source {
	void *ctx;
	// KB_ENOTFOUND where there is no such key.
	int (*find)(void *ctx, const char *key, struct kb_meta_value *ret_value);
};

// Numbers of any integer (or, for f64, any numeric) type; KB_ENOTFOUND, KB_EBAD on another type or out of range.
KB_MUST_CHECK int kb_meta_u64(const struct kb_meta_source *m, const char *key, uint64_t *ret);
KB_MUST_CHECK int kb_meta_f64(const struct kb_meta_source *m, const char *key, double *ret);
KB_MUST_CHECK int kb_meta_bool(const struct kb_meta_source *m, const char *key, bool *ret);
KB_MUST_CHECK int kb_meta_str(const struct kb_meta_source *m, const char *key, struct kb_str *ret);

// Element i of a numeric array (no bounds check past count: the caller loops below v->count).
double kb_meta_array_f64(const struct kb_meta_value *v, uint64_t i);
int64_t kb_meta_array_i64(const struct kb_meta_value *v, uint64_t i);
// Walks a string array: *cursor starts at 0 and is moved; false at the end.
bool kb_meta_array_next_str(const struct kb_meta_value *v, size_t *cursor, struct kb_str *ret);
