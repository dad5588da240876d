#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/image/: one valid seed for each part of image_fuzz.c. The first byte picks the part.

Layouts: storage/record.h; LMDB's pages as mdb.c 0.9.31 has them, here of 512 bytes (the smallest the checker takes).
Usage: make_image_corpus.py, in the top directory.
"""
import pathlib
import struct

P = 512
NONE = 2**64 - 1
DIR = pathlib.Path("tests/fuzz/corpus/image")


def db(root):
    return struct.pack("<IHHQQQQQ", 0, 0, 1, 0, 1, 0, 1, root)


def meta(number, txn, root, last):
    free = struct.pack("<IHHQQQQQ", P, 8, 0, 0, 0, 0, 0, NONE)
    head = struct.pack("<QHHI", number, 0, 8, 0) + struct.pack("<IIQQ", 0xBEEFC0DE, 1, 0, P * 8)
    return (head + free + db(root) + struct.pack("<QQ", last, txn)).ljust(P, b"\0")


def tree_page(number, kind, nodes):
    """nodes: (key, low 16 bits, next 16, flags, data)."""
    at, pointers, bodies = P, [], []
    for key, lo, hi, flags, data in nodes:
        body = struct.pack("<HHHH", lo, hi, flags, len(key)) + key + data
        body += b"\0" * (len(body) % 2)
        at -= len(body)
        pointers.append(at)
        bodies.insert(0, body)
    head = struct.pack("<QHHHH", number, 0, kind, 16 + 2 * len(nodes), at)
    return (head + b"".join(struct.pack("<H", p) for p in pointers)).ljust(at, b"\0") + b"".join(bodies)


def leaf(number, nodes):
    return tree_page(number, 2, [(k, size & 0xFFFF, size >> 16, flags, data) for k, flags, data, size in nodes])


def branch(number, children):
    return tree_page(number, 1, [(k, page & 0xFFFF, page >> 16 & 0xFFFF, page >> 32, b"") for k, page in children])


big = (struct.pack("<QHHI", 4, 0, 4, 2) + b"v" * 700).ljust(2 * P, b"\0")
pages = [meta(0, 1, NONE, 1), meta(1, 2, 2, 7),
         leaf(2, [(b"big", 1, struct.pack("<Q", 4), 700), (b"meta", 2, db(3), 48), (b"x", 0, b"abc", 3)]),
         branch(3, [(b"", 6), (b"m", 7)]), big, leaf(6, [(b"a", 0, b"1", 1)]),
         leaf(7, [(b"m", 0, b"1", 1), (b"n", 0, b"2", 1)])]
strings = struct.pack("<IIIQ", 0, 9, 8, 2) + struct.pack("<Q", 1) + b"a" + struct.pack("<Q", 2) + b"bc"
DIR.mkdir(parents=True, exist_ok=True)
(DIR / "info").write_bytes(b"\0KOTOBAKO" + struct.pack("<6I2Q", 1, 4096, 3, 2, 1, 0, 1000, 4000))
(DIR / "tensor").write_bytes(b"\1" + struct.pack("<8I7Qd", 4, 3, 2, 17, 64, 0, 1, 0, 64, 17, 1, 1, 256, 1280, 7, 0.0))
(DIR / "meta").write_bytes(b"\2" + strings)
(DIR / "pages").write_bytes(b"\3" + b"".join(pages))
