// Stop strings in a text that comes in pieces. Text is given out as soon as it cannot be part of a stop string any
// more: what is held back is the longest end of the text that begins one, and no byte more.
//
// Given whole UTF-8 pieces and stop strings, whole UTF-8 comes out.
#pragma once
#include "base/buf.h"
#include "base/meta.h"
#include <stdbool.h>

#define KB_STOPS_MAX 16u        // OpenAI allows 4
#define KB_STOP_BYTES_MAX 1024u // of one stop string

struct kb_stop {
	uint8_t *text;
	uint16_t *fail; // (len) Knuth-Morris-Pratt: how much still matches after a mismatch
	uint16_t len, matched;
};

// Of one sequence. Embed; not copyable.
struct kb_stops {
	struct kb_stop stop[KB_STOPS_MAX];
	uint32_t n;
	struct kb_buf held;
	bool is_stopped;
};

// Copies the strings; empty ones are ignored. KB_EARG for too many or too long ones. finish is safe on a zeroed struct.
KB_MUST_CHECK int kb_stops_init(struct kb_stops *s, const struct kb_str *strings, uint32_t n, struct kb_err *err);
void kb_stops_finish(struct kb_stops *s);

// Takes the next piece and appends to out what is certain not to belong to a stop string. Where one is complete,
// *ret_stopped is true: out ends just before it (before the one that ends first; of those, the one that begins
// first), and what follows is dropped.
KB_MUST_CHECK int kb_stops_push(struct kb_stops *s, struct kb_str piece, struct kb_buf *out, bool *ret_stopped);
// The text is over: appends what was held back.
KB_MUST_CHECK int kb_stops_flush(struct kb_stops *s, struct kb_buf *out);
