// The system prompt that the administrator shares between clients: its KV pages are kept once for all (sched/prefix.h).
#pragma once
#include "base/buf.h"
#include "firmware/engine/engine.h"

#define KB_SHARED_SYSTEM_MAX (256u << 10) // bytes of the file; a system prompt is a few pages of text

// Reads the file, before the sandbox closes. A line break at its end is not part of the prompt. KB_EIO, KB_ELIMIT.
KB_MUST_CHECK int kb_shared_read(const char *path, struct kb_err *err, struct kb_buf *ret);
// Appends the u32 tokens that every chat with that system prompt begins with. KB_EUNSUPPORTED: the model cannot chat.
KB_MUST_CHECK int kb_shared_tokens(
	const struct kb_engine *e, struct kb_str system, struct kb_err *err, struct kb_buf *ret);
