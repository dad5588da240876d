#!/bin/sh
# Runs python3 with the packages of requirements.txt (pinned, with hashes; a venv made once under build/golden),
# in the build root. Usage: tests/golden/python.sh SCRIPT [ARG...]
set -eu
cd "$(dirname "$0")/../.."
[ "$(image/buildroot.sh probe)" = native ] || exec image/buildroot.sh exec tests/golden/python.sh "$@"
stamp=build/golden/venv/.$(sha256sum tests/golden/requirements.txt | cut -c1-16)
if [ ! -f "$stamp" ]; then
	rm -rf build/golden/venv
	mkdir -p build/golden
	python3 -m venv build/golden/venv
	build/golden/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--require-hashes -r tests/golden/requirements.txt
	touch "$stamp"
fi
exec build/golden/venv/bin/python "$@"
