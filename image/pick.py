#!/usr/bin/env python3
"""Lays out the image's root and initrd from unpacked packages, by tables.

  image/pick.py PACKAGES PROGRAMS BOARD ROOT INITRD ROOTS

PACKAGES: the packages of image/osroot.list, unpacked. PROGRAMS: directory of our programs. BOARD: a file of board/.
ROOTS: the fleet's chain of roots, whom the box trusts.
ROOT and INITRD are made. Every file there has a row in image/osroot.files or the board, or is a library that one needs.
"""
import glob
import lzma
import os
import pathlib
import shutil
import subprocess
import sys

LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd", "usr/lib")


def rows(path):
    """The rows of a table, as lists of words."""
    for line in pathlib.Path(path).read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            yield words


def board_rows(path):
    return {words[0]: words[1:] for words in rows(path)}


def needed(path):
    """Names of the libraries that an ELF file needs; none for another file."""
    with open(path, "rb") as f:
        if f.read(4) != b"\x7fELF":
            return []
    out = subprocess.run(["readelf", "-dW", path], check=True, capture_output=True, text=True).stdout
    return [line.split("[")[1].rstrip("]") for line in out.splitlines() if "(NEEDED)" in line]


def modules_in_order(depends, names, have):
    """Paths of the modules `names` and what they depend on, each after what it needs; built-in ones are left out."""
    by_name = {pathlib.Path(p).name.split(".")[0].replace("-", "_"): p for p in depends}
    order = []

    def visit(path):
        if path in order:
            return
        for other in depends[path]:
            visit(other)
        order.append(path)

    for name in names:
        key = name.replace("-", "_")
        if key in by_name:
            visit(by_name[key])
        elif key not in have:
            sys.exit(f"pick: the kernel has no module {name}")
    return order


def parse_depends(text):
    """modules.dep: PATH: PATH..., the nearest need last."""
    depends = {}
    for line in text.splitlines():
        path, _, rest = line.partition(":")
        depends[path] = rest.split()[::-1]
    return depends


class Tree:
    def __init__(self, packages, programs, board, top, roots=None):
        self.packages, self.programs, self.board, self.top, self.roots = packages, programs, board, pathlib.Path(top), roots
        shutil.rmtree(self.top, ignore_errors=True)
        self.top.mkdir(parents=True)

    def put(self, data, path, mode=0o644):
        to = self.top / path.lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(data)
        to.chmod(mode)

    def copy(self, source, path, mode):
        if (self.top / path.lstrip("/")).exists():
            return
        self.put(pathlib.Path(source).read_bytes(), path, mode)
        for name in needed(source):
            self.library(name)

    def library(self, name):
        for where in LIBRARIES:
            source = self.packages / where / name
            if source.exists():
                return self.copy(source.resolve(), f"{where}/{name}", 0o755)
        if name.startswith("ld-linux"):
            return None
        sys.exit(f"pick: no package of image/osroot.list has {name}")

    def row(self, kind, path, *rest):
        to = self.top / path.lstrip("/")
        if kind == "file":
            source = (self.packages / path.lstrip("/")).resolve()
            self.copy(source, path, 0o755 if needed(source) or ".so" in path else 0o644)
        elif kind == "program":
            self.copy(self.programs / path, f"/usr/bin/{path}", 0o755)
        elif kind == "text":
            text = pathlib.Path(rest[0]).read_text()
            tpm = self.board.get("tpm")
            for mark, value in (("@daemon-options@", " ".join(self.board.get("daemon-options", []))),
                                ("@tpm@", f"--tpm {tpm[0]}" if tpm else "")):
                text = text.replace(mark, value)
            self.put(text.encode(), path)
        elif kind == "roots":
            self.put(self.roots.read_bytes(), path)
        elif kind == "dir":
            to.mkdir(parents=True)
            to.chmod(int(rest[0], 8))
        elif kind == "link":
            to.parent.mkdir(parents=True, exist_ok=True)
            to.symlink_to(rest[0])
        else:
            sys.exit(f"pick: no such kind of row: {kind}")

    def modules(self, order, source, list_path):
        """Unpacked, because PID 1 hands them to the kernel as they are (their signatures are inside)."""
        lines = []
        for path in order:
            name = pathlib.Path(path).name.removesuffix(".xz")
            data = (source / path).read_bytes()
            self.put(lzma.decompress(data) if path.endswith(".xz") else data, f"/usr/lib/modules/{name}")
            lines.append(f"/usr/lib/modules/{name}\n")
        self.put("".join(lines).encode(), list_path)


def main(packages, programs, board, root, initrd, roots):
    packages, programs, board = pathlib.Path(packages), pathlib.Path(programs), board_rows(board)
    tree = Tree(packages, programs, board, root, pathlib.Path(roots))
    for words in rows("image/osroot.files"):
        tree.row(*words)
    (source,) = [pathlib.Path(p) for p in glob.glob(str(packages / "usr/lib/modules/*"))]
    subprocess.run(["depmod", "-b", packages, source.name], check=True)
    depends = parse_depends((source / "modules.dep").read_text())
    built_in = {pathlib.Path(p).name.split(".")[0].replace("-", "_")
                for p in (source / "modules.builtin").read_text().splitlines()}
    early = modules_in_order(depends, board["initrd-modules"], built_in)
    late = modules_in_order(depends, board["root-modules"], built_in)
    tree.modules([m for m in late if m not in early], source, "/usr/lib/kotobako/modules.list")
    first = Tree(packages, programs, board, initrd)
    first.put((programs / "kotobako-init").read_bytes(), "/init", 0o755)
    first.modules(early, source, "/modules.list")
    for name in ("dev", "proc", "sys", "root"):
        (first.top / name).mkdir()
    for directory, _, _ in os.walk(root):  # whatever the umask was
        if not any(os.path.samefile(directory, tree.top / p) for p in ("tmp",)):
            os.chmod(directory, 0o755)


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
