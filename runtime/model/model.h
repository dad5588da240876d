// A model: weights resolved against a family row, scratch and paged KV memory, and one step forward.
// Pure computation: it knows no files, requests or clocks. One thread at a time.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "op/op.h"

// A tensor as its source has it. Matrices are panels (quant/quant.h), vectors f32; bytes stay valid with the source.
struct kb_source_tensor {
	enum kb_format format;
	uint32_t rows, cols; // rows is 1 for a vector
	uint32_t segment;    // where it lies: kb_model_source.segment(segment) + offset
	uint64_t offset, bytes;
};

// Where a model comes from. storage's image is adapted to it by the engine; tests make their own.
struct kb_model_source {
	struct kb_meta_source meta;
	void *ctx;
	int (*tensor)(void *ctx, const char *name, struct kb_source_tensor *ret); // KB_ENOTFOUND
	uint32_t n_segments;
	int (*segment)(void *ctx, uint32_t i, const void **ret_bytes, uint64_t *ret_size); // page-aligned
};

struct kb_model_options {
	uint32_t kv_tokens;  // KV cache size in tokens over all sequences; rounded up to pages; 0: context_length
	uint32_t max_tokens; // tokens of one step, at most KB_STEP_TOKENS_MAX; 0: that
	uint32_t max_seqs;   // rows of the page table; 0: 32
	uint32_t max_out;    // logits rows of one step; 0: max_seqs; never more than max_tokens
	void (*progress)(void *ctx, uint64_t done, uint64_t total); // loading; may be NULL
	void *progress_ctx;
};

struct kb_model_info {
	const char *arch; // "llama", "gemma3"
	const char *name; // general.name, may be ""
	uint32_t layers, width, heads, kv_heads, head_dim, ff, vocab, context;
	uint64_t parameters;
	uint64_t weight_bytes;           // imported or copied
	uint64_t weight_bytes_per_token; // read for one decoded token
	uint64_t kv_bytes_per_token, kv_bytes, scratch_bytes;
	uint32_t kv_pages, max_tokens, max_seqs, max_out;
};

// One step: n_tokens rows (parallel arrays), of which n_out (at most n_tokens, may be 0) get logits.
struct kb_batch {
	uint32_t n_tokens, n_out;
	const uint32_t *token, *position, *slot, *seq; // (n_tokens)
	const uint32_t *out_row;                       // (n_out), indices below n_tokens
};

struct kb_model;

// The backend and the source must outlive the model.
KB_MUST_CHECK int kb_model_create(struct kb_backend *backend, const struct kb_model_source *source,
	const struct kb_model_options *options, struct kb_err *err, struct kb_model **ret);
void kb_model_destroy(struct kb_model *m);
const struct kb_model_info *kb_model_info(const struct kb_model *m);

// Row `seq` of the page table, kv_pages entries wide: the caller writes page numbers below info->kv_pages.
// Which pages belong to whom is the caller's business (runtime/sched).
uint32_t *kb_model_page_row(struct kb_model *m, uint32_t seq);

// Runs one step. ret_logits: f32 (n_out, vocab), valid until the next step. KB_EDEVICE when the device failed.
// KB_EARG where a token, position, slot, sequence, output row or used page table entry is out of range.
// The first step of a size (the next powers of two of n_tokens and n_out) makes its graph.
KB_MUST_CHECK int kb_model_step(
	struct kb_model *m, const struct kb_batch *batch, struct kb_err *err, const float **ret_logits);
