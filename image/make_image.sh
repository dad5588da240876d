#!/bin/sh
# Makes build/image/BOARD/disk.img, the whole box as a disk, from Debian's packages and the programs in build/release.
# Runs where the packages of image/image_tools.list are (KB_TOOLS=image image/buildroot.sh exec image/make_image.sh BOARD).
# What is made depends on the inputs alone: times, ids and salts are fixed. Only signatures differ from build to build.
# OS_VERSION=N (1): of the system, counts up; OS_FLOOR=N: once it is in use on a box, nothing older comes in there.
# KB_IMAGE_OUT=DIR: instead of build/image/BOARD. MODEL=FILE.kbm: a model that import made; signed, it goes to OUT/models,
# for a stick; MODEL_LICENCE=SPDX where it does not say one. KB_KEYS=DIR: PK, KEK, db, pcr as NAME.key, NAME.pem, and the fleet's chain of roots as roots (made if missing).
set -eu
cd "$(dirname "$0")/.."
board=${1:?usage: image/make_image.sh BOARD}
row=board/$board
[ -f "$row" ] || { echo "image: there is no board/$board" >&2; exit 1; }
out=${KB_IMAGE_OUT:-build/image/$board}
keys=${KB_KEYS:-build/image/keys}
packages=build/image/packages
version=${OS_VERSION:-1}
umask 022
export SOURCE_DATE_EPOCH=1767225600 # 2026-01-01: of every file in the image
export TZ=UTC LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Names that never change, so that two builds are alike. Made once by uuidgen.
uuid_root=5a1f7a5c-0c38-4a39-9a3e-6f1d0b7a9e01
uuid_disk=5a1f7a5c-0c38-4a39-9a3e-6f1d0b7a9e03
salt=$(printf 'kotobako %s' "$board" | sha256sum | cut -c1-64)

say() { printf 'image: %s\n' "$*" >&2; }
value() { sed -n "s/^$1 //p" "$row"; }

unpack_packages() {
	list=$(sed 's/#.*//' image/osroot.list | tr -s ' \n' ',' | sed 's/^,//;s/,$//')
	stamp=$(printf '%s' "$list" | sha256sum | cut -c1-16)
	[ -f "$packages/.kb-$stamp" ] && return 0
	say "unpacking the packages of image/osroot.list (once, half a minute)"
	rm -rf "$packages"
	mkdir -p "$packages"
	mmdebstrap --quiet --variant=extract --include="$list" --extract-hook="image/list_packages.sh \"\$1\" >$packages.list" \
		trixie "$packages" >"$packages.log" 2>&1 ||
		{ tail -5 "$packages.log" >&2; say "could not unpack: see $packages.log"; exit 1; }
	touch "$packages/.kb-$stamp"
}

# Development keys: good for QEMU and for boards whose owner enrols them. A release brings its own by KB_KEYS.
make_keys() {
	mkdir -p "$keys" && chmod 700 "$keys"
	for name in PK KEK db; do
		[ -f "$keys/$name.pem" ] || openssl req -new -x509 -newkey rsa:2048 -nodes -sha256 -days 3650 \
			-subj "/CN=Kotobako development $name/" -keyout "$keys/$name.key" -out "$keys/$name.pem" 2>/dev/null
	done
	[ -f "$keys/pcr.key" ] || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$keys/pcr.key" 2>/dev/null
	[ -f "$keys/pcr.pem" ] || openssl pkey -in "$keys/pcr.key" -pubout -out "$keys/pcr.pem"
}

# A development fleet, whose images the box takes: one key for everything.
make_fleet() {
	[ -f "$keys/roots" ] && return 0
	[ -f "$keys/fleet" ] || build/release/kotobako key new "$keys/fleet" >/dev/null
	printf '{"fleet": "development", "keys": {"all": "fleet.pub"}, "roles": {"root": {"threshold": 1, "keys": ["all"]},
		"model": {"threshold": 1, "keys": ["all"]}, "os": {"threshold": 1, "keys": ["all"]},
		"catalog": {"threshold": 1, "keys": ["all"]}}}' >"$keys/fleet.json"
	rm -f "$keys/roots.new"
	build/release/kotobako root build "$keys/fleet.json" "$keys/roots.new" >/dev/null
	build/release/kotobako root sign "$keys/roots.new" --key "$keys/fleet" >/dev/null
	mv "$keys/roots.new" "$keys/roots"
}

# The model as a signed image. Only who has the development key can: a release's models are signed elsewhere.
make_model() {
	rm -rf "$out/models"
	[ -n "${MODEL:-}" ] || return 0
	[ -f "$keys/fleet" ] || { say "$keys has no key to sign $MODEL with"; exit 1; }
	name=$(basename "$MODEL" .kbm)
	mkdir -p "$out/models"
	build/release/kotobako image build "$MODEL" "$out/models/$name-1.kbm" --model "$name" --version 1 --roots "$keys/roots" \
		${MODEL_LICENCE:+--licence "$MODEL_LICENCE"} >/dev/null
	build/release/kotobako image sign "$out/models/$name-1.kbm" --key "$keys/fleet" >/dev/null
}

make_root() {
	say "root: erofs with its hash tree"
	image/pick.py "$packages" build/release "$row" "$out/root" "$out/initrd" "$keys/roots"
	image/sbom.py "$packages" "$packages.list" "$out/root" "$out/initrd" "$out/sbom.spdx.json"
	rm -f "$out/root.img"
	mkfs.erofs --quiet -T "$SOURCE_DATE_EPOCH" -U "$uuid_root" --all-root -zlz4hc,9 -C65536 "$out/root.img" "$out/root" >/dev/null
	size=$(stat -c %s "$out/root.img")
	blocks=$(((size + 4095) / 4096))
	truncate -s $((blocks * 4096)) "$out/root.img"
	veritysetup format --no-superblock --hash=sha256 --salt="$salt" --data-blocks=$blocks \
		--hash-offset=$((blocks * 4096)) "$out/root.img" "$out/root.img" >"$out/verity.txt"
	hash=$(sed -n 's/^Root hash:[[:space:]]*//p' "$out/verity.txt")
	say "root: $((size / 1048576)) MiB, hash $hash"
}

# One of our kernel programs: NAME, the rest of its command line.
make_kernel() {
	printf 'console=%s panic=5 lockdown=integrity ipv6.disable=1 loglevel=5 kb.board=%s kb.version=%s %s' \
		"$(value console)" "$board" "$version" "$2" >"$out/$1.cmdline"
	ukify build --linux="$(ls "$packages"/boot/vmlinuz-*)" --initrd="$out/initrd.img" --cmdline="@$out/$1.cmdline" \
		--os-release="@$packages/usr/lib/os-release" --uname="$(basename "$packages"/usr/lib/modules/*)" \
		--pcr-private-key="$keys/pcr.key" --pcr-public-key="$keys/pcr.pem" --pcr-banks=sha256 --phases=enter-initrd \
		--output="$out/$1.unsigned.efi" >"$out/ukify.log" 2>&1 || { cat "$out/ukify.log" >&2; exit 1; }
	sign_program "$out/$1.unsigned.efi" "$out/$1.efi"
}

sign_program() {
	sbsign --key "$keys/db.key" --cert "$keys/db.pem" --output "$2" "$1" 2>"$out/sbsign.log" ||
		{ cat "$out/sbsign.log" >&2; exit 1; }
	touch -d "@$SOURCE_DATE_EPOCH" "$2"
}

make_kernels() {
	say "kernels: one for each slot, and the recovery kernel"
	find "$out/initrd" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	(cd "$out/initrd" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0) | gzip -9n >"$out/initrd.img"
	trial=$(value trial-seconds)
	for slot in a b; do
		make_kernel "app_$slot" "kb.root=root_$slot kb.trial=${trial:-120} kb.verity=$hash:$salt:$blocks"
	done
	make_kernel recovery kb.recovery=1
	sign_program /usr/lib/systemd/boot/efi/systemd-bootx64.efi "$out/bootx64.efi"
}

make_esp() {
	rm -f "$out/esp.img"
	truncate -s "$(value esp-size)M" "$out/esp.img"
	mkfs.vfat --invariant -F 32 -n KB_ESP -i 4b6f746f "$out/esp.img" >/dev/null
	printf 'timeout 0\neditor no\ndefault app_a.efi\n' >"$out/loader.conf"
	touch -d "@$SOURCE_DATE_EPOCH" "$out/loader.conf"
	mmd -i "$out/esp.img" ::/EFI ::/EFI/BOOT ::/EFI/Linux ::/EFI/kotobako ::/loader
	mcopy -m -i "$out/esp.img" "$out/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
	mcopy -m -i "$out/esp.img" "$out/app_a.efi" ::/EFI/Linux/app_a.efi
	mcopy -m -i "$out/esp.img" "$out/recovery.efi" ::/EFI/kotobako/recovery.efi
	mcopy -m -i "$out/esp.img" "$out/loader.conf" ::/loader/loader.conf
}

# The same root and kernels as a signed image, for boxes that have a system already. A release's is signed elsewhere.
make_system() {
	rm -f "$out"/system-*.kbm
	system=$out/system-$board-$version.kbm
	TMPDIR=$out build/release/kotobako os build "$system" --board "$board" --version "$version" --roots "$keys/roots" \
		--root "$out/root.img" --kernel-a "$out/app_a.efi" --kernel-b "$out/app_b.efi" \
		${OS_FLOOR:+--floor "$OS_FLOOR"} >/dev/null
	if [ -f "$keys/fleet" ]; then
		build/release/kotobako image sign "$system" --key "$keys/fleet" >/dev/null
	else
		say "$system is not signed: $keys has no key for it"
	fi
}

# One partition after the other, each on a border of 1 MiB; nothing is mounted.
make_disk() {
	esp=$(value esp-size) root=$(value root-size) state=$(value state-size)
	[ "$(stat -c %s "$out/root.img")" -le $((root * 1048576)) ] || { say "the root is larger than its slot ($root MiB)"; exit 1; }
	rm -f "$out/disk.img"
	truncate -s $((esp + 2 * root + state + 2))M "$out/disk.img"
	sfdisk --quiet "$out/disk.img" <<-END
		label: gpt
		label-id: $uuid_disk
		start=1MiB, size=${esp}MiB, name=esp, type=uefi, uuid=${uuid_disk%03}11
		size=${root}MiB, name=root_a, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid=${uuid_disk%03}12
		size=${root}MiB, name=root_b, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid=${uuid_disk%03}13
		size=${state}MiB, name=state, type=ca7d7ccb-63ed-4c53-861c-1742536059cc, uuid=${uuid_disk%03}14
	END
	at=1
	for part in "esp $esp" "root $root" "- $root" "- $state"; do
		file=${part% *}
		[ "$file" = - ] || dd if="$out/$file.img" of="$out/disk.img" bs=1M seek=$at conv=notrunc,sparse status=none
		at=$((at + ${part#* }))
	done
}

mkdir -p "$out"
unpack_packages
make_keys
make_fleet
make_model
make_root
make_kernels
make_esp
make_disk
make_system
(cd "$out" && sha256sum root.img initrd.img ./*.cmdline ./*.unsigned.efi sbom.spdx.json >unsigned.sha256)
say "$out/disk.img is ready"
