// The records of a model image, format 1, as bytes. Pure functions; no LMDB here. All numbers little-endian.
//
// An image is one LMDB file (0.9, MDB_NOSUBDIR), written once and never changed:
//   main     "kotobako"   -> struct kb_record_info; this names the format and counts what must be there
//   meta     GGUF key     -> u32 place in the source file, then the value byte for byte as GGUF encodes it
//   tensor   tensor name  -> struct kb_record_tensor
//   segment  u32 index, big-endian -> page_bytes - 16 zero bytes, then data
//   hash     u32 index, big-endian -> SHA-256 of the segment's value; "total" -> SHA-256 of everything else
// LMDB puts a large value 16 bytes past a page boundary, so a segment's data begins on one; its length is a multiple
// of page_bytes. Each tensor lies within one segment, at a multiple of KB_TENSOR_ALIGN from the data's beginning, with
// zeros between. A tensor of more than one row is panels (quant/quant.h); one of a single row is plain f32.
// No value is over KB_MAX_VALUE_BYTES (1 GiB). "total" covers, in this order: the info record; then every record of
// meta, tensor and of hash's segments in key order, each as u32 key length, key, u64 value length, value.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "quant/quant.h"

#define KB_IMAGE_FORMAT 1u
#define KB_IMAGE_KEY "kotobako" // of the info record
#define KB_IMAGE_MAGIC "KOTOBAKO"
#define KB_TENSOR_ALIGN 256u // the largest minStorageBufferOffsetAlignment that Vulkan allows
#define KB_HASH_BYTES 32u

struct kb_record_info {
	char magic[8];
	uint32_t format, page_bytes;
	uint32_t n_meta, n_tensors, n_segments, reserved;
	uint64_t parameters;   // weights of all tensors
	uint64_t tensor_bytes; // of all tensors, as stored
};
_Static_assert(sizeof(struct kb_record_info) == 48, "on-disk layout");

struct kb_record_tensor {
	uint32_t format, source; // enum kb_format, enum kb_ggml_type
	uint32_t n_dims, rows, cols, segment;
	uint32_t is_exact, reserved;
	uint64_t dims[4]; // dims[0] runs fastest
	uint64_t offset, bytes;
	uint64_t check;   // kb_record_check of the bytes: finds the damaged tensor in a damaged segment
	double rms_error; // of re-quantised weights, relative to their own RMS; else 0
};
_Static_assert(sizeof(struct kb_record_tensor) == 96, "on-disk layout");

struct kb_image_tensor {
	struct kb_str name;
	enum kb_format format;
	const struct kb_ggml_info *source; // what the file had; static
	uint32_t n_dims;
	uint64_t dims[4];
	uint32_t rows, cols;
	uint32_t segment;
	uint64_t offset, bytes; // in the segment
	bool is_exact;          // the same weights as the source's, bit for bit
	double rms_error;
	uint64_t check;
};

struct kb_image_meta {
	struct kb_str key;
	struct kb_meta_value value;
	struct kb_str encoded; // as GGUF has it: type and value
	uint32_t place;        // in the source file
};

// KB_EBAD: not one of ours or damaged. KB_EUNSUPPORTED: made by a newer Kotobako.
KB_MUST_CHECK int kb_record_info_decode(
	const void *bytes, uint64_t len, struct kb_err *err, struct kb_record_info *ret);
// Checks everything that can be known without the segment; name and bytes stay the caller's.
KB_MUST_CHECK int kb_record_tensor_decode(
	struct kb_str name, const void *bytes, uint64_t len, struct kb_err *err, struct kb_image_tensor *ret);
KB_MUST_CHECK int kb_record_meta_decode(
	struct kb_str key, const void *bytes, uint64_t len, struct kb_err *err, struct kb_image_meta *ret);

// Bytes that a tensor takes in an image: panels, or plain f32 where rows is 1. 0 where it cannot be stored.
uint64_t kb_record_tensor_bytes(enum kb_format format, uint32_t rows, uint32_t cols);
// A quick sum, to tell where damage is; SHA-256 tells that there is some.
uint64_t kb_record_check(const void *bytes, uint64_t len);
