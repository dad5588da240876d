#!/usr/bin/env python3
"""`make run-image`: boots the image in QEMU, pairs a client by a stick, asks one question over mTLS.

  image/run_image.py BOARD    ONCE=1: power off after the answer. PORT=N: another port than 9443. QUESTION=TEXT TOKENS=N (6)

The client's files are on the stick when the box has written them: they are copied to build/image/BOARD/run/client.
"""
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from vm import Vm, make_stick, make_vars, run  # noqa: E402

BOOT_S = 240  # from power-on to paired, at most: software emulation on a busy machine
ANSWER_S = 1200  # SmolLM2 reads a question in some three minutes and writes three words a minute
CLIENT_FILES = ("key.pem", "cert.pem", "ca.pem", "box.json")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def echo(when, line):
    if os.environ.get("VERBOSE") or "init:" in line or "kotobako" in line or "panic" in line.lower():
        print(f"{when:7.1f} s  {line}", flush=True)


def fail(vm, text):
    print("\n".join(line for _, line in vm.lines[-30:]), file=sys.stderr)
    sys.exit(f"run-image: {text}")


def fetch_client(stick, client):
    shutil.rmtree(client, ignore_errors=True)
    client.mkdir(mode=0o700)
    for name in CLIENT_FILES:
        run("mcopy", "-i", stick, f"::/kotobako/client/{name}", client / name)
        (client / name).chmod(0o600)


def ask(client, port, question):
    """Streams the answer to the terminal; the seconds to the end."""
    began = time.monotonic()
    subprocess.run(["build/release/kotobako", "--client", str(client), "--box", f"127.0.0.1:{port}", "run", "--stats",
                    "--max-tokens", os.environ.get("TOKENS") or "6", "--temperature", "0", question],
                   check=True, timeout=ANSWER_S)
    return time.monotonic() - began


def main(board):
    out = pathlib.Path(os.environ.get("KB_IMAGE_OUT") or pathlib.Path("build/image") / board)
    keys = pathlib.Path(os.environ.get("KB_KEYS") or "build/image/keys")
    port = int(os.environ.get("PORT") or 9443)
    work = out / "run"
    work.mkdir(exist_ok=True)
    disk, stick, variables, client = work / "disk.img", work / "stick.img", work / "vars.fd", work / "client"
    run("cp", "--sparse=always", out / "disk.img", disk)
    make_vars(keys, variables)
    make_stick(stick, sorted((out / "models").glob("*.kbm")))
    shutil.rmtree(work / "tpm", ignore_errors=True)
    vm = Vm(disk, variables, port, stick=stick, log=work / "console.log", echo=echo, tpm=work / "tpm")
    try:
        if vm.wait_line("init: stage paired", BOOT_S) is None:
            fail(vm, f"the box was not paired within {BOOT_S} s; its console is in {work}/console.log")
        fetch_client(stick, client)
        if vm.wait_line("init: stage models: done", BOOT_S) is None:
            fail(vm, f"the stick's models were not installed within {BOOT_S} s")
        question = os.environ.get("QUESTION") or "In two sentences: why is the sky blue?"
        print(f"> {question}", flush=True)
        seconds = ask(client, port, question)
        print(f"{time.monotonic() - vm.began:7.1f} s  answered, {seconds:.1f} s after the question", flush=True)
        if not os.environ.get("ONCE"):
            print(f"The box is up: image/buildroot.sh exec build/release/kotobako --client {client} --box 127.0.0.1:{port} chat\n"
                  "Ctrl-C presses its power button.", flush=True)
            try:
                vm.qemu.wait()
            except KeyboardInterrupt:
                pass
        if vm.qemu.poll() is None:
            vm.power_button()
        if vm.wait_line("init: stage off", 60) is None or vm.wait_off(30) != 0:
            fail(vm, "the box did not power off in order")
        print(f"{time.monotonic() - vm.began:7.1f} s  off")
    finally:
        vm.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
