// Tokenizers: bytes in, ids out, and back. Built from the tokenizer.ggml.* metadata of a model.
// Kinds: "gpt2" (byte-level BPE; GPT-2's byte alphabet and merges) and "llama" (SentencePiece BPE with byte
// fallback). Which text is cut where before merging is a row of pretok.c, named by tokenizer.ggml.pre.
// Token ids agree with llama.cpp's; tests/unit/text holds them to its published vectors.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_TOK_TEXT_MAX (8u << 20) // bytes of one text: a context of 2 M tokens, and offsets stay 32-bit
#define KB_TOK_NONE UINT32_MAX     // no such token

struct kb_tok;

// A piece of text. Control tokens ("<|im_end|>") are recognised only where every byte is trusted, so that what a
// user types cannot end a turn. Neighbouring spans are one text otherwise: merges cross their borders.
struct kb_span {
	const char *data;
	size_t len;
	bool trusted;
};

enum kb_tok_flags {
	KB_TOK_BOS = 1, // begin with BOS where the model asks for one (tokenizer.ggml.add_bos_token)
};

// The source must outlive the tokenizer. KB_EUNSUPPORTED names the kind or pre-tokenizer that is not built in.
KB_MUST_CHECK int kb_tok_create(const struct kb_meta_source *meta, struct kb_err *err, struct kb_tok **ret);
void kb_tok_destroy(struct kb_tok *t);

uint32_t kb_tok_size(const struct kb_tok *t);
// No text of this many bytes gives more ids.
size_t kb_tok_bound(size_t bytes);
// KB_ELIMIT: more than cap ids or KB_TOK_TEXT_MAX bytes.
KB_MUST_CHECK int kb_tok_encode(const struct kb_tok *t, const struct kb_span *spans, size_t n_spans, unsigned flags,
	uint32_t *ids, size_t cap, size_t *ret_n);
// The bytes a token stands for (a control token's own text). Valid as long as t.
struct kb_str kb_tok_piece(const struct kb_tok *t, uint32_t id);
bool kb_tok_is_control(const struct kb_tok *t, uint32_t id);
// Ends an answer: eos, eot and the names that chat models use for them.
bool kb_tok_is_eog(const struct kb_tok *t, uint32_t id);
// The token whose bytes are exactly these, or KB_TOK_NONE.
uint32_t kb_tok_find(const struct kb_tok *t, const char *text, size_t len);
uint32_t kb_tok_bos(const struct kb_tok *t); // or KB_TOK_NONE
uint32_t kb_tok_eos(const struct kb_tok *t);
bool kb_tok_adds_bos(const struct kb_tok *t);
// Text from the beginning has one space put before it (and taken away again when decoding).
bool kb_tok_adds_space(const struct kb_tok *t);
