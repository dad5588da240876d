// Shared by the files of the tokenizer; nobody else includes it.
#pragma once
#include "base/buf.h"
#include "text/pretok.h"
#include "text/tok.h"

// tokenizer.ggml.token_type
enum kb__token_type { KB__NORMAL = 1, KB__UNKNOWN = 2, KB__CONTROL = 3, KB__USER = 4, KB__UNUSED = 5, KB__BYTE = 6 };

// Open addressing, power-of-two size, at most half full; a slot holds index + 1.
struct kb__map {
	uint32_t *slots;
	uint32_t mask;
};

struct kb__merge {
	uint32_t left, right; // token ids
	uint32_t rank, result;
};

struct kb_tok {
	bool is_bbpe;
	uint32_t n;
	struct kb_str *raw;   // as in the file; into the source
	struct kb_str *piece; // bytes it stands for; into pool or the source
	uint8_t *type;
	bool *is_eog;
	float *score; // SentencePiece only
	uint8_t *pool;
	struct kb__map by_text; // byte-level BPE: by piece; SentencePiece: by raw text
	struct kb__merge *merges;
	uint32_t n_merges;
	struct kb__map by_pair;
	uint32_t *special; // control, unknown and user-defined ids, in the order of their texts
	uint32_t n_special, special_begin[257];
	uint32_t *special_lens; // their distinct lengths, longest first
	uint32_t n_special_lens;
	uint32_t byte_id[256];
	uint32_t bos, eos, unk;
	bool add_bos, add_eos, add_space;
	const struct kb_pretok *pretok;
};

// A symbol of the text being merged.
struct kb__symbol {
	uint32_t prev, next; // indices, UINT32_MAX at the ends
	uint32_t at, len;    // bytes of the text; len 0: merged away
	uint32_t id;
};

// One possible merge; the smallest cost goes first, the leftmost among equals.
struct kb__candidate {
	double cost;
	uint32_t left, right, len, id;
};

struct kb__work {
	const char *text;
	struct kb__symbol *symbols;
	size_t n_symbols;
	struct kb_buf heap; // struct kb__candidate[]
	uint32_t *ids;
	size_t n_ids, cap;
};

// Finds what a and b would become; false: they do not merge.
typedef bool kb__pair(const struct kb_tok *t, const struct kb__work *w, const struct kb__symbol *a,
	const struct kb__symbol *b, double *ret_cost, uint32_t *ret_id);

uint64_t kb__hash(const void *data, size_t len);
KB_MUST_CHECK int kb__map_init(struct kb__map *m, uint32_t entries);
uint32_t kb__tok_lookup(const struct kb_tok *t, const char *text, size_t len);
// Fills by_text once the pieces are known; the kinds call it.
KB_MUST_CHECK int kb__tok_index(struct kb_tok *t);
// May this token come out of merging? Control, unknown and byte tokens may not, as in SentencePiece
// (model_interface.cc, InitializePieces: they are not among the pieces): otherwise text could be put together to become
// one.
bool kb__tok_is_text(const struct kb_tok *t, uint32_t id);
KB_MUST_CHECK int kb__emit(struct kb__work *w, uint32_t id);
// Merges w->symbols[0..n_symbols) until no pair is left. O(n log n).
KB_MUST_CHECK int kb__merge(const struct kb_tok *t, struct kb__work *w, kb__pair *pair);

// Kinds. load: the token table's pieces and maps. encode: text without control tokens, appended to w->ids.
KB_MUST_CHECK int kb__bbpe_load(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err);
KB_MUST_CHECK int kb__bbpe_encode(const struct kb_tok *t, struct kb__work *w, const char *text, size_t len);
KB_MUST_CHECK int kb__spbpe_load(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err);
KB_MUST_CHECK int kb__spbpe_encode(const struct kb_tok *t, struct kb__work *w, const char *text, size_t len);
