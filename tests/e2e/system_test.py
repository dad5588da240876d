#!/usr/bin/env python3
"""Updates of the system, played in a folder (played_box.py): a good one, every way to be a bad one, attacks, a firmware that
forgets, the way back. That the same programs do it on a real kernel, firmware and boot partition: tests/image/update_test.py.
Prints TAP.
"""
import json
import random

import fleet
from fleet import TMP, Fleet, check, cli, good
from played_box import DEFAULT, SLOT_BYTES, TRIAL, Box, root_of, system_image

f = Fleet(system=("system",))
boxes = 0


def box():
    global boxes
    boxes += 1
    b = Box(TMP / f"box{boxes}", f.chain)
    b.settle()
    return b


def status(b):
    return json.loads(b.os("status", "--json").out)


def events(b):
    return [json.loads(line)["event"] for line in good("audit", "list", "--json", state=b.state).splitlines()]


def test_good(two, three):
    b = Box(TMP / "good", f.chain)
    check("a new box starts from slot a", b.settle() == ("a", 1, 1), b.said.stderr)
    r = b.install(two)
    check("a system is installed", r.returncode == 0 and "read back" in r.out, r.err)
    check("...into the other slot", (b.dir / "slot_b").read_bytes().startswith(root_of(2)))
    check("...on trial, and stays: one start more", b.settle() == ("b", 2, 2), b.said.stderr)
    check("it starts by itself from then on", b.text(DEFAULT) == "app_b.efi" and b.settle() == ("b", 2, 1))
    check("nothing of the trial is left", not b.text(TRIAL) and not list((b.state / "os").glob("[!l]*")))
    s = status(b)
    check("status says so", s["version"] == 2 and s["slot"] == "b" and "last_failed" not in s and
          [x["state"] for x in s["slots"]] == ["good", "good"], s)
    check("the log says so", [e for e in events(b) if e.startswith("system")] == ["system written", "system on trial", "system proven"],
          events(b))
    check("a second update goes to slot a", b.install(three).returncode == 0 and b.settle() == ("a", 3, 2))
    r = b.install(three)
    check("what runs already is not installed again", r.returncode == 0 and "runs already" in r.out, r.err)
    r = b.install(two)
    check("nothing older comes in", r.returncode == 1 and "older" in r.err, r.err)
    r = b.os("rollback")
    check("the way back is a trial as well", r.returncode == 0 and b.settle() == ("b", 2, 2), r.err)
    b.remove()


def test_bad(two):
    rows = {
        "the model gives no token": lambda b: b.sick("the model gave no token"),
        "its root is damaged": lambda b: damage(b.dir / "slot_b", 50_000),
        "its kernel is damaged": damage_kernel,
    }
    for what, spoil in rows.items():
        b = box()
        r = b.install(two)
        spoil(b)
        slot, version, starts = b.settle()
        s = status(b)
        check(f"{what}: the old one is back", (slot, version) == ("a", 1) and starts <= 4, (slot, version, starts, r.err))
        check("...and the reason is kept", s.get("last_failed", {}).get("version") == 2 and len(s["last_failed"]["reason"]) > 10, s)
        print(f"# {starts} starts: {s['last_failed']['reason']}")
        check("...it is not tried again", b.settle() == ("a", 1, 1))
        r = b.install(two)
        check("...nor installed again by itself", r.returncode == 1 and "did not prove itself" in r.err, r.err)
        b.sick(None)
        r = b.install(two, "--again")
        check("...but on request, and then it works", r.returncode == 0 and b.settle() == ("b", 2, 2), r.err)
        b.remove()


def damage(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def damage_kernel(b):
    """On the boot partition, after it was read back: the firmware refuses it."""
    assert b.start() is None
    damage(b.esp / "EFI/Linux/app_b.efi", 10_000)


def test_broken_disk(two):
    b = box()
    b.install(two)
    b.settle()
    damage(b.esp / "EFI/Linux/app_b.efi", 5)
    slot, version, starts = b.settle()
    check("the kernel that starts by itself is damaged later: the other slot runs", (slot, version) == ("a", 1) and starts == 2,
          (slot, version, starts))
    check("...from then on, and the reason is kept", b.settle() == ("a", 1, 1) and status(b)["last_failed"]["version"] == 2)
    b.remove()
    b = box()
    b.install(two)
    b.settle()
    for path in b.vars.iterdir():
        path.unlink()
    check("a firmware that has forgotten everything: the same system starts", b.settle() == ("b", 2, 1) and
          b.text(DEFAULT) == "app_b.efi")
    b.remove()


def test_attacks(two):
    other = Fleet("other", "others", system=("system",))
    image = two.read_bytes()
    cut, flipped, late = TMP / "cut.kbm", TMP / "flipped.kbm", TMP / "late.kbm"
    cut.write_bytes(image[:-1])
    late.write_bytes(image + b"\0")
    rng = random.Random(6)
    rows = [
        ("signed by the key for models", system_image(f, 2, key="model"), "signatures"),
        ("not signed", system_image(f, 2, key=None), "signatures"),
        ("another fleet's", system_image(other, 2), "another fleet"),
        ("for another board", system_image(f, 2, board="other-board"), "for the board other-board"),
        ("a model", f.image("m", 1), "signatures"),
        ("cut by a byte", cut, "before all of it is there"),
        ("a byte too many", late, "behind the end"),
        ("larger than the slot", system_image(f, 2, root=bytes(SLOT_BYTES + 4096), name="large"), "the slot"),
    ]
    b = box()
    for what, path, why in rows:
        r = b.install(path)
        check(f"{what}: refused", r.returncode == 1 and why in r.err, (r.returncode, r.err))
        check("...and the box is as before", not (b.state / "os/arm").exists() and b.settle() == ("a", 1, 1))
    taken = 0
    for _ in range(60):
        data = bytearray(image)
        at = rng.randrange(image.index(b"KBMANIF1"), len(data))  # before it are roots that the box knows: compared, not checked
        data[at] ^= 1 << rng.randrange(8)
        flipped.write_bytes(data)
        r = b.install(flipped)
        taken += r.returncode == 0
    check("60 images with a bit flipped anywhere from the manifest on: none is taken", taken == 0 and b.settle() == ("a", 1, 1), taken)
    r = cli("model", "install", two, state=b.state)
    check("a system does not come in as a model", r.returncode == 1, r.err)
    check("after all that the good one comes in", b.install(two).returncode == 0 and b.settle() == ("b", 2, 2))
    check("refusals are in the log", events(b).count("system refused") >= 60)
    b.remove()


def test_floor():
    b = box()
    two = system_image(f, 2, floor=2)
    b.install(two)
    check("a system that closes the way back", b.settle() == ("b", 2, 2))
    check("...does so once it has started by itself", status(b)["floor"] == 0 and b.settle() == ("b", 2, 1) and status(b)["floor"] == 2)
    r = b.os("rollback")
    check("...then there is none", r.returncode == 1 and "floor" in r.err, r.err)
    b.remove()


def test_tools(two):
    check("image verify knows systems", "system-box version 2" in good("image", "verify", two, "--roots", f.chain))
    said = json.loads(good("image", "inspect", two, "--json"))
    check("image inspect shows what it is", (said["kind"], said["family"], said["version"]) == ("os", "box", 2), said)
    again = system_image(f, 2)
    check("the same parts give the same bytes", again.read_bytes() == two.read_bytes())
    b = box()
    stick = TMP / "stick"
    stick.mkdir()
    for i, path in enumerate([two, system_image(f, 4), system_image(f, 9, board="other"), f.image("m", 1)]):
        (stick / f"{i}.kbm").write_bytes(path.read_bytes())
    (stick / "note.txt").write_text("hello")
    check("from a folder the newest for this board is taken", b.install(stick).returncode == 0 and b.settle() == ("b", 4, 2))
    (TMP / "empty").mkdir()
    r = b.install(TMP / "empty")
    check("a folder without one is said", r.returncode == 1 and "no system image" in r.err, r.err)
    r = cli("os", "status", state=b.state)
    check("elsewhere there are no slots", r.returncode == 1 and "no box with slots" in r.err, r.err)
    b.remove()


two, three = system_image(f, 2), system_image(f, 3)
test_good(two, three)
test_bad(two)
test_broken_disk(two)
test_attacks(two)
test_floor()
test_tools(two)
fleet.done()
