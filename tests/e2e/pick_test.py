#!/usr/bin/env python3
# The pure parts of the image's build: tables, the order of modules, libraries that come along, what is refused. (The
# image itself is made and booted by make check-image.)
import os
import pathlib
import stat
import subprocess
import sys

sys.path.insert(0, "image")
import pick  # noqa: E402

TMP = pathlib.Path(os.environ["KB_TMP"])
count = failed = 0


def check(what, ok, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}" + ("" if ok else f"  # {detail}"), flush=True)


def refuses(what, call):
    try:
        check(what, False, call())
    except SystemExit as e:
        check(what, str(e).startswith("pick: "), e)


# modules.dep as depmod writes it: the nearest need first, the farthest last.
DEPENDS = pick.parse_depends("k/fs/ext4.ko.xz: k/fs/jbd2.ko.xz k/lib/crc16.ko.xz\nk/fs/jbd2.ko.xz:\nk/lib/crc16.ko.xz:\n"
                             "k/net/virtio_net.ko.xz: k/net/failover.ko.xz\nk/net/failover.ko.xz:\n")
order = pick.modules_in_order(DEPENDS, ["ext4", "virtio-net", "ext4", "virtio_pci"], {"virtio_pci"})
check("every module once", sorted(order) == sorted(DEPENDS), order)
check("each after what it needs", all(order.index(n) < order.index(p) for p, need in DEPENDS.items() for n in need), order)
check("the list's order otherwise", order[-1].endswith("virtio_net.ko.xz"), order)
refuses("a module that the kernel has not", lambda: pick.modules_in_order(DEPENDS, ["wishful"], {"virtio_pci"}))

for board in sorted(pathlib.Path("board").iterdir()):
    rows = pick.board_rows(board)
    need = {"console", "initrd-modules", "root-modules", "esp-size", "root-size", "state-size"}
    check(f"{board} has the rows that the build reads", need <= set(rows), need - set(rows))
    check(f"{board}: SHA-256 by the processor is loaded before verity",
          "sha256-ssse3" in rows["initrd-modules"] and
          rows["initrd-modules"].index("sha256-ssse3") < rows["initrd-modules"].index("dm-verity"), rows)

# Packages with one library that needs another, made of the programs' own linker.
lib = TMP / "packages/usr/lib/x86_64-linux-gnu"
lib.mkdir(parents=True)
source = TMP / "x.c"
source.write_text("int f(void) { return 1; }\n")
subprocess.run(["gcc", "-shared", "-nostdlib", "-o", lib / "libb.so", source], check=True)
subprocess.run(["gcc", "-shared", "-nostdlib", "-o", lib / "liba.so", source, f"-L{lib}", "-Wl,--no-as-needed", "-lb"],
               check=True)
tree = pick.Tree(TMP / "packages", TMP, {"daemon-options": ["--patience", "3"]}, TMP / "root")
tree.row("file", "/usr/lib/x86_64-linux-gnu/liba.so")
names = sorted(p.name for p in (TMP / "root").rglob("*.so"))
check("a library brings what it needs", names == ["liba.so", "libb.so"], names)
(lib / "libb.so").unlink()
refuses("a library that no package has", lambda: pick.Tree(TMP / "packages", TMP, {}, TMP / "other").row(
    "file", "/usr/lib/x86_64-linux-gnu/liba.so"))
tree.row("dir", "/tmp", "1777")
check("a directory has its mode", stat.S_IMODE((TMP / "root/tmp").stat().st_mode) == 0o1777)
tree.row("text", "/etc/services", "image/files/services")
text = (TMP / "root/etc/services").read_text()
check("the board's options are in the daemon's row, and no TPM that it has not", " --patience 3\n" in text and "@" not in text and
      "--tpm" not in text, text)
tree.board["tpm"] = ["device:/dev/tpmrm0"]
tree.row("text", "/etc/services", "image/files/services")
text = (TMP / "root/etc/services").read_text()
check("its TPM is in each row that counts", text.count("--tpm device:/dev/tpmrm0") == 3 and "@" not in text, text)
refuses("a row of no kind", lambda: tree.row("shell", "/bin/sh"))
print(f"1..{count}")
sys.exit(1 if failed else 0)
