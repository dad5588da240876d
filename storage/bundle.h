// One file that carries a model: the chain of roots, the manifest, signatures, and the model file with its hash tree.
// It is read from its first byte to its last, from a file, a pipe or a socket, in pieces of any size; nothing of it is
// handed on before it is proven, and memory does not grow with it. A delta leaves out what the box has already in
// another file: that is read from there, and proven like the rest. docs/images.md has the format.
#pragma once
#include "storage/chain.h"
#include "storage/manifest.h"
#include "storage/verity.h"

#define KB_BUNDLE_ROOTS_MAX KB_CHAIN_ROOTS_MAX

struct kb_bundle_policy {
	const uint8_t *root; // what the box trusts now; copied
	size_t root_len;
	enum kb_role role; // who must have signed it: KB_ROLE_MODEL, or KB_ROLE_OS for a system image
	bool allow_test;   // keys marked so; never in a release
	uint64_t firmware; // version of this one
};

// Nonzero from any of these stops, and is what feed returns.
struct kb_bundle_events {
	void *ctx;
	// A root that follows what was trusted so far: to be kept, with its signatures, whatever becomes of the rest.
	int (*root)(void *ctx, const struct kb_root *root, const struct kb_signed *signed_, struct kb_err *err);
	// The manifest, signed: here the caller looks at versions, floors and room. Valid until destroy.
	int (*manifest)(
		void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err);
	// Of a delta, before the manifest event: the base must be opened for copy. KB_ENOTFOUND: it is not here. Both NULL:
	// deltas are refused with KB_EUNSUPPORTED.
	int (*base)(void *ctx, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err);
	int (*copy)(void *ctx, uint64_t offset, uint8_t *ret, size_t len, struct kb_err *err);
	// The model file, in order, in pieces of at most KB_VERITY_BLOCK.
	int (*data)(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err);
};

struct kb_bundle;

// The manifest with its signatures, from the manifest event on. Valid until destroy.
void kb_bundle_signed(const struct kb_bundle *b, struct kb_signed *ret);

KB_MUST_CHECK int kb_bundle_create(const struct kb_bundle_policy *policy, const struct kb_bundle_events *events,
	struct kb_err *err, struct kb_bundle **ret);
void kb_bundle_destroy(struct kb_bundle *b); // NULL is fine
// After an error every further call gives it again. KB_EDENIED: not signed by whom it must be, revoked, another
// fleet's. KB_ECORRUPT: a block that is not the signed one. KB_EBAD: malformed. KB_EUNSUPPORTED: it needs a newer
// firmware.
KB_MUST_CHECK int kb_bundle_feed(struct kb_bundle *b, const void *bytes, size_t len, struct kb_err *err);
// That was all. KB_EBAD: it was cut.
KB_MUST_CHECK int kb_bundle_end(const struct kb_bundle *b, struct kb_err *err);
