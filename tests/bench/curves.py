#!/usr/bin/env python3
"""How cost grows with what is in the KV cache: the second half of `make bench`.

For prompts of 128 to 4,000 tokens, in turns over rounds: seconds to read the prompt, and milliseconds of each of the 32
tokens after it, of the engine alone (no guesses). From these:

  reading 2048 over 512       the ratio of the times; 4 would be strictly linear, attention adds its share
  decode                      least squares over all lengths: ms at an empty cache, ms per 1,000 tokens of cache, r^2;
                              and the rate of bytes that this slope means when a token reads all K and V once

The copy bandwidth of the device (bench-op's) is measured beside it in each round. Rows go to build/bench.json, points
to build/bench-curves.json. Usage: curves.py [--model smollm2|gemma3] [--rounds N] [--check]
"""
import argparse
import os
import re
import statistics
import subprocess
import sys

import bench
import gguf
import record

LENGTHS = [128, 512, 1024, 2048, 3072, 4000]
DECODE = 32
CHECKOP = os.path.join(bench.TOP, "build/release/test/op/checkop_test")


def line(points):
    """(y at 0, slope, r^2) of the least-squares line."""
    xs, ys = zip(*points)
    mx, my = statistics.fmean(xs), statistics.fmean(ys)
    sxx, sxy = sum((x - mx) ** 2 for x in xs), sum((x - mx) * (y - my) for x, y in points)
    slope = sxy / sxx
    rest = sum((y - my - slope * (x - mx)) ** 2 for x, y in points)
    return my - slope * mx, slope, 1 - rest / sum((y - my) ** 2 for y in ys)


def copy_rate():
    """GB/s that the driver's own copy reads and writes."""
    out = subprocess.run([CHECKOP], env={**os.environ, "KB_CHECKOP_BENCH": "1", "KB_CHECKOP_OP": "none"}, check=True,
                         stdout=subprocess.PIPE).stdout.decode()
    return float(re.search(r"limits: .*, ([0-9.]+) read and written", out)[1])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="smollm2", choices=[*bench.MODELS])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--check", action="store_true", help="fail when a target is missed")
    a = p.parse_args()
    source, image = (os.path.join(bench.TOP, "build", d, f) for d, f in zip(("downloads", "models"), bench.MODELS[a.model]))
    reading, decoding, rates, device = {n: [] for n in LENGTHS}, {n: [] for n in LENGTHS}, [], ""
    for i in range(a.rounds):
        rates.append(copy_rate())
        for n in LENGTHS:
            r = bench.run([bench.ENGINE, "--bench", image, "--prompt", str(n), "--decode", str(DECODE), "--json"], {})
            if not r:
                return 1
            reading[n].append(n / r["prefill_tps"])
            decoding[n].append(1e3 / r["decode_tps"])
            device = r["device"]
            print(f"  round {i + 1} {a.model} {n:4} tokens read in {reading[n][-1]:.2f} s, then {decoding[n][-1]:.2f} ms a token",
                  flush=True)
    # A token is decoded behind n + DECODE / 2 others, on average; the best of a length is what the machine disturbed least.
    base, slope, fit = line([(n + DECODE / 2, min(v)) for n, v in decoding.items()])
    size = gguf.kv_bytes_per_token(source)
    rate, copy = size / slope / 1e6, statistics.median(rates)
    print(f"\n{a.model}: decode {base:.2f} ms + {1e3 * slope:.3f} ms per 1,000 tokens of cache (r^2 {fit:.4f}): "
          f"{rate:.1f} GB/s of K and V ({size} bytes a token); the device's own copy {copy:.1f} GB/s")
    rows = [record.row(a.model, "reading 2048 over 512", reading[2048], "ours, 512 tokens", reading[512], device, "s",
                       ("at_most", 4.6)),
            record.row(a.model, "decode: K and V read a second", [rate], "the device's copy", [copy], device, "GB/s")]
    r = rows[0]
    print(f"  target: {r['test']} at most x4.6: x{r['ratio']:.2f} ({r['spread'][0]:.2f}-{r['spread'][1]:.2f}), "
          + ("reached" if record.meets(r) else "MISSED"))
    record.merge_rows(rows)
    record.merge_curves({f"length_{a.model}": {"reading_s": reading, "decoding_ms": decoding, "base_ms": base,
                                               "slope_ms": slope, "r2": fit, "kv_bytes_per_token": size, "copy_gbs": copy}})
    return 3 if a.check and not record.meets(r) else 0


if __name__ == "__main__":
    sys.exit(main())
