// Installing a signed image (bundle.h) from a stream: verified as it comes, never on the disk before it is proven.
//
//   MODELS/incoming/install.partial-PID   while it comes; locked, garbage once nobody holds the lock
//   MODELS/store/DIGEST.kbm               whole, synced, fs-verity enabled where the file system has it
//   one transaction of state.mdb          from here on it is the active version (installed.h)
//
// Whatever ends the process at whatever point, the box has either the old or the new version; files that no table
// names are removed by the next install. One install at a time; the daemon may run meanwhile.
#pragma once
#include "storage/bundle.h"
#include "storage/installed.h"

struct kb_install_options {
	struct kb_state *state;
	const char *models; // the directory; its store and incoming are made
	bool allow_test;
	uint64_t firmware;
	uint64_t clock_s;     // now, as far as the clock knows
	const char *drop_why; // NULL: previous versions are never dropped to make room; else the reason that is logged
	// The manifest is proven, allowed, and there is room for it. Nonzero stops the install with it.
	int (*on_manifest)(void *ctx, const struct kb_manifest *m);
	void (*on_data)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

struct kb_install_result {
	char model[KB_MAX_MODEL_NAME + 1];
	uint64_t version;
	uint8_t digest[KB_VERITY_HASH];
	bool was_active;      // it was there and active already: nothing was done
	bool has_verity;      // the kernel proves each page of it from now on
	bool is_root_expired; // advisory: its fleet should have had a new root by now
};

struct kb_install;

// KB_EDENIED: the box trusts nobody yet. KB_EBUSY: another install is under way.
KB_MUST_CHECK int kb_install_begin(
	const struct kb_install_options *options, struct kb_err *err, struct kb_install **ret);
// Pieces of the stream, of any size. Errors of bundle.h and installed.h; KB_ENOSPACE says how much is missing. After
// an error every further call gives it again. KB_EEXISTS: it is the active version already; that is no failure, finish
// says so too.
KB_MUST_CHECK int kb_install_feed(struct kb_install *i, const void *bytes, size_t len, struct kb_err *err);
// Whether signatures and manifest are behind it: from here on nothing but hashing and the disk's work is left, which a
// thread of its own may do. (The cryptographic library wants all of a process's calls on one thread.)
bool kb_install_is_proven(const struct kb_install *i);
// That was all: makes it the active version. A failure is in the audit log too.
KB_MUST_CHECK int kb_install_finish(struct kb_install *i, struct kb_err *err, struct kb_install_result *ret);
// Frees it; what was not finished leaves nothing behind. NULL is fine.
void kb_install_destroy(struct kb_install *i);

// Removes files of the store that no model has as its active or previous version. Not during an install.
KB_MUST_CHECK int kb_install_sweep(struct kb_state *s, const char *models, struct kb_err *err);
