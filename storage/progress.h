// How long work on files reports itself. A zeroed struct reports nothing.
#pragma once
#include <stdint.h>

struct kb_progress {
	// Called now and then on the caller's thread; `what` names what is being worked on and is valid during the call.
	// Nonzero stops the work with KB_ECANCELLED.
	int (*step)(void *ctx, uint64_t done, uint64_t total, const char *what);
	void *ctx;
};

static inline int kb_progress_step(const struct kb_progress *p, uint64_t done, uint64_t total, const char *what)
{
	return p && p->step ? p->step(p->ctx, done, total, what) : 0;
}
