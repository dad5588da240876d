#!/usr/bin/env python3
"""A running box with signed models: which it lists, how it changes from one version to the next under answers that are being
made, back again, and away from a damaged one. The engine is scripted (fake_engine.c); that the real one proves its image is
checked at the end. Prints TAP."""
import json
import os
import pathlib
import subprocess
import threading
import time

import box
import fleet
from fleet import STATE, TMP, Fleet, check, cli, good

STORE = STATE / "models/store"


def digest(name="m"):
    return good("model", "digest", name).split()[0][7:]


def events(of):
    """The words of the engine that has this digest's file."""
    file = STORE / f"{of}.kbm.log"
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []


def wait(until, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if until():
            return True
        time.sleep(0.02)
    return False


def listed(b, d):
    return {m["id"]: m.get("version") for m in b.ask(d, "GET", "/v1/models")[1]["data"]}


def ask(b, d, words="len=2"):
    return b.ask(d, "POST", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": words}]})


def test_list(b, d, f):
    check("before it trusts a root, the box has what was imported", listed(b, d) == {"plain": None}, listed(b, d))
    good("root", "trust", f.chain)
    check("then that is no model any more, in the running daemon too", listed(b, d) == {}, listed(b, d))
    status, reply, _ = ask(b, d)
    check("asking for one says so", status == 404 and "not installed" in reply["error"]["message"] or "no model" in
          reply["error"]["message"], reply)
    good("model", "install", f.image(version=1))
    check("an installed one is listed with its version", listed(b, d) == {"m": 1}, listed(b, d))
    check("and answers", ask(b, d)[0] == 200 and "submit" in events(digest()), events(digest()))
    check("the engine is told what the file must be", f"--digest\0{digest()}".encode() in b"".join(
        pathlib.Path(f"/proc/{e['pid']}/cmdline").read_bytes() for e in b.admin("GET", "/admin/status")[1]["engines"]))


def test_update(b, d, f):
    old = digest()
    result, first = {}, threading.Event()

    def stream():
        result["events"] = b.stream(d, "len=60 delay=50", model="m", on_event=lambda e: first.set())
    thread = threading.Thread(target=stream)
    thread.start()
    check("an answer is under way", first.wait(15))
    good("model", "install", f.image(version=2))
    new = digest()
    check("another version, another file", new != old)
    status, reply, _ = ask(b, d)
    check("a new question goes to the new version", status == 200 and "submit" in events(new), events(new))
    check("while the old one still works", thread.is_alive())
    states = [e["state"] for e in b.admin("GET", "/admin/status")[1]["engines"]]
    check("and is said to be retiring", "retiring" in states, states)
    thread.join(30)
    text = json.dumps(result["events"])
    check("the answer that was under way ended on it, whole", '"finish_reason": "' in text and "cancel" not in events(old),
          events(old))
    check("then it leaves", wait(lambda: "quit" in events(old)), events(old))


def test_rollback(b, d, f):
    before = digest()
    began = time.monotonic()
    good("model", "rollback", "m")
    spent = time.monotonic() - began
    now = digest()
    entries = events(now).count("submit")
    check("rollback: the next question goes to the version before", ask(b, d)[0] == 200 and
          events(now).count("submit") == entries + 1 and now != before)
    check("in under a second", spent < 1, spent)
    check("listed", listed(b, d) == {"m": 1}, listed(b, d))
    good("model", "install", f.image(version=3))


def test_damaged(b, d, f):
    """The fake engine refuses a file that begins with "broken", as the real one does one that is not what was signed."""
    bad = digest()
    good("model", "install", f.image(version=4))
    ask(b, d)
    worse = digest()
    with open(STORE / f"{worse}.kbm", "r+b") as file:
        file.write(b"broken")
    b.stop()
    b.start()
    check("a damaged file: the version before takes over by itself", wait(lambda: listed(b, d) == {"m": 3}), listed(b, d))
    check("and answers", wait(lambda: ask(b, d)[0] == 200) and digest() == bad)
    said = [json.loads(line) for line in good("audit", "list", "--json").splitlines()][-3:]
    check("the log has it", [e["event"] for e in said] == ["model damaged", "model rolled back", "previous version dropped"],
          said)
    check("no way back to it", cli("model", "rollback", "m").returncode == 1)
    check("but it can be installed again", cli("model", "install", f.image(version=4)).returncode == 0 and
          wait(lambda: ask(b, d)[0] == 200) and listed(b, d) == {"m": 4}, listed(b, d))


def test_revoked(b, d, f):
    f.root(revoked=[digest()])
    good("root", "trust", f.chain)
    check("a revoked image does not run from then on", listed(b, d) == {}, listed(b, d))
    check("the version before does, on request", cli("model", "rollback", "m").returncode == 0 and
          wait(lambda: ask(b, d)[0] == 200) and listed(b, d) == {"m": 3}, listed(b, d))


def engine(*args):
    return subprocess.run([box.BIN / "kotobako-engine", *map(str, args)], capture_output=True, text=True, timeout=120)


def test_engine():
    """The real engine, on a model of 100 MB."""
    model = TMP / "copy.kbm"
    model.write_bytes(pathlib.Path("build/models/smollm2-135m-instruct.kbm").read_bytes())
    signed = subprocess.run(["fsverity", "digest", model], capture_output=True, text=True, check=True).stdout.split()[0][7:]
    r = engine("--doctor", model, "--digest", signed)
    check("the engine takes the file that fsverity measured so", r.returncode == 0 and "is the signed one" in r.stderr, r.stderr)
    r = engine("--doctor", model, "--digest", signed[:-1] + ("0" if signed[-1] != "0" else "1"))
    check("and no other", r.returncode != 0 and "not the file that was signed" in r.stderr + r.stdout, r)
    size = model.stat().st_size
    for at in (5, size // 3, size - 1):
        with open(model, "r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 4]))
        r = engine("--doctor", model, "--digest", signed)
        check(f"a bit turned at byte {at}: not loaded", r.returncode != 0 and "not the file that was signed" in
              r.stderr + r.stdout, r)
        with open(model, "r+b") as file:
            file.seek(at)
            file.write(old)


def main():
    f = Fleet()
    b = box.Box(models={"plain": ""})
    try:
        d = b.pair("ann")
        test_list(b, d, f)
        test_update(b, d, f)
        test_rollback(b, d, f)
        test_damaged(b, d, f)
        test_revoked(b, d, f)
    finally:
        b.stop()
    test_engine()
    fleet.done()


main()
