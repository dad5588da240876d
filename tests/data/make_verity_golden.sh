#!/bin/sh
# Makes verity.golden: `fsverity digest` (Debian's fsverity) of files of test data (byte_at in tests/unit/storage/verity_test.c).
set -eu
cd "$(dirname "$0")"
file=$(mktemp)
trap 'rm -f "$file"' EXIT
for size in 0 1 4095 4096 4097 524288 524289 1048577 67108864 67112960; do
	python3 -c "
import sys
n = $size
for at in range(0, n, 1 << 16):
    sys.stdout.buffer.write(bytes((i * 2654435761 >> 13 ^ i >> 7) & 255 for i in range(at, min(n, at + (1 << 16)))))" >"$file"
	printf '\t{%s, "%s"},\n' "$size" "$(fsverity digest --compact "$file")"
done >verity.golden
