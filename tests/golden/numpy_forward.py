#!/usr/bin/env python3
"""A check of the reference itself: the same forward pass written a second time, in numpy with 64-bit floats.

OURS (llama.cpp's result is the reference; this asks whether it is right): reads the original GGUF, dequantises with
gguf-py, runs the first N positions of a sequence of kl_MODEL.bin and prints the divergence of the reference from it.
Usage: numpy_forward.py MODEL.gguf kl_MODEL.bin [--positions N] [--seq I] [--half-gelu]
--half-gelu rounds GELU's argument and value to 16 bits, as llama.cpp's CPU backend does by its table.
"""
import argparse
import struct

import gguf
import numpy as np
from gguf.quants import dequantize


class Weights:
    def __init__(self, path):
        r = gguf.GGUFReader(path)
        self.fields = {k: f for k, f in r.fields.items()}
        self.tensors = {t.name: t for t in r.tensors}
        self.arch = self.meta("general.architecture")

    def meta(self, key, default=None):
        f = self.fields.get(key) or self.fields.get(f"{getattr(self, 'arch', '')}.{key}")
        return f.contents() if f else default

    def __call__(self, name):
        t = self.tensors[name]
        return dequantize(t.data, t.tensor_type).astype(np.float64)


def rms(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope(x, base, interleaved):
    """x: (position, head, dim). Pairs are (2i, 2i + 1) for llama's GGUF layout, (i, i + dim/2) for gemma's."""
    n, _, dim = x.shape
    angle = np.arange(n)[:, None] * base ** (-np.arange(0, dim, 2) / dim)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    y = np.empty_like(x)
    a, b = (np.s_[..., 0::2], np.s_[..., 1::2]) if interleaved else (np.s_[..., :dim // 2], np.s_[..., dim // 2:])
    y[a], y[b] = x[a] * c - x[b] * s, x[a] * s + x[b] * c
    return y


def gelu(x, half):
    if half:
        x = x.astype(np.float16).astype(np.float64)
    y = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))
    return y.astype(np.float16).astype(np.float64) if half else y


def forward(w, tokens, half_gelu):
    gemma = w.arch == "gemma3"
    heads, kv = w.meta("attention.head_count"), w.meta("attention.head_count_kv")
    eps, n = w.meta("attention.layer_norm_rms_epsilon"), len(tokens)
    table = w("token_embd.weight")
    x = table[tokens] * (np.sqrt(table.shape[1]) if gemma else 1)
    back = np.arange(n)[:, None] - np.arange(n)[None, :]
    for i in range(w.meta("block_count")):
        p = f"blk.{i}."
        sliding = gemma and i % 6 != 5  # five local layers, then a global one
        base = 10000.0 if sliding else w.meta("rope.freq_base")
        seen = (back >= 0) & (back < (w.meta("attention.sliding_window") if sliding else n))
        h = rms(x, w(p + "attn_norm.weight"), eps)
        q, k, v = (h @ w(p + f"attn_{c}.weight").T for c in "qkv")
        q, k, v = q.reshape(n, heads, -1), k.reshape(n, kv, -1), v.reshape(n, kv, -1)
        if gemma:
            q, k = rms(q, w(p + "attn_q_norm.weight"), eps), rms(k, w(p + "attn_k_norm.weight"), eps)
        q, k = rope(q, base, not gemma), rope(k, base, not gemma)
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        a = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        a = np.where(seen, a, -np.inf)
        a = np.exp(a - a.max(-1, keepdims=True))
        o = np.einsum("hqk,khd->qhd", a / a.sum(-1, keepdims=True), v).reshape(n, -1) @ w(p + "attn_output.weight").T
        x = x + (rms(o, w(p + "post_attention_norm.weight"), eps) if gemma else o)
        h = rms(x, w(p + "ffn_norm.weight"), eps)
        g, u = h @ w(p + "ffn_gate.weight").T, h @ w(p + "ffn_up.weight").T
        o = ((gelu(g, half_gelu) if gemma else g / (1 + np.exp(-g))) * u) @ w(p + "ffn_down.weight").T
        x = x + (rms(o, w(p + "post_ffw_norm.weight"), eps) if gemma else o)
    return rms(x, w("output_norm.weight"), eps), table  # the logits are the product with the table, row by row


def read_kl(path):
    """(sequences of tokens, rows as (ids, logprobs, rest)) of a kl_MODEL.bin."""
    data = open(path, "rb").read()
    _, _, n_seq, n_pos, _, k, _, _ = struct.unpack_from("<8s32s6I", data)
    lens = struct.unpack_from(f"<{n_seq}I", data, 64)
    at, sequences = 64 + 4 * n_seq, []
    for n in lens:
        sequences.append(np.frombuffer(data, "<u4", n + 1, at))
        at += 4 * (n + 1)
    rows = np.frombuffer(data, np.dtype([("ids", "<u4", k), ("lp", "<f4", k), ("rest", "<f4")]), n_pos, at)
    return sequences, rows


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model")
    p.add_argument("reference")
    p.add_argument("--positions", type=int, default=128)
    p.add_argument("--seq", type=int, default=0)
    p.add_argument("--half-gelu", action="store_true")
    a = p.parse_args()
    sequences, rows = read_kl(a.reference)
    first = sum(len(s) - 1 for s in sequences[:a.seq])
    tokens = sequences[a.seq][:-1][:a.positions].astype(np.int64)
    hidden, table = forward(Weights(a.model), tokens, a.half_gelu)
    kls, same = [], 0
    for i, h in enumerate(hidden):
        x = table @ h
        x -= x.max()
        x -= np.log(np.exp(x).sum())
        r = rows[first + i]
        others = np.ones(len(x), bool)
        others[r["ids"]] = False
        rest, lp = float(r["rest"]), r["lp"].astype(np.float64)
        kl = np.sum(np.exp(lp) * (lp - x[r["ids"]])) + np.exp(rest) * (rest - np.log(np.exp(x[others]).sum()))
        kls.append(kl)
        same += int(x.argmax() == r["ids"][0])
    print(f"{a.reference} sequence {a.seq}, {len(kls)} positions, {'half' if a.half_gelu else 'exact'} GELU: "
          f"KL(llama.cpp f32 || numpy f64) mean {np.mean(kls):.3e} max {np.max(kls):.3e}, same first {same}/{len(kls)}")


if __name__ == "__main__":
    main()
