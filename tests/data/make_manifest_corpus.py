#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/manifest: manifests after docs/images.md, good ones and one bad of each kind."""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fuzz/corpus/manifest")
NUMBER = struct.Struct("<Q").pack


def field(tag, value):
    return struct.pack("<HHI", tag, 0, len(value)) + value


def manifest(changes=None, last=b""):
    fields = {1: b"office-7b", 3: NUMBER(3), 5: NUMBER(0), 7: NUMBER(1795651200), 8: b"llama", 10: b"Apache-2.0",
              12: "言箱".encode(), 17: NUMBER(1), 19: NUMBER(5 << 30), 21: NUMBER((1 << 32) + 1), 23: bytes(range(32))}
    fields.update(changes or {})
    return b"KBMANIF1" + b"".join(field(t, v) for t, v in sorted(fields.items()) if v is not None) + last


ROWS = {
    "model": manifest(),
    "adapter": manifest({5: NUMBER(1), 25: bytes(32)}),
    "all": manifest({5: NUMBER(1), 14: b"Q4_K", 16: b"KL 1e-4", 25: bytes(32)}),
    "from-the-future": manifest({1000: b"later"}),
    "must-understand": manifest({1001: b"later"}),
    "twice": manifest(last=field(23, bytes(32))),
    "cut": manifest()[:-1],
    "no-root": manifest({23: None}),
    "bad-text": manifest({10: b"\xff"}),
    "bad-name": manifest({1: b"../x"}),
    "base-of-model": manifest({25: bytes(32)}),
}


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, data in ROWS.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()
