#!/usr/bin/env python3
# Updates of the system on the real chain: firmware, loader, TPM, disk. A good one comes by stick, proves itself with a token of a
# model, and starts by itself from then on; then each row of the bad-update matrix: the box is back on the old system, or never
# left it, says why, and does not try again. The table's limits: two starts more than a good update, and 120 s.
import os
import pathlib
import re
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import KEYS, OUT, TMP, check, finish  # noqa: E402
from boot_test import first_token  # noqa: E402
from disk_test import Boot  # noqa: E402
from run_image import fetch_client  # noqa: E402
from system import make_system, program_that_hangs  # noqa: E402
from tamper_test import first_block, partition  # noqa: E402
from vm import make_stick, make_vars, run  # noqa: E402

BACK_S = float(os.environ.get("KB_BACK_S", "120"))  # from the restart into the bad system to the old one's services
TRIAL_S = 300
STARTS = "EFI stub: UEFI Secure Boot is enabled|stage recovery"


class Box:
    """A disk with its firmware's variables and TPM, to be copied."""

    def __init__(self, name):
        self.name, self.disk, self.vars, self.tpm = name, TMP / f"{name}.img", TMP / f"{name}.fd", TMP / f"{name}.tpm"

    def copy(self, name):
        other = Box(name)
        run("cp", "--sparse=always", self.disk, other.disk)
        shutil.copy(self.vars, other.vars)
        shutil.copytree(self.tpm, other.tpm)
        return other

    def boot(self, stick=None, reboot=True):
        shutil.copy(self.vars, TMP / "vars.fd") if self.vars.exists() else make_vars(KEYS, TMP / "vars.fd")
        return Boot(self.name, self.disk, self.tpm.name, stick, reboot)

    def keep_vars(self):
        shutil.copy(TMP / "vars.fd", self.vars)

    def remove(self):
        self.disk.unlink()
        self.vars.unlink(missing_ok=True)
        shutil.rmtree(self.tpm)


def count(b, pattern):
    return sum(1 for _, line in b.vm.lines if re.search(pattern, line))


def off(b, box):
    good = b.off()
    box.keep_vars()
    return good


def stick_with(*systems):
    stick = TMP / "stick.img"
    make_stick(stick, files={f"system/{s.name}": s for s in systems})
    return stick


def test_first(client, image=OUT / "disk.img"):
    """A box as it is after its first day: paired, with a model."""
    box, stick = Box("old"), TMP / "stick.img"
    run("cp", "--sparse=always", image, box.disk)
    make_stick(stick, sorted((OUT / "models").glob("*.kbm")))
    with box.boot(stick) as b:
        check("a box is set up", b.comes("stage models: done"), b.vm.text()[-900:])
        check("its firmware gets two entries", b.comes("boot entries were brought up to date"))
        fetch_client(stick, client)
        check("power off", off(b, box))
    said = run("virt-fw-vars", "--input", box.vars, "--print", "--verbose")
    check("...as another program reads them", "Kotobako recovery" in said and "recovery.efi" in said, said[-900:])
    return box


def test_good(old, client):
    new = make_system("good", 2)
    box = old.copy("new")
    with box.boot(stick_with(new)) as b:
        check("a new system is written and read back", b.comes("system version 2 is written"), b.vm.text()[-900:])
        check("it is started on trial", b.comes("stage trial: this system has to prove itself"), b.vm.text()[-900:])
        check("it proves itself by a token", b.vm.wait_line("stage proven", TRIAL_S) is not None and "a model gives tokens" in b.vm.text(),
              b.vm.text()[-900:])
        check("power off", off(b, box))
    with box.boot() as b:
        check("it starts by itself from then on", b.comes("listens on 0.0.0.0") and "root_b on" in b.vm.text() and
              "stage trial" not in b.vm.text(), b.vm.text()[-900:])
        status, _, answer = first_token(client, b.port)
        check("the client and the model of before are there", status == 200 and answer, (status, answer))
        check("power off", off(b, box))
    # What is there already, and older ones, are not taken.
    with box.boot(stick_with(make_system("old", 1))) as b:
        check("an older one is not taken", b.comes("is older than the one that runs"), b.vm.text()[-900:])
        check("power off", off(b, box))
    box.remove()


def fill_esp(box):
    at = f"{box.disk}@@{partition(box.disk, 'esp')}"
    with open(TMP / "filler", "wb") as f:
        f.write(b"x" * ((128 - 26 - 8) << 20))
    run("mcopy", "-i", at, TMP / "filler", "::/filler")


def no_services(tree):
    row = re.compile(r"^kotobakod (\d+) always \S+", re.M)
    path = tree / "etc/kotobako/services"
    path.write_text(row.sub(r"kotobakod \1 always /usr/bin/kotobako-disk", path.read_text()))


def put_init(data):
    def edit(tree):
        (tree / "usr/bin/kotobako-init").write_bytes(data)
    return edit


def no_module(tree):
    path = tree / "modules.list"
    path.write_text("".join(x for x in path.read_text().splitlines(True) if "virtio_blk" not in x))


def no_engine(tree):
    (tree / "usr/bin/kotobako-engine").unlink()


def hurried(line):
    """The board's row gives an emulated processor five minutes; these need not wait for them."""
    return re.sub(r"kb\.trial=\d+", "kb.trial=40", line)


# name: how it is made, what the console says of it, prepared how. TRIED: it is started, and the old one is back; else it is refused.
BAD = {
    "panic": (dict(cmdline=lambda s: s + " rdinit=/nothing"), "its kernel did not start"),
    "hang": (dict(root=put_init(program_that_hangs())), "its root was verified, its services did not start"),
    "init ends": (dict(root=lambda t: shutil.copy(t / "usr/bin/kotobako-boot", t / "usr/bin/kotobako-init")),
                  "its root was verified, its services did not start"),
    "root damaged": (dict(flip="init"), "its root was"),
    "kernel torn": (dict(kernel=lambda data: data[:len(data) // 2]), "the firmware did not start app_b.efi"),
    "another key": (dict(key="x"), "the firmware did not start app_b.efi"),
    "a module missing": (dict(initrd=no_module), "no disk has a partition named root_b"),
    "no engine": (dict(root=no_engine, cmdline=hurried), "the model gave no token|did not prove itself in time"),
    "no daemon": (dict(root=no_services, cmdline=hurried), "it did not prove itself in time"),
    "out of memory": (dict(cmdline=lambda s: hurried(s) + " mem=220M"), "prove itself in time|did not prove itself|did not start|did not come back|gave no token|not verified"),
}
REFUSED = {
    "another board": (dict(board="intel-n100"), "holds no system image for the board"),
    "below the floor": (dict(version=1), "is older than the one that runs|runs already"),
}


def test_bad(old, what, how, reason):
    name = what.replace(" ", "-")
    if how.get("key") == "x":
        run("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=stranger/",
            "-keyout", KEYS / "x.key", "-out", KEYS / "x.pem")
    if how.get("flip") == "init":
        how = dict(flip=first_block("/usr/bin/kotobako-init") + 100)
    box = old.copy(name)
    with box.boot(stick_with(make_system(name, **how))) as b:
        check(f"{what}: it is written", b.comes("is written and read back"), b.vm.text()[-900:])
        began = b.vm.wait_line("stage restart", 60) or 0
        b.vm.wait_line("is not started: |runs again: ", BACK_S + 240)
        back = next((when for when, line in b.vm.lines if when > began and re.search("root_a on", line)), None)
        check(f"{what}: the old system is back", back is not None and b.vm.wait_line("tried before and did not prove itself", 60) is not None,
              b.vm.text()[-1500:])
        starts = sum(1 for when, line in b.vm.lines if when > began and re.search(STARTS, line))
        said = [line for _, line in b.vm.lines if line.startswith("system: ")]
        check(f"{what}: the reason is kept and said", any(re.search(reason, line) for line in said), (said, b.vm.text()[-900:]))
        seconds = (back or 0) - began
        check(f"{what}: by {starts} starts, {seconds:.0f} s", starts <= 3 and 0 < seconds <= BACK_S, (starts, seconds))
        check(f"{what}: power off", off(b, box))
    box.remove()
    (TMP / f"{name}.kbm").unlink()
    for suffix in ("key", "pem"):
        (KEYS / f"x.{suffix}").unlink(missing_ok=True)


def test_refused(old, what, how, reason):
    name = what.replace(" ", "-")
    box = old.copy(name)
    with box.boot(stick_with(make_system(name, **how))) as b:
        check(f"{what}: refused, with the reason", b.comes(reason) and b.comes("stage system: "), b.vm.text()[-900:])
        check(f"{what}: nothing was started anew", count(b, STARTS) == 1 and off(b, box))
    box.remove()


def test_full(old):
    box = old.copy("full")
    fill_esp(box)
    with box.boot(stick_with(make_system("full", 2))) as b:
        check("full boot partition: it is said", b.comes("No space left on device") and b.comes("service arm: ended with 1"), b.vm.text()[-900:])
        check("full boot partition: the old system goes on", b.comes("ready after") and count(b, STARTS) == 1, b.vm.text()[-900:])
        check("power off", off(b, box))
    with box.boot() as b:
        check("full boot partition: the reason is kept", b.comes("is not started: its kernel could not be written") and
              b.comes("listens on 0.0.0.0"), b.vm.text()[-900:])
        check("power off", off(b, box))
    box.remove()


def main():
    only = os.environ.get("KB_ONLY")  # one row, while it is worked on
    client = TMP / "client"
    began = time.monotonic()
    old = test_first(client)
    if not only or only == "good":
        test_good(old, client)
    for what, (how, reason) in BAD.items():
        if not only or only == what:
            test_bad(old, what, how, reason)
    for what, (how, reason) in REFUSED.items():
        if not only or only == what:
            test_refused(old, what, how, reason)
    if not only or only == "full":
        test_full(old)
    print(f"# {time.monotonic() - began:.0f} s")
    finish()


if __name__ == "__main__":
    main()
