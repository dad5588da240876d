// How often this state was changed in a way that must not be taken back: a trusted root, an accepted catalog, a model's
// version, a client's end. The count stands in the state, and in a counter outside the disk that only goes up (a
// TPM's): where the state's is behind, somebody put an earlier copy of the disk in place of this one.
//
// A change is written with the next number, then the counter is advanced, under a lock; the power may go in between, so
// a state that is one ahead is right, and the counter follows. Table "trust": "epoch" -> u64.
#pragma once
#include "storage/state.h"

struct kb_epoch_counter {
	int (*read)(void *ctx, uint64_t *ret, struct kb_err *err); // KB_ENOTFOUND: there is none yet
	int (*make)(void *ctx, struct kb_err *err);
	int (*advance)(void *ctx, struct kb_err *err); // by one
	void *ctx;
};

// From here on changes of s count. lock: a file for it, which is made. KB_EDENIED: the state is an earlier one, or the
// counter is another one than the state knows (a TPM was changed or cleared); nothing else is changed then. adopt: take
// the counter as it is instead, on the administrator's word; that is in the audit log.
KB_MUST_CHECK int kb_epoch_guard(struct kb_state *s, const struct kb_epoch_counter *counter, const char *lock,
	bool adopt, uint64_t now_s, struct kb_err *err);
