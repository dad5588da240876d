#!/usr/bin/env python3
"""Systems over the API, with the real daemon beside a played box (played_box.py): sent by an administrator's client, seen, and
taken back. Prints TAP."""
import json
import subprocess

import box
import fleet
from fleet import TMP, Fleet, check
from played_box import Box, system_image


def ask(client, port, *words):
    return subprocess.run([fleet.CLI, "--client", TMP / f"client-{client}", "--box", f"127.0.0.1:{port}", "os", *words],
                          capture_output=True, text=True, timeout=60, env={k: v for k, v in fleet.ENV.items() if k != "KB_STATE"})


def main():
    f = Fleet(system=("system",))
    two = system_image(f, 2)
    played = Box(TMP / "played", f.chain)
    played.settle()
    b = box.Box(models={}, flags=["--boot", played.dir / "boot"], name="played/state")
    try:
        b.pair("ann"), b.pair("boss", admin=True)
        for words in (("status",), ("rollback",), ("upload", two)):
            r = ask("ann", b.port, *words)
            check(f"{words[0]} is for administrators", r.returncode == 1 and "administrators" in r.stderr, r.stderr)
        r = ask("boss", b.port, "rollback")
        check("there is nothing to go back to yet", r.returncode == 1 and "holds no system" in r.stderr, r.stderr)
        r = ask("boss", b.port, "status")
        check("the box says what runs", r.returncode == 0 and "version 1 for box runs, from slot a" in r.stdout, r)
        for what, image, why in (("another board's", system_image(f, 3, board="other"), "for the board other"),
                                 ("one signed by the key for models", system_image(f, 3, key="model"), "signatures")):
            r = ask("boss", b.port, "upload", image)
            check(f"{what} is refused", r.returncode == 1 and why in r.stderr, r.stderr)
        r = ask("boss", b.port, "upload", two)
        check("a system is sent", r.returncode == 0 and "version 2 is written and read back" in r.stdout, (r.stdout, r.stderr))
        b.stop()
        check("...and tried, and stays", played.settle() == ("b", 2, 2), played.said.stderr)
        b.start()
        r = ask("boss", b.port, "status", "--json")
        said = json.loads(r.stdout or "{}")
        check("the box says so", (said.get("version"), said.get("slot")) == (2, "b") and
              [s["starts_by_itself"] for s in said["slots"]] == [False, True], said)
        r = ask("boss", b.port, "upload", two)
        check("sent again: it runs already", r.returncode == 0 and "active already" in r.stdout, (r.stdout, r.stderr))
        r = ask("boss", b.port, "rollback")
        check("back, on request", r.returncode == 0 and "version 1 is started on trial" in r.stdout, (r.stdout, r.stderr))
        b.stop()
        check("...which is a trial too", played.settle() == ("a", 1, 2))
        # What its check says is wrong is told to whoever asks.
        played.sick("the model gave no token")
        b.start()
        check("sent once more", ask("boss", b.port, "upload", system_image(f, 4)).returncode == 0)
        b.stop()
        check("it does not prove itself", played.settle()[:2] == ("a", 1))
        b.start()
        r = ask("boss", b.port, "status")
        check("the reason reaches the administrator", "last failed version 4" in r.stdout and "the model gave no token" in r.stdout, r.stdout)
        b.stop()
        b.flags = []
        b.start()
        r = ask("boss", b.port, "status")
        check("a box without slots says that", r.returncode == 1 and "no slots" in r.stderr, r.stderr)
    finally:
        b.stop()
    fleet.done()


main()
