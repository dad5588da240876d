// Ids to text as they come: gives whole UTF-8 characters only, holding back the bytes of an unfinished one.
// Bytes that can never become UTF-8 are replaced by U+FFFD. Control tokens are left out.
#pragma once
#include "base/buf.h"
#include "text/tok.h"

// Copyable; zero it to begin. after_text: the answer continues a text, so no dummy space is dropped.
struct kb_detok {
	uint8_t pending[4];
	uint8_t n_pending;
	bool started, after_text;
};

// Appends to out what has become certain.
KB_MUST_CHECK int kb_detok_push(struct kb_detok *d, const struct kb_tok *t, uint32_t id, struct kb_buf *out);
// The end: what is held back becomes U+FFFD.
KB_MUST_CHECK int kb_detok_flush(struct kb_detok *d, struct kb_buf *out);
