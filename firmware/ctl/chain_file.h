// A chain of roots in a file, for the tools that make and show them.
#pragma once
#include "firmware/ctl/ctl.h"
#include "storage/chain.h"

// ret points into ret_bytes, which the caller finishes. Its form was checked, its signatures were not.
KB_MUST_CHECK int kb_ctl_chain_read(
	const char *path, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_chain *ret);
// Now, in seconds since 1970; what SOURCE_DATE_EPOCH says where builds are to be repeated.
uint64_t kb_ctl_now(void);
// A day of that time as text.
const char *kb_ctl_day(uint64_t seconds, char ret[static 16]);
// Prints a root as `root show` does.
void kb_ctl_root_print(const struct kb_root *r, const struct kb_signatures *signatures);
