#!/bin/sh
# Replays a fuzz target's corpus (tests/fuzz/corpus/NOUN), then a short run of fresh inputs. Usage: replay.sh BINARY
set -eu
noun=$(basename "$1" _fuzz)
corpus=tests/fuzz/corpus/$noun
mkdir -p "build/fuzz/new/$noun"
[ -d "$corpus" ] || corpus=
# shellcheck disable=SC2086
if ! "$1" -runs=20000 -max_total_time=10 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/new/$noun-" \
	"build/fuzz/new/$noun" $corpus >"build/fuzz/$noun.log" 2>&1; then
	tail -40 "build/fuzz/$noun.log"
	echo "fuzz $noun: failed; input kept in build/fuzz/new" >&2
	exit 1
fi
echo "  FUZZ $noun: $(grep -o 'DONE.*' "build/fuzz/$noun.log" || tail -1 "build/fuzz/$noun.log")"
