#!/bin/sh
# llama.cpp's published tokenizer vectors (models/ggml-vocab-*.gguf with .inp texts and .out ids) and its collection of
# chat templates (models/templates) out of the source package of llama-cpp-python 0.3.36 on PyPI, into
# build/downloads/vocab. Data only: nothing of it is built here.
set -eu
cd "$(dirname "$0")/../.."
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
sdist=build/downloads/llama_cpp_python-0.3.36.tar.gz
dir=build/downloads/vocab
venv=build/venv/fetch

[ "$(cat "$dir/.sha256" 2>/dev/null)" = "$sha256 with templates" ] && exit 0
if ! printf '%s  %s\n' $sha256 "$sdist" | sha256sum -c --status 2>/dev/null; then
	echo "fetch: downloading llama-cpp-python 0.3.36 (source, for its test vectors)" >&2
	[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
	mkdir -p build/downloads
	"$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
		--dest build/downloads llama-cpp-python==0.3.36
	printf '%s  %s\n' $sha256 "$sdist" | sha256sum -c --status ||
		{ echo "fetch: $sdist: SHA-256 is not the pinned one; delete it and try again" >&2; exit 1; }
fi
rm -rf "$dir.new"
mkdir -p "$dir.new"
tar -xzf "$sdist" -C "$dir.new" --strip-components=4 --wildcards \
	'*/vendor/llama.cpp/models/ggml-vocab-*' '*/vendor/llama.cpp/models/templates/*.jinja'
echo "$sha256 with templates" >"$dir.new/.sha256"
rm -rf "$dir"
mv "$dir.new" "$dir"
