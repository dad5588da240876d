// Which signed images this box has: for every model the active version and the one before, and how far it has come, so
// that it does not go back. Their files lie in MODELS/store/DIGEST.kbm; only the tables say which of them count.
//
// Tables: "models" name -> active and previous version; "images" digest -> the signed manifest with its signatures;
// "floors" name -> the highest version that was ever active, and its digest (they stay when a model is removed).
#pragma once
#include "base/limits.h"
#include "storage/chain.h"
#include "storage/manifest.h"
#include "storage/state.h"

#define KB_STORE "store" // within the models' directory

struct kb_installed_version {
	uint64_t version; // 0: there is none
	uint8_t digest[KB_MANIFEST_HASH];
};

struct kb_installed {
	char name[KB_MAX_MODEL_NAME + 1];
	struct kb_installed_version active, previous;
	uint64_t since_s; // when the active one became active
	// of the active one
	uint64_t kind, bytes; // enum kb_manifest_kind; of its file
};

// Where a file of that digest is or would be; free() it, NULL without memory.
char *kb_installed_path(const char *models, const uint8_t digest[static KB_MANIFEST_HASH]);

// In order of name. Nonzero from each ends it.
KB_MUST_CHECK int kb_installed_each(
	struct kb_state *s, int (*each)(void *ctx, const struct kb_installed *m), void *ctx, struct kb_err *err);
KB_MUST_CHECK int kb_installed_get(struct kb_state *s, const char *name, struct kb_err *err, struct kb_installed *ret);
// The manifest of an image with its signatures, as they came; ret points into ret_bytes. KB_ENOTFOUND.
KB_MUST_CHECK int kb_installed_signed(struct kb_state *s, const uint8_t digest[static KB_MANIFEST_HASH],
	struct kb_err *err, struct kb_buf *ret_bytes, struct kb_signed *ret);
// Whether an image may run: neither it was revoked since, nor a key whose signature it needs. KB_EDENIED says why not.
KB_MUST_CHECK int kb_installed_may_run(
	struct kb_state *s, const uint8_t digest[static KB_MANIFEST_HASH], bool allow_test, struct kb_err *err);
// Whether any model has it as its active or previous version.
KB_MUST_CHECK int kb_installed_is_used(
	struct kb_state *s, const uint8_t digest[static KB_MANIFEST_HASH], struct kb_err *err, bool *ret);
// Changes with every change of the environment, by whichever process.
uint64_t kb_installed_generation(struct kb_state *s);

// Whether a model may come to that version: KB_OK; KB_EEXISTS: it is there and active; KB_EDENIED: the box was further
// already, or has another image of that version; KB_ENOTFOUND: the base of an adapter is not installed.
KB_MUST_CHECK int kb_installed_allow(
	struct kb_state *s, const struct kb_manifest *m, const uint8_t digest[static KB_MANIFEST_HASH], struct kb_err *err);
// Makes it the active version, in one transaction with its floor and the audit log; allow's errors too. The file must
// be in its place. signed_: the manifest with its signatures.
KB_MUST_CHECK int kb_installed_commit(struct kb_state *s, const struct kb_signed *signed_, const struct kb_manifest *m,
	const uint8_t digest[static KB_MANIFEST_HASH], uint64_t now_s, struct kb_err *err);
// Active and previous change places. KB_ENOTFOUND: there is none before. KB_EDENIED: it may not run any more.
KB_MUST_CHECK int kb_installed_rollback(
	struct kb_state *s, const char *name, bool allow_test, uint64_t now_s, const char *why, struct kb_err *err);
// Both versions go, the floor stays. The files are garbage then.
KB_MUST_CHECK int kb_installed_remove(struct kb_state *s, const char *name, uint64_t now_s, struct kb_err *err);
// The previous version goes. KB_ENOTFOUND: there is none.
KB_MUST_CHECK int kb_installed_forget(
	struct kb_state *s, const char *name, uint64_t now_s, const char *why, struct kb_err *err);
