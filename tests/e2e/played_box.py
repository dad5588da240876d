"""A box of two slots, played in a folder (kotobako-boot --under): the firmware, systemd-boot and PID 1 are this file, what they
start are the real programs. A kernel here is a text with its own SHA-256 behind it, which stands for its signature: a torn one
is refused. It names the root that it belongs to by its hash, as the real one's command line does.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess

from disk_model import EVERYTHING, SYNC, TRUNCATE, UNLINK, WRITE, record
from fleet import CLI, ENV, TMP, cli, good

BIN = pathlib.Path(os.environ.get("KB_BIN", "build/release"))
BOARD, SLOT_BYTES = "box", 1 << 18
LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
OWN = "b2d4f3a0-8f4e-4a55-9d0c-6b6f746f6261"
DEFAULT, ONE_SHOT = f"LoaderEntryDefault-{LOADER}", f"LoaderEntryOneShot-{LOADER}"
TRIAL, RECOVERIES = f"KotobakoTrial-{OWN}", f"KotobakoRecoveries-{OWN}"
STARTS_MAX = 12  # more than any update or fault needs
RESTART, ON_TRIAL = 10, 20


def root_of(version):
    return hashlib.shake_256(b"root %d" % version).digest(100_000 + version * 1000)


def kernel_of(slot, version, root=None):
    text = f"{slot} {version} {hashlib.sha256(root or root_of(version)).hexdigest()}\n".encode()
    text += hashlib.shake_256(text).digest(20_000)
    return text + hashlib.sha256(text).digest()


def is_signed(kernel):
    return len(kernel) > 32 and hashlib.sha256(kernel[:-32]).digest() == kernel[-32:]


def system_image(f, version, key="system", board=BOARD, floor=None, root=None, name=""):
    """A signed system image of fleet f."""
    out = f.dir / f"system{name}-{version}-{len(list(f.dir.glob('system*.kbm')))}.kbm"
    parts = {"root": root or root_of(version), "kernel-a": kernel_of("a", version, root), "kernel-b": kernel_of("b", version, root)}
    args = []
    for part, data in parts.items():
        (f.dir / part).write_bytes(data)
        args += [f"--{part}", f.dir / part]
    good("os", "build", out, "--board", board, "--version", version, "--roots", f.chain, *args,
         *(("--floor", floor) if floor else ()), TMPDIR=str(TMP))
    if key:
        good("image", "sign", out, "--key", f.dir / key)
    return out


class Box:
    def __init__(self, folder, chain=None):
        self.dir = pathlib.Path(folder)
        self.vars, self.esp, self.state = (self.dir / n for n in ("vars", "esp", "state"))
        self.preload = {}  # environment of what is started
        self.log = None  # what this file does to the disk is written there too, as record_io.c does
        if chain:
            self.make(chain)

    def make(self, chain):
        """Version 1 in slot a, as an installer leaves it."""
        for d in (self.vars, self.esp / "EFI/Linux", self.esp / "loader", self.state / "models", self.state / "os"):
            d.mkdir(parents=True)
        (self.esp / "EFI/Linux/app_a.efi").write_bytes(kernel_of("a", 1))
        (self.esp / "loader/loader.conf").write_text("timeout 0\neditor no\ndefault app_a.efi\n")
        (self.dir / "slot_a").write_bytes(root_of(1).ljust(SLOT_BYTES, b"\0"))
        (self.dir / "slot_b").write_bytes(bytes(SLOT_BYTES))
        self.dress()
        good("root", "trust", chain, state=self.state)

    def dress(self):
        """What is not on the disk: kotobako, whose health check is played (the file `check` says how it ends)."""
        (self.dir / "kotobako").write_text(
            "#!/bin/sh\ncase \"$*\" in\n*' check') [ ! -f $0-sick ] || { \"$KB_CLI\" --state \"$2\" os --boot \"$5\" failed "
            "\"$(cat $0-sick)\"; exit 1; } ;;\n*) exec \"$KB_CLI\" \"$@\" ;;\nesac\n")
        (self.dir / "kotobako").chmod(0o755)

    def sick(self, why):
        path = self.dir / "kotobako-sick"
        path.write_text(why) if why else path.unlink(missing_ok=True)

    # --- the firmware

    def variable(self, name):
        path = self.vars / name
        return path.read_bytes()[4:] if path.exists() else b""

    def text(self, name):
        return self.variable(name).decode("utf-16-le").partition("\0")[0]

    def note(self, kind, path, data=b""):
        if self.log:
            with open(self.log, "ab") as f:
                f.write(record(kind, path, data))

    def set(self, name, value):
        (self.vars / name).write_bytes(b"\7\0\0\0" + value)
        self.note(TRUNCATE, self.vars / name)
        self.note(WRITE, self.vars / name, b"\7\0\0\0" + value)

    def set_text(self, name, text):
        self.set(name, (text + "\0").encode("utf-16-le"))

    def by_itself(self):
        """What systemd-boot starts where nothing else was asked for."""
        lines = (self.esp / "loader/loader.conf").read_text().splitlines() if (self.esp / "loader/loader.conf").exists() else []
        return self.text(DEFAULT) or next((x.split()[1] for x in lines if x.startswith("default ")), "app_a.efi")

    def selected(self):
        entry = self.text(ONE_SHOT) or self.by_itself()
        (self.vars / ONE_SHOT).unlink(missing_ok=True)
        self.note(UNLINK, self.vars / ONE_SHOT)
        return entry

    def recovery(self, entry):
        """firmware/init/trial.c; its rule is tested there (init/table_test.c)."""
        n = (self.variable(RECOVERIES) or b"\0")[0] + 1
        assert n <= 4, "the recovery kernel gives up: neither slot starts"
        if entry == self.text(DEFAULT) or not self.text(DEFAULT):
            self.set_text(DEFAULT, "app_a.efi" if entry == "app_b.efi" else "app_b.efi")
        self.set(RECOVERIES, bytes([n]))
        self.set_text(TRIAL, f"the firmware did not start {entry}")

    # --- PID 1

    def run(self, word):
        return subprocess.run([BIN / "kotobako-boot", "--under", self.dir, word], capture_output=True, text=True, timeout=60,
                              env={**ENV, "KB_CLI": CLI, **self.preload})

    def start(self):
        """One start, to its end: None where the box restarts, else (slot, version)."""
        entry = self.selected()
        path = self.esp / "EFI/Linux" / entry
        kernel = path.read_bytes() if path.exists() else b""
        if not is_signed(kernel):
            return self.recovery(entry)
        slot, version, root = kernel.split(b"\n")[0].decode().split()
        on_trial = self.text(DEFAULT) and self.text(DEFAULT) != entry
        if on_trial:
            self.set_text(TRIAL, "its kernel started, its root was not verified")
        have = (self.dir / f"slot_{slot}").read_bytes()
        if hashlib.sha256(have[:len(root_of(int(version)))]).hexdigest() != root:
            return None  # a panic
        if on_trial:
            self.set_text(TRIAL, "its root was verified, its services did not start")
        (self.dir / "cmdline").write_text(f"kb.root=root_{slot} kb.version={version} kb.board={BOARD}\n")
        self.said = self.run("start")
        if self.said.returncode == ON_TRIAL and self.run("check").returncode:
            return None
        if self.said.returncode not in (0, ON_TRIAL):
            raise RuntimeError(f"kotobako-boot start: {self.said.returncode} {self.said.stderr}")
        if (self.state / "os/arm").exists() and self.said.returncode == 0:
            self.said = self.run("arm")
            if self.said.returncode == RESTART:
                return None
        return slot, int(version)

    def settle(self):
        """Starts until it stays up: (slot, version, how many starts)."""
        for n in range(1, STARTS_MAX + 1):
            up = self.start()
            self.note(SYNC, EVERYTHING)  # it goes down in order, or stays up for hours
            if up:
                return (*up, n)
        raise RuntimeError("it does not come up")

    def install(self, image, *args, **env):
        return cli("os", "install", image, "--boot", self.dir / "boot", *args, state=self.state, **env)

    def os(self, *args, **env):
        return cli("os", *args, "--boot", self.dir / "boot", state=self.state, **env)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)
