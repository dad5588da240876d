// kotobako os: the box's system, as an image and in its two slots.
#pragma once
#include "firmware/ctl/action.h"
#include "storage/os_state.h"

#define KB_OS_BOOT_FILE "/run/kotobako/boot" // what kotobako-boot says of this start

// Exit statuses of `os settle`, for kotobako-boot (firmware/boot/boot.h).
enum { KB_CTL_OS_TRIAL = 20, KB_CTL_OS_ARM = 21, KB_CTL_OS_RETURNED = 22 };

int kb_ctl_os_build(struct kb_ctl *ctl, const struct kb_ctl_args *args);   // ctl_os_build.c
int kb_ctl_os_install(struct kb_ctl *ctl, const struct kb_ctl_args *args); // ctl_os_install.c
int kb_ctl_os_check(struct kb_ctl *ctl, const struct kb_ctl_args *args);   // ctl_os_check.c

int kb_ctl_os_status(struct kb_ctl *ctl, const struct kb_ctl_args *args); // ctl_os_status.c
int kb_ctl_os_rollback(struct kb_ctl *ctl, const struct kb_ctl_args *args);

// Journal and start of this box; the state is open then. *ret_state NULL after a failure, which is said.
int kb_ctl_os_open(struct kb_ctl *ctl, const struct kb_ctl_args *args, struct kb_state **ret_state,
	struct kb_os_boot *ret_boot, struct kb_os_state *ret);
