// Proof that the device computes: a small matrix-vector product and an addition whose results are known.
#pragma once
#include "op/op.h"

struct kb_ping;

// The backend must outlive it.
KB_MUST_CHECK int kb_ping_create(struct kb_backend *b, struct kb_err *err, struct kb_ping **ret);
void kb_ping_destroy(struct kb_ping *p);
// Runs it with new numbers and compares. KB_EDEVICE: failed, or the results are wrong. ret_us: time it took.
KB_MUST_CHECK int kb_ping_run(struct kb_ping *p, struct kb_err *err, uint32_t *ret_us);
