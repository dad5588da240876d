// Makes a model image (image.h) of a GGUF file.
// Matrices become panels (quant/quant.h); tensors of a single row become plain f32; both keep every weight bit for bit
// but for kinds that are re-quantised (Q2_K), which the report names with their error. Metadata is kept byte for byte.
// Tensors keep the file's order and are put together in segments. The same file always makes the same image.
//
// The image is written beside its final name and renamed when it is complete and on the disk: after a failure, a
// cancel or a crash there is nothing under the final name, and what was left is removed by the next import there.
// The source is read with pread, never mapped: a file that shrinks meanwhile is an error and not SIGBUS.
#pragma once
#include "storage/progress.h"
#include "storage/record.h"
#include <stddef.h>

struct kb_import_options {
	bool replace;           // an existing image of that name; else KB_EEXISTS
	uint64_t segment_bytes; // a segment is closed before it grows past this; 0: 256 MiB
	struct kb_progress progress;
};

// One row a pair of source kind and stored format.
struct kb_import_kind {
	const struct kb_ggml_info *from;
	enum kb_format to;
	uint32_t tensors;
	uint64_t bytes_in, bytes_out;
	bool is_exact;
	double rms_error; // of re-quantised weights, relative to their own RMS
};

#define KB_IMPORT_KINDS 32

struct kb_import_report {
	uint32_t tensors, segments;
	uint64_t parameters, bytes_in, bytes_out; // bytes of whole files
	uint32_t n_kinds;
	struct kb_import_kind kinds[KB_IMPORT_KINDS]; // in order of appearance
};

// ret_report may be NULL. KB_ENOSPACE says how much is needed. Errors name the source.
KB_MUST_CHECK int kb_import_gguf(const char *src, const char *dst, const struct kb_import_options *options,
	struct kb_err *err, struct kb_import_report *ret_report);

// "Q2_K -> Q8_0, re-quantised, RMS error 0.42 %: 24 tensors" or "Q4_0 -> Q4_0, exact: 31 tensors".
void kb_import_kind_text(const struct kb_import_kind *kind, char *ret_text, size_t size);
