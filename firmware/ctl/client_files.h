// What a paired client keeps: its key, its certificate, the box's authority, where the box is (box.h names the files).
#pragma once
#include "firmware/ctl/box.h"

// user@machine, as far as a certificate may say it.
void kb_ctl_client_name(char *ret, size_t size);
bool kb_ctl_is_paired(const char *directory);
// The files from the box's answer {certificate, ca, fingerprint}, box.json last: it is what the other subcommands look
// for. Says what was made, or prints what went wrong; the exit status.
KB_MUST_CHECK int kb_ctl_keep_client(
	const char *directory, const char *name, const struct kb_ctl_where *where, const char *key, yyjson_val *answer);
