#!/usr/bin/env python3
# What the built root holds, read back out of the erofs image by fsck.erofs: no shell or interpreter, nothing setuid,
# every program and library position independent with full RELRO, every file owned by root, small enough for its slot.
import os
import pathlib
import re
import stat
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import OUT, TMP, check, finish  # noqa: E402

LIMIT_MIB = 350
OURS = {"kotobako", "kotobako-boot", "kotobako-disk", "kotobako-engine", "kotobako-init", "kotobako-net", "kotobakod"}
DEBIANS = {"systemd-cryptenroll"}  # of Debian's, what opens the disk
LINKS = {"kotobako-net-hook"}
SBIN = {"avahi-daemon", "dhcpcd", "mke2fs"}
# Names of shells, interpreters and of programs that are one in disguise.
INTERPRETERS = re.compile(r"^(sh|bash|dash|ash|zsh|ksh|csh|tcsh|fish|busybox|toybox|perl|python|ruby|lua|tclsh|awk|gawk|mawk|"
                          r"sed|ed|vi|vim|gdb|node|php|guile|env|xargs|find|su|sudo|login|getty|agetty)[\d.]*$")


def is_elf(path):
    with open(path, "rb") as f:
        return f.read(4) == b"\x7fELF"


def readelf(path, *options):
    return subprocess.run(["readelf", "-W", *options, path], check=True, capture_output=True, text=True).stdout


def binds_lazily(dynamic):
    """Its jump table stays writable. (A library without such a table has nothing to bind.)"""
    return "(JMPREL)" in dynamic and not re.search(r"BIND_NOW|FLAGS_1.*NOW", dynamic)


def elf_faults(path):
    """What is wrong with a program or library; modules (ET_REL) are the kernel's own kind."""
    head, dynamic, segments = readelf(path, "-h"), readelf(path, "-d"), readelf(path, "-l")
    if "REL (Relocatable file)" in head:
        return [] if path.suffix == ".ko" else ["a relocatable file"]
    faults = [] if "DYN (" in head else ["not position independent"]
    faults += [] if "GNU_RELRO" in segments else ["no RELRO"]
    faults += ["binds lazily"] if path.name in OURS and binds_lazily(dynamic) else []
    faults += ["an executable stack"] if re.search(r"GNU_STACK.* RWE", segments) else []
    # One inside the verified root is relative to the library itself, or Debian's folder for systemd's.
    faults += ["a run path"] if re.search(r"\((RPATH|RUNPATH)\).*\[(?!\$ORIGIN|/usr/lib/x86_64-linux-gnu/systemd\])", dynamic) else []
    return faults


def main():
    # The tables must be able to find what they look for: each on a known offender of this build root.
    check("a shell would be found", INTERPRETERS.match("dash") and INTERPRETERS.match("python3.13"))
    relocatable = TMP / "x.o"
    relocatable.write_bytes(next(pathlib.Path("build/release/obj/firmware/init").glob("*.o")).read_bytes())
    check("an ELF file of another kind would be found", elf_faults(relocatable) != [])
    root = TMP / "root"
    subprocess.run(["fsck.erofs", f"--extract={root}", "--preserve", OUT / "root.img"], check=True, capture_output=True)
    files = [pathlib.Path(d) / n for d, _, names in os.walk(root) for n in names]
    plain = [f for f in files if not f.is_symlink()]
    check("the image has files", len(plain) > 50, len(plain))
    programs = {f.name for f in plain if f.parent == root / "usr/bin"}
    check("/usr/bin holds our programs and those that make the disk", programs == OURS | DEBIANS, programs)
    sbin = {f.name for f in plain if f.parent == root / "usr/sbin"}
    check("...and /usr/sbin", sbin == SBIN, sbin)
    check("no shell, no interpreter", not (bad := [f.name for f in files if INTERPRETERS.match(f.name)]), bad)
    scripts = [f for f in plain if f.read_bytes()[:2] == b"#!"]
    check("no script", not scripts, scripts)
    modes = [(f, oct(s.st_mode)) for f in [root, *files] if (s := f.lstat()).st_mode & (stat.S_ISUID | stat.S_ISGID)]
    check("nothing setuid or setgid", not modes, modes)
    writable = [f for f in plain if f.lstat().st_mode & 0o022]
    check("no file that others may write", not writable, writable)
    odd = [f for f in files if not (stat.S_ISREG(m := f.lstat().st_mode) or stat.S_ISLNK(m))]
    check("no device, socket or pipe", not odd, odd)
    owners = {(f.lstat().st_uid, f.lstat().st_gid) for f in files}
    check("everything is root's", os.geteuid() != 0 or owners == {(0, 0)}, owners)
    executable = [f for f in plain if f.lstat().st_mode & 0o111 and not is_elf(f)]
    check("what may be run is ELF", not executable, executable)
    elf = [f for f in plain if is_elf(f)]
    faults = {str(f.relative_to(root)): e for f in elf if (e := elf_faults(f))}
    check(f"{len(elf)} ELF files: position independent, RELRO, no executable stack, ours bound at start", not faults, faults)
    lazy = [f.name for f in elf if f.suffix != ".ko" and binds_lazily(readelf(f, "-d"))]
    # Issue 6 wants full RELRO of all. Debian builds most libraries without -z now; said here, not hidden.
    print(f"# {len(lazy)} libraries of Debian have partial RELRO only: {' '.join(sorted(lazy))}", flush=True)
    size = (OUT / "root.img").stat().st_size / 2**20
    check(f"the root is {size:.0f} MiB, at most {LIMIT_MIB}", size <= LIMIT_MIB)
    cmdline = (OUT / "app_a.cmdline").read_text()
    check("the command line locks the kernel down", "lockdown=integrity" in cmdline.split(), cmdline)
    finish()


main()
