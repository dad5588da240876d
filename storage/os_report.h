// The box's slots as a JSON object, for whoever asks, at the box or over the network:
//   {version, board, slot, floor, slots: [{slot, state, version, starts_by_itself}], last_failed: {version, time_s,
//   reason}}
#pragma once
#include "base/buf.h"
#include "storage/os_state.h"

// Appends it. KB_ENOMEM.
KB_MUST_CHECK int kb_os_report(const struct kb_os_state *s, const struct kb_os_boot *boot, struct kb_buf *ret);
