#!/usr/bin/env python3
"""Seeds for tests/fuzz/proto_fuzz.c, one frame of each type, written from the comments of runtime/proto/proto.h.

Usage: make_proto_corpus.py tests/fuzz/corpus/proto
"""
import os
import struct
import sys


def text(s):
    raw = s.encode()
    return struct.pack("<I", len(raw)) + raw


def frame(kind, ident, body=b""):
    return struct.pack("<IBQ", 9 + len(body), kind, ident) + body


def submit(kind, messages, prompt, tokens, resume, stop):
    out = struct.pack("<BI", kind, len(messages)) + b"".join(text(r) + text(c) for r, c in messages) + text(prompt)
    for ids in (tokens, resume):
        out += struct.pack("<I", len(ids)) + b"".join(struct.pack("<I", i) for i in ids)
    out += struct.pack("<IfffIfffQBB", 64, 0.7, 0.9, 0.05, 40, 1.1, 0.5, -0.5, 42, 3, 1)
    return out + struct.pack("<I", len(stop)) + b"".join(text(s) for s in stop) + text("alice")


def logprob(token, value, raw):
    return struct.pack("<If", token, value) + text(raw)


FRAMES = {
    "submit-chat": frame(1, 1, submit(0, [("system", "Be brief."), ("user", "言箱?")], "", [], [5, 6], ["\n\n", "."])),
    "submit-text": frame(1, 2, submit(1, [], "Once upon", [], [], [])),
    "submit-tokens": frame(1, 3, submit(2, [], "", [1, 2, 3], [], [])),
    "cancel-ping-stats-quit": frame(2, 1) + frame(3, 2) + frame(4, 3) + frame(5, 0),
    "ready": frame(32, 0, struct.pack("<I", 2) + text("llama") + text("SmolLM2") + text("llvmpipe")
                   + struct.pack("<IIIIQQQ", 49152, 2048, 8, 16384, 1 << 27, 1 << 28, 134515008)),
    "progress": frame(33, 0, struct.pack("<QQ", 1, 2) + text("weights")),
    "accepted": frame(34, 1, struct.pack("<I", 12)),
    "token": frame(35, 1, struct.pack("<I", 7) + text("hi") + b"\x00"),
    "token-logprobs": frame(35, 1, struct.pack("<I", 7) + text("hi") + b"\x01" + logprob(7, -0.1, "hi")
                            + struct.pack("<I", 2) + logprob(7, -0.1, "hi") + logprob(8, -2.5, "ho")),
    "done": frame(36, 1, b"\x01" + text("rest") + struct.pack("<IIIQQQ", 12, 64, 4, 10, 20, 30)),
    "error": frame(37, 1, struct.pack("<i", -5) + text("the context is exceeded")),
    "pong": frame(38, 2, struct.pack("<BI", 1, 900) + text("ok")),
    "stats": frame(39, 3, struct.pack("<IIIIIQQQQQQQQ", 1, 2, 3, 4, 11, 5, 6, 7, 8, 9, 10, 12, 13)),
}

os.makedirs(sys.argv[1], exist_ok=True)
for name, data in FRAMES.items():
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(data)
