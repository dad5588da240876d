#!/bin/sh
# Runs a command where the build's Debian 13 packages are: on this host if it is one and has them,
# otherwise inside a trixie root made once under build/root (mmdebstrap, about 1.5 GB, a minute or two).
# Usage: image/buildroot.sh probe | exec COMMAND [ARG...]
# KB_TOOLS=image: the packages that make and boot the firmware image (image/image_tools.list), in a root of their own.
# The command runs in a mount namespace of its own, with the checkout bound at the same path,
# so nothing stays mounted when it ends, however it ends.
set -eu
cd "$(dirname "$0")/.."
top=$(pwd -P)
case ${KB_TOOLS:-} in
image) list=image/image_tools.list; root=${KB_IMAGEROOT:-$top/build/imageroot} ;;
*) list=image/buildroot.list; root=${KB_BUILDROOT:-$top/build/root} ;;
esac
packages=$(sed 's/#.*//' $list | tr -s ' \n' ' ')
stamp=$(printf '%s' "$packages" | sha256sum | cut -c1-16)

say() { printf 'buildroot: %s\n' "$*" >&2; }
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
		say "need root (or sudo) to run: $*"; exit 1; fi
}
codename() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null; }

is_native() {
	[ -n "${KB_IN_BUILDROOT:-}" ] && [ "${KB_IN_BUILDROOT}" = "${KB_TOOLS:-1}" ] && return 0
	[ "$(codename)" = trixie ] || return 1
	# shellcheck disable=SC2086
	dpkg-query -W -f='${Status}\n' $packages 2>/dev/null | grep -vq '^install ok installed' && return 1
	# shellcheck disable=SC2086
	dpkg-query -W $packages >/dev/null 2>&1
}

# One maker at a time: who comes meanwhile waits and finds it made.
make_root() {
	[ -f "$root/.kb-$stamp" ] && return 0
	mkdir -p "$(dirname "$root")"
	exec 9>"$root.lock"
	flock 9
	[ -f "$root/.kb-$stamp" ] || make_root_now
	exec 9>&-
}

make_root_now() {
	if ! command -v mmdebstrap >/dev/null; then
		say "installing mmdebstrap (once)"
		as_root apt-get update -qq
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mmdebstrap >/dev/null
	fi
	say "making the Debian 13 build root of $list in $root (once, a minute or two)"
	as_root rm -rf "$root" "$root.new"
	# shellcheck disable=SC2086
	if ! as_root mmdebstrap --quiet --variant=apt --include="$(echo $packages | tr ' ' ',' | sed 's/,$//')" \
		trixie "$root.new" >"$root.log" 2>&1; then
		tail -20 "$root.log" >&2
		say "could not make the root: see $root.log (network? disk space?)"; exit 1
	fi
	as_root touch "$root.new/.kb-$stamp"
	as_root mv "$root.new" "$root"
	say "root ready"
}

enter() {
	make_root
	# The root trusts and resolves what the host does.
	as_root cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	[ -f /etc/ssl/certs/ca-certificates.crt ] &&
		as_root cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
	shared=$(cd .. && pwd -P)/shared
	as_root unshare --mount --propagation private sh -eu -c '
		root=$1 top=$2 shared=$3 who=$4; shift 4
		mount --rbind /proc "$root/proc"; mount --rbind /sys "$root/sys"; mount --rbind /dev "$root/dev"
		mount -t tmpfs tmpfs "$root/tmp" -o mode=1777
		mkdir -p "$root$top" # after /tmp is there: the checkout may lie in it
		mount --rbind "$top" "$root$top"
		if [ -d "$shared" ]; then mkdir -p "$root$shared"; mount --rbind -o ro "$shared" "$root$shared"; fi
		exec chroot --userspec="$who" "$root" /usr/bin/env KB_IN_BUILDROOT="${KB_TOOLS:-1}" HOME="$top/build" \
			sh -c "cd \"\$0\" && exec \"\$@\"" "$top" "$@"
	' enter "$root" "$top" "$shared" "$(id -u):$(id -g)" "$@"
}

case ${1:-} in
probe) if is_native; then echo native; else echo root; fi ;;
exec) shift; if is_native; then exec "$@"; else enter "$@"; fi ;;
*) say "usage: $0 probe | exec COMMAND [ARG...]"; exit 2 ;;
esac
