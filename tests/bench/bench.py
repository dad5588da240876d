#!/usr/bin/env python3
"""Ours beside llama.cpp on the same GGUF file: `make bench`.

Runs, in turns (A B C A B C ...), llama.cpp's Vulkan backend on the device the loader lists first (lavapipe on a
machine without a GPU; GGML_VK_VISIBLE_DEVICES=0 makes it accept that), llama.cpp's CPU backend, and ours. Each run is a
process of its own: prompt of 128 tokens, 64 tokens decoded after it. Prints medians (minimum-maximum) and the ratios
ours / peer, paired within a round, and writes build/bench.json:
a list of {model, test, ours, peer, peer_value, ratio, spread, device}; spread is [min, max] of the paired ratios.

  prefill   tokens/s of the 128-token prompt, the second time in the process (pipelines compiled, weights resident)
  decode    tokens/s of 64 tokens after it, greedy
  first     seconds from the start of the process to the first token: loading, compiling, prefill
  memory    peak resident bytes, as the kernel counted them for the whole process (ru_maxrss)

Exits 1 when ours could not be run, 3 with --check when a ratio is below its target (TARGETS).
Usage: bench.py [--model smollm2|gemma3|all] [--rounds N] [--peers vulkan,cpu] [--check] [--out FILE]
"""
import argparse
import json
import os
import statistics
import struct
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEER = os.path.join(TOP, "build/llama/bin/kb-peer")
CLI = os.path.join(TOP, "build/release/kotobako")
ENGINE = os.path.join(TOP, "build/release/kotobako-engine")
MODELS = {  # name: GGUF in build/downloads, our image in build/models (made by make)
    "smollm2": ("smollm2-135m-instruct-q4_1.gguf", "smollm2-135m-instruct.kbm"),
    "gemma3": ("gemma-3-270m-q4_k_m.gguf", "gemma-3-270m.kbm"),
}
PROMPT, DECODE = 128, 64
TESTS = [("prefill", "prefill_tps", "t/s", True), ("decode", "decode_tps", "t/s", True),
         ("first", "start_to_first_token_s", "s", False), ("memory", "maxrss_bytes", "MB", False)]
TARGETS = {("smollm2", "vulkan", "prefill"): 8.0, ("smollm2", "vulkan", "decode"): 15.0}
# GGUF tensor types: name, weights per block, bytes per block (ggml's block structs).
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
         7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
         12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
         30: ("BF16", 1, 2)}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of GGUF's scalar value types


def gguf_tensors(path):
    """[(name, dims, type)] of a GGUF file, read by the format's description."""
    with open(path, "rb") as f:
        def number(code):
            return struct.unpack("<" + code, f.read(struct.calcsize("<" + code)))[0]

        def skip(kind):
            if kind == 8:
                f.seek(number("Q"), os.SEEK_CUR)
            elif kind == 9:
                element, count = number("I"), number("Q")
                if element == 8:
                    for _ in range(count):
                        skip(8)
                else:
                    f.seek(count * SIZES[element], os.SEEK_CUR)
            else:
                f.seek(SIZES[kind], os.SEEK_CUR)

        if f.read(4) != b"GGUF":
            raise SystemExit(f"{path}: not a GGUF file")
        number("I")
        n_tensors, n_meta = number("Q"), number("Q")
        for _ in range(n_meta):
            f.seek(number("Q"), os.SEEK_CUR)
            skip(number("I"))
        out = []
        for _ in range(n_tensors):
            name = f.read(number("Q")).decode()
            dims = [number("Q") for _ in range(number("I"))]
            out.append((name, dims, number("I")))
            number("Q")
        return out


def work_of(path):
    """Weight bytes and multiply-adds with weights of one decoded token, and multiply-adds of the whole prompt.

    Every matrix once, a tied embedding as the output matrix; in the prompt the output is needed once. Attention's own
    products (with the cache, not with weights) are left out.
    """
    size = macs = once = 0
    tensors = gguf_tensors(path)
    has_output = any(name == "output.weight" for name, _, _ in tensors)
    for name, dims, kind in tensors:
        count = 1
        for d in dims:
            count *= d
        if name == "token_embd.weight" and has_output:
            continue
        _, per_block, block_bytes = TYPES[kind]
        size += count // per_block * block_bytes
        macs += count if len(dims) > 1 else 0
        once += count if name in ("token_embd.weight", "output.weight") else 0
    return size, macs, (macs - once) * PROMPT + once


def commands(model, peers, threads):
    gguf = os.path.join(TOP, "build/downloads", MODELS[model][0])
    bench = ["bench", gguf, str(PROMPT), str(DECODE)]
    rows = []
    if "vulkan" in peers:
        env = {"GGML_VK_VISIBLE_DEVICES": os.environ.get("GGML_VK_VISIBLE_DEVICES", "0")}
        rows.append(("vulkan", [PEER, "--gpu", "--threads", str(threads), *bench], env))
    if "cpu" in peers:  # no Vulkan driver at all: nothing of it is loaded
        rows.append(("cpu", [PEER, "--threads", str(threads), *bench], {"VK_DRIVER_FILES": "/nonexistent"}))
    image = os.path.join(TOP, "build/models", MODELS[model][1])
    if not os.path.exists(image) and os.access(CLI, os.X_OK):
        os.makedirs(os.path.dirname(image), exist_ok=True)
        subprocess.run([CLI, "import", gguf, "--out", image], check=False)
    rows.append(("ours", [ENGINE, "--bench", image, "--prompt", str(PROMPT), "--decode", str(DECODE), "--json"], {}))
    return gguf, rows


def run(command, extra):
    """The JSON object that a run printed, with its peak memory as the kernel saw it; None when it failed."""
    try:
        p = subprocess.Popen(command, env={**os.environ, **extra}, stdout=subprocess.PIPE, cwd=TOP)
    except OSError as e:
        print(f"bench: {command[0]}: {e.strerror}", file=sys.stderr)
        return None
    out = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    try:
        if p.returncode != 0:
            raise ValueError(f"exit status {p.returncode}")
        result = json.loads(out.decode().strip().splitlines()[-1])
        result["maxrss_bytes"] = usage.ru_maxrss * 1024
        for _, key, _, _ in TESTS:
            if not result[key] > 0:
                raise ValueError(f"{key} is {result[key]}")
        return result
    except (ValueError, KeyError, IndexError, TypeError) as e:
        print(f"bench: {' '.join(command)}: {e!r}", file=sys.stderr)
        return None


def shown(values, unit):
    scale, digits = (1e6, 0) if unit == "MB" else (1, 2)
    v = [x / scale for x in values]
    return f"{statistics.median(v):.{digits}f} ({min(v):.{digits}f}-{max(v):.{digits}f})"


def report(model, work, results):
    """Prints the table of one model; returns its rows for bench.json."""
    size, macs, prompt_macs = work
    rows = []
    print(f"\n{model}: {size / 1e6:.1f} MB of weights and {macs / 1e6:.1f} M multiply-adds per decoded token")
    print(f"  {'':8} {'ours':>24}" + "".join(f" {'llama.cpp ' + n:>24} {'ours/peer':>22}" for n in results if n != "ours"))
    for test, key, unit, is_rate in TESTS:
        ours = [r[key] for r in results["ours"]]
        line = f"  {test:8} {shown(ours, unit) + ' ' + unit if ours else '-':>24}"
        for name, rounds in results.items():
            if name == "ours":
                continue
            theirs = [r[key] for r in rounds]
            ratios = [a / b for a, b in zip(ours, theirs)]
            line += f" {shown(theirs, unit) + ' ' + unit if theirs else '-':>24}"
            line += f" {'x' + shown(ratios, '') if ratios else '-':>22}"
            if ratios:
                rows.append({"model": model, "test": test, "ours": statistics.median(ours), "peer": "llama.cpp " + name,
                             "peer_value": statistics.median(theirs), "ratio": statistics.median(ratios),
                             "spread": [min(ratios), max(ratios)], "device": results["ours"][0].get("device", "")})
        print(line + ("   higher is better" if is_rate else "   lower is better"))
    for name, rounds in results.items():
        if rounds:
            speed = statistics.median(r["decode_tps"] for r in rounds)
            fill = statistics.median(r["prefill_tps"] for r in rounds) / PROMPT * prompt_macs
            print(f"  {name:8} decode moves {speed * size / 1e9:.2f} GB/s of weights and does {speed * macs / 1e9:.2f} GMAC/s;"
                  f" prefill {fill / 1e9:.2f} GMAC/s [{rounds[0].get('device', '')}]")
    for row in rows:
        target = TARGETS.get((model, row["peer"].split()[-1], row["test"]))
        if target:
            row["target"] = target
            print(f"  target: {row['test']} at least x{target:g} of {row['peer']}: x{row['ratio']:.1f}, "
                  f"{'reached' if row['ratio'] >= target else 'MISSED'}")
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="smollm2", choices=[*MODELS, "all"])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--peers", default="vulkan,cpu")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peer")
    p.add_argument("--check", action="store_true", help="fail when a target is missed")
    p.add_argument("--out", default=os.path.join(TOP, "build/bench.json"))
    a = p.parse_args()
    all_rows, is_whole = [], True
    print(f"bench: {PROMPT} tokens of prompt, {DECODE} decoded, {a.rounds} rounds in turns, {os.cpu_count()} processors, "
          f"load {os.getloadavg()[0]:.2f}" + (" (not quiet: expect noise)" if os.getloadavg()[0] > 0.5 else ""))
    for model in MODELS if a.model == "all" else [a.model]:
        gguf, programs = commands(model, a.peers.split(","), a.threads)
        results = {name: [] for name, _, _ in programs}
        for number in range(a.rounds):
            turn = {}
            for name, command, extra in programs:
                turn[name] = run(command, extra)
                r = turn[name]
                print(f"  round {number + 1} {model} {name:7} " + (
                    f"prefill {r['prefill_tps']:.2f} t/s, decode {r['decode_tps']:.2f} t/s, first token "
                    f"{r['start_to_first_token_s']:.2f} s, {r['maxrss_bytes'] / 1e6:.0f} MB" if r else "failed"), flush=True)
            is_whole &= all(turn.values())
            for name, r in turn.items():
                results[name].append(r)
        # Ratios are paired: with ours at hand, only rounds in which everything ran count.
        whole = [i for i in range(a.rounds) if all(r[i] for r in results.values())]
        results = {n: [r[i] for i in whole] if whole else [x for x in r if x] for n, r in results.items()}
        all_rows += report(model, work_of(gguf), results)
    with open(a.out, "w", encoding="utf-8") as f:
        json.dump(all_rows, f, indent=1)
        f.write("\n")
    if not is_whole:
        print("bench: not everything ran; the figures above are incomplete", file=sys.stderr)
        return 1
    missed = [r for r in all_rows if r["ratio"] < r.get("target", 0)]
    return 3 if a.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
