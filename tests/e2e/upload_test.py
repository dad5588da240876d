#!/usr/bin/env python3
"""Signed images over the API: by the command line and by Python's own http.client, cut and taken up again. Prints TAP."""
import json
import os
import signal
import subprocess
import time

import box
import fleet
from fleet import STATE, TMP, Fleet, check, cli, good

PIECE = 1 << 20


def digest_of(image):
    return json.loads(good("image", "inspect", image, "--json"))["digest"]


def begin(b, d, digest):
    return b.ask(d, "POST", "/admin/uploads", {"digest": digest})


def piece(b, d, digest, offset, data, last=False):
    return b.ask(d, "PATCH", f"/admin/uploads/{digest}", data, {"Content-Type": "application/partial-upload", "Upload-Offset":
                 str(offset), **({"Upload-Complete": "?1"} if last else {})})


def active():
    return {m["name"]: m["version"] for m in json.loads(good("model", "list", "--json"))}


def leftovers():
    return [p.name for p in (STATE / "models/incoming").glob("install*")]


def test_who(b, ann, boss, f):
    digest = digest_of(f.image("m", 1))
    status, reply, _ = begin(b, ann, digest)
    check("not everybody may upload", status == 403 and "--admin" in reply["error"]["message"], reply)
    status, reply, _ = begin(b, boss, digest)
    check("a box that trusts nobody takes nothing", status == 409 and "root trust" in reply["error"]["message"], reply)
    good("root", "trust", f.chain)
    check("the list of clients says who is one", {c["name"]: c["is_admin"] for c in b.admin("GET", "/admin/clients")[1][
        "clients"]} == {"ann": False, "boss": True})


def test_pieces(b, boss, f):
    image = f.image("m", 1, rows=8192, cols=512)
    data, digest = image.read_bytes(), digest_of(image)
    for wrong in ({}, {"digest": "xyz"}, {"digest": 5}):
        check(f"no digest: {wrong}", b.ask(boss, "POST", "/admin/uploads", wrong)[0] == 400)
    check("nothing under way: 404", piece(b, boss, digest, 0, data[:10])[0] == 404)
    status, reply, _ = begin(b, boss, digest)
    check("an upload begins", status == 200 and reply == {"digest": digest, "offset": 0}, reply)
    status, reply, _ = piece(b, boss, digest, 0, data[:PIECE])
    check("a piece", status == 200 and reply["offset"] == PIECE, reply)
    for wrong in (0, PIECE - 1, PIECE + 1, 10 ** 17):
        status, reply, _ = piece(b, boss, digest, wrong, data[wrong:wrong + 10])
        check(f"a piece at {wrong}: refused, with where it stands", status == 409 and str(PIECE) in reply["error"]["message"],
              reply)
    check("no offset: refused", b.ask(boss, "PATCH", f"/admin/uploads/{digest}", data[:5], {"Content-Type": "x/y"})[0] == 409)
    check("asked how far it is", b.ask(boss, "GET", f"/admin/uploads/{digest}")[1]["offset"] == PIECE)
    check("another one at the same time: refused", begin(b, boss, "0" * 64)[0] == 409)
    r = cli("model", "install", image)
    check("nor an install by hand", r.returncode == 1 and "being installed" in r.err, r.err)
    at = PIECE
    while at < len(data):
        part = data[at:at + PIECE]
        status, reply, _ = piece(b, boss, digest, at, part, at + len(part) == len(data))
        at += len(part)
    check("the last piece makes it active", status == 200 and (reply["model"], reply["version"], reply["was_active"]) ==
          ("m", 1, False) and active() == {"m": 1}, reply)
    check("it answers", b.ask(boss, "POST", "/v1/chat/completions", {"model": "m", "messages": [
        {"role": "user", "content": "len=2"}]})[0] == 200)
    status, reply, _ = begin(b, boss, digest)
    status, reply, _ = piece(b, boss, digest, 0, data[:PIECE])
    check("once more: it is there already, as soon as the manifest has come", status == 200 and reply["was_active"], reply)


def test_refused(b, boss, f):
    data = bytearray(f.image("m", 2, rows=8192, cols=512).read_bytes())
    digest = "1" * 64
    begin(b, boss, digest)
    data[PIECE + 5] ^= 1
    check("good as long as it is good", piece(b, boss, digest, 0, bytes(data[:PIECE]))[0] == 200)
    status, reply, _ = piece(b, boss, digest, PIECE, bytes(data[PIECE:2 * PIECE]))
    check("a turned bit: refused, with its place", status == 422 and "not the signed one" in reply["error"]["message"], reply)
    check("the upload is over, and nothing is left of it", b.ask(boss, "GET", f"/admin/uploads/{digest}")[0] == 404 and
          not leftovers(), leftovers())
    begin(b, boss, digest)
    status, reply, _ = piece(b, boss, digest, 0, bytes(data[:PIECE]), last=True)
    check("an end that comes too soon", status == 422 and "before all of it" in reply["error"]["message"], reply)
    begin(b, boss, digest)
    piece(b, boss, digest, 0, bytes(data[:PIECE]))
    check("given up by its client", b.ask(boss, "DELETE", f"/admin/uploads/{digest}")[0] == 200 and not leftovers())


def upload(image, **more):
    return subprocess.Popen([fleet.CLI, "--client", TMP / "client-boss", "--box", f"127.0.0.1:{more.pop('port')}", "model",
                             "upload", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=fleet.ENV)


def test_command(b, boss, f):
    image = f.image("n", 1, rows=32768, cols=1024)
    data, digest = image.read_bytes(), digest_of(image)
    begin(b, boss, digest)
    piece(b, boss, digest, 0, data[:3 * PIECE + 17])
    p = upload(image, port=b.port)
    out, err = p.communicate(timeout=60)
    check("model upload goes on where another program was", p.returncode == 0 and f"goes on at byte {3 * PIECE + 17}" in err and
          "n version 1 is installed" in out, err)
    p = upload(image, port=b.port)
    out, err = p.communicate(timeout=60)
    check("again: active already", p.returncode == 0 and "active already" in out, err)
    # Stopped in the middle, twice, and the same command again.
    image = f.image("n", 2, rows=32768, cols=1024, seed=77)
    digest, stops = digest_of(image), 0
    for _ in range(2):
        p = upload(image, port=b.port)
        for _ in range(400):
            status, reply, _ = b.ask(boss, "GET", f"/admin/uploads/{digest}")
            if p.poll() is not None or (status == 200 and reply["offset"] > 0):
                break
        if p.poll() is None:
            p.send_signal(signal.SIGKILL)
            stops += 1
        p.communicate()
        time.sleep(0.3)
    p = upload(image, port=b.port)
    out, err = p.communicate(timeout=60)
    check("killed in the middle, the same command goes on", stops == 0 or (p.returncode == 0 and "goes on at byte" in err and
          active()["n"] == 2), (stops, out, err))
    # The box goes away under it and comes back: it begins anew, the command stays.
    image = f.image("n", 3, rows=32768, cols=1024, seed=78)
    b.stop(signal.SIGKILL)
    p = upload(image, port=b.port)
    time.sleep(1)
    b.start()
    out, err = p.communicate(timeout=90)
    check("a box that is away is waited for", p.returncode == 0 and active()["n"] == 3, (out, err))
    check("nothing is left over", not leftovers(), leftovers())
    p = subprocess.run([fleet.CLI, "--client", TMP / "client-ann", "--box", f"127.0.0.1:{b.port}", "model", "upload", image],
                       capture_output=True, text=True, env=fleet.ENV)
    check("one who may not is told so", p.returncode == 1 and "--admin" in p.stderr, p.stderr)


def main():
    f = Fleet()
    b = box.Box(models={"plain": ""})
    try:
        ann, boss = b.pair("ann"), b.pair("boss", admin=True)
        test_who(b, ann, boss, f)
        test_pieces(b, boss, f)
        test_refused(b, boss, f)
        test_command(b, boss, f)
    finally:
        b.stop()
    fleet.done()


main()
