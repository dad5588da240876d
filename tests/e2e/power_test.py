#!/usr/bin/env python3
"""The power fails while a model is being installed. What the installer does to the disk is recorded (record_io.c); from that,
states are built that a disk could be in at random points (disk_model.py). And the installer is killed at random
operations, a part of one done. After each: the store opens, the log is unbroken, the old model or the new one is active and
intact - the new one if the installer had said so -, the install is done again, and no file is left that nobody names.
KB_POWER_STATES (500) says how many of each. Prints TAP.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess

import fleet
from disk_model import RENAME, SYNC, TRUNCATE, WRITE, Disk, records, snapshot
from fleet import CLI, ENV, TMP, Fleet, check, good

STATES = int(os.environ.get("KB_POWER_STATES", "500"))
PRELOAD = pathlib.Path(os.environ.get("KB_BIN", "build/release")) / "test/record_io.so"
SECTOR = 512
PLACE = TMP / "place"  # every state is looked at under this name


def place(files):
    shutil.rmtree(PLACE, ignore_errors=True)
    for d in ("models/store", "models/incoming"):
        (PLACE / d).mkdir(parents=True)
    for path, data in files.items():
        if not path.endswith("-lock") or path == "lock":
            pathlib.Path(path).write_bytes(data)


def install(image, **env):
    return subprocess.run([CLI, "model", "install", image], capture_output=True, text=True, timeout=120,
                          env={**ENV, "KB_STATE": str(PLACE), **env})


def look(image, new, must_be_new):
    """None, or what is wrong with the state that lies there."""
    try:
        models = {m["name"]: m.get("version", m) for m in json.loads(good("model", "list", "--json", state=PLACE))}
        if models.get("m") not in ((new,) if must_be_new else (new - 1, new)) or models.get("other") != 1:
            return f"active: {models}, must be new: {must_be_new}"
        for name in ("m", "other"):
            digest = good("model", "digest", name, state=PLACE).split()
            if digest[0][7:] != pathlib.Path(digest[1]).name[:-4]:
                return f"{name}: its file is not what its name says"
            good("model", "verify", name, state=PLACE)
        good("audit", "verify", state=PLACE)
        r = install(image)
        if r.returncode:
            return f"the install cannot be done again: {r.stderr}"
        models = {m["name"]: m.get("version", m) for m in json.loads(good("model", "list", "--json", state=PLACE))}
        if models != {"m": new, "other": 1}:
            return f"after the install: {models}"
        left = [p.name for d in ("store", "incoming") for p in (PLACE / "models" / d).iterdir() if p.name != "lock"]
        if len(left) != 3:  # m, m before, other
            return f"files that nobody names: {left}"
    except SystemExit:
        return "it cannot be read"
    return None


def main():
    rng = random.Random(20261127)
    f = Fleet()
    PLACE.mkdir()
    first, image = f.image("m", 1, rows=8192, cols=512), f.image("m", 2, rows=8192, cols=512)
    good("root", "trust", f.chain, state=PLACE)
    for i in (first, f.image("other", 1, seed=9)):
        good("model", "install", i, state=PLACE)
    before, log = snapshot(PLACE), TMP / "operations"
    r = install(image, LD_PRELOAD=str(PRELOAD.resolve()), KB_RECORD=str(log), KB_RECORD_DIR=str(PLACE))
    operations = list(records(log))
    kinds = [o[0] for o in operations]
    after = snapshot(PLACE)
    check("an install is recorded", r.returncode == 0 and len(operations) > 12 and {WRITE, TRUNCATE, SYNC, RENAME} <= set(kinds),
          (r.stderr, kinds))
    whole = Disk(before)
    for o in operations:
        whole.do(*o)
    seen = {p: bytes(whole.certain[i]) for p, i in whole.certain_names.items()}
    differs = [p for p in after if not p.endswith("lock") and seen.get(p) != after[p]]
    check("and the record explains what lies on the disk, all of it synced", not differs and
          not any(whole.pending.values()), (differs, set(after) ^ set(seen)))

    wrong = []
    for i in range(STATES):
        cut = rng.randint(0 if i % 2 else len(operations) - 4, len(operations))  # most is decided at the end
        disk = Disk(before)
        for o in operations[:cut]:
            disk.do(*o)
        place(disk.after_cut(rng))
        fault = look(image, 2, cut == len(operations))
        if fault:
            wrong.append((cut, operations[cut - 1][:3] if cut else None, fault))
    check(f"{STATES} power cuts: nothing lost, nothing half done", not wrong, wrong[:3])

    wrong, killed = [], 0
    for i in range(STATES):
        place(before)
        r = install(image, LD_PRELOAD=str(PRELOAD.resolve()), KB_RECORD_DIR=str(PLACE),
                    KB_KILL_AT=str(rng.randint(1, len(operations))), KB_KILL_PART=str(rng.randint(0, 1000)))
        killed += r.returncode == -signal.SIGKILL
        fault = look(image, 2, r.returncode == 0)
        if fault:
            wrong.append((i, r.returncode, fault))
    check(f"{STATES} kills: the same", not wrong and killed > STATES * 0.9, (killed, wrong[:3]))
    fleet.done()


main()
