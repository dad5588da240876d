#!/bin/sh
# The firmware image's tests, where its tools are (make check-image). Needs build/release, build/image/tiny.kbm and the
# SmolLM2 image of `make image-inputs`.
set -eu
cd "$(dirname "$0")/../.."
export MODEL=build/image/tiny.kbm MODEL_LICENCE=CC0-1.0
export KB_TEST_TIMEOUT=${KB_TEST_TIMEOUT:-2400}
tests/e2e/venv.sh spdx tests/image/spdx.txt
tests/e2e/venv.sh screen tests/e2e/screen.txt
image/make_image.sh "${BOARD:-qemu-x86_64}"
exec tests/run.sh tests/image/*_test.py
