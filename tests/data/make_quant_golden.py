#!/usr/bin/env python3
"""Makes tests/data/quant_golden.bin: random blocks of every weight kind and their values by gguf-py.

The values are gguf 0.19.0's (PyPI) gguf.quants.dequantize, ggml-org's own reference in numpy. The panel hash is
FNV-1a 64 over the panel that the text of runtime/quant/quant.h asks for, built here from gguf-py's fields without
looking at our packer. Records: u32 type, rows, cols, source bytes; source; f32 values; u64 panel hash (0: none).
Usage: make_quant_golden.py OUT        needs: pip install gguf==0.19.0
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

ROWS, COLS = 3, 256
rng = np.random.default_rng(20250131)
# byte offsets of f16 scale fields in a block
SCALES = {T.Q4_0: (0,), T.Q4_1: (0, 2), T.Q5_0: (0,), T.Q5_1: (0, 2), T.Q8_0: (0,), T.IQ4_NL: (0,), T.Q2_K: (80, 82),
          T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}
BLOCK = {T.Q4_0: (32, 18), T.Q4_1: (32, 20), T.Q5_0: (32, 22), T.Q5_1: (32, 24), T.Q8_0: (32, 34), T.IQ4_NL: (32, 18),
         T.Q2_K: (256, 84), T.Q3_K: (256, 110), T.Q4_K: (256, 144), T.Q5_K: (256, 176), T.Q6_K: (256, 210)}


def floats(n):
    x = rng.standard_normal(n).astype(np.float32) * np.float32(0.02)
    x[:8] = [0.0, -0.0, 6e-8, -5.9e-8, 6.1e-5, 65504.0, -1.0, 1e-5]  # f16 subnormals and the largest f16
    return x


def source(kind):
    n = ROWS * COLS
    if kind == T.F32:
        return floats(n).view(np.uint8)
    if kind == T.F16:
        return floats(n).astype(np.float16).view(np.uint8)
    if kind == T.BF16:
        return (floats(n).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    cols, size = BLOCK[kind]
    blocks = rng.integers(0, 256, (n // cols, size), dtype=np.uint8)
    for at in SCALES[kind]:
        d = (rng.standard_normal(n // cols) * 0.01).astype(np.float16)
        d[0] = np.float16(3e-7)  # a subnormal scale
        blocks[:, at:at + 2] = d.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(-1)


def words(fields, bits):
    """(rows, n) small ints -> bytes of little-endian words, first field lowest."""
    per = 32 // bits
    f = fields.astype(np.uint64).reshape(fields.shape[0], -1, per)
    w = (f << (np.arange(per, dtype=np.uint64) * np.uint64(bits))).sum(axis=-1).astype("<u4")
    return w.view(np.uint8).reshape(fields.shape[0], -1)


def panel(kind, src):
    """The panel of the first ROWS rows for the kinds whose fields are easy to take from gguf-py."""
    cols, size = BLOCK.get(kind, (0, 0))
    if kind not in (T.Q4_0, T.Q5_1, T.Q8_0, T.Q5_K, T.Q6_K):
        return None
    b = src.reshape(ROWS, COLS // cols, size)

    def section(rows):  # (ROWS, bytes) padded to 16 rows
        out = np.zeros((16, rows.shape[1]), np.uint8)
        out[:ROWS] = rows
        return out.tobytes()

    out = b""
    if kind in (T.Q4_0, T.Q5_1, T.Q8_0):
        for i in range(COLS // 32):
            blk = b[:, i]
            if kind == T.Q8_0:
                out += section(blk[:, 2:]) + section(blk[:, :2])
                continue
            nib = blk[:, -16:]
            q = np.concatenate([nib & 15, nib >> 4], axis=1)
            out += section(words(q, 4))
            if kind == T.Q5_1:
                out += section(blk[:, 4:8]) + section(blk[:, 0:4])
            else:
                out += section(blk[:, :2])
        return out
    blk = b[:, 0]
    if kind == T.Q5_K:
        out += section(blk[:, :4])
        sc, mn = quants.Q4_K.get_scale_min(blk[:, 4:16].copy())
        for i in range(8):
            q = blk[:, 48 + 32 * (i // 2):80 + 32 * (i // 2)] >> (4 * (i % 2)) & 15
            hi = blk[:, 16:48] >> i & 1
            out += section(words(q, 4)) + section(words(hi, 1)) + section(np.stack([sc[:, i], mn[:, i]], axis=1))
        return out
    out += section(np.concatenate([blk[:, 208:210], np.zeros((ROWS, 2), np.uint8)], axis=1))
    for i in range(8):  # column 32i+k: see Q6_K.dequantize_blocks
        g, r = i // 4, i % 4
        ql = blk[:, 64 * g + 32 * (r % 2):][:, :32] >> (4 * (r // 2)) & 15
        qh = blk[:, 128 + 32 * g:][:, :32] >> (2 * r) & 3
        out += section(words(ql, 4)) + section(words(qh, 2)) + section(blk[:, 192 + 2 * i:194 + 2 * i])
    return out


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data or b"":
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h if data else 0


with open(sys.argv[1], "wb") as f:
    for kind in (T.F32, T.F16, T.BF16, *BLOCK):
        src = source(kind)
        want = np.asarray(quants.dequantize(src.reshape(ROWS, -1).view(
            {T.F32: np.float32, T.F16: np.float16}.get(kind, np.uint8)), kind), dtype="<f4")
        assert want.shape == (ROWS, COLS)
        f.write(struct.pack("<4I", int(kind), ROWS, COLS, src.size) + src.tobytes() + want.tobytes())
        f.write(struct.pack("<Q", fnv(panel(kind, src))))
