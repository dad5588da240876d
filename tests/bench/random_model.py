#!/usr/bin/env python3
"""Writes a GGUF of a llama with made-up weights, to measure speed at sizes that nobody wants to download: what a
kernel does is the same for any weights. The tokenizer is taken from another GGUF file (its head is enough).

  tests/bench/random_model.py OUT.gguf --tokenizer SMOLLM2.gguf [--layers 32 --width 4096 ...] [--format q8_0]
"""
import argparse
import os
import struct

import gguf

KINDS = {4: "<I", 6: "<f"}
RANDOM_BYTES = 32 << 20  # repeated: no memory that we know of looks into what it keeps
FORMATS = {  # number, weights and bytes of a block
    "f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144)}
SCALES = {  # 16-bit words of a block that are scales
    "q4_0": [0], "q4_1": [0, 1], "q8_0": [0], "q4_k": [0, 1]}
ALIGN = 32


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def tokenizer(path):
    """(bytes of the tokenizer's key-value pairs, how many, tokens) of a GGUF file."""
    out, n, vocab = b"", 0, 0
    with open(path, "rb") as f:
        for key, value, begin, end in gguf.pairs(path):
            if key.startswith("tokenizer."):
                f.seek(begin)
                out += f.read(end - begin)
                n += 1
                vocab = len(value) if key == "tokenizer.ggml.tokens" else vocab
    return out, n, vocab


def tensors(o, vocab):
    kv = o.kv_heads * (o.width // o.heads)
    yield "token_embd.weight", vocab, o.width, o.format
    yield "output_norm.weight", 1, o.width, "f32"
    for i in range(o.layers):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", 1, o.width, "f32"
        yield p + "attn_q.weight", o.width, o.width, o.format
        yield p + "attn_k.weight", kv, o.width, o.format
        yield p + "attn_v.weight", kv, o.width, o.format
        yield p + "attn_output.weight", o.width, o.width, o.format
        yield p + "ffn_norm.weight", 1, o.width, "f32"
        yield p + "ffn_gate.weight", o.ff, o.width, o.format
        yield p + "ffn_up.weight", o.ff, o.width, o.format
        yield p + "ffn_down.weight", o.width, o.ff, o.format


def pool(name):
    """Random blocks of a format, with scales that keep weights small."""
    _, _, size = FORMATS[name]
    if name == "f32":
        return struct.pack("<f", 1.0) * 65536
    data = bytearray(os.urandom(RANDOM_BYTES // size * size))
    if name == "f16":  # numbers of about 2^-11 to 2^-7 instead of anything
        data[1::2] = bytes(b & 0x83 | 0x10 + (b & 0x0C) for b in data[1::2])
    for word in SCALES.get(name, []):
        for byte, value in enumerate(struct.pack("<e", 0.001)):
            data[2 * word + byte::size] = bytes([value]) * (len(data) // size)
    return bytes(data)


def write(f, data, size):
    while size:
        n = min(size, len(data))
        f.write(data[:n])
        size -= n


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out")
    a.add_argument("--tokenizer", required=True)
    a.add_argument("--format", choices=[f for f in FORMATS if f != "f32"], default="q8_0")
    for name, default in (("layers", 32), ("width", 4096), ("heads", 32), ("kv-heads", 8), ("ff", 14336),
                          ("context", 4096)):
        a.add_argument(f"--{name}", type=int, default=default)
    o = a.parse_args()
    pairs, n, vocab = tokenizer(o.tokenizer)
    meta = [("block_count", 4, o.layers), ("context_length", 4, o.context), ("embedding_length", 4, o.width),
            ("feed_forward_length", 4, o.ff), ("attention.head_count", 4, o.heads),
            ("attention.head_count_kv", 4, o.kv_heads), ("attention.layer_norm_rms_epsilon", 6, 1e-5),
            ("rope.freq_base", 6, 500000.0)]
    for key, value in (("general.architecture", "llama"), ("general.name", f"random {o.format}")):
        pairs += text(key) + struct.pack("<I", 8) + text(value)
    for key, kind, value in meta:
        pairs += text("llama." + key) + struct.pack("<I", kind) + struct.pack(KINDS[kind], value)
    infos, offset, parts = b"", 0, []
    for name, rows, cols, fmt in tensors(o, vocab):
        number, block, size = FORMATS[fmt]
        dims = [cols] if rows == 1 else [cols, rows]
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, offset)
        parts.append((fmt, rows * cols // block * size))
        offset += (parts[-1][1] + ALIGN - 1) // ALIGN * ALIGN
    pools = {fmt: pool(fmt) for fmt in {p[0] for p in parts}}
    with open(o.out, "wb") as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", 3, len(parts), n + len(meta) + 2) + pairs + infos)
        f.write(b"\0" * (-f.tell() % ALIGN))
        for fmt, size in parts:
            write(f, pools[fmt], size)
            f.write(b"\0" * (-size % ALIGN))


main()
