#!/bin/sh
# Rules that a machine can check: the rooms' direction, sizes, names, leftovers, format. Prints every offence.
set -eu
cd "$(dirname "$0")/../.."
bad=0
offence() { printf '%s\n' "$*"; bad=1; }
files=$(git ls-files '*.c' '*.h' '*.comp' '*.glsl')
rooms=$(sed -n 's/^\([a-z/]*\):.*/\1/p' tests/lint/rooms.txt)

# 1. A room includes only itself and the rooms its row allows, and a row names only rooms above it (so: no cycle).
seen=
for room in $rooms; do
	allowed=$(sed -n "s|^$room:||p" tests/lint/rooms.txt)
	for dep in $allowed; do
		case " $seen " in *" $dep "*) ;; *) offence "rooms.txt: $room may not name $dep: it is not above it" ;; esac
	done
	seen="$seen $room"
	for f in $(printf '%s\n' "$files" | grep "^$room/[^/]*\.[ch]$" || true); do
		for inc in $(sed -n 's/^[[:space:]]*#[[:space:]]*include "\([^"]*\)".*/\1/p' "$f"); do
			case $inc in
			firmware/*/*) target=$(dirname "$inc") ;;
			storage/*) target=storage ;;
			shaders/*) continue ;; # shared push-constant layouts and generated SPIR-V
			*/*) target=runtime/$(dirname "$inc") ;;
			*) offence "$f: include \"$inc\" names no room"; continue ;;
			esac
			[ "$target" = "$room" ] && continue
			case " $allowed " in *" $target "*) ;; *) offence "$f: $room may not include $inc" ;; esac
		done
		case $room in
		runtime/net | storage | firmware/*) ;;
		*) grep -nE '#[[:space:]]*include <(uv|lmdb|mbedtls/|sys/socket|netinet/)' "$f" /dev/null &&
			offence "$f: compute rooms do not see libuv, LMDB, mbedTLS or sockets" ;;
		esac
	done
done

# 2. Sizes: 800 lines a file (tables are listed with their reason).
for f in $files; do
	n=$(wc -l <"$f")
	[ "$n" -le 800 ] || grep -q "^$f " tests/lint/long.allow || offence "$f: $n lines; split it by meaning, or give the reason in tests/lint/long.allow"
done
tests/lint/functions.awk $(printf '%s\n' "$files" | grep '\.c$') || bad=1

# 3. Leftovers and calls that have a safer twin.
git grep -nE '\b(T''ODO|F''IXME|X''XX)\b' -- '*.c' '*.h' '*.comp' '*.glsl' '*.sh' && offence "unfinished places (above)"
git grep -nE '\b(strcpy|strcat|sprintf|gets|strtok|atoi|alloca)\(' -- '*.c' '*.h' && offence "unsafe calls (above)"
git grep -nE '\b(exit|abort)\(' -- 'runtime/**.c' 'storage/**.c' && offence "rooms below firmware return errors, they do not exit (above)"
for f in $(git ls-files -s | awk '{print $4}'); do
	[ "$(stat -c %s "$f" 2>/dev/null || echo 0)" -le 1310720 ] || offence "$f: larger than 1.25 MiB"
done

# 4. Format.
if command -v clang-format >/dev/null; then
	for f in $(printf '%s\n' "$files" | grep '\.[ch]$'); do
		clang-format --style=file "$f" | cmp -s - "$f" || offence "$f: run 'make format'"
	done
else
	offence "clang-format is missing: run inside the build root (make lint does)"
fi
[ "$bad" = 0 ] && echo "lint: clean"
exit "$bad"
