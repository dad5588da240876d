#!/usr/bin/env python3
"""Signed images of the sizes at which programs count wrong (2^31 and 2^32, one byte less and more) and one of 6 GB, all of
them sparse: built, signed, verified, installed, proven again; the installer's memory stays below 64 MiB, and holes stay holes.
Prints TAP. About two minutes, and little disk."""
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import fleet
from fleet import CLI, ENV, STATE, Fleet, check, good

MEMORY_MAX = 64 << 20
SIZES = {"2^31 - 1": 2 ** 31 - 1, "2^31 + 1": 2 ** 31 + 1, "2^32 - 1": 2 ** 32 - 1, "2^32 + 1": 2 ** 32 + 1, "6 GB": 6 * 10 ** 9}


def measured(*args):
    """Runs the command line; seconds and the most memory that it had."""
    began = time.monotonic()
    pid = os.spawnvpe(os.P_NOWAIT, CLI, [CLI, *map(str, args)], ENV)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - began, usage.ru_maxrss * 1024


def main():
    f = Fleet()
    good("root", "trust", f.chain)
    for version, (name, size) in enumerate(SIZES.items(), 1):
        file = f.model("large", version)
        os.truncate(file, size)
        image = f.image("large", version, file=file)
        check(f"{name}: the image is as sparse as the model", image.stat().st_blocks * 512 < size / 50, image.stat().st_blocks)
        status, _, memory = measured("image", "verify", image)
        check(f"{name}: verified, in {memory >> 20} MiB", status == 0 and memory < MEMORY_MAX)
        status, seconds, memory = measured("model", "install", image)
        print(f"# {name}: installed in {seconds:.1f} s, {size / seconds / 1e6:.0f} MB/s, {memory / 1048576:.1f} MiB")
        check(f"{name}: installed, in less than 64 MiB", status == 0 and memory < MEMORY_MAX, memory)
        stored = pathlib.Path(good("model", "digest", "large").split()[1])
        outside = subprocess.run(["fsverity", "digest", stored], capture_output=True, text=True, check=True).stdout.split()[0]
        check(f"{name}: the file in the store is whole, sparse, and what fsverity says", stored.stat().st_size == size and
              stored.stat().st_blocks * 512 < size / 50 and outside == "sha256:" + stored.stem, (stored, outside))
        with open(image, "r+b") as file_:
            file_.truncate(image.stat().st_size - 1)
        check(f"{name}: a byte less is refused", measured("image", "verify", image)[0] == 1)
        with open(image, "r+b") as file_:
            file_.truncate(image.stat().st_size + 2)
        check(f"{name}: a byte more is refused", measured("image", "verify", image)[0] == 1)
        os.unlink(image)
        os.unlink(file)
    check("and what was replaced twice is gone", len(list((STATE / "models/store").iterdir())) == 2)
    fleet.done()


main()
