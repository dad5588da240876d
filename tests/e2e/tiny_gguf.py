"""A model file of a few kilobytes, as GGUF version 3 has it (github.com/ggml-org/ggml/blob/master/docs/gguf.md). It can be
imported, signed, installed; nothing can run it."""
import struct

ALIGN = 32
STRING, U32 = 8, 4
F32, Q8_0 = 0, 8


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def gguf(seed=0, rows=64, cols=64, licence="Apache-2.0"):
    meta = [("general.architecture", STRING, text("llama")), ("general.name", STRING, text("tiny")),
            ("general.alignment", U32, struct.pack("<I", ALIGN))]
    if licence:
        meta.append(("general.license", STRING, text(licence)))
    block = lambda i: struct.pack("<e", 0.01) + bytes((seed + i * 7 + k * 13) % 256 for k in range(32))
    tensors = [("token_embd.weight", Q8_0, (cols, rows), b"".join(block(i) for i in range(rows * cols // 32))),
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
