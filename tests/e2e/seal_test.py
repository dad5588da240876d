#!/bin/sh
"exec" "build/venv/seal/bin/python" "$0" "$@"
# Sealed images: Python's cryptography package opens what we sealed and we open what it sealed, after docs/images.md and by
# nothing of ours; a box with the key installs one, a box without it does not. Prints TAP.
import hashlib
import json
import os
import struct
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import fleet
from fleet import TMP, Fleet, check, cli, good

CHUNK, ROW = 65536, 184
CURVES = {1: ec.SECP256R1(), 2: ec.SECP384R1()}


def point(key):
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def curve_of(key):
    return 1 if key.curve.name == "secp256r1" else 2


def key_id(public):
    return hashlib.sha256(bytes([curve_of(public)]) + point(public)).digest()


def wrapping_key(shared, curve, ephemeral, receiver):
    return HKDF(hashes.SHA256(), 32, None, b"kotobako seal 1\0" + bytes([curve]) + ephemeral + receiver).derive(shared)


def nonce(n, last):
    return bytes(3) + struct.pack(">Q", n) + bytes([last])


def seal(plain, receivers):
    content, rows = os.urandom(32), b""
    for public in receivers:
        ephemeral, curve = ec.generate_private_key(public.curve), curve_of(public)
        e = point(ephemeral.public_key())
        kek = wrapping_key(ephemeral.exchange(ec.ECDH(), public), curve, e, point(public))
        rows += key_id(public) + bytes([curve, 0, 0, 0]) + e.ljust(97, b"\0") + bytes(3) + AESGCM(kek).encrypt(
            bytes(12), content, None)
    head = b"KBSEAL01" + struct.pack("<II", len(receivers), 0) + rows
    pieces = [plain[i:i + CHUNK] for i in range(0, len(plain), CHUNK)] or [b""]
    return head + b"".join(AESGCM(content).encrypt(nonce(i, i == len(pieces) - 1), p, hashlib.sha256(head).digest())
                           for i, p in enumerate(pieces))


def unseal(sealed, private):
    public = private.public_key()
    assert sealed[:8] == b"KBSEAL01"
    head = sealed[:16 + ROW * int.from_bytes(sealed[8:12], "little")]
    row = next(head[i:i + ROW] for i in range(16, len(head), ROW) if head[i:i + 32] == key_id(public))
    e = row[36:36 + len(point(public))]
    shared = private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVES[row[32]], e))
    content = AESGCM(wrapping_key(shared, row[32], e, point(public))).decrypt(bytes(12), row[136:], None)
    chunks = [sealed[i:i + CHUNK + 16] for i in range(len(head), len(sealed), CHUNK + 16)]
    return b"".join(AESGCM(content).decrypt(nonce(i, i == len(chunks) - 1), c, hashlib.sha256(head).digest())
                    for i, c in enumerate(chunks))


def main():
    f = Fleet()
    keys = {}
    for name, curve in (("site", "p256"), ("spare-site", "p384"), ("nobody", "p256")):
        good("key", "new", f.dir / name, "--curve", curve)
        keys[name] = serialization.load_pem_private_key((f.dir / name).read_bytes(), None)
        check(f"{name}: one id for both", key_id(keys[name].public_key()).hex() == f.id(name))
    to = f"{f.dir}/site.pub,{f.dir}/spare-site.pub"
    for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 300_001):
        plain, sealed, back = TMP / "plain", TMP / f"sealed-{size}", TMP / f"back-{size}"
        plain.write_bytes(os.urandom(size))
        good("image", "seal", plain, sealed, "--to", to)
        data = sealed.read_bytes()
        check(f"{size} bytes that we sealed, opened by others, for both", all(
            unseal(data, keys[k]) == plain.read_bytes() for k in ("site", "spare-site")))
        theirs = TMP / "theirs"
        theirs.write_bytes(seal(plain.read_bytes(), [keys[k].public_key() for k in ("spare-site", "site")]))
        for k in ("site", "spare-site"):
            back.unlink(missing_ok=True)
            good("image", "unseal", theirs, back, "--key", f.dir / k)
            check(f"{size} bytes that others sealed, opened by us as {k}", back.read_bytes() == plain.read_bytes())
    image = f.image("m", 1, rows=8192, cols=512)
    sealed = f.dir / "sealed.kbm"
    r = cli("image", "seal", image, sealed, "--to", to)
    check("an image is sealed", r.returncode == 0 and "for 2 receivers" in r.out, r.err)
    check("nothing of it is to be read from the stick", b"KBMANIF1" not in sealed.read_bytes() and b"llama" not in
          sealed.read_bytes())
    good("root", "trust", f.chain)
    for args, says in (((), "no key to open it"), (("--key", f.dir / "nobody"), "this key is none of them")):
        r = cli("model", "install", sealed, *args)
        check(f"not installed: {says}", r.returncode == 1 and says in r.err and json.loads(good("model", "list", "--json")) == [],
              r.err)
    cut = sealed.read_bytes()[:-1]
    r = cli("model", "install", "-", "--key", f.dir / "site", data=cut)
    check("cut: refused", r.returncode == 1 and "cut" in r.err, r.err)
    r = cli("model", "install", "-", "--key", f.dir / "site", data=cut[:200000] + bytes([cut[200000] ^ 1]) + cut[200001:])
    check("a turned bit: refused", r.returncode == 1 and "chunk 3 is not what was sealed" in r.err, r.err)
    check("and nothing is left", not list((fleet.STATE / "models/incoming").glob("install*")))
    (fleet.STATE / "unseal.pem").write_bytes((f.dir / "spare-site").read_bytes())
    r = cli("model", "install", sealed)
    check("a box with its key installs it as it reads it", r.returncode == 0 and "m version 1 is installed" in r.out, r.err)
    f.image("m", 2)
    stranger = f.dir / "stranger.kbm"
    data = bytearray(f.image("m", 2).read_bytes())
    data[-1] ^= 1
    stranger.write_bytes(seal(bytes(data), [keys["spare-site"].public_key()]))
    r = cli("model", "install", stranger)
    check("a coat proves nothing: what is within must be signed", r.returncode == 1 and "not the signed one" in r.err, r.err)
    for args in (("seal", image), ("seal", image, TMP / "x"), ("unseal", sealed, TMP / "x")):
        check(f"usage: {args[0]}", cli("image", *args).returncode == 2)
    r = cli("image", "unseal", image, TMP / "x", "--key", f.dir / "site")
    check("what is not sealed is not opened", r.returncode == 1 and not (TMP / "x").exists(), r.err)
    fleet.done()


main()
