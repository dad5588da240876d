// The models that a box has: the signed ones that are installed where it trusts a root, else the files NAME.kbm of the
// models' directory.
#pragma once
#include "storage/models.h"
#include "storage/state.h"

// Whether only signed models count. state may be NULL: then not.
KB_MUST_CHECK int kb_store_is_signed(struct kb_state *state, struct kb_err *err, bool *ret);
// As kb_models_list; version and previous are filled in of signed ones. Adapters are not listed.
KB_MUST_CHECK int kb_store_list(
	struct kb_state *state, const char *models, struct kb_err *err, struct kb_model_list *ret);
// The file of a model; free() it. KB_ENOTFOUND.
KB_MUST_CHECK int kb_store_find(
	struct kb_state *state, const char *models, const char *name, struct kb_err *err, char **ret_path);
