"""TAP for the image's tests, and where the image is."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "image"))
BOARD = os.environ.get("BOARD", "qemu-x86_64")
OUT = pathlib.Path(os.environ.get("KB_IMAGE_OUT") or pathlib.Path("build/image") / BOARD)
KEYS = pathlib.Path(os.environ.get("KB_KEYS") or "build/image/keys")
TMP = pathlib.Path(os.environ["KB_TMP"])
count = failed = 0


def check(what, ok, detail=""):
    global count, failed
    count += 1
    failed += not ok
    detail = str(detail)[-900:].replace("\n", " / ")
    print(f"{'ok' if ok else 'not ok'} {count} - {what}" + ("" if ok else f"  # {detail}"), flush=True)
    return ok


def finish():
    print(f"1..{count}")
    sys.exit(1 if failed else 0)
