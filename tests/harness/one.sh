#!/bin/sh
# One test: scratch directory, time limit, sanitizer options. Not for use by hand; see tests/run.sh.
set -eu
KB_TMP=$(mktemp -d "${TMPDIR:-/tmp}/kb-test.XXXXXX")
trap 'rm -rf "$KB_TMP"' EXIT
export KB_TMP CMOCKA_MESSAGE_OUTPUT=TAP
export ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1:${ASAN_OPTIONS:-}"
export LSAN_OPTIONS="suppressions=tests/harness/lsan.supp:print_suppressions=0"
export UBSAN_OPTIONS="print_stacktrace=1"
# The device of record. Drivers that find no hardware are unloaded with leaks that nothing can name any more.
[ -n "${KB_DEVICE:-}" ] || export VK_LOADER_DRIVERS_SELECT="${VK_LOADER_DRIVERS_SELECT:-*lvp*}"
timeout --kill-after=10 "${KB_TEST_TIMEOUT:-1500}" "$@"
