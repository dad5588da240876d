#!/usr/bin/env python3
# The encrypted partition: made at the first start, opened by the TPM for the kernel that was measured, by the recovery key
# on a stick where the TPM is another one; nothing of it is readable from outside; a factory reset destroys its keys for
# whoever has the recovery key; what is not ours is not touched.
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import KEYS, OUT, TMP, check, finish  # noqa: E402
from boot_test import first_token  # noqa: E402
from run_image import fetch_client, free_port  # noqa: E402
from tamper_test import partition, replaced  # noqa: E402
from vm import Vm, make_stick, make_vars, run  # noqa: E402

BOOT_S = 240
NO_TPM = "the TPM does not open this disk"
RECOVERY_KEY = r"disk: +((?:[cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8})"


class Boot:
    """One start of the box, to be closed; off: by its power button."""

    def __init__(self, name, disk, tpm, stick=None, reboot=False):
        self.port = free_port()
        self.vm = Vm(disk, TMP / "vars.fd", self.port, stick=stick, log=TMP / f"{name}.log", tpm=TMP / tpm, reboot=reboot)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vm.close()

    def comes(self, pattern):
        return self.vm.wait_line(pattern, BOOT_S) is not None

    def off(self):
        self.vm.power_button()
        return self.vm.wait_line("init: stage off", 60) is not None and self.vm.wait_off(30) == 0


def state_of(disk):
    """Where the partition lies in the disk's image, and how long it is."""
    table = json.loads(run("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    part = next(p for p in table if p.get("name") == "state")
    return part["start"] * 512, part["size"] * 512


def holds(path, needle, at=0, size=None):
    """Whether a file has these bytes, holes passed over."""
    with open(path, "rb") as f:
        end = at + size if size else os.stat(path).st_size
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return False
            piece = os.pread(f.fileno(), (1 << 20) + len(needle), at)
            if needle in piece:
                return True
            at += 1 << 20
    return False


def test_first(disk, stick, client):
    make_stick(stick, sorted((OUT / "models").glob("*.kbm")))
    with Boot("first", disk, "tpm", stick) as b:
        check("the partition is made, and the TPM gets its slot", b.comes("New TPM2 token enrolled"), b.vm.text()[-900:])
        check("the model is installed on it", b.comes("stage models: done"), b.vm.text()[-900:])
        keys = re.findall(RECOVERY_KEY, b.vm.text())
        check("the recovery key is shown, once", len(keys) == 1, keys)
        fetch_client(stick, client)
        check("power off", b.off())
    return keys[0] if keys else ""


def test_outside(disk, stick, client):
    model = next((OUT / "models").glob("*.kbm")).read_bytes()
    begin, size = state_of(disk)
    needles = {"a model's weights": model[len(model) // 2:][:64], "the box's authority": (client / "ca.pem").read_bytes()[100:164]}
    for what, needle in needles.items():
        check(f"{what}: what is looked for would be found, the stick has it", holds(stick, needle))
        check(f"{what} cannot be read from outside", not holds(disk, needle, begin, size))
    with open(disk, "rb") as f:
        f.seek(begin)
        check("it is LUKS", f.read(6) == b"LUKS\xba\xbe")


def test_kernel(disk):
    """A kernel that Secure Boot lets through, whose command line our key has signed no policy for."""
    kernel = bytearray((OUT / "app_a.unsigned.efi").read_bytes())
    at = kernel.index(b"loglevel=5")
    kernel[at + 9] = ord("4")
    (TMP / "other.unsigned.efi").write_bytes(kernel)
    run("sbsign", "--key", KEYS / "db.key", "--cert", KEYS / "db.pem", "--output", TMP / "other.efi", TMP / "other.unsigned.efi")
    other = replaced("other-kernel", "EFI/Linux/app_a.efi", (TMP / "other.efi").read_bytes(), disk)
    with Boot("kernel", other, "tpm") as b:
        check("another kernel, though signed for Secure Boot, does not open it", b.comes(NO_TPM), b.vm.text()[-900:])
    other.unlink()


def test_recovery(disk, stick, client, key):
    wrong, right = TMP / "wrong.txt", TMP / "right.txt"
    wrong.write_text(key[::-1])
    right.write_text(key.replace("-", " ").upper() + "\r\n")
    make_stick(stick, files={"recovery-key.txt": wrong})
    with Boot("wrong-key", disk, "other-tpm", stick) as b:
        check("another TPM does not open it", b.comes(NO_TPM), b.vm.text()[-900:])
        check("nor does a wrong recovery key", b.comes("the recovery key does not open it") and "stage state" not in b.vm.text(),
              b.vm.text()[-900:])
    make_stick(stick, files={"recovery-key.txt": right})
    with Boot("right-key", disk, "other-tpm", stick) as b:
        check("the recovery key does", b.comes("opened by the recovery key"), b.vm.text()[-900:])
        check("the box takes the new TPM's counter", b.comes("belong together from now on") and b.comes("listens on 0.0.0.0"),
              b.vm.text()[-900:])
        status, _, answer = first_token(client, b.port)
        check("everything is there: the client of before, the model", status == 200 and answer, (status, answer))
        check("power off", b.off())
    with Boot("again", disk, "other-tpm") as b:
        check("from then on the new TPM opens it", b.comes("listens on 0.0.0.0") and NO_TPM not in b.vm.text(), b.vm.text()[-900:])
        check("power off", b.off())


def test_reset(disk, stick):
    make_stick(stick, files={"factory-reset/recovery-key.txt": TMP / "wrong.txt"})
    with Boot("no-reset", disk, "other-tpm", stick) as b:
        check("a factory reset wants the recovery key", b.comes("not this disk's") and b.comes("stage reset: not all"), b.vm.text()[-900:])
        check("power off", b.off())
    make_stick(stick, files={"factory-reset/recovery-key.txt": TMP / "right.txt"})
    with Boot("reset", disk, "other-tpm", stick, reboot=True) as b:
        check("with it the keys are destroyed", b.comes("the keys are destroyed"), b.vm.text()[-900:])
        check("...and the box starts anew, as at its first start", b.comes("first start: making the encrypted partition") and
              b.comes("no model is installed") and len(set(re.findall(RECOVERY_KEY, b.vm.text()))) == 1, b.vm.text()[-900:])
        # The stick is still in: its key is not the new disk's.
        check("...once", b.comes("not this disk's"), b.vm.text()[-900:])
        check("power off", b.off())


def test_foreign(disk):
    begin, _ = state_of(disk)
    with open(disk, "r+b") as f:
        f.seek(begin)
        head = f.read(1 << 20)
        damaged = head[:64] + bytes(b ^ 0xff for b in head[64:])  # both headers and all key slots
        f.seek(begin)
        f.write(damaged)
    with Boot("foreign", disk, "other-tpm") as b:
        check("headers that are damaged are left as they are", b.comes("it is left as it is"), b.vm.text()[-900:])
    with open(disk, "rb") as f:
        f.seek(begin)
        check("...every byte of them", f.read(1 << 20) == damaged)


def main():
    disk, stick, client = TMP / "disk.img", TMP / "stick.img", TMP / "client"
    run("cp", "--sparse=always", OUT / "disk.img", disk)
    make_vars(KEYS, TMP / "vars.fd")
    key = test_first(disk, stick, client)
    test_outside(disk, stick, client)
    test_kernel(disk)
    test_recovery(disk, stick, client, key)
    test_reset(disk, stick)
    test_foreign(disk)
    finish()


if __name__ == "__main__":
    main()
