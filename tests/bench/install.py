#!/usr/bin/env python3
"""What signing costs, in turns. Installing: `kotobako model install` of an image of 1 GB beside `sha256sum` of the same file and
`cp` of it, which is what one would do by hand with files of hashes; the installer also waits until all is on the disk. Loading: the engine's start, until its first token, with
the image proven by reading it, and without. Rows go to build/bench.json (record.py): `make bench-install`.
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
ROUNDS, SIZE = int(os.environ.get("KB_ROUNDS", "5")), 1 << 30
scratch = tempfile.TemporaryDirectory(dir="build")
os.environ["KB_TMP"] = str(pathlib.Path(scratch.name).resolve())
import fleet
import record
from fleet import CLI, ENV, TMP, Fleet, good

MODEL = "build/models/smollm2-135m-instruct.kbm"


def timed(*command, **more):
    began = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV, **more)
    return time.monotonic() - began


def by_hand(image, copy):
    """Their seconds: the hash of what came and the copy, and these and until the copy is on the disk, as the installer's is."""
    before = copy.with_suffix(".before")  # one is kept, as the box does: else the copy goes where pages are warm
    if copy.exists():
        copy.rename(before)
    copied = timed("sha256sum", image) + timed("cp", image, copy)
    return copied, copied + timed("sync", copy)


def installing(where, state):
    """where: what the file system is, for the table."""
    f = Fleet(name=f"fleet-{where}")
    good("root", "trust", f.chain, state=state)
    file = f.model("large")
    rng = random.Random(1)
    with open(file, "r+b") as out:
        out.seek(0, os.SEEK_END)
        while out.tell() < SIZE:
            out.write(rng.randbytes(1 << 20))
    ours, theirs, synced = [], [], []

    def hand():
        a, b = by_hand(image, state / "copy")
        theirs.append(a)
        synced.append(b)
    for version in range(1, ROUNDS + 1):
        image = f.image("large", version, file=file)
        subprocess.run(["cat", image], stdout=subprocess.DEVNULL, check=True)  # both read it from memory
        os.sync()
        pair = [hand, lambda: ours.append(timed(CLI, "--state", state, "model", "install", image))]
        for run in pair if version % 2 else reversed(pair):
            run()
            os.sync()
        image.unlink()
        with open(file, "r+b") as out:  # another version is another file
            out.seek(-8, os.SEEK_END)
            out.write(version.to_bytes(8, "little"))
    shutil.rmtree(state)
    print("# seconds:", *("%.2f/%.2f" % p for p in zip(ours, theirs)), flush=True)
    speed = [[SIZE / 1e6 / s for s in seconds] for seconds in (ours, theirs, synced)]
    return [record.row(f"an image of 1 GB, {where}", "install", speed[0], peer, values, record.machine(), "MB/s", ("at_least", 0.8))
            for peer, values in (("sha256sum, cp", speed[1]), ("sha256sum, cp, sync", speed[2]))]


def loading():
    digest = subprocess.run(["fsverity", "digest", MODEL], check=True, capture_output=True, text=True).stdout.split()[0][7:]
    engine = ("build/release/kotobako-engine", "--bench", MODEL, "--prompt", "1", "--decode", "1", "--json", "--cache",
              TMP / "cache")

    def start(*more):
        out = subprocess.run([*map(str, engine), *more], check=True, capture_output=True, text=True).stdout
        return json.loads(out)["start_to_first_token_s"]
    ours, theirs = [], []
    start()
    for turn in range(ROUNDS):
        pair = [lambda: theirs.append(start()), lambda: ours.append(start("--digest", digest))]
        for run in pair if turn % 2 else reversed(pair):
            run()
    return record.row("SmolLM2-135M Q4_1", "load, proven by reading", ours, "not proven", theirs, record.machine(), "s", ("at_most", 1.25))


def main():
    rows = installing("disk", TMP / "state")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:  # where writing costs nothing
        rows += installing("memory", pathlib.Path(memory) / "state")
    rows.append(loading())
    for r in rows:
        print(json.dumps(r))
    record.merge_rows(rows)


main()
