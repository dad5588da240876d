// Where an upload goes: the installer of models, or of systems. Both take a signed image in pieces.
#pragma once
#include "firmware/api/daemon.h"
#include "storage/os_state.h"
#include "storage/verity.h"

struct kb_received {
	char name[KB_MAX_MODEL_NAME + 1]; // of the model; "system"
	uint64_t version;
	uint8_t digest[KB_VERITY_HASH];
	bool was_active; // it was there already: nothing was done
};

struct kb_receiver;

// Errors of kb_install_begin or kb_os_install_begin. KB_EUNSUPPORTED: this box has no slots for a system.
KB_MUST_CHECK int kb_receiver_begin(struct kb_daemon *d, bool is_system, struct kb_err *err, struct kb_receiver **ret);
// As kb_install_feed; KB_EEXISTS is no failure.
KB_MUST_CHECK int kb_receiver_feed(struct kb_receiver *r, const void *bytes, size_t len, struct kb_err *err);
// From here on a thread of its own may go on (kb_install_is_proven).
bool kb_receiver_is_proven(const struct kb_receiver *r);
KB_MUST_CHECK int kb_receiver_finish(struct kb_receiver *r, struct kb_err *err, struct kb_received *ret);
void kb_receiver_destroy(struct kb_receiver *r); // NULL is fine

// system.c: what this start is, from the file of --boot. KB_EUNSUPPORTED: there is none.
KB_MUST_CHECK int kb_system_boot(const struct kb_daemon *d, struct kb_err *err, struct kb_os_boot *ret);
