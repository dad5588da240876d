#!/usr/bin/env python3
# The command line with the real daemon; the engine is the scripted one (fake_engine.c). Prints TAP.
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

from box import BIN, TMP, Box, check, finish, wait

import box as harness

CLIENT = TMP / "ann"
ENV = {**os.environ, "XDG_CONFIG_HOME": str(TMP / "config"), "XDG_DATA_HOME": str(TMP / "data"), "HOME": str(TMP),
       "LC_ALL": "C.UTF-8", "KB_STATE": "", "KB_TTY": ""}


def cli(*args, text="", client=CLIENT):
    return subprocess.run([BIN / "kotobako", "--client", client, *map(str, args)], input=text, capture_output=True,
                          text=True, env=ENV, timeout=60)


def test_pairing(b):
    r = cli("--state", b.state, "pair", "--name", "ann", "--out", CLIENT)
    check("pair", r.returncode == 0, r)
    where = json.loads((CLIENT / "box.json").read_text())
    check("box.json has the daemon's address", where["host"] == "127.0.0.1" and where["port"] == b.port, where)
    check("the key is only the owner's", stat.S_IMODE((CLIENT / "key.pem").stat().st_mode) == 0o600)
    clients = json.loads(cli("--state", b.state, "clients", "--json").stdout)
    check("the daemon knows the client by that fingerprint",
          [(c["name"], c["fingerprint"]) for c in clients] == [("ann", where["fingerprint"])], clients)
    r = cli("--state", b.state, "pair", "--name", "ann", "--out", TMP / "second")
    check("a name is given once: 1, no credentials", r.returncode == 1 and not (TMP / "second/key.pem").exists(), r)


def test_answers(b):
    r = cli("run", "--stats", "--seed", "1", "len=5 hello")
    check("run", r.returncode == 0 and r.stdout.strip() and "decode 5 tokens" in r.stderr, r)
    whole = r.stdout
    r = cli("run", "--json", "--model", "fake", "--seed", "1", "len=5 hello")
    j = json.loads(r.stdout)
    check("run --json is the same text", j["text"].rstrip("\n") == whole.rstrip("\n") and j["model"] == "fake"
          and j["usage"]["completion_tokens"] == 5 and j["finish_reason"] == "stop", r)
    r = cli("run", "--max-tokens", "2", "--json", "len=5 hello")
    check("--max-tokens", json.loads(r.stdout)["finish_reason"] == "length", r)
    r = cli("run", "--model", "nosuch", "hello")
    check("an unknown model: 1, named", r.returncode == 1 and "nosuch" in r.stderr, r)
    r = cli("run", "error=5 hello")
    check("an engine's error: 1", r.returncode == 1 and r.stderr, r)
    r = cli("chat", text="len=3 one\nlen=3 two\n/model\n")
    check("chat through a pipe", r.returncode == 0 and len(r.stdout.splitlines()) == 2 and "* fake" in r.stderr, r)
    r = cli("run", "len=20 delay=20 die=5 on")
    check("the engine dies and the answer goes on", r.returncode == 0 and r.stdout.strip(), r)


def test_cancel(b):
    before = sum("cancel" in " ".join(e).lower() for e in b.events())
    p = subprocess.Popen([BIN / "kotobako", "--client", CLIENT, "run", "len=2000 delay=20 long"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=ENV)
    os.read(p.stdout.fileno(), 1)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=20)
    check("Ctrl-C: 130", p.returncode == 130, p.returncode)
    check("and the engine is told", wait(lambda: sum("cancel" in " ".join(e).lower() for e in b.events()) > before),
          b.events()[-5:])


def test_admin(b):
    r = cli("--state", b.state, "status")
    check("status of the daemon", r.returncode == 0 and re.search(r"^engines\[0\].model +fake$", r.stdout, re.M)
          and str(b.port) in r.stdout, r)
    r = cli("status")
    check("status over TLS", r.returncode == 0 and re.search(r"^status +ok$", r.stdout, re.M), r)
    r = cli("--state", b.state, "bearer", "ann")
    key = r.stdout.strip()
    check("bearer", r.returncode == 0 and re.fullmatch(r"kb-[0-9a-f]{64}", key), r)
    check("the key opens the second listener", bearer_status(b, key) == 200 and bearer_status(b, key + "x") == 401)
    p = subprocess.Popen([BIN / "kotobako", "--client", CLIENT, "run", "len=2000 delay=20 long"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=ENV, text=True)
    p.stdout.read(1)
    r = cli("--state", b.state, "revoke", "ann")
    check("revoke", r.returncode == 0, r)
    _, said = p.communicate(timeout=20)
    check("a running answer is cut: 1, incomplete", p.returncode == 1 and "incomplete" in said, (p.returncode, said))
    r = cli("run", "hello")
    check("a revoked client is refused: 3", r.returncode == 3 and r.stdout == "", r)
    check("its bearer key too", bearer_status(b, key) == 401)
    r = cli("--state", b.state, "revoke", "ann")
    check("revoking twice: 1", r.returncode == 1 and "ann" in r.stderr, r)
    check("clients shows it", "revoked 20" in cli("--state", b.state, "clients").stdout)


def bearer_status(b, key):
    r = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", CLIENT / "ca.pem", "-H",
                        f"Authorization: Bearer {key}", f"https://127.0.0.1:{b.bearer_port}/v1/models"],
                       capture_output=True, text=True, timeout=20)
    return int(r.stdout or 0)


def main():
    b = Box()
    test_pairing(b)
    test_answers(b)
    test_cancel(b)
    test_admin(b)
    finish([b])
    r = cli("--state", b.state, "status")
    check("after the daemon's end: 3", r.returncode == 3, r)
    print(f"1..{harness.count}")
    sys.exit(1 if harness.failed else 0)


main()
