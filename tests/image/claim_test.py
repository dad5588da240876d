#!/usr/bin/env python3
# From power-on to the first answer with a laptop and the box's screen, without a stick: the code on the screen (a picture of
# it, read by another's reader of QR codes), the claim over the network, a model sent by its new administrator, a question.
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import KEYS, OUT, TMP, check, finish  # noqa: E402
from run_image import free_port  # noqa: E402
from vm import Vm, make_vars, run  # noqa: E402

READER = "build/venv/screen/bin/python"
PROGRAM = ("import sys, zxingcpp; w, h = map(int, sys.argv[1:]); "
           "print(*[b.text for b in zxingcpp.read_barcodes(memoryview(sys.stdin.buffer.read()).cast('B', (h, w)))])")


def seen(vm):
    """The text of a QR code on the screen, or ""."""
    width, height, grey = vm.screen(TMP / "screen.ppm")
    r = subprocess.run([READER, "-c", PROGRAM, str(width), str(height)], input=grey, capture_output=True)
    if r.returncode:
        sys.exit(r.stderr.decode())
    return r.stdout.decode().strip()


def wait(condition, seconds):
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(1)
    return value


def kotobako(*words, given=None, seconds=300):
    return subprocess.run(["build/release/kotobako", *words], input=given, capture_output=True, text=True, timeout=seconds)


def main():
    client, port = TMP / "client", free_port()
    run("cp", "--sparse=always", OUT / "disk.img", TMP / "disk.img")
    make_vars(KEYS, TMP / "vars.fd")
    vm = Vm(TMP / "disk.img", TMP / "vars.fd", port, log=TMP / "console.log", tpm=TMP / "tpm", more=("-device", "VGA"))
    try:
        check("the log says a code", vm.wait_line(r"this box has no client yet: .*code \d{4}-\d{4}", 240) is not None, vm.text()[-900:])
        code = re.search(r"code (\d{4})-(\d{4})", vm.text() + "code 0000-0000").groups()
        check("it has an address", vm.wait_line("net: stage address: eth0 10.0.2.15", 120) is not None, vm.text()[-900:])
        said = wait(lambda: seen(vm), 60)
        check("so does the screen, as a QR code with the address", said == f"kotobako claim --box 10.0.2.15 --code {''.join(code)}", said)
        # The laptop: QEMU forwards a port to the box's address.
        box = ("--box", f"127.0.0.1:{port}")
        r = kotobako(*box, "claim", "--name", "boss", "--out", client, given="".join(code) + "\n")
        check("the box is claimed", r.returncode == 0, r.stderr)
        print(f"# {time.monotonic() - vm.began:6.1f} s  claimed", flush=True)
        check("the screen shows no code any more", wait(lambda: seen(vm) == "", 30))
        image = next((OUT / "models").glob("*.kbm"))
        r = kotobako("--client", client, *box, "model", "upload", image)
        check("its administrator sends a model", r.returncode == 0, r.stderr)
        r = kotobako("--client", client, *box, "run", "--max-tokens", "4", "--temperature", "0", "hi")
        check("and gets an answer", r.returncode == 0 and r.stdout.strip(), (r.stdout, r.stderr))
        print(f"# {time.monotonic() - vm.began:6.1f} s  answered", flush=True)
        r = kotobako("--client", client, *box, "pair", "--name", "ann", "--out", TMP / "ann")
        check("and makes another client", r.returncode == 0, r.stderr)
        vm.power_button()
        check("the power button ends it in order", vm.wait_line("init: stage off", 60) and vm.wait_off(30) == 0, vm.text()[-900:])
    finally:
        vm.close()


if __name__ == "__main__":
    main()
    finish()
