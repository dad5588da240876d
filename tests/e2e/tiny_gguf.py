"""A model file of a few kilobytes, as GGUF version 3 has it (github.com/ggml-org/ggml/blob/master/docs/gguf.md). It can be
imported, signed, installed; nothing can run it."""
import random
import struct

ALIGN = 32
STRING, U32 = 8, 4
F32, Q8_0 = 0, 8


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def gguf(seed=0, rows=64, cols=64, licence="Apache-2.0", layers=()):
    """layers: a seed for each of further matrices of the same shape."""
    meta = [("general.architecture", STRING, text("llama")), ("general.name", STRING, text("tiny")),
            ("general.alignment", U32, struct.pack("<I", ALIGN))]
    if licence:
        meta.append(("general.license", STRING, text(licence)))

    def matrix(seed):
        rng = random.Random(seed)
        return b"".join(struct.pack("<e", 0.01) + rng.randbytes(32) for _ in range(rows * cols // 32))
    tensors = [("token_embd.weight", Q8_0, (cols, rows), matrix(seed)),
               *((f"blk.{i}.attn_q.weight", Q8_0, (cols, rows), matrix(s)) for i, s in enumerate(layers)),
               ("output_norm.weight", F32, (cols,), struct.pack(f"<{cols}f", *([1.0] * cols)))]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    out += b"".join(text(k) + struct.pack("<I", t) + v for k, t, v in meta)
    at = 0
    for name, kind, dims, data in tensors:
        out += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", kind, at)
        at += len(data) + -len(data) % ALIGN
    out += bytes(-len(out) % ALIGN)
    return out + b"".join(data + bytes(-len(data) % ALIGN) for _, _, _, data in tensors)
