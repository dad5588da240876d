#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/catalog: catalogs after docs/images.md, bare and as files with a root (unsigned)."""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fuzz/corpus/catalog")
FLEET = b"fleet-of-tests!!"


def number(n):
    return struct.pack("<Q", n)


def fields(magic, values):
    return magic + b"".join(struct.pack("<HHI", t, 0, len(v)) + v for t, v in sorted(values.items()))


def catalog(images, version=3, **more):
    rows = b"".join(number(v) + number(size) + bytes([i]) * 32 + struct.pack("<I", len(name)) + name
                    for i, (name, v, size) in enumerate(images))
    return fields(b"KBCATAL1", {1: FLEET, 3: number(version), 5: number(1795651200), 7: rows, **more})


def root():
    key = bytes([1, 0, 0, 0, 4]) + bytes(range(64))
    roles = b"".join(bytes([role, 1, 1, 0, 0]) for role in range(4))
    return fields(b"KBROOT01", {1: FLEET, 3: number(1), 5: number(1), 7: key, 9: roles})


def pair(thing, signatures=b"KBSIGS01"):
    return struct.pack("<II", len(thing), len(signatures)) + thing + signatures


def main():
    os.makedirs(OUT, exist_ok=True)
    two = catalog([(b"gemma", 4, 1 << 33), (b"smollm2", 1, 99)])
    inputs = {"none": catalog([]), "two": two, "order": catalog([(b"b", 1, 1), (b"a", 1, 1)]), "twice": catalog([(b"a", 1, 1)] * 2),
              "future": two + struct.pack("<HHI", 8, 0, 1) + b"x", "odd": two + struct.pack("<HHI", 9, 0, 0), "version": catalog([], 0),
              "file": b"KBCATFI1" + struct.pack("<II", 1, 0) + pair(root()) + pair(two, b"KBSIGS01" + bytes(200)),
              "file-cut": b"KBCATFI1" + struct.pack("<II", 2, 0) + pair(root())}
    for name, data in inputs.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)


main()
