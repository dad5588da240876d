#!/bin/sh
# The divergence over the whole vocabulary (full_kl.py), with all it needs made first. Arguments are full_kl.py's.
set -eu
cd "$(dirname "$0")/../.."
tests/bench/build_llama.sh
exec tests/golden/python.sh tests/golden/full_kl.py "$@"
