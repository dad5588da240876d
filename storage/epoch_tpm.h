// The counter of epoch.h in the machine's TPM.
#pragma once
#include "storage/epoch.h"

// tcti: as of tpm/counter.h; it must last as long as s. The rest, and errors, as of kb_epoch_guard.
KB_MUST_CHECK int kb_epoch_guard_tpm(
	struct kb_state *s, const char *tcti, const char *lock, bool adopt, uint64_t now_s, struct kb_err *err);
