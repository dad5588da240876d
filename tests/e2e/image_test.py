#!/usr/bin/env python3
"""Keys, roots and signed images by the command line, held against programs that nobody here wrote: openssl makes keys,
checks our signatures and signs for us; fsverity gives the digest. Prints TAP."""
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess

from tiny_gguf import gguf

CLI = str(pathlib.Path(os.environ.get("KB_CLI", "build/release/kotobako")).resolve())
TMP = pathlib.Path(os.environ["KB_TMP"])
ENV = {**os.environ, "KB_STATE": str(TMP / "state"), "KB_TTY": "", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1795651200",
       "XDG_CONFIG_HOME": str(TMP / "config")}
count = failed = 0


def check(what, ok, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}" + ("" if ok else f"  # {str(detail)[:600]!r}"), flush=True)


def cli(*args, data=None, env=ENV):
    r = subprocess.run([CLI, *map(str, args)], input=data, capture_output=True, env=env, timeout=120)
    r.out, r.err = r.stdout.decode(), r.stderr.decode()
    return r


def good(*args, **more):
    r = cli(*args, **more)
    if r.returncode:
        print(f"Bail out! {args}: {r.err}", flush=True)
        raise SystemExit(1)
    return r.out


def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], capture_output=True)


def id_of(path):
    return good("key", "show", path).split()[1]


# What a root or an image holds at its place: {id: (r, s)} of a block of signatures.
def signatures(block):
    assert block[:8] == b"KBSIGS01"
    found, at = {}, 8
    while at + 36 <= len(block) and any(block[at:at + 36]):
        n = int.from_bytes(block[at + 32:at + 34], "little")
        found[block[at:at + 32].hex()] = block[at + 36:at + 36 + n]
        at += 36 + n
    return found


def der(raw):
    def number(b):
        b = b.lstrip(b"\0") or b"\0"
        b = b"\0" + b if b[0] & 128 else b
        return bytes([2, len(b)]) + b
    both = number(raw[:len(raw) // 2]) + number(raw[len(raw) // 2:])
    return bytes([0x30, len(both)]) + both if len(both) < 128 else bytes([0x30, 0x81, len(both)]) + both


def parts(image):
    """(roots, manifest, its block of signatures, where the payload begins) of an image."""
    n, at, things = int.from_bytes(image[8:12], "little"), 16, []
    for _ in range(n + 1):
        size, room = (int.from_bytes(image[at + k:at + k + 4], "little") for k in (0, 4))
        things.append((image[at + 8:at + 8 + size], image[at + 8 + size:at + 8 + size + room]))
        at += 8 + size + room
    return things[:-1], *things[-1], at


def test_keys():
    for curve, name in (("p256", "a"), ("p384", "b"), ("p256", "release"), ("p384", "second"), ("p256", "stranger")):
        r = cli("key", "new", TMP / f"{name}.pem", "--curve", curve)
        mode = stat.S_IMODE((TMP / f"{name}.pem").stat().st_mode)
        check(f"a key, {curve}, its owner's only", r.returncode == 0 and mode == 0o600 and
              re.match(r"P-(256|384) [0-9a-f]{64}\n$", r.out), (r.err, mode))
        same = openssl("pkey", "-in", TMP / f"{name}.pem", "-pubout").stdout == (TMP / f"{name}.pem.pub").read_bytes()
        check("openssl reads it, and finds the public key that we wrote", same)
        check("both files have one id", id_of(TMP / f"{name}.pem") == id_of(TMP / f"{name}.pem.pub") == r.out.split()[1])
    r = cli("key", "new", TMP / "a.pem")
    check("a key is never overwritten", r.returncode == 1 and "never overwritten" in r.err, r.err)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", TMP / "token.pem")
    openssl("ec", "-in", TMP / "token.pem", "-pubout", "-out", TMP / "token.pub")
    check("a key of openssl's", id_of(TMP / "token.pem") == id_of(TMP / "token.pub"))
    openssl("genrsa", "-out", TMP / "rsa.pem", "2048")
    r = cli("key", "show", TMP / "rsa.pem")
    check("an RSA key is refused", r.returncode == 1 and "P-256 or P-384" in r.err, r.err)
    check("a curve that is not there: usage", cli("key", "new", TMP / "x.pem", "--curve", "p521").returncode == 2)


SPEC = {"fleet": "branch offices", "expires": "2036-01-31",
        "keys": {"ann": "a.pem.pub", "bea": "b.pem.pub", "release": "release.pem.pub", "token": "token.pub"},
        "roles": {"root": {"threshold": 2, "keys": ["ann", "bea"]}, "model": {"threshold": 1, "keys": ["release", "token"]}}}


def spec(name, **changes):
    path = TMP / name
    path.write_text(json.dumps({k: v for k, v in {**SPEC, **changes}.items() if v is not None}))
    return path


def test_roots():
    chain = TMP / "fleet.chain"
    bad = [("no fleet", {"fleet": None}), ("a long fleet", {"fleet": "x" * 17}), ("no such day", {"expires": "soon"}),
           ("no such key file", {"keys": {"ann": "nowhere.pub"}}), ("something else", {"more": 1}),
           ("an unknown role", {"roles": {"boss": {"threshold": 1, "keys": ["ann"]}}}),
           ("threshold above keys", {"roles": {"root": {"threshold": 3, "keys": ["ann", "bea"]}}}),
           ("threshold 0", {"roles": {"root": {"threshold": 0, "keys": ["ann"]}}}),
           ("a key twice in a role", {"roles": {"root": {"threshold": 2, "keys": ["ann", "ann"]}}}),
           ("one key under two names", {"keys": {"ann": "a.pem.pub", "bea": "a.pem.pub"}, "roles": {
               "root": {"threshold": 2, "keys": ["ann", "bea"]}}}),
           ("nobody may sign the next", {"roles": {"model": {"threshold": 1, "keys": ["ann"]}}}),
           ("revoked: no hash", {"revoked": ["xyz"]})]
    for name, changes in bad:
        r = cli("root", "build", spec("bad.json", **changes), chain)
        check(f"root build: {name}", r.returncode == 1 and not chain.exists(), r.err)
    r = cli("root", "build", spec("root1.json"), chain)
    check("root build", r.returncode == 0 and "root 1" in r.out, r.err)
    again = TMP / "again.chain"
    good("root", "build", TMP / "root1.json", again)
    check("the same description gives the same bytes", again.read_bytes() == chain.read_bytes())
    r = cli("root", "build", TMP / "root1.json", chain)
    check("no next root before this one is signed", r.returncode == 1 and "must be signed" in r.err, r.err)
    r = cli("root", "sign", chain, "--key", TMP / "a.pem")
    check("one signature is not two", r.returncode == 0 and "not yet" in r.out, r.out)
    check("show says so", cli("root", "show", chain).returncode == 1)
    check("the same key again is still one", "not yet" in good("root", "sign", chain, "--key", TMP / "a.pem"))
    r = cli("root", "sign", chain, "--key", TMP / "b.pem")
    check("two are enough", r.returncode == 0 and "complete" in r.out, r.out)
    shown = good("root", "show", chain)
    check("show", all(id_of(TMP / f"{k}.pem") in shown for k in ("a", "b", "release")) and "branch offices" in shown and
          "2036-01-31" in shown, shown)
    data = chain.read_bytes()
    size, room = (int.from_bytes(data[k:k + 4], "little") for k in (16, 20))
    for key, digest in (("a", "-sha256"), ("b", "-sha384")):
        (TMP / "said").write_bytes(b"kotobako root 1\0" + data[24:24 + size])
        (TMP / "der").write_bytes(der(signatures(data[24 + size:24 + size + room])[id_of(TMP / f"{key}.pem")]))
        r = openssl("dgst", digest, "-verify", TMP / f"{key}.pem.pub", "-signature", TMP / "der", TMP / "said")
        check(f"openssl verifies what {key} signed", b"Verified OK" in r.stdout, r)
    # A new root without ann: old and new keys must sign.
    good("root", "build", spec("root2.json", keys={**SPEC["keys"], "cem": "second.pem.pub"}, roles={
        **SPEC["roles"], "root": {"threshold": 2, "keys": ["bea", "cem"]}}), chain)
    good("root", "sign", chain, "--key", TMP / "b.pem")
    check("the new keys alone do not do", "not yet" in good("root", "sign", chain, "--key", TMP / "second.pem"))
    check("with the old ones they do", "complete" in good("root", "sign", chain, "--key", TMP / "a.pem"))
    r = cli("root", "build", spec("other.json", fleet="others"), chain)
    check("another fleet's root does not follow", r.returncode == 1 and "another fleet" in r.err, r.err)


def test_build():
    chain, image = TMP / "fleet.chain", TMP / "tiny-1.kbm"
    (TMP / "tiny.gguf").write_bytes(gguf())
    good("import", TMP / "tiny.gguf", "--name", "tiny")
    file = TMP / "state/models/tiny.kbm"
    build = ("image", "build", "tiny", image, "--roots", chain, "--version", 1, "--origin", "made here")
    for left_out in ("--roots", "--version"):
        i = build.index(left_out)
        check(f"build wants {left_out}", cli(*build[:i], *build[i + 2:]).returncode == 2 and not image.exists())
    r = cli(*build)
    check("image build", r.returncode == 0 and "version 1" in r.out, r.err)
    r = cli(*build)
    check("nothing is overwritten", r.returncode == 1 and "exists" in r.err, r.err)
    good(*[TMP / "again.kbm" if a == image else a for a in build])
    check("the same input gives the same bytes", image.read_bytes() == (TMP / "again.kbm").read_bytes())
    said = json.loads(good("image", "inspect", image, "--json"))
    outside = subprocess.run(["fsverity", "digest", file], capture_output=True, text=True, check=True).stdout.split()[0]
    check("fsverity gives our digest", "sha256:" + said["digest"] == outside, (said, outside))
    check("the manifest is filled from the model", (said["model"], said["family"], said["licence"], said["version"],
          said["payload_bytes"], said["origin"]) == ("tiny", "llama", "Apache-2.0", 1, file.stat().st_size, "made here"), said)
    check("and what there is is shown", all(t in good("image", "inspect", image) for t in (said["digest"], "Apache-2.0",
                                                                                       "branch offices")))
    (TMP / "free.gguf").write_bytes(gguf(licence=None))
    good("import", TMP / "free.gguf", "--out", TMP / "free.kbm")
    r = cli("image", "build", TMP / "free.kbm", TMP / "x.kbm", "--roots", chain, "--version", 1, "--model", "free")
    check("a model that does not say its licence wants one", r.returncode == 2 and "licence" in r.err, r.err)
    hurt = bytearray(file.read_bytes())
    hurt[hurt.index(b"\0\0\x80\x3f" * 8)] ^= 1  # of the norm's ones
    (TMP / "hurt.kbm").write_bytes(hurt)
    r = cli("image", "build", TMP / "hurt.kbm", TMP / "x.kbm", "--roots", chain, "--version", 1, "--model", "hurt")
    check("a damaged model is not packed", r.returncode == 1 and not (TMP / "x.kbm").exists(), r.err)
    return image


def test_sign(image):
    chain = TMP / "fleet.chain"
    r = cli("image", "verify", image, "--roots", chain)
    check("unsigned: refused", r.returncode == 1, r.err)
    for args in ([], ["--key", TMP / "a.pem", "--export", TMP / "x"], ["--import", TMP / "x"], ["--json"],
                 ["--public", TMP / "token.pub"]):
        check(f"sign: usage {[str(a).split('/')[-1] for a in args]}", cli("image", "sign", image, *args).returncode == 2)
    shutil.copy(image, TMP / "stranger.kbm")
    check("a stranger's signature is none", "not yet" in good("image", "sign", TMP / "stranger.kbm", "--key",
                                                             TMP / "stranger.pem"))
    r = cli("image", "verify", TMP / "stranger.kbm", "--roots", chain)
    check("and no box takes it", r.returncode == 1, r.err)
    # Detached: the key is elsewhere, in openssl's hands.
    shutil.copy(image, TMP / "detached.kbm")
    good("image", "sign", TMP / "detached.kbm", "--export", TMP / "tosign")
    _, manifest, _, _ = parts(image.read_bytes())
    check("what is exported is domain and manifest", (TMP / "tosign").read_bytes() == b"kotobako model manifest 1\0" + manifest)
    openssl("dgst", "-sha256", "-sign", TMP / "token.pem", "-out", TMP / "token.der", TMP / "tosign")
    r = cli("image", "sign", TMP / "detached.kbm", "--import", TMP / "token.der", "--public", TMP / "release.pem.pub")
    check("a signature under another key's name is not taken", r.returncode == 1 and "not this key's" in r.err, r.err)
    r = cli("image", "sign", TMP / "detached.kbm", "--import", TMP / "token.der", "--public", TMP / "token.pub")
    check("what openssl signed is taken", r.returncode == 0 and "complete" in r.out, r.err)
    check("and verifies", cli("image", "verify", TMP / "detached.kbm", "--roots", chain).returncode == 0)
    r = cli("image", "sign", image, "--key", TMP / "release.pem")
    check("image sign", r.returncode == 0 and "complete" in r.out, r.err)
    _, manifest, block, at = parts(image.read_bytes())
    check("the payload begins at a page", at % 4096 == 0, at)
    (TMP / "said").write_bytes(b"kotobako model manifest 1\0" + manifest)
    (TMP / "der").write_bytes(der(signatures(block)[id_of(TMP / "release.pem")]))
    r = openssl("dgst", "-sha256", "-verify", TMP / "release.pem.pub", "-signature", TMP / "der", TMP / "said")
    check("openssl verifies it", b"Verified OK" in r.stdout, r)
    good("image", "sign", TMP / "detached.kbm", "--key", TMP / "release.pem")
    check("a second signature has its room", len(json.loads(good("image", "inspect", "--json", TMP / "detached.kbm"))[
        "signed_by"]) == 2)
    r = cli("image", "verify", image, "--roots", chain)
    check("verify", r.returncode == 0 and "tiny version 1" in r.out, r.err)
    r = cli("image", "verify", "-", "--roots", chain, data=image.read_bytes())
    check("from a pipe", r.returncode == 0, r.err)
    r = cli("image", "verify", "-", "--roots", chain, data=image.read_bytes()[:-1])
    check("cut: refused", r.returncode == 1 and "ends at byte" in r.err, r.err)
    hurt = bytearray(image.read_bytes())
    hurt[-1] ^= 1
    r = cli("image", "verify", "-", "--roots", chain, data=bytes(hurt))
    check("a bit flipped: refused, with its place", r.returncode == 1 and re.search(r"byte \d+", r.err), r.err)


def test_test_keys():
    chain, image = TMP / "test.chain", TMP / "test.kbm"
    good("root", "build", spec("test.json", test_keys=["ann", "bea", "release"]), chain)
    for key in "ab":
        good("root", "sign", chain, "--key", TMP / f"{key}.pem")
    check("show names test keys", "(test key)" in good("root", "show", chain))
    good("image", "build", "tiny", image, "--roots", chain, "--version", 1)
    good("image", "sign", image, "--key", TMP / "release.pem")
    r = cli("image", "verify", image, "--roots", chain)
    check("a release refuses test keys", r.returncode == 1 and "usable keys" in r.err, r.err)


test_keys()
test_roots()
test_sign(test_build())
test_test_keys()
print(f"1..{count}")
raise SystemExit(failed > 0)
