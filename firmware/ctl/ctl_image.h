// kotobako image: one file an action or two; ctl_image.c has the table.
#pragma once
#include "firmware/ctl/action.h"
#include "storage/bundle_head.h"

int kb_ctl_image_build(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image_seal(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image_unseal(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image_serve(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image_fetch(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image_diff(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image_verify(struct kb_ctl *ctl, const struct kb_ctl_args *args);

// The head of the image at path: free() what *ret_head is, finish ret_bytes. *ret_fd is open for reading (and writing).
KB_MUST_CHECK int kb_ctl_image_open(const char *path, int flags, struct kb_err *err, int *ret_fd,
	struct kb_buf *ret_bytes, struct kb_bundle_head **ret_head);
// Which role signs it, as it says itself.
KB_MUST_CHECK int kb_ctl_image_role(const struct kb_bundle_head *h, struct kb_err *err, enum kb_role *ret);
