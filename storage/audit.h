// What was done to this box, in order, so that nothing can be taken out or changed unnoticed: every entry carries the
// SHA-256 of its content and of the hash of the entry before. Whoever keeps a hash outside the box can later tell that
// everything up to it is still there.
//
// Table "audit": u64 sequence (big-endian, from 1) -> hash (32 bytes), then the content: u64 time, u64 version (both
// little-endian), digest (32), u16 length of subject, u16 of detail, event (a name of at most 32 bytes, NUL-padded),
// subject, detail.
// hash = SHA-256("kotobako audit 1", NUL, hash before (zeros for the first), sequence, content).
#pragma once
#include "storage/state.h"

#define KB_AUDIT_HASH 32u
#define KB_AUDIT_EVENT_MAX 32u
#define KB_AUDIT_SUBJECT_MAX 128u
#define KB_AUDIT_DETAIL_MAX 512u

struct kb_audit_entry {
	uint64_t sequence, time_s;              // the first is append's
	char event[KB_AUDIT_EVENT_MAX + 1];     // "model installed"
	char subject[KB_AUDIT_SUBJECT_MAX + 1]; // whose: a model's name
	char detail[KB_AUDIT_DETAIL_MAX + 1];
	uint64_t version;            // of the model or the root; 0: none
	uint8_t digest[32];          // zeros: none
	uint8_t hash[KB_AUDIT_HASH]; // append's
};

// In a transaction of its own. Texts that are too long are cut.
KB_MUST_CHECK int kb_audit_append(struct kb_state *s, const struct kb_audit_entry *e, struct kb_err *err);
// Calls each() for every entry from `from` on, proving the chain from its beginning as it goes; ret_last (may be NULL)
// becomes the last entry's sequence and hash, zeroed where there is none. KB_ECORRUPT names the entry that was changed
// or is missing.
KB_MUST_CHECK int kb_audit_each(struct kb_state *s, uint64_t from,
	int (*each)(void *ctx, const struct kb_audit_entry *e), void *ctx, struct kb_err *err,
	struct kb_audit_entry *ret_last);
