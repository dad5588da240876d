#!/usr/bin/env python3
"""Signed images on a box: installed, refused, rolled back; the attacks that DESIGN.md and docs/images.md speak of, each with
an error of its own and without a trace on the disk. Prints TAP."""
import ctypes
import json
import os
import pathlib
import random
import re
import subprocess
import threading

import fleet
from fleet import STATE, TMP, Fleet, check, cli, good

MODELS = STATE / "models"


def active():
    """{name: (version, version before)} as the box lists them."""
    return {m["name"]: (m["version"], m.get("previous_version", 0)) for m in json.loads(good("model", "list", "--json"))}


def files():
    return sorted(p.name for d in ("store", "incoming") for p in (MODELS / d).iterdir() if p.name != "lock")


def log():
    return [json.loads(line) for line in good("audit", "list", "--json").splitlines()]


def refused(what, image, says, data=None):
    """The image is refused with that error; the box is as it was, and its log says why."""
    before, before_files, entries = active(), files(), len(log())
    r = cli("model", "install", image if data is None else "-", data=data)
    said = log()[-1]
    check(what, r.returncode == 1 and re.search(says, r.err) and active() == before and files() == before_files,
          (r.returncode, r.err, active(), files()))
    check(f"{what}: it is in the log", len(log()) == entries + 1 and said["event"] == "install refused" and
          re.search(says, said["detail"]), said)


def splice(image, *changes):
    data = bytearray(image.read_bytes())
    for at, new in changes:
        data[at:at + len(new)] = new
    return bytes(data)


def test_first(f):
    image = f.image()
    r = cli("model", "install", image)
    check("a box that trusts nobody installs nothing", r.returncode == 1 and "root trust" in r.err, r.err)
    r = cli("root", "trust", f.chain)
    check("root trust", r.returncode == 0 and "root 1" in r.out, r.err)
    check("root trusted", f.id("root-a") in good("root", "trusted"))
    good("import", f.dir / "x.gguf", "--name", "unsigned")
    check("what is not signed is no model of this box any more", cli("model", "show", "unsigned").returncode == 1 and
          active() == {}, active())
    r = cli("model", "install", image)
    check("model install", r.returncode == 0 and "m version 1 is installed and active" in r.out, r.err)
    check("it is there", active() == {"m": (1, 0)} and len(files()) == 1, (active(), files()))
    shown, digest = good("model", "show", "m"), good("model", "digest", "m").split()[0]
    outside = subprocess.run(["fsverity", "digest", MODELS / "store" / files()[0]], capture_output=True, text=True).stdout
    check("under its digest, as fsverity says", digest == outside.split()[0] == "sha256:" + files()[0][:-4], (shown, outside))
    check("model verify", "intact" in good("model", "verify", "m"))
    check("image verify asks the box's root", cli("image", "verify", image).returncode == 0)
    entries = len(log())
    r = cli("model", "install", image)
    check("again: nothing to do", r.returncode == 0 and "active already" in r.out and len(log()) == entries, r.err)


def test_update(f):
    second = f.image(version=2)
    with open(second, "rb") as pipe:  # as `cat image | kotobako model install -`
        cat = subprocess.Popen(["cat"], stdin=pipe, stdout=subprocess.PIPE)
        r = subprocess.run([fleet.CLI, "model", "install", "-"], stdin=cat.stdout, capture_output=True, text=True, env=fleet.ENV)
        cat.wait()
    check("an update, from a pipe", r.returncode == 0 and active() == {"m": (2, 1)} and len(files()) == 2, r.stderr)
    r = cli("model", "rollback", "m")
    check("model rollback", r.returncode == 0 and "version 1" in r.out and active() == {"m": (1, 2)}, r.err)
    refused("rollback attack: an image from before", f.image(version=1, seed=7), "older than version 2")
    check("forward again", cli("model", "install", second).returncode == 0 and active() == {"m": (2, 1)}, active())
    good("model", "install", f.image(version=5))
    check("one version before is kept, no more", active() == {"m": (5, 2)} and len(files()) == 2, (active(), files()))
    refused("rollback attack: an older version", f.image(version=4), "older than version 5")
    refused("another image of the same version", f.image(version=5, seed=9), "another image")
    check("rollback and its errors", cli("model", "rollback", "nothing").returncode == 1)


def test_attacks(f):
    stranger = Fleet("strangers", "offices")
    other = Fleet("others", "other offices")
    image = f.image(version=6)
    data = image.read_bytes()
    refused("another fleet's image", other.image(version=6), "another fleet")
    refused("another keeper's root of the same fleet", stranger.image(version=6), "not the one that this box trusts")
    refused("not signed", f.image(version=6, key=()), "0 of keys")
    refused("signed by a key that may not sign models", f.image(version=6, key="root-a"), "0 of keys")
    refused("cut", image, "ends at byte", data[:-1])
    refused("cut within the tree or payload", image, "ends at byte", data[:len(data) // 2])
    refused("endless data", image, "behind the end", data + bytes(1 << 20))
    refused("a bit of the payload", image, r"not the signed one", splice(image, (len(data) - 5, bytes([data[-5] ^ 1]))))
    elsewhere = f.image(version=7).read_bytes()
    head = data.index(b"KBMANIF1")
    payload = -(-data.index(b"KBSIGS01", head) // 4096) * 4096
    while payload < len(data) and data[:payload].rstrip(b"\0") != data[:payload + 4096].rstrip(b"\0")[:len(data[:payload].rstrip(b"\0"))]:
        payload += 4096
    refused("mix and match: the payload of another image", image, "not the signed one", data[:payload] + elsewhere[payload:])
    at = elsewhere.index(b"KBMANIF1")
    a_len, b_len = (int.from_bytes(d[i - 8:i - 4], "little") for d, i in ((data, head), (elsewhere, at)))
    refused("a valid signature over another manifest", image, "signature",
            data[:head - 8] + elsewhere[at - 8:at + b_len] + data[head + a_len:] if a_len == b_len else data[:head])
    refused("an edited manifest", image, "signature", splice(image, (data.index(b"Apache-2.0", head), b"Public-0.0")))
    refused("for a newer firmware", f.image(version=6, args=("--min-firmware", 999)), "needs firmware 999")
    refused("an adapter without its base", f.image("adapter", args=("--base", "0" * 64)), "belongs to is not installed")
    base = good("model", "digest", "m").split()[0][7:]
    check("with its base it is taken", cli("model", "install", f.image("adapter", seed=80, args=("--base", base))).returncode == 0)
    for wrong in (b"GGUF" + bytes(5000), b"", bytes(100)):
        r = cli("model", "install", "-", data=wrong)
        check(f"no image at all: {len(wrong)} bytes", r.returncode == 1 and active()["m"] == (5, 2), r.err)
    check("a file that is not there", cli("model", "install", TMP / "nowhere").returncode == 1)
    check("after all this the image itself is taken", cli("model", "install", image).returncode == 0 and
          active()["m"] == (6, 5), active())


def test_below_threshold(f):
    """One of two stolen keys is not enough; a key that counts twice is still one."""
    state, chain = TMP / "two", f.dir / "two.chain"
    f.root(threshold=2, chain=chain)
    good("root", "trust", chain, state=state)
    image = f.image("k", key=("model", "model"), chain=chain)
    r = cli("model", "install", image, state=state)
    check("key compromise below the threshold", r.returncode == 1 and "1 of keys" in r.err and "2 are needed" in r.err, r.err)
    good("image", "sign", image, "--key", f.dir / "spare")
    check("with both it is taken", cli("model", "install", image, state=state).returncode == 0)


def test_rotation(f):
    """The key `model` is lost: the next root revokes it and names `next`."""
    late = f.image("late", version=1)
    good("model", "install", f.image("both", seed=70, key=("model", "spare")))
    f.root(model=("spare", "next"), revoked=[f.id("model")])
    image = f.image("n", key="next")
    r = cli("model", "install", image)
    check("an image brings its root along", r.returncode == 0 and "root 2" in good("root", "trusted"), r.err)
    refused("signed by a key that was revoked", late, "0 of keys")
    r = cli("root", "trust", f.chain)
    check("the chain itself says nothing new", r.returncode == 0 and "root 2" in r.out)
    digest = good("model", "digest", "n").split()[0][7:]
    f.root(model=("spare", "next"), revoked=[f.id("model"), digest])
    good("root", "trust", f.chain)
    r = cli("model", "install", image)
    check("a revoked image is not installed again", r.returncode == 1 and "revoked" in r.err, r.err)
    fork = Fleet("fork", "offices")
    for _ in range(4):
        fork.root()
    r = cli("root", "trust", fork.chain)
    check("a stranger's chain is not followed", r.returncode == 1 and "not" in r.err, r.err)
    f.root(model=("spare",), expires="2026-01-01", revoked=[f.id("model"), digest])
    r = cli("model", "install", f.image("n", version=2, key="spare"))
    check("an expired root warns and does not stop (freeze is seen, no box dies of a clock)", r.returncode == 0 and
          "expired" in r.err, r.err)


def blocks(file):
    data = file.read_bytes()
    return [data[i:i + 4096] for i in range(0, len(data), 4096)]


def test_delta(f):
    """A model of twelve matrices of which one is replaced."""
    layers, shape = list(range(100, 112)), {"rows": 512, "cols": 512}
    first = f.image("d", 1, seed=90, key="spare", layers=layers, **shape)
    file = f.model("d", 90, layers=layers[:5] + [999] + layers[6:], **shape, licence="MIT")
    second = f.image("d", 2, key="spare", file=file)
    good("model", "install", first)
    delta = f.dir / "delta.kbm"
    r = cli("image", "diff", first, second, delta)
    old = set(blocks(pathlib.Path(good("model", "digest", "d").split()[1])))
    changed = 4096 * sum(b not in old for b in blocks(file))
    head = second.read_bytes()
    head = 4096 * (head.index(b"KBMANIF1") // 4096 + 1)
    check("image diff: at most 1.1 times what changed, besides the head that every image has", r.returncode == 0 and
          delta.stat().st_size - head <= 1.1 * changed and changed > 200_000, (r.out, r.err, delta.stat().st_size, changed))
    data = delta.read_bytes()
    elsewhere = TMP / "elsewhere"
    good("root", "trust", f.chain, state=elsewhere)
    r = cli("model", "install", delta, state=elsewhere)
    check("on a box without the base: refused, and nothing written", r.returncode == 1 and "install the whole image" in r.err
          and not list((elsewhere / "models/store").iterdir()) and not list((elsewhere / "models/incoming").glob("install*")),
          r.err)
    refused("another image's base", delta, "which this one has not",
            data.replace(bytes.fromhex(good("model", "digest", "d").split()[0][7:]), bytes(32)))
    refused("a delta that is cut", delta, "ends at byte", data[:-1])
    refused("a delta with something behind", delta, "behind the end", data + b"x")
    r = cli("image", "verify", delta)
    check("without its base it cannot be read", r.returncode == 1 and "a delta" in r.err, r.err)
    check("deltas of deltas are not made", cli("image", "diff", delta, second, TMP / "x.kbm").returncode == 1)
    base = pathlib.Path(good("model", "digest", "d").split()[1])
    at = base.read_bytes().rindex(blocks(base)[-3])
    with open(base, "r+b") as out:
        out.seek(at)
        byte = out.read(1)
        out.seek(at)
        out.write(bytes([byte[0] ^ 1]))
    r = cli("model", "install", delta)
    check("a damaged base is found", r.returncode == 1 and "base is damaged" in r.err and active()["d"] == (1, 0), r.err)
    with open(base, "r+b") as out:
        out.seek(at)
        out.write(byte)
    # The map is not signed: whatever is turned in it, what becomes active is what was signed.
    rng, runs = random.Random(5), data.index(b"KBDELTA1")
    taken = 0
    n = int.from_bytes(data[runs + 40:runs + 44], "little")
    for _ in range(150):
        bit = 8 * runs + rng.randrange(8 * (48 + 24 * n))
        r = cli("model", "install", "-", data=data[:bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1:])
        taken += r.returncode == 0
        if r.returncode not in (0, 1) or (r.returncode == 0 and subprocess.run(
                ["cmp", "-s", good("model", "digest", "d").split()[1], file]).returncode):
            check("a bit of the map turned", False, (bit, r.err))
        if r.returncode == 0:
            good("model", "rollback", "d")
    check("150 bits of the map turned: refused, or harmless", taken < 20, taken)
    r = cli("model", "install", "-", data=data)
    stored = pathlib.Path(good("model", "digest", "d").split()[1])
    check("the delta is installed, and the model is the new one, byte for byte", r.returncode == 0 and active()["d"] == (2, 1)
          and stored.read_bytes() == file.read_bytes(), r.err)
    back = f.image("d", 3, key="spare", seed=90, layers=layers, **shape)
    good("image", "diff", second, back, delta, "--replace")
    check("a delta of the file that is there already is nearly nothing", cli("model", "install", delta).returncode == 0 and
          active()["d"] == (3, 2), active())
    good("model", "remove", "d")


def test_room(f):
    """A disk of a megabyte more than what is there, as a file system of its own."""
    small = TMP / "small"
    small.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(small), b"tmpfs", 0, b"size=20m"):
        fleet.skip(f"a full disk: no file system can be mounted here ({os.strerror(ctypes.get_errno())})")
        return
    try:
        state = small / "state"
        good("root", "trust", f.chain, state=state)
        good("model", "install", f.image("r", version=1, key="spare", rows=4096, cols=512), state=state)
        good("model", "install", f.image("r", version=2, key="spare", seed=50, rows=64), state=state)
        big = f.image("s", key="spare", rows=8192, cols=1024)
        r = cli("model", "install", "--keep-previous", big, state=state)
        check("no room: refused before anything is written", r.returncode == 1 and "MB are free" in r.err, r.err)
        r = cli("model", "install", big, state=state)
        kept = json.loads(good("model", "list", "--json", state=state))
        check("without room even after dropping what came before: refused, and said", r.returncode == 1 and "MB" in r.err and
              [m["name"] for m in kept] == ["r"], (r.err, kept))
        fits = f.image("t", key="spare", rows=1024, cols=512)
        left = os.statvfs(small)
        (small / "fill").write_bytes(bytes(max(0, left.f_bavail * left.f_frsize - (16 << 20) - 200_000)))
        r = cli("model", "install", fits, state=state)
        check("room is measured with a reserve for the tables", r.returncode == 1 and "MB" in r.err, r.err)
        os.unlink(small / "fill")
        r = cli("model", "install", fits, state=state)
        check("and taken when it is there", r.returncode == 0, r.err)
    finally:
        libc.umount(bytes(small))


def test_two_at_once(f):
    first, second = f.image("u", seed=60, key="spare"), f.image("v", seed=61, key="spare").read_bytes()
    half = subprocess.Popen([fleet.CLI, "model", "install", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, env=fleet.ENV)
    half.stdin.write(second[:-4096])
    half.stdin.flush()
    for _ in range(200):
        if any("partial" in name for name in files()):
            break
        threading.Event().wait(0.02)
    r = cli("model", "install", first)
    check("one install at a time", r.returncode == 1 and "another model is being installed" in r.err, r.err)
    check("lists are read meanwhile", "u" not in active())
    half.stdin.write(second[-4096:])
    half.stdin.close()
    check("the one under way ends well", half.wait() == 0 and "v" in active(), half.stderr.read())
    half.stderr.close()


def test_remove_and_log(f):
    good("model", "remove", "m")
    check("model remove", "m" not in active() and cli("model", "remove", "m").returncode == 1)
    refused("and there is no way back by removing", f.image("v", version=1, seed=99, key="spare"), "another image")
    r = cli("audit", "verify")
    check("the log is unbroken", r.returncode == 0 and f"{len(log())} entries" in r.out, r.out)
    events = {e["event"] for e in log()}
    check("and has everything", events >= {"root trusted", "model installed", "model rolled back", "model removed",
                                           "install refused"}, events)
    since = good("audit", "list", "--since", len(log())).splitlines()
    check("audit list --since", len(since) == 1, since)
    in_use = {MODELS / "store" / p for p in files()}
    known = sum(1 + (m[1] > 0) for m in active().values()) + 1  # and the adapter
    check("no file is left that nobody names", len(in_use) == known, (in_use, active()))


def main():
    f = Fleet()
    test_first(f)
    test_update(f)
    test_attacks(f)
    test_below_threshold(f)
    test_rotation(f)
    test_delta(f)
    test_room(f)
    test_two_at_once(f)
    test_remove_and_log(f)
    fleet.done()


main()
