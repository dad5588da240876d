// An installed model as the image that it came in, to be read from any place: how a box gives it on to others. It is
// not stored a second time: the head is made of the tables, the payload of the model file and its hash tree. What is
// read is what a box proves block by block, as with any image.
#pragma once
#include "storage/installed.h"
#include "storage/progress.h"

struct kb_bundle_view;

// Of the model's active version. Reads all of the file once. KB_ECORRUPT: it is not what was signed.
KB_MUST_CHECK int kb_bundle_view_open(struct kb_state *s, const char *models, const struct kb_installed *m,
	const struct kb_progress *progress, struct kb_err *err, struct kb_bundle_view **ret);
void kb_bundle_view_close(struct kb_bundle_view *v); // NULL is fine
uint64_t kb_bundle_view_bytes(const struct kb_bundle_view *v);
// [at, at + len) of the image; it must lie within. Processes that inherited the view may read side by side.
KB_MUST_CHECK int kb_bundle_view_read(
	const struct kb_bundle_view *v, uint64_t at, uint8_t *ret, size_t len, struct kb_err *err);
