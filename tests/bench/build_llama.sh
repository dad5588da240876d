#!/bin/sh
# Builds the peer of the benchmark and of the full-vocabulary check: llama.cpp, from the source package of
# llama-cpp-python (pinned by version and SHA-256, fetched by pip), with its CPU and Vulkan backends, and our driver
# tests/bench/peer.c against it. Nothing of it is part of the product or of the repository.
# Usage: tests/bench/build_llama.sh [TARGET...]   default TARGET: llama; llama-bench is its own benchmark;
# packages only installs what the benchmarks need; llama-server is the peer of `make bench-serve` (without its web
# page, which it would fetch).
# Result: build/llama/bin/kb-peer (and build/llama/bin/lib*.so). Nothing is done when it is up to date.
set -eu
cd "$(dirname "$0")/../.."
version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
sdist=build/downloads/llama_cpp_python-$version.tar.gz
dir=build/llama
src=$dir/src/vendor/llama.cpp
jobs=${KB_BENCH_JOBS:-2}

say() { printf 'build_llama: %s\n' "$*" >&2; }
checked() { [ -f "$1" ] && printf '%s  %s\n' "$sha256" "$1" | sha256sum -c --status; }

# The compilers and Vulkan headers are the build root's.
[ "$(image/buildroot.sh probe)" = native ] || exec image/buildroot.sh exec tests/bench/build_llama.sh "$@"

install_packages() {
	missing=
	# shellcheck disable=SC2013 # words are wanted
	for p in $(sed 's/#.*//' image/bench.list); do
		dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
	done
	[ -z "$missing" ] && return 0
	say "installing$missing"
	root=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || { say "as root, run: image/buildroot.sh exec apt-get install$missing"; exit 1; }
		root=sudo
	fi
	$root apt-get update -qq
	# shellcheck disable=SC2086
	$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

fetch_source() {
	if ! checked "$sdist"; then
		mkdir -p build/downloads
		say "fetching llama-cpp-python $version (about 70 MB)"
		python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest build/downloads "llama-cpp-python==$version"
		checked "$sdist" || { say "$sdist: SHA-256 is not the pinned one; delete it and try again"; exit 1; }
	fi
	[ "$(cat $dir/src/.sha256 2>/dev/null)" = $sha256 ] && return 0
	rm -rf "$dir"
	mkdir -p "$dir/src"
	tar -xzf "$sdist" -C "$dir/src" --strip-components=1
	echo $sha256 >"$dir/src/.sha256"
}

install_packages
[ "${1:-}" != packages ] || exit 0
fetch_source
[ $# -gt 0 ] || set -- llama
# A build directory of before llama-server was wanted is configured again; what is compiled stays.
if [ ! -f $dir/build.ninja ] || ! grep -qx 'LLAMA_BUILD_SERVER:BOOL=ON' $dir/CMakeCache.txt; then
	# Release with the host's own instruction set: the peer at its best on this machine.
	cmake -S $src -B $dir -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_VULKAN=ON -DGGML_CCACHE=OFF \
		-DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON \
		-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON -DLLAMA_BUILD_APP=OFF \
		-DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_OPENSSL=OFF \
		>$dir/configure.log 2>&1 || { tail -20 $dir/configure.log >&2; exit 1; }
fi
[ -f $dir/bin/kb-peer ] || say "building $* (the first time takes a quarter of an hour or more; log: $dir/make.log)"
nice -n 19 ninja -C $dir -j "$jobs" "$@" >$dir/make.log 2>&1 || { tail -30 $dir/make.log >&2; exit 1; }
if [ ! -f $dir/bin/kb-peer ] ||
	[ -n "$(find tests/bench/peer.c $dir/bin/ -name peer.c -newer $dir/bin/kb-peer -o -name 'lib*.so.*' -newer $dir/bin/kb-peer)" ]; then
	gcc -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -I$src/include -I$src/ggml/include tests/bench/peer.c \
		-o $dir/bin/kb-peer -L$dir/bin -lllama -lggml -lggml-base -lm "-Wl,-rpath,\$ORIGIN"
fi
