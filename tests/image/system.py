"""System images for tests of updates: the one that was built, with one thing about it changed, signed like a good one."""
import pathlib
import re
import shutil
import struct

from tap import BOARD, KEYS, OUT, TMP
from vm import run

PACKAGES = pathlib.Path("build/image/packages")
EPOCH = "1767225600"
CLI = "build/release/kotobako"


def program_that_hangs():
    """A static program for x86-64 that waits for a signal for ever: pause(), again and again."""
    code = b"\x6a\x22\x58\x0f\x05\xeb\xf9"  # push 34; pop rax; syscall; jmp
    at = 0x400000
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, at + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, at, at, 120 + len(code), 120 + len(code), 4096) + code


def make_root(folder, edit):
    """The root's image with its tree, and what the command line says of it."""
    tree, image = folder / "root", folder / "root.img"
    shutil.copytree(OUT / "root", tree, symlinks=True)
    edit(tree)
    run("mkfs.erofs", "--quiet", "-T", EPOCH, "--all-root", "-zlz4hc,9", "-C65536", image, tree)
    size = (image.stat().st_size + 4095) // 4096
    with open(image, "r+b") as f:
        f.truncate(size * 4096)
    salt = "ab" * 32
    said = run("veritysetup", "format", "--no-superblock", "--hash=sha256", f"--salt={salt}", f"--data-blocks={size}",
               f"--hash-offset={size * 4096}", image, image)
    shutil.rmtree(tree)
    return image, f"{re.search(r'Root hash:\s*(\w+)', said).group(1)}:{salt}:{size}"


def make_initrd(folder, edit):
    tree = folder / "initrd"
    shutil.copytree(OUT / "initrd", tree, symlinks=True)
    edit(tree)
    run("sh", "-c", f"cd {tree} && find . | sort | cpio --quiet -o -H newc -R 0:0 | gzip -1n >../initrd.img")
    return folder / "initrd.img"


def make_system(name, version=2, root=None, initrd=None, cmdline=None, flip=None, kernel=None, key="db", board=BOARD, floor=None):
    """root, initrd: edit a copy of the tree. cmdline: changes the text. flip: where in the root's image a bit is changed, after its
    tree was made. kernel: changes the signed program. key: who signs it."""
    folder = TMP / f"system-{name}"
    folder.mkdir()
    image, verity = make_root(folder, root) if root else (OUT / "root.img", None)
    if flip is not None:
        data = bytearray(image.read_bytes())
        data[flip] ^= 1
        image = folder / "flipped.img"
        image.write_bytes(data)
    parts = ["--root", image]
    for slot in "ab":
        line = (OUT / f"app_{slot}.cmdline").read_text()
        line = re.sub(r"kb\.version=\d+", f"kb.version={version}", line)
        line = re.sub(r"kb\.verity=\S+", f"kb.verity={verity}", line) if verity else line
        (folder / "cmdline").write_text(cmdline(line) if cmdline else line)
        plain, signed = folder / "plain.efi", folder / f"app_{slot}.efi"
        (linux,) = PACKAGES.glob("boot/vmlinuz-*")
        run("ukify", "build", f"--linux={linux}", f"--initrd={make_initrd(folder, initrd) if initrd else OUT / 'initrd.img'}",
            f"--cmdline=@{folder}/cmdline", f"--os-release=@{PACKAGES}/usr/lib/os-release",
            f"--pcr-private-key={KEYS}/pcr.key", f"--pcr-public-key={KEYS}/pcr.pem", "--pcr-banks=sha256",
            "--phases=enter-initrd", f"--output={plain}")
        run("sbsign", "--key", KEYS / f"{key}.key", "--cert", KEYS / f"{key}.pem", "--output", signed, plain)
        if kernel:
            signed.write_bytes(kernel(signed.read_bytes()))
        parts += [f"--kernel-{slot}", signed]
        shutil.rmtree(folder / "initrd", ignore_errors=True)
    out = TMP / f"{name}.kbm"
    run("env", f"TMPDIR={TMP}", CLI, "os", "build", out, "--board", board, "--version", str(version), "--roots", KEYS / "roots",
        *parts, *(("--floor", str(floor)) if floor else ()))
    run(CLI, "image", "sign", out, "--key", KEYS / "fleet")
    shutil.rmtree(folder)
    return out
