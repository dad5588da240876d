#!/usr/bin/env python3
# What README says, with the default model: the image boots, pairs, SmolLM2 answers over mTLS, the box powers off. Minutes,
# because every instruction is emulated.
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import BOARD, TMP, check, finish  # noqa: E402
from run_image import free_port  # noqa: E402

more = {**os.environ, "KB_IMAGE_OUT": str(TMP / "image"), "MODEL": "build/models/smollm2-135m-instruct.kbm", "ONCE": "1",
        "PORT": str(free_port()), "QUESTION": "What is the capital of France?", "TOKENS": "8"}
subprocess.run(["image/make_image.sh", BOARD], check=True, capture_output=True, env=more)
r = subprocess.run(["image/run_image.py", BOARD], capture_output=True, text=True, env=more)
said = r.stdout + r.stderr
check("it ends with 0", r.returncode == 0, said)
check("the answer is the right one", re.search(r"\bParis\b", said), said)
check("the box powered off in order", "init: stage off" in said, said)
finish()
