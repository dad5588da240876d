// A counter in the memory of the machine's TPM that only goes up, whatever becomes of the disk: with it a box notices
// that its state was put back to an earlier day. TPM 2.0 Library, Part 1, 37.2 "NV Indices" (counter index), by
// tpm2-tss' system API. The TPM is opened for each call and closed behind it; any thread may call.
#pragma once
#include "base/err.h"
#include <stdint.h>

// Which of the owner's indices (TCG Registry of Reserved TPM 2.0 Handles, 2.2: 0x01800000 to 0x01BFFFFF): "KB".
#define KB_TPM_COUNTER_INDEX 0x01804b42u

// tcti: how to reach the TPM, as tpm2-tss has it: "device:/dev/tpmrm0", "swtpm:port=2321".
// KB_ENOTFOUND: it has no such counter yet. KB_EIO: no TPM, or it says no. KB_ECORRUPT: the index is something else.
KB_MUST_CHECK int kb_tpm_counter_read(const char *tcti, struct kb_err *err, uint64_t *ret);
// Makes it. A TPM begins a new counter where the highest that it ever had ended, so one that was taken away does not
// count back.
KB_MUST_CHECK int kb_tpm_counter_make(const char *tcti, struct kb_err *err);
// By one.
KB_MUST_CHECK int kb_tpm_counter_advance(const char *tcti, struct kb_err *err);
