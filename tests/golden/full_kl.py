#!/usr/bin/env python3
"""Divergence of our engine's next-token distributions from llama.cpp's, over the whole vocabulary, both run live.

For each sequence of kl_MODEL.bin: llama.cpp's CPU backend on the f32 (dequantised) model, KV cache f32, no flash
attention; and `kotobako-engine --logits TOKENS.bin OUT.bin IMAGE` on our image of the original file, as it is
configured by the environment. TOKENS.bin: u32 n, u32 ids[n]. OUT.bin: f32 (n, vocab), the row of every position.
Prints mean and maximum of KL(reference || ours) and how often the likeliest token is the same; exit 1 when a mean is
above the limit (1e-4) or the committed kl_MODEL.bin disagrees with the live reference.
Usage: full_kl.py [--model smollm2|gemma3] [--engine PROGRAM] [--seqs N] [--limit 1e-4]
"""
import argparse
import os
import struct
import subprocess
import sys

import numpy as np

import make_goldens
from numpy_forward import read_kl

TOP = make_goldens.TOP
IMAGES = {"smollm2": "smollm2-135m-instruct.kbm", "gemma3": "gemma-3-270m.kbm"}


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max()
    return x - np.log(np.exp(x).sum())


def stored_kl(row, x):
    """KL of a committed row from log-probabilities x, over its coarse partition."""
    others = np.ones(len(x), bool)
    others[row["ids"]] = False
    lp, rest = row["lp"].astype(np.float64), float(row["rest"])
    return np.sum(np.exp(lp) * (lp - x[row["ids"]])) + np.exp(rest) * (rest - np.log(np.exp(x[others]).sum()))


def ours_of(engine, image, tokens, scratch):
    with open(scratch + ".tok", "wb") as f:
        f.write(struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens))
    if os.path.exists(scratch + ".ours"):
        os.unlink(scratch + ".ours")
    subprocess.run([engine, "--logits", scratch + ".tok", scratch + ".ours", image], check=True)
    return np.memmap(scratch + ".ours", dtype="<f4", mode="r").reshape(len(tokens), -1)


def check(name, a):
    gguf_file = os.path.join(TOP, "build/downloads", make_goldens.MODELS[name][0])
    image = os.path.join(TOP, "build/models", IMAGES[name])
    f32 = os.path.join(a.work, name + ".f32.gguf")
    if not os.path.exists(f32):
        make_goldens.dequantise(gguf_file, f32)
    peer, scratch = make_goldens.Peer(a.peer, f32), os.path.join(a.work, name + ".full")
    sequences, rows = read_kl(os.path.join(make_goldens.HERE, f"kl_{name}.bin"))
    kls, stored, same, first = [], [], 0, 0
    for s in sequences[:a.seqs]:
        tokens = [int(t) for t in s[:-1]]
        theirs = peer.logits(tokens, scratch)
        ours = ours_of(a.engine, image, tokens, scratch)
        if theirs.shape != ours.shape:
            sys.exit(f"{name}: the engine gave {ours.shape} logits, the reference {theirs.shape}")
        for i in range(len(tokens)):
            p, q = log_softmax(theirs[i]), log_softmax(ours[i])
            kls.append(np.sum(np.exp(p) * (p - q)))
            stored.append(stored_kl(rows[first + i], p))
            same += int(p.argmax() == q.argmax())
        first += len(tokens)
    mean, drift = np.mean(kls), np.mean(stored)
    is_good = mean < a.limit and drift < 1e-6  # False for NaN too
    print(f"{'ok' if is_good else 'not ok'} - {name}: {len(kls)} positions, whole vocabulary: KL mean {mean:.3e} "
          f"max {np.max(kls):.3e}, same first token {same}/{len(kls)}; the committed reference is {drift:.1e} from "
          "this machine's", flush=True)
    return is_good


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", choices=sorted(IMAGES))
    p.add_argument("--engine", default=os.path.join(TOP, "build/release/kotobako-engine"))
    p.add_argument("--peer", default=os.path.join(TOP, "build/llama/bin/kb-peer"))
    p.add_argument("--work", default=os.path.join(TOP, "build/golden"), help="scratch, up to 3 GB")
    p.add_argument("--seqs", type=int, default=None, help="only the first N sequences")
    p.add_argument("--limit", type=float, default=1e-4)
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    if not all([check(name, a) for name in IMAGES if a.model in (None, name)]):
        sys.exit(1)


if __name__ == "__main__":
    main()
