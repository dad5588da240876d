#!/usr/bin/env python3
"""Makes root.golden: roots after docs/images.md with signatures by openssl, and what a box that has the first one must
say to each of the others. A row of tests/unit/storage/root_test.c: name, root, block of signatures (hex), error.
"""
import hashlib
import os
import re
import struct
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CURVES = {1: ("prime256v1", "sha256", 32), 2: ("secp384r1", "sha384", 48)}
ROOT, MODEL = 0, 1
TEST = 1


def openssl(*args, data=b""):
    return subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True).stdout


class Key:
    def __init__(self, folder, name, curve, flags=0):
        self.path, self.curve, self.flags = os.path.join(folder, name), curve, flags
        openssl("ecparam", "-name", CURVES[curve][0], "-genkey", "-noout", "-out", self.path)
        size = CURVES[curve][2]
        self.point = openssl("ec", "-in", self.path, "-pubout", "-outform", "DER", "-conv_form",
                             "uncompressed")[-2 * size - 1:]
        self.id = hashlib.sha256(bytes([curve]) + self.point).digest()

    def entry(self):
        return bytes([self.curve, self.flags, 0, 0]) + self.point

    def sign(self, data, domain=b"kotobako root 1"):
        _, digest, size = CURVES[self.curve]
        der = openssl("dgst", f"-{digest}", "-sign", self.path, data=domain + b"\0" + data)
        text = openssl("asn1parse", "-inform", "DER", data=der).decode()
        raw = b"".join(int(n, 16).to_bytes(size, "big") for n in re.findall(r"INTEGER\s*:([0-9A-F]+)", text))
        return self.id + struct.pack("<HH", len(raw), 0) + raw


def root(keys, roles, version=1, fleet=b"fleet-of-tests!!", revoked=(), last=b""):
    number = struct.Struct("<Q").pack
    fields = {1: fleet, 3: number(version), 5: number(1795651200), 7: b"".join(k.entry() for k in keys),
              9: b"".join(bytes([role, threshold, len(who), 0, *who]) for role, threshold, who in roles)}
    if revoked:
        fields[11] = b"".join(revoked)
    return b"KBROOT01" + b"".join(struct.pack("<HHI", t, 0, len(v)) + v for t, v in sorted(fields.items())) + last


def block(data, signers, *domain):
    return b"KBSIGS01" + b"".join(k.sign(data, *domain) for k in signers)


def main():
    rows = []
    with tempfile.TemporaryDirectory() as d:
        a, b, c, x = Key(d, "a", 1), Key(d, "b", 1), Key(d, "c", 2), Key(d, "x", 2)
        t = Key(d, "t", 1, TEST)
        two_of_three, first = [(ROOT, 2, [0, 1, 2]), (MODEL, 1, [0])], [a, b, c]

        def add(name, data, signers, error="KB_OK"):
            rows.append(f'\t{{"{name}", "{data.hex()}",\n\t\t"{block(data, signers).hex()}", {error}}},\n')
        add("the first", root(first, two_of_three), [a, c])
        add("the next, one key changed", root([a, b, x], two_of_three, 2), [a, b])
        add("the next, signed by all", root([a, b, x], two_of_three, 2), [a, b, c, x])
        add("a key has signed twice", root([a, b, x], two_of_three, 2), [a, a], "KB_EDENIED")
        add("only the old keys", root([b, x, t], two_of_three, 2), [a, b], "KB_EDENIED")
        add("only the new keys", root([b, x, t], two_of_three, 2), [b, x], "KB_EDENIED")
        add("old and new keys", root([b, x, t], two_of_three, 2), [a, b, x])
        add("a version left out", root(first, two_of_three, 3), first, "KB_EDENIED")
        add("the same version", root(first, two_of_three, 1), first, "KB_EDENIED")
        add("another fleet", root(first, two_of_three, 2, b"another fleet!!!"), first, "KB_EDENIED")
        add("its own key is revoked", root(first, two_of_three, 2, revoked=[a.id]), [a, b], "KB_EDENIED")
        add("revoked, but enough are left", root(first, two_of_three, 2, revoked=[a.id]), [a, b, c])
        add("a test key would be needed", root([a, t], [(ROOT, 2, [0, 1])], 2), [a, b, t], "KB_EDENIED")
        add("must be understood", root(first, two_of_three, 2, last=struct.pack("<HHI", 1001, 0, 0)), first,
            "KB_EUNSUPPORTED")
        add("may be passed over", root(first, two_of_three, 2, last=struct.pack("<HHI", 1000, 0, 0)), first)
        for name, data in (
                ("a field twice", root(first, two_of_three, 2, last=struct.pack("<HHI", 9, 0, 0))),
                ("a key twice", root([a, b, a], two_of_three, 2)),
                ("a threshold of none", root(first, [(ROOT, 0, [0])], 2)),
                ("a threshold out of reach", root(first, [(ROOT, 3, [0, 1])], 2)),
                ("one key twice in a role", root(first, [(ROOT, 2, [0, 0])], 2)),
                ("a key that is not there", root(first, [(ROOT, 1, [3])], 2)),
                ("a role twice", root(first, [(ROOT, 1, [0]), (ROOT, 1, [1])], 2)),
                ("nobody may sign the next", root(first, [(MODEL, 1, [0])], 2)),
                ("version 0", root(first, two_of_three, 0)),
                ("a short fleet", root(first, two_of_three, 2, b"fleet")),
                ("half a hash", root(first, two_of_three, 2, revoked=[b"half"]))):
            add(name, data, [a], "KB_EBAD")
    with open(os.path.join(HERE, "root.golden"), "w", encoding="ascii") as f:
        f.writelines(rows)


if __name__ == "__main__":
    main()
