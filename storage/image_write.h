// Writing a model image (record.h) into a file of its own. Order: create; for each segment begin, fill, tensors, end;
// meta; finish. The same calls with the same bytes make the same file.
// Not MDB_WRITEMAP: there a full disk is SIGBUS; here it is KB_ENOSPACE or KB_EIO. A segment is held in memory.
#pragma once
#include "storage/record.h"

struct kb_image_writer;

// path: an existing, empty file. bytes_max: what the image may grow to; kb_image_write_bound() of the contents.
KB_MUST_CHECK int kb_image_writer_create(
	const char *path, uint64_t bytes_max, struct kb_err *err, struct kb_image_writer **ret);
void kb_image_writer_destroy(struct kb_image_writer *w); // NULL is fine; the file stays, unusable before finish

// The most that a segment's data may be: a value is at most KB_MAX_VALUE_BYTES.
uint64_t kb_image_segment_max(void);
// Room for `bytes` of data; ret_data is zeroed and valid until segment_end.
KB_MUST_CHECK int kb_image_writer_segment(
	struct kb_image_writer *w, uint64_t bytes, struct kb_err *err, uint8_t **ret_data);
// A tensor of the open segment, whose bytes are in place. t->segment and t->check are filled in by the writer.
KB_MUST_CHECK int kb_image_writer_tensor(
	struct kb_image_writer *w, const struct kb_image_tensor *t, struct kb_err *err);
KB_MUST_CHECK int kb_image_writer_segment_end(struct kb_image_writer *w, struct kb_err *err);
// encoded: the value in GGUF's encoding. place: 0 for the first key, and so on.
KB_MUST_CHECK int kb_image_writer_meta(
	struct kb_image_writer *w, struct kb_str key, struct kb_str encoded, uint32_t place, struct kb_err *err);
// Writes the info record and the hashes, and everything to the disk. Only destroy() may follow.
KB_MUST_CHECK int kb_image_writer_finish(struct kb_image_writer *w, struct kb_err *err);

// An upper bound of the file's size.
uint64_t kb_image_write_bound(
	uint32_t n_segments, uint64_t segment_bytes, uint32_t n_tensors, uint32_t n_meta, uint64_t meta_bytes);
