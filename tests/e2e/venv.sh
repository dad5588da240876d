#!/bin/sh
# Makes the Python environment NAME (build/venv/NAME) from a pinned, hashed requirements file. Does nothing twice.
# Usage: tests/e2e/venv.sh NAME REQUIREMENTS
set -eu
cd "$(dirname "$0")/../.."
venv=build/venv/$1
sum=$(sha256sum "$2" | cut -c1-16)
[ -f "$venv/.kb-$sum" ] && exit 0
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$2"
touch "$venv/.kb-$sum"
