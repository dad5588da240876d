#!/usr/bin/env python3
"""The box's own screen: what it says before and after the box is somebody's, and that a reader of QR codes (zxing-cpp) reads what
it draws. Prints TAP."""
import re
import subprocess


import box
from box import BIN, TMP, check, wait

READER = "build/venv/screen/bin/python"
HALVES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def console(b, *words):
    r = subprocess.run([BIN / "kotobako", "--state", b.state, "console", *words], capture_output=True, text=True, timeout=30)
    return r.stdout


def qr_of(text):
    """What an independent reader sees in the lines that are drawn black on white; "" where there is nothing."""
    lines = re.findall(r"\x1b\[30;47m(.*?)\x1b\[0m", text)
    if not lines:
        return ""
    rows = [[HALVES[c][half] for c in line] for line in lines for half in (0, 1)]
    scale = 4
    data = bytes(255 * (1 - m) for row in rows for _ in range(scale) for m in row for _ in range(scale))
    program = ("import sys, zxingcpp; h, w = map(int, sys.argv[1:]); "
               "print(*[b.text for b in zxingcpp.read_barcodes(memoryview(sys.stdin.buffer.read()).cast('B', (h, w)))])")
    r = subprocess.run([READER, "-c", program, str(len(rows) * scale), str(len(rows[0]) * scale)], input=data, capture_output=True)
    return r.stdout.decode().strip() or r.stderr.decode()[-200:]


def main():
    b = box.Box(flags=["--claim", "100000", "--name", "x.example"], models={})
    try:
        code = b.admin("GET", "/admin/status")[1]["claim"]["code"]
        text = console(b, "--once")
        where = f"127.0.0.1:{b.port}"
        check("it says where the box is", f"127.0.0.1  port {b.port}" in text, text)
        check("...and how to claim it", f"kotobako claim --box {where}\n" in text and f"{code[:4]}-{code[4:]}" in text, text)
        check("...and that there is no model", "none: bring one" in text, text)
        seen = qr_of(text)
        check("another's reader reads the QR code", seen == f"kotobako claim --box {where} --code {code}", seen)
        check("the reader would see a wrong one", qr_of(text.replace("▀", "█", 40)) != seen)
        screen = TMP / "tty"
        screen.write_text("")
        p = subprocess.Popen([BIN / "kotobako", "--state", b.state, "console", "--tty", screen])
        try:
            check("it is drawn", wait(lambda: "claim --box" in screen.read_text()))
            b.pair("ann")
            check("drawn anew once the box is somebody's", wait(lambda: "claim" not in screen.read_text().split("\x1b[2J")[-1]
                  and screen.read_text().count("\x1b[2J") >= 1), screen.read_text()[-600:])
            b.stop()
            check("it says that the daemon does not run", wait(lambda: "not running" in screen.read_text()), screen.read_text()[-300:])
            b.start()
            p.terminate()
            check("and leaves when it is told to", p.wait(10) in (0, -15))
        finally:
            p.kill()
        text = console(b, "--once")
        check("no code for whoever passes by", "claim" not in text and qr_of(text) == "", text)
    finally:
        b.stop()
    r = subprocess.run([BIN / "kotobako", "console", "--tty", "/nowhere/tty"], capture_output=True, text=True, timeout=10)
    check("a screen that is not there", r.returncode == 1 and "/nowhere/tty" in r.stderr, r)


main()
box.finish([])
