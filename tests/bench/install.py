#!/usr/bin/env python3
"""What signing costs, in turns. Installing: `kotobako model install` of an image of 1 GB beside `sha256sum` of the same file and
`cp` of it, which is what one would do by hand with files of hashes. Loading: the engine's start, until its first token, with
the image proven by reading it, and without. Rows go to build/bench.json (record.py): `make bench-install`.
"""
import json
import os
import pathlib
import random
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
    """Their seconds: the hash of what came, then the copy."""
    if copy.exists():
        copy.unlink()
    return timed("sha256sum", image) + timed("cp", image, copy)


def installing():
    f = Fleet()
    good("root", "trust", f.chain)
    file = f.model("large")
    rng = random.Random(1)
    with open(file, "r+b") as out:
        out.seek(0, os.SEEK_END)
        while out.tell() < SIZE:
            out.write(rng.randbytes(1 << 20))
    ours, theirs = [], []
    for version in range(1, ROUNDS + 1):
        image = f.image("large", version, file=file)
        subprocess.run(["cat", image], stdout=subprocess.DEVNULL, check=True)  # both read it from memory
        os.sync()
        pair = [lambda: theirs.append(by_hand(image, TMP / "copy")), lambda: ours.append(timed(CLI, "model", "install", image))]
        for run in pair if version % 2 else reversed(pair):
            run()
            os.sync()
        image.unlink()
        with open(file, "r+b") as out:  # another version is another file
            out.seek(-8, os.SEEK_END)
            out.write(version.to_bytes(8, "little"))
    speed = [[SIZE / 1e6 / s for s in seconds] for seconds in (ours, theirs)]
    return record.row("an image of 1 GB", "install", speed[0], "sha256sum and cp", speed[1], record.machine(), "MB/s", ("at_least", 0.8))


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
    rows = [installing(), loading()]
    for r in rows:
        print(json.dumps(r))
    record.merge_rows(rows)


main()
