// A SUBMIT message as tokens and as a request of the scheduler.
#pragma once
#include "base/buf.h"
#include "firmware/engine/engine.h"
#include "proto/proto.h"
#include "sched/sched.h"

// Appends the prompt's u32 tokens to ret, which is empty. KB_EARG, KB_ELIMIT, KB_EUNSUPPORTED (no chat frame),
// KB_ENOMEM with a text for the client.
KB_MUST_CHECK int kb_prompt_tokens(
	const struct kb_engine *e, const struct kb_msg_submit *m, struct kb_err *err, struct kb_buf *ret);
// Appends m->resume likewise.
KB_MUST_CHECK int kb_prompt_resume(const struct kb_msg_submit *m, struct kb_err *err, struct kb_buf *ret);

struct kb_prompt {
	struct kb_sched_request request;
	struct kb_str stop[KB_STOP_MAX + 1]; // the client's, and the chat frame's
};

// tokens: what the two made. ret points into tokens, m and itself.
void kb_prompt_request(const struct kb_engine *e, uint64_t id, const struct kb_msg_submit *m, const uint32_t *tokens,
	uint32_t n_prompt, struct kb_prompt *ret);
