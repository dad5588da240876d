#!/usr/bin/env python3
"""Makes tiny_models.bin: what llama.cpp computes for tiny models of every family, with made-up weights.

The weights come from a counter-based generator that tests/unit/model/tiny.h has too, so only llama.cpp's logits are
stored. Oracle: llama.cpp's CPU backend (tests/bench/peer.c, f32 weights and KV cache). Run:
  tests/bench/build_llama.sh && tests/golden/python.sh tests/data/make_tiny_models.py

tiny_models.bin, little-endian: char magic[8] = "KBTINY01", u32 models, u32 tokens, u32 vocab; then for each model
char name[16], f32 logits[tokens][vocab]. Token i of the sequence is (i * 37 + 11) mod vocab.
"""
import os
import struct
import subprocess

import gguf
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
WORK = os.path.join(TOP, "build", "golden", "tiny")
TOKENS, VOCAB, WIDTH, FF = 24, 96, 64, 96

# name, arch, layers, heads, kv_heads, head_dim, extra metadata (type, value)
MODELS = [
    ("llama3", "llama", 2, 4, 2, 16, {"rope.freq_base": 500000.0}, {"output", "rope_freqs"}),
    ("linear", "llama", 2, 4, 4, 16, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, set()),
    ("qwen2", "qwen2", 2, 4, 1, 16, {"rope.freq_base": 1000000.0}, {"bias"}),
    ("qwen3", "qwen3", 2, 4, 2, 32, {"rope.freq_base": 1000000.0}, {"qk_norm", "output"}),
    ("gemma2", "gemma2", 4, 4, 2, 32, {"attention.sliding_window": 5, "attn_logit_softcapping": 2.0,
                                       "final_logit_softcapping": 8.0}, {"post"}),
    ("gemma3", "gemma3", 7, 4, 1, 32, {"rope.freq_base": 1000000.0, "attention.sliding_window": 6},
     {"post", "qk_norm"}),
]


def uniform(name, n):
    """n numbers in [0, 1), 24 bits each: splitmix64 (Vigna) of FNV-1a(name) and the index."""
    seed = 0xcbf29ce484222325
    for c in name.encode():
        seed = (seed ^ c) * 0x100000001b3 & 0xffffffffffffffff
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0 ** -24


def weights(name, rows, cols):
    u = uniform(name, rows * cols)
    if name.startswith("rope_freqs"):
        w = 1 + 3 * u
    elif "norm" in name:
        w = 0.75 + 0.5 * u
    elif name.startswith("token_embd"):
        w = 2 * u - 1
    elif "attn_q" in name or "attn_k" in name or name.endswith("bias"):
        w = u - 0.5
    else:
        w = 0.5 * u - 0.25
    w = w.astype(np.float32)
    return w.reshape(rows, cols) if rows > 1 else w


def tensors(layers, heads, kv_heads, head_dim, extras):
    q, kv = heads * head_dim, kv_heads * head_dim
    yield "token_embd.weight", VOCAB, WIDTH
    yield "output_norm.weight", 1, WIDTH
    if "output" in extras:
        yield "output.weight", VOCAB, WIDTH
    if "rope_freqs" in extras:
        yield "rope_freqs.weight", 1, head_dim // 2
    for i in range(layers):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", 1, WIDTH
        yield p + "attn_q.weight", q, WIDTH
        yield p + "attn_k.weight", kv, WIDTH
        yield p + "attn_v.weight", kv, WIDTH
        if "bias" in extras:
            yield p + "attn_q.bias", 1, q
            yield p + "attn_k.bias", 1, kv
            yield p + "attn_v.bias", 1, kv
        if "qk_norm" in extras:
            yield p + "attn_q_norm.weight", 1, head_dim
            yield p + "attn_k_norm.weight", 1, head_dim
        yield p + "attn_output.weight", WIDTH, q
        yield p + "ffn_norm.weight", 1, WIDTH
        yield p + "ffn_gate.weight", FF, WIDTH
        yield p + "ffn_up.weight", FF, WIDTH
        yield p + "ffn_down.weight", WIDTH, FF
        if "post" in extras:
            yield p + "post_attention_norm.weight", 1, WIDTH
            yield p + "post_ffw_norm.weight", 1, WIDTH


def write(path, arch, layers, heads, kv_heads, head_dim, meta, extras):
    w = gguf.GGUFWriter(path, arch)
    w.add_vocab_size(VOCAB)
    w.add_string("tokenizer.ggml.model", "none")
    w.add_context_length(256)
    w.add_embedding_length(WIDTH)
    w.add_block_count(layers)
    w.add_feed_forward_length(FF)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(1e-5)
    for key, value in meta.items():
        key = f"{arch}.{key}"
        if isinstance(value, str):
            w.add_string(key, value)
        elif isinstance(value, float):
            w.add_float32(key, value)
        else:
            w.add_uint32(key, value)
    for name, rows, cols in tensors(layers, heads, kv_heads, head_dim, extras):
        w.add_tensor(name, weights(name, rows, cols))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    os.makedirs(WORK, exist_ok=True)
    tokens = os.path.join(WORK, "tokens.bin")
    with open(tokens, "wb") as f:
        f.write(struct.pack(f"<{TOKENS + 1}I", TOKENS, *((i * 37 + 11) % VOCAB for i in range(TOKENS))))
    with open(os.path.join(HERE, "tiny_models.bin"), "wb") as out:
        out.write(struct.pack("<8s3I", b"KBTINY01", len(MODELS), TOKENS, VOCAB))
        for name, *shape in MODELS:
            path = os.path.join(WORK, name + ".gguf")
            logits = os.path.join(WORK, name + ".logits")
            write(path, *shape)
            subprocess.run([os.path.join(TOP, "build/llama/bin/kb-peer"), "--kv-f32", "logits", path, tokens, logits],
                           check=True)
            data = open(logits, "rb").read()
            assert len(data) == 4 * TOKENS * VOCAB
            assert np.isfinite(np.frombuffer(data, "<f4")).all()
            out.write(struct.pack("<16s", name.encode()) + data)


main()
