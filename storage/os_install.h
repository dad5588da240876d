// A signed system image, from a stream into the slot that does not run: proven block by block as it comes, then read
// back. The root goes to its partition, the kernel for that slot to STAGE/kernel.efi, from where kotobako-boot takes it
// to the boot partition. The journal (os_state.h) says WRITING before the first byte of the slot is touched, and
// WRITTEN when everything was read back; then STAGE/arm appears, which PID 1 waits for.
#pragma once
#include "storage/bundle.h"
#include "storage/os_image.h"
#include "storage/os_state.h"

#define KB_OS_STAGE "os" // within the state directory
#define KB_OS_STAGED_KERNEL "kernel.efi"
#define KB_OS_ARM "arm"

struct kb_os_install_options {
	struct kb_state *state;
	const struct kb_os_boot *boot; // what runs; boot->device is written to
	const char *stage;             // directory; it is made
	bool allow_test;
	bool again; // also a version that failed before
	uint64_t clock_s;
	void (*on_progress)(void *ctx, uint64_t done, uint64_t total, const char *what);
	void *ctx;
};

struct kb_os_install;

// KB_EDENIED: the box trusts nobody yet. KB_EBUSY: one is under way.
KB_MUST_CHECK int kb_os_install_begin(
	const struct kb_os_install_options *options, struct kb_err *err, struct kb_os_install **ret);
// Errors of bundle.h and kb_os_allow; KB_ENOSPACE: the slot is too small. After an error every further call gives it
// again.
KB_MUST_CHECK int kb_os_install_feed(struct kb_os_install *i, const void *bytes, size_t len, struct kb_err *err);
// Whether signatures and manifest are behind it (install.h).
bool kb_os_install_is_proven(const struct kb_os_install *i);

struct kb_os_install_result {
	uint64_t version;
	uint8_t digest[KB_OS_DIGEST];
};
// That was all. KB_ECORRUPT: what was read back is not what was written.
KB_MUST_CHECK int kb_os_install_finish(struct kb_os_install *i, struct kb_err *err, struct kb_os_install_result *ret);
void kb_os_install_destroy(struct kb_os_install *i); // NULL is fine

// What PID 1 waits for: a system in the other slot is to be tried. On the disk when it returns.
KB_MUST_CHECK int kb_os_stage_arm(const char *stage, struct kb_err *err);
// That, and the kernel that goes with it, are gone.
void kb_os_stage_clear(const char *stage);
// Back to the system before (os_state.h): journal, audit log, arm.
KB_MUST_CHECK int kb_os_stage_roll_back(struct kb_state *state, const struct kb_os_boot *boot, const char *stage,
	uint64_t now_s, struct kb_err *err, uint64_t *ret_version);
