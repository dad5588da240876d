// Where text may not be merged across: the pre-tokenizer of byte-level BPE.
// Each row is a sequence of passes; a pass cuts every piece of the one before at its matches, as llama.cpp's
// (src/llama-vocab.cpp names the expressions per model; reproduced here as hand-written matchers).
#pragma once
#include "base/meta.h"
#include <stdint.h>

#define KB_PRETOK_PASSES 6

struct kb_pretok;

// Classes of a code point, as \p{L}, \p{N}, \s ... of the expressions; Unicode data: utf8proc.
enum kb_char_class {
	KB_CHAR_LETTER = 1,
	KB_CHAR_NUMBER = 2,
	KB_CHAR_SPACE = 4,
	KB_CHAR_PUNCT = 8,
	KB_CHAR_MARK = 16,
	KB_CHAR_UPPER = 32, // Lu, Lt
	KB_CHAR_LOWER = 64, // Ll
	KB_CHAR_SYMBOL = 128,
};

// One code point: its place in the text and its class. An invalid byte is one U+FFFD.
struct kb_char {
	uint32_t at, code;
	uint8_t class;
};

// NULL: not built in.
const struct kb_pretok *kb_pretok_find(struct kb_str name);
bool kb_pretok_ignores_merges(const struct kb_pretok *p); // a piece that is a token stays one
bool kb_pretok_adds_bos(const struct kb_pretok *p);       // where the file does not say (tokenizer.ggml.add_bos_token)
// Decodes; chars has room for len + 1 entries (the last one holds at = len). Returns their number.
size_t kb_pretok_chars(const char *text, size_t len, struct kb_char *chars);
// ends: room for n entries; piece i ends before chars[ends[i]]. Returns their number.
size_t kb_pretok_split(
	const struct kb_pretok *p, const struct kb_char *chars, size_t n, uint32_t *ends, uint32_t *scratch);
