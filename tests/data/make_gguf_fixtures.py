#!/usr/bin/env python3
"""Makes tests/data/gguf/: small GGUF files and what gguf-py says is in them.

kinds.gguf has every weight kind and every metadata type; small.gguf is for bit flips. NAME.txt lists, as gguf 0.19.0
(PyPI) reads the file back:
    meta KEY ENCODED-VALUE-IN-HEX
    tensor NAME TYPE-NUMBER N_DIMS DIMS... CRC32      CRC32 (zlib) of the dequantised rows as little-endian f32
Usage: make_gguf_fixtures.py DIRECTORY        needs: pip install gguf==0.19.0
"""
import pathlib
import sys
import zlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

rng = np.random.default_rng(7)
SCALES = {T.Q4_0: (0,), T.Q4_1: (0, 2), T.Q5_0: (0,), T.Q5_1: (0, 2), T.Q8_0: (0,), T.IQ4_NL: (0,), T.Q2_K: (80, 82),
          T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}


def weights(kind, *shape):
    """Rows of a shape given as numpy has it (slowest dimension first)."""
    if kind in (T.F32, T.F16, T.BF16):
        x = (rng.standard_normal(shape) * 0.05).astype(np.float32)
        if kind == T.F16:
            return x.astype(np.float16)
        return x if kind == T.F32 else (x.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    cols, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // cols, size), dtype=np.uint8)
    for at in SCALES[kind]:
        d = (rng.standard_normal(blocks.shape[:-1]) * 0.01).astype(np.float16)
        blocks[..., at:at + 2] = d[..., None].view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def add(w, name, kind, *shape):
    w.add_tensor(name, weights(kind, *shape), raw_dtype=kind)


def kinds(path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("Every kind, 言箱")
    w.add_license("apache-2.0")
    w.add_uint8("test.u8", 200)
    w.add_int8("test.i8", -100)
    w.add_uint16("test.u16", 60000)
    w.add_int16("test.i16", -30000)
    w.add_uint32("test.u32", 4000000000)
    w.add_int32("test.i32", -2000000000)
    w.add_float32("test.f32", 0.1)
    w.add_bool("test.bool", True)
    w.add_string("test.empty", "")
    w.add_uint64("test.u64", 2**64 - 1)
    w.add_int64("test.i64", -2**63)
    w.add_float64("test.f64", 0.1)
    w.add_array("tokenizer.ggml.tokens", ["<s>", "箱", "", "a b", "\u0000"])
    w.add_array("tokenizer.ggml.scores", [0.0, -1.5, -2.25, 1e-9, 3.0])
    w.add_array("tokenizer.ggml.token_type", [3, 1, 1, 1, 6])
    w.add_array("test.bools", [True, False, True])
    for i, kind in enumerate((T.F32, T.F16, T.BF16, *SCALES)):
        add(w, f"blk.{i}.{kind.name.lower()}.weight", kind, (3, 17, 1)[i % 3] if kind != T.F32 else 2, 256)
    add(w, "norm.weight", T.F32, 40)
    add(w, "half_bias", T.F16, 37)
    add(w, "bf16_bias", T.BF16, 5)
    add(w, "packed_bias", T.Q8_0, 64)
    add(w, "one_row.weight", T.Q4_0, 1, 96)
    add(w, "blk.0.ffn_up_exps.weight", T.Q4_1, 3, 7, 64)
    add(w, "blk.0.four.weight", T.Q8_0, 2, 3, 2, 32)
    finish(w)


def small(path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(1)
    w.add_custom_alignment(64)
    w.add_bool("b", True)
    w.add_array("tokens", ["<s>", "a"])
    w.add_array("scores", [0.0, -1.0])
    add(w, "x.weight", T.Q4_0, 2, 64)
    add(w, "n.weight", T.F32, 8)
    finish(w)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def describe(path):
    r = gguf.GGUFReader(path)
    with open(path.with_suffix(".txt"), "w") as out:
        for f in r.fields.values():
            if f.name.startswith("GGUF."):
                continue
            value = b"".join(bytes(np.asarray(p).tobytes()) for p in f.parts[2:])
            out.write(f"meta {f.name} {value.hex()}\n")
        for t in r.tensors:
            x = t.data.view(np.uint8) if t.tensor_type == T.BF16 else t.data
            y = np.ascontiguousarray(quants.dequantize(x, t.tensor_type), dtype="<f4")
            dims = " ".join(str(int(d)) for d in t.shape)
            out.write(f"tensor {t.name} {int(t.tensor_type)} {len(t.shape)} {dims} {zlib.crc32(y.tobytes()):08x}\n")


directory = pathlib.Path(sys.argv[1])
for make in (kinds, small):
    file = directory / f"{make.__name__}.gguf"
    make(file)
    describe(file)
