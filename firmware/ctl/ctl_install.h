// kotobako model install|rollback, and what else changes which signed models the box has.
#pragma once
#include "firmware/ctl/action.h"
#include "storage/state.h"

int kb_ctl_update(struct kb_ctl *ctl, const struct kb_ctl_args *args); // ctl_update.c
int kb_ctl_install(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_upload(struct kb_ctl *ctl, const struct kb_ctl_args *args); // ctl_upload.c
int kb_ctl_rollback(struct kb_ctl *ctl, const struct kb_ctl_args *args);
KB_MUST_CHECK int kb_ctl_remove_installed(
	struct kb_ctl *ctl, struct kb_state *state, const char *name, struct kb_err *err);
