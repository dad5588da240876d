// Chat frames: how a conversation becomes the text that a model was trained on. Each frame is a row of fixed pieces;
// there is no template interpreter. A model's frame is recognised by marks in its tokenizer.chat_template.
// The pieces come out as trusted spans, what people wrote as untrusted ones (text/tok.h), so content cannot end
// its own turn. BOS is not part of a frame: encode with KB_TOK_BOS.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "text/tok.h"

#define KB_CHAT_TURNS_MAX 4096u // a longer conversation does not fit any context

struct kb_chat_turn {
	struct kb_str role; // "system" (or "developer"), "user", "assistant"
	struct kb_str content;
};

struct kb_chat_frame;

// The frame of a model: by its template; where it has none, by its architecture, else "plain".
// KB_EUNSUPPORTED: it has a template that no row recognises; err says so. Static, never freed.
KB_MUST_CHECK int kb_chat_find(const struct kb_meta_source *meta, struct kb_err *err, const struct kb_chat_frame **ret);
const struct kb_chat_frame *kb_chat_by_name(const char *name); // NULL: no such row
const struct kb_chat_frame *kb_chat_at(size_t i);              // rows in the order they are tried; NULL past the last
const char *kb_chat_name(const struct kb_chat_frame *f);
// A string that ends the answer besides the model's end tokens, or NULL.
const char *kb_chat_stop(const struct kb_chat_frame *f);

// Spans that render of n turns gives at most.
static inline size_t kb_chat_bound(size_t n)
{
	return 6 * n + 8;
}
// Renders the turns and the opening of the answer. Spans point into the turns and into static text.
// KB_EARG: a role that the frame does not know, or turns in an order that it does not allow; err names the turn.
KB_MUST_CHECK int kb_chat_render(const struct kb_chat_frame *f, const struct kb_chat_turn *turns, size_t n,
	struct kb_span *spans, size_t cap, struct kb_err *err, size_t *ret_n);
