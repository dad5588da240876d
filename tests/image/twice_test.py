#!/usr/bin/env python3
# Two builds are alike: the image is made again, somewhere else, later, and what is not a signature is the same bytes.
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import BOARD, OUT, TMP, check, finish  # noqa: E402

first = (OUT / "unsigned.sha256").read_text()
again = TMP / "again"
made = subprocess.run(["image/make_image.sh", BOARD], env={**os.environ, "KB_IMAGE_OUT": str(again)},
                      capture_output=True, text=True)
check("the image is made again", made.returncode == 0, made.stderr)
second = (again / "unsigned.sha256").read_text()
for a, b in zip(first.splitlines(), second.splitlines()):
    check(f"{a.split()[1]} is the same", a == b, (a, b))
check("all parts were compared", len(first.splitlines()) == len(second.splitlines()) == 9)
models = {p.name: p.read_bytes() for p in (OUT / "models").glob("*.kbm")}
check("the signed models are the same", models and models == {p.name: p.read_bytes() for p in (again / "models").glob("*.kbm")})
other, keys = TMP / "other", TMP / "keys"
subprocess.run(["image/make_image.sh", BOARD], check=True, capture_output=True,
               env={**os.environ, "KB_IMAGE_OUT": str(other), "KB_KEYS": str(keys)})
check("another fleet's roots give another image", (other / "unsigned.sha256").read_text() != first)
finish()
