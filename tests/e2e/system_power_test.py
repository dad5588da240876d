#!/usr/bin/env python3
"""The power fails during an update of the system, from the first byte that is written to the start after the trial; what a box
does is played in a folder (played_box.py), what the programs and the firmware do to the disk is recorded, and states are built
that it may be in (disk_model.py; the boot partition is FAT). And programs are killed at random operations. After each: the box
comes up by itself, within a few starts, as the old system or the new one, whole; the journal and the log can be read; the update
goes through when it is done again. KB_POWER_STATES (200) says how many states; a quarter as many kills. Prints TAP.
"""
import json
import os
import pathlib
import random
import shutil

import fleet
from disk_model import RENAME, SYNC, TRUNCATE, UNLINK, WRITE, Disk, records, snapshot
from fleet import TMP, Fleet, check, good
from played_box import BIN, DEFAULT, Box, kernel_of, root_of, system_image

STATES = int(os.environ.get("KB_POWER_STATES") or "200")
PRELOAD = str((BIN / "test/record_io.so").resolve())
PLACE = TMP / "place"
VOLATILE = ("boot", "cmdline", "kotobako", "kotobako-sick")  # not on the disk
STARTS_MAX = 5


def place(files):
    shutil.rmtree(PLACE, ignore_errors=True)
    for d in ("vars", "esp/EFI/Linux", "esp/loader", "state/models", "state/os"):
        (PLACE / d).mkdir(parents=True)
    for path, data in files.items():
        if not path.endswith("-lock"):
            pathlib.Path(path).write_bytes(data)
    b = Box(PLACE)
    b.dress()
    return b


def whole(b, slot, version):
    return (b.dir / f"slot_{slot}").read_bytes().startswith(root_of(version)) and \
        (b.esp / f"EFI/Linux/app_{slot}.efi").read_bytes() == kernel_of(slot, version)


def look(b, image, must_be_new):
    """None, or what is wrong with the state that lies there."""
    try:
        slot, version, starts = b.settle()
        if (slot, version) not in ((("b", 2),) if must_be_new else (("a", 1), ("b", 2))) or starts > STARTS_MAX:
            return f"slot {slot}, version {version}, {starts} starts; must be new: {must_be_new}"
        if not whole(b, slot, version) or b.by_itself() != f"app_{slot}.efi":
            return f"slot {slot} is not whole, or does not start by itself"
        good("audit", "verify", state=b.state)
        json.loads(b.os("status", "--json").out)
        r = b.install(image, "--again")
        if r.returncode:
            return f"the update cannot be done again: {r.err}"
        slot, version, starts = b.settle()
        if (slot, version) != ("b", 2) or not whole(b, "b", 2):
            return f"done again: slot {slot}, version {version}"
    except (SystemExit, RuntimeError, AssertionError, ValueError) as e:
        return f"{type(e).__name__}: {e}"
    return None


def record_update(b, image):
    """What a whole update does to the disk."""
    b.log = TMP / "operations"
    b.preload = {"LD_PRELOAD": PRELOAD, "KB_RECORD": str(b.log), "KB_RECORD_DIR": str(PLACE)}
    r = b.install(image, **b.preload)
    up = b.settle()
    check("an update is recorded", r.returncode == 0 and up == ("b", 2, 2), (r.err, up))
    return [o for o in records(b.log) if pathlib.Path(o[1]).name not in VOLATILE or "vars" in o[1]]


def build(before, operations):
    disk = Disk(before, fat=str(PLACE / "esp"), firmware=str(PLACE / "vars"))
    for o in operations:
        disk.do(*o)
    return disk


def is_explained(before, operations):
    disk = build(before, operations)
    seen = {p: bytes(disk.certain[i]) for p, i in disk.certain_names.items()}
    after = {p: d for p, d in snapshot(PLACE).items() if pathlib.Path(p).name not in VOLATILE}
    return [p for p in {*after, *seen} if not p.endswith("lock") and seen.get(p) != after.get(p)]


def test_cuts(rng, before, operations, image):
    turning = [i for i, o in enumerate(operations) if "/vars/" in o[1] or "/esp/" in o[1]]
    wrong = []
    for i in range(STATES):
        # Half of them where something turns: around what is done to variables and the boot partition.
        cut = rng.randint(0, len(operations)) if i % 2 else min(max(rng.choice(turning) + rng.randint(-1, 2), 0), len(operations))
        fault = look(place(build(before, operations[:cut]).after_cut(rng)), image, cut == len(operations))
        if fault:
            wrong.append((cut, operations[cut - 1][:3] if cut else None, fault))
    check(f"{STATES} power cuts of {len(operations)} operations: the box comes up, nothing is half done", not wrong, wrong[:3])


def test_kills(rng, before, image):
    wrong, killed = [], 0
    for i in range(STATES // 4):
        b = place(before)
        kill = {"LD_PRELOAD": PRELOAD, "KB_RECORD_DIR": str(PLACE), "KB_KILL_PART": str(rng.randint(0, 1000))}
        if i % 2:
            r = b.install(image, KB_KILL_AT=str(rng.randint(1, 50)), **kill)
            killed += r.returncode < 0
        else:
            b.install(image)
            b.preload = {**kill, "KB_KILL_AT": str(rng.randint(1, 5))}
            try:
                b.settle()
            except RuntimeError:
                killed += 1
            b.preload = {}
        fault = look(b, image, False)
        if fault:
            wrong.append((i, fault))
    check(f"{STATES // 4} kills: the same", not wrong and killed > STATES // 10, (killed, wrong[:3]))


def main():
    rng = random.Random(20261128)
    f = Fleet(system=("system",))
    image = system_image(f, 2)
    b = Box(PLACE, f.chain)
    b.settle()
    before = {p: d for p, d in snapshot(PLACE).items() if pathlib.Path(p).name not in VOLATILE}
    operations = record_update(b, image)
    kinds = {o[0] for o in operations}
    check("of every kind", kinds == {WRITE, TRUNCATE, SYNC, RENAME, UNLINK} and len(operations) > 100 and b.text(DEFAULT) == "app_b.efi",
          (kinds, len(operations)))
    differs = is_explained(before, operations)
    check("and the record explains what lies on the disk", not differs, differs)
    test_cuts(rng, before, operations, image)
    test_kills(rng, before, image)
    fleet.done()


main()
