// fs-verity by the kernel: each page of a file is proven when it is read, for as long as the file is there.
// Source: Documentation/filesystems/fsverity.rst, FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY.
#pragma once
#include "storage/verity.h"

// Has the kernel build the tree of a file, and compares what it measures. Where kernel or file system do not know
// fs-verity it is KB_OK and *ret_is_on false. KB_ECORRUPT: another digest.
KB_MUST_CHECK int kb_verity_enable(
	const char *path, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err, bool *ret_is_on);

// Proves a file before it is used: by asking the kernel where it watches the file, else by reading all of it on
// `threads` threads (0: as many as there are processors). ret_by_kernel may be NULL. KB_ECORRUPT.
KB_MUST_CHECK int kb_verity_check(const char *path, const uint8_t digest[static KB_VERITY_HASH], unsigned threads,
	struct kb_err *err, bool *ret_by_kernel);
