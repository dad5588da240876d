// Reading a model image: one immutable LMDB file, mapped. Its records: record.h. Its writer: image_write.h.
//
// Everything is checked at open, so a damaged or hostile file gives an error, not a crash: the pages (pages.h), the
// format, every record, every tensor's place in its segment. Weights themselves are checked by verify.
// After open an image is read only by memory access: it may be used from several threads.
//
// Caveats. The file must not be changed or cut while it is open: reading a page that is gone is SIGBUS. One process
// opens one image once.
#pragma once
#include "storage/progress.h"
#include "storage/record.h"

struct kb_image;

struct kb_image_info {
	uint32_t format;     // of the image
	uint32_t page_bytes; // alignment of segments in the file
	uint32_t n_meta, n_tensors, n_segments;
	uint64_t parameters, tensor_bytes, file_bytes;
	uint8_t total[KB_HASH_BYTES]; // SHA-256 as recorded; identifies the model. verify proves it
};

// On success close() what it returned. Errors name the path.
KB_MUST_CHECK int kb_image_open(const char *path, struct kb_err *err, struct kb_image **ret);
void kb_image_close(struct kb_image *image); // NULL is fine

// All that these return is valid until close.
const struct kb_image_info *kb_image_info(const struct kb_image *image);
struct kb_meta_source kb_image_meta_source(const struct kb_image *image);
const struct kb_image_meta *kb_image_meta_at(const struct kb_image *image, uint32_t i); // in the source file's order
const struct kb_image_tensor *kb_image_tensor_at(const struct kb_image *image, uint32_t i); // in order of name
KB_MUST_CHECK int kb_image_tensor(
	const struct kb_image *image, const char *name, struct kb_image_tensor *ret); // KB_ENOTFOUND
// The data of segment i: page_bytes-aligned, a multiple of page_bytes long, zeros where no tensor is.
KB_MUST_CHECK int kb_image_segment(
	const struct kb_image *image, uint32_t i, const void **ret_bytes, uint64_t *ret_len); // KB_ENOTFOUND
// The bytes of a tensor: panels, or plain f32 where rows is 1.
const void *kb_image_tensor_bytes(const struct kb_image *image, const struct kb_image_tensor *t);

// Reads everything and compares it with the recorded hashes. KB_ECORRUPT names the segment and the tensors.
KB_MUST_CHECK int kb_image_verify(const struct kb_image *image, const struct kb_progress *progress, struct kb_err *err);
