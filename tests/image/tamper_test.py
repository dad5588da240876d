#!/usr/bin/env python3
# What was not signed does not run: a kernel without a signature, with another key's, with one bit flipped; a loader of
# another key; a root with one byte changed. Each on a copy of the image that boots when it is left alone.
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import KEYS, OUT, TMP, check, finish  # noqa: E402
from run_image import free_port  # noqa: E402
from vm import Vm, make_vars, run  # noqa: E402

BOOT_S, REFUSED_S = 240, 90
KERNEL, LOADER = "EFI/Linux/app_a.efi", "EFI/BOOT/BOOTX64.EFI"


def partition(disk, name):
    table = json.loads(run("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    return next(p["start"] * 512 for p in table if p.get("name") == name)


def replaced(name, path, data, of=OUT / "disk.img"):
    """A copy of a disk with a file of its boot partition replaced."""
    disk = TMP / f"{name}.img"
    run("cp", "--sparse=always", of, disk)
    fresh = TMP / "file"
    fresh.write_bytes(data)
    at = f"{disk}@@{partition(disk, 'esp')}"
    run("mdel", "-i", at, f"::/{path}")
    run("mcopy", "-i", at, fresh, f"::/{path}")
    return disk


def flipped(data, at, bit=0):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]


def stranger(program):
    """program signed by a key that the firmware does not know."""
    key, cert, out = TMP / "x.key", TMP / "x.pem", TMP / "x.efi"
    if not key.exists():
        run("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=stranger/",
            "-keyout", key, "-out", cert)
    run("sbsign", "--key", key, "--cert", cert, "--output", out, program)
    return out.read_bytes()


def boots(disk, until, seconds):
    """(the pattern came, what the console said)"""
    variables = TMP / "vars.fd"
    make_vars(KEYS, variables)
    vm = Vm(disk, variables, free_port())
    try:
        return vm.wait_line(until, seconds) is not None, vm.text()
    finally:
        vm.close()
        os.unlink(disk)


def first_block(path):
    """Where in the root's image the first block of a file lies (its data may be packed)."""
    text = run("dump.erofs", f"--path={path}", "-e", OUT / "root.img")
    return int(re.search(r"^\s*0:.*:\s*(\d+)\.\.", text, re.M).group(1))


def main():
    kernel = (OUT / "app_a.efi").read_bytes()
    came, text = boots(replaced("same", KERNEL, kernel), "init: stage services", BOOT_S)
    check("the copy boots where the kernel was replaced by itself", came, text)
    section = kernel.index(b"kb.verity=")
    rows = (
        ("a kernel without a signature", KERNEL, (OUT / "app_a.unsigned.efi").read_bytes()),
        ("a kernel signed by a stranger", KERNEL, stranger(OUT / "app_a.unsigned.efi")),
        ("a kernel whose command line has one bit flipped", KERNEL, flipped(kernel, section + 10)),
        ("a kernel with one bit flipped in the middle", KERNEL, flipped(kernel, len(kernel) // 2, 5)),
        ("a loader signed by a stranger", LOADER, stranger("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")),
    )
    for i, (what, path, data) in enumerate(rows):
        came, text = boots(replaced(f"t{i}", path, data), r"Access Denied|Access denied|Security Violation", REFUSED_S)
        check(f"{what} is refused", came and "EFI stub" not in text and "init:" not in text, text)
    # The root: the superblock is read by the mount, the head of the daemon when it is started.
    for what, at in (("the superblock", 1024), ("the daemon", first_block("/usr/bin/kotobakod") + 100)):
        disk = TMP / "root.img"
        run("cp", "--sparse=always", OUT / "disk.img", disk)
        with open(disk, "r+b") as f:
            f.seek(partition(disk, "root_a") + at)
            byte = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([byte ^ 1]))
        came, text = boots(disk, "Kernel panic", BOOT_S)
        check(f"a byte of {what} changed in the root: the kernel stops", came and "is corrupted" in text, text)


if __name__ == "__main__":
    main()
    finish()
