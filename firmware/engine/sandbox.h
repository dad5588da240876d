// What the engine gives up before it reads anything that others made. Two steps, because drivers and libraries
// open files and start threads when a device is created:
//   begin()  single-threaded, first of all: no core dumps, not dumpable, no new privileges, landlock
//            (read-only system paths and the image; write only devices and the caches' directory; no TCP)
//   close()  after image, caches and device are open: seccomp for all threads. What is not on the list fails with
//            EPERM: no sockets, no opening of files, no new programs, no processes.
#pragma once
#include "base/err.h"
#include <stdbool.h>

struct kb_sandbox {
	const char *image;     // may be NULL
	const char *cache_dir; // may be NULL
	bool has_landlock;     // filled by begin: false where the kernel has none
};

KB_MUST_CHECK int kb_sandbox_begin(struct kb_sandbox *s, struct kb_err *err);
// has_nvidia: the device is driven through /dev/nvidia*, whose ioctls are then allowed too.
KB_MUST_CHECK int kb_sandbox_close(bool has_nvidia, struct kb_err *err);

// Tries what must fail and what must work, one line each on standard output; 0 when all is as it should be.
// Call after close.
int kb_sandbox_selftest(void);
