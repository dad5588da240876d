#!/bin/sh
# Runs test programs and scripts that print TAP, with prove. Usage: tests/run.sh TEST...
# Each gets a time limit and an empty scratch directory in KB_TMP.
set -eu
cd "$(dirname "$0")/.."
exec prove --timer --failures --comments --exec tests/harness/one.sh "$@"
