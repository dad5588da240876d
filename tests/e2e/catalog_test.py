#!/usr/bin/env python3
"""Catalogs: what a box takes and what it refuses, what follows for images, and `kotobako model update` from a mirror that
serves, fails and lies. Prints TAP."""
import json
import random
import subprocess

import box
import fleet
from fleet import STATE, TMP, Fleet, check, cli, good
from serve_test import Mirror

OTHER = TMP / "other"


def active(state=STATE):
    return {m["name"]: m["version"] for m in json.loads(good("model", "list", "--json", state=state))}


def events(state=STATE):
    return [json.loads(line) for line in good("audit", "list", "--json", state=state).splitlines()]


def takes(file, state=STATE):
    return cli("catalog", "install", file, state=state)


def refuses(what, file, says, state=STATE):
    before = cli("catalog", "show", state=state).out
    r = takes(file, state)
    check(f"{what}: refused", r.returncode == 1 and says in r.err and cli("catalog", "show", state=state).out == before,
          (r.returncode, r.err))


def test_accept(f):
    one, two = f.image("m", 1), f.image("m", 2)
    first = f.catalog(1, one)
    refuses("a box that trusts nobody", first, "trusts nobody")
    good("root", "trust", f.chain)
    check("no catalog yet", cli("catalog", "show").returncode == 1)
    check("the first", "catalog 1 is accepted" in takes(first).out)
    check("again", "here already" in takes(first).out)
    shown = good("catalog", "show")
    check("it is shown", "catalog 1" in shown and " version 1 " in shown, shown)
    check("the next", "catalog 2 is accepted" in takes(f.catalog(2, two)).out)
    refuses("an older one", first, "older than catalog 2")
    refuses("another one of the same version", f.catalog(2, one), "another one")
    refuses("one that nobody has signed", f.catalog(3, two, key=None), "0 of")
    refuses("one that the models' key has signed", f.catalog(3, two, key="model"), "0 of")
    refuses("one that is too far ahead", f.catalog(2 + (1 << 20) + 1, two), "too far ahead")
    refuses("no catalog", one, "no file with a catalog")
    other = Fleet("strangers", "strangers")
    refuses("another fleet's", other.catalog(9, other.image("m", 9)), "fleet")
    refused = [e for e in events() if e["event"] == "catalog refused"]
    check("the audit log has the refusals", len(refused) == 6 and good("audit", "verify"), refused)
    r = cli("catalog", "show", f.catalog(4, two, key=None))
    check("show FILE says that nobody has signed it", r.returncode == 1 and "catalog 4" in r.out, r.err)
    r = cli("catalog", "build", TMP / "x", one, two, "--roots", f.chain, "--version", "1")
    check("two images of one model: usage", r.returncode == 2 and "two images of m" in r.err, r.err)
    check("no --roots: usage", cli("catalog", "build", TMP / "x", one).returncode == 2)
    # openssl signs and verifies the same bytes.
    sealed = f.catalog(3, two, key=None)
    good("catalog", "sign", sealed, "--export", TMP / "tosign")
    subprocess.run(["openssl", "dgst", "-sha256", "-sign", f.dir / "list", "-out", TMP / "der", TMP / "tosign"], check=True)
    good("catalog", "sign", sealed, "--import", TMP / "der", "--public", f.dir / "list.pub")
    check("signed by openssl", "catalog 3 is accepted" in takes(sealed).out)


def test_every_bit(f):
    good("root", "trust", f.chain, state=OTHER)
    file = f.catalog(1, f.image("m", 1))
    data = bytearray(file.read_bytes())
    flipped, wrong = TMP / "flipped", []
    rng = random.Random(4)
    bits = rng.sample(range(8 * len(data)), 400)
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(data)
        r = takes(flipped, OTHER)
        if r.returncode != 1:
            wrong.append((bit, r.out))
        data[bit // 8] ^= 1 << bit % 8
    # A root that the box has already is compared; the signatures over it are not needed any more, so they may differ.
    text = bytes(data)
    roots = text.index(b"KBSIGS01") + 8
    room = range(8 * roots, 8 * (text.index(b"KBCATAL1") - 8))
    wrong = [w for w in wrong if w[0] not in room or "here already" not in w[1] and "accepted" not in w[1]]
    check("400 bits of a catalog's file, each turned: refused", not wrong, wrong)
    check("...and the whole one is taken", takes(file, OTHER).returncode == 0)


def test_floors(f):
    state = TMP / "floors"
    good("root", "trust", f.chain, state=state)
    old, listed, newer, other = f.image("m", 4), f.image("m", 5), f.image("m", 6), f.image("m", 5, seed=99)
    good("model", "install", old, state=state)
    takes(f.catalog(1, listed), state)
    check("what is active stays active", active(state) == {"m": 4})
    r = cli("model", "install", f.image("m", 4, seed=77), state=state)
    check("an image older than the catalog says is refused, though the box never had a newer one", r.returncode == 1 and
          "catalog 1" in r.err, r.err)
    r = cli("model", "install", other, state=state)
    check("another image of the listed version too", r.returncode == 1 and "another image than the one" in r.err, r.err)
    good("model", "install", listed, state=state)
    good("model", "install", newer, state=state)
    check("the listed one and newer ones are installed", active(state) == {"m": 6})
    good("model", "install", f.image("unlisted", 1), state=state)
    # The key of catalogs is stolen, and used up to the limit; a new root takes the role from it.
    takes(f.catalog(1 + (1 << 20), f.image("m", 1 << 40)), state)
    r = cli("model", "install", f.image("m", 7), state=state)
    check("a stolen key can stop updates...", r.returncode == 1 and "catalog" in r.err, r.err)
    f.root(lister="next")
    good("model", "install", f.image("m", 8), state=state)
    check("...until a new root takes the role from it", active(state)["m"] == 8 and cli("catalog", "show", state=state)
          .returncode == 1)
    check("that is in the audit log", [e["version"] for e in events(state) if e["event"] == "catalog dropped"] == [1 + (1 << 20)])
    check("the new key counts from where it likes", "catalog 2 is" in takes(f.catalog(2, f.image("m", 8), key="next"), state).out)
    refuses("the old key's", f.catalog(3, f.image("m", 8)), "0 of", state)
    f.root(lister="list")


def update(m, client, *args, state=STATE):
    return cli("--client", client, "model", "update", m.url + "/", *args, state=state)


def test_update(b, ann, f):
    state, folder = TMP / "branch", TMP / "mirror-folder"
    folder.mkdir()
    good("root", "trust", f.chain, state=state)
    images = {"m": f.image("m", 11, rows=8192, cols=512), "n": f.image("n", 2), "extra": f.image("extra", 1)}
    for name, image in (("m", f.image("m", 10)), ("n", images["n"])):
        good("model", "install", image, state=state)
    m = Mirror(folder)
    r = update(m, ann, state=state)
    check("a mirror without a catalog", r.returncode == 1 and "catalog.kbc" in r.err, r.err)
    f.catalog(10, *images.values(), out=folder / "catalog.kbc")
    r = update(m, ann, state=state)
    check("an image that is not there: the others are as they were", r.returncode == 1 and "m-11.kbm" in r.err and
          "1 could not be" in r.out and active(state) == {"m": 10, "n": 2}, (r.out, r.err))
    lie = bytearray(images["m"].read_bytes())
    lie[len(lie) // 2] ^= 1
    (folder / "m-11.kbm").write_bytes(lie)
    r = update(m, ann, state=state)
    check("a mirror that lies", r.returncode == 1 and "not the signed one" in r.err and active(state)["m"] == 10, r.err)
    (folder / "m-11.kbm").write_bytes(images["m"].read_bytes())
    r = update(m, ann, state=state)
    check("one that does not: what is older is updated, what is not there stays away", r.returncode == 0 and
          "1 models were current, 1 were updated" in r.out and active(state) == {"m": 11, "n": 2}, (r.out, r.err))
    r = update(m, ann, state=state)
    check("again: nothing to do", r.returncode == 0 and "2 models were current, 0 were updated" in r.out, (r.out, r.err))
    (folder / "extra-1.kbm").write_bytes(images["extra"].read_bytes())
    r = update(m, ann, "--all", state=state)
    check("--all takes what the box does not have", r.returncode == 0 and active(state) == {"m": 11, "n": 2, "extra": 1}, r.err)
    check("nothing is left of it", not list((state / "models/incoming/update").iterdir()))
    f.catalog(9, images["n"], out=folder / "catalog.kbc")
    r = update(m, ann, state=state)
    check("a mirror that goes back is refused", r.returncode == 1 and "older than catalog 10" in r.err, r.err)
    m.stop()
    # From box to box: no folder, no second copy.
    good("catalog", "install", f.catalog(10, *images.values()))
    good("model", "install", images["m"])
    m = Mirror(name="box-to-box")
    third = TMP / "third"
    good("root", "trust", f.chain, state=third)
    good("model", "install", f.image("m", 9), state=third)
    r = update(m, ann, state=third)
    check("a box updates itself from another box", r.returncode == 0 and active(third) == {"m": 11}, (r.out, r.err))
    m.stop()


def test_stick(f):
    state, stick = TMP / "stick-state", TMP / "stick"
    stick.mkdir()
    good("root", "trust", f.chain, state=state)
    good("model", "install", f.image("m", 5), state=state)
    for name, version in (("m", 4), ("n", 1)):
        (stick / f"{name}.kbm").write_bytes(f.image(name, version).read_bytes())
    (stick / "notes.txt").write_text("x")
    (stick / ".hidden.kbm").write_text("x")
    r = cli("model", "update", stick, state=state)
    check("a stick: what is newer is installed, what is older is passed over", r.returncode == 0 and active(state) == {"m": 5, "n": 1}
          and "1 images were here already, 1 were installed, 0 could not be" in r.out, (r.out, r.err))
    (stick / "bad.kbm").write_bytes(b"KBBUNDL1" + bytes(100))
    (stick / "m.kbm").write_bytes(f.image("m", 6).read_bytes())
    f.catalog(20, f.image("m", 6), out=stick / "catalog.kbc")
    r = cli("model", "update", stick, state=state)
    check("with a damaged image on it: the others are installed", r.returncode == 1 and active(state) == {"m": 6, "n": 1} and
          "1 could not be" in r.out and "catalog 20 is accepted" in r.out, (r.out, r.err))
    check("no such folder", cli("model", "update", TMP / "no-stick", state=state).returncode == 1)


def main():
    b = box.Box()
    ann = b.pair("ann")
    f = Fleet()
    test_accept(f)
    test_every_bit(f)
    test_floors(f)
    test_update(b, ann, f)
    test_stick(f)
    b.stop()
    fleet.done()


main()
