#!/bin/sh
# Fuzzes one target for SECONDS, keeping what it finds in build/fuzz/new. Usage: run.sh BINARY SECONDS
set -eu
noun=$(basename "$1" _fuzz)
corpus=tests/fuzz/corpus/$noun
mkdir -p "build/fuzz/new/$noun"
[ -d "$corpus" ] || corpus=
echo "fuzzing $noun for $2 s"
# shellcheck disable=SC2086
exec "$1" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	-artifact_prefix="build/fuzz/new/$noun-" "build/fuzz/new/$noun" $corpus
