#!/usr/bin/env python3
"""Ours beside llama.cpp on the same GGUF file: `make bench`.

Runs, in turns (A B C A B C ...), llama.cpp's Vulkan backend on the device the loader lists first (lavapipe on a
machine without a GPU; GGML_VK_VISIBLE_DEVICES=0 makes it accept that), llama.cpp's CPU backend, and ours. Each run is a
process of its own: prompt of 512 tokens, 64 tokens decoded after it, without guesses. Prints medians (minimum-maximum)
and the ratios ours / peer, paired within a round, and puts its rows into build/bench.json (record.py).

  prefill   tokens/s of the 512-token prompt, the second time in the process (pipelines compiled, weights resident)
  decode    tokens/s of 64 tokens after it, greedy
  first     seconds from the start of the process to the first token: loading, compiling, prefill
  memory    peak resident bytes, as the kernel counted them for the whole process (ru_maxrss)

Exits 1 when ours could not be run, 3 with --check when a ratio is below its target (TARGETS).
Usage: bench.py [--model smollm2|gemma3|all|FILE.gguf] [--rounds N] [--peers vulkan,cpu] [--prompt N] [--check] [--out FILE]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import gguf
import record

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEER = os.path.join(TOP, "build/llama/bin/kb-peer")
CLI = os.path.join(TOP, "build/release/kotobako")
ENGINE = os.path.join(TOP, "build/release/kotobako-engine")
MODELS = {  # name: GGUF in build/downloads, our image in build/models (made by make)
    "smollm2": ("smollm2-135m-instruct-q4_1.gguf", "smollm2-135m-instruct.kbm"),
    "gemma3": ("gemma-3-270m-q4_k_m.gguf", "gemma-3-270m.kbm"),
}
PROMPT, DECODE = 512, 64
TESTS = [("prefill", "prefill_tps", "t/s", True), ("decode", "decode_tps", "t/s", True),
         ("first", "start_to_first_token_s", "s", False), ("memory", "maxrss_bytes", "MB", False)]
TARGETS = {("vulkan", "prefill"): 12.0, ("vulkan", "decode"): 40.0, ("cpu", "prefill"): 0.6, ("cpu", "decode"): 0.7}


def work_of(path, n_prompt):
    """Weight bytes and multiply-adds with weights of one decoded token, and multiply-adds of the whole prompt.

    Every matrix once, a tied embedding as the output matrix; in the prompt the output is needed once. Attention's own
    products (with the cache, not with weights) are left out.
    """
    size = macs = once = 0
    _, tensors = gguf.read(path)
    has_output = any(name == "output.weight" for name, _, _ in tensors)
    for name, dims, kind in tensors:
        count = 1
        for d in dims:
            count *= d
        if name == "token_embd.weight" and has_output:
            continue
        _, per_block, block_bytes = gguf.TYPES[kind]
        size += count // per_block * block_bytes
        macs += count if len(dims) > 1 else 0
        once += count if name in ("token_embd.weight", "output.weight") else 0
    return size, macs, (macs - once) * n_prompt + once


def commands(model, peers, threads, n_prompt):
    gguf_name, image_name = MODELS.get(model) or (os.path.abspath(model), os.path.abspath(model) + ".kbm")
    source = os.path.join(TOP, "build/downloads", gguf_name)
    bench = ["bench", source, str(n_prompt), str(DECODE)]
    rows = []
    if "vulkan" in peers:
        env = {"GGML_VK_VISIBLE_DEVICES": os.environ.get("GGML_VK_VISIBLE_DEVICES", "0")}
        rows.append(("vulkan", [PEER, "--gpu", "--threads", str(threads), *bench], env))
    if "cpu" in peers:  # no Vulkan driver at all: nothing of it is loaded
        rows.append(("cpu", [PEER, "--threads", str(threads), *bench], {"VK_DRIVER_FILES": "/nonexistent"}))
    image = os.path.join(TOP, "build/models", image_name)
    if not os.path.exists(image) and os.access(CLI, os.X_OK):
        os.makedirs(os.path.dirname(image), exist_ok=True)
        subprocess.run([CLI, "import", source, "--out", image], check=False)
    rows.append(("ours", [ENGINE, "--bench", image, "--prompt", str(n_prompt), "--decode", str(DECODE), "--json"], {}))
    return source, rows


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


def report(model, n_prompt, work, results):
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
                target = TARGETS.get((name, test)) if model in MODELS else None
                rows.append(record.row(model, test, ours, "llama.cpp " + name, theirs, results["ours"][0].get("device", ""),
                                       unit, target and ("at_least", target)))
        print(line + ("   higher is better" if is_rate else "   lower is better"))
    for name, rounds in results.items():
        if rounds:
            speed = statistics.median(r["decode_tps"] for r in rounds)
            fill = statistics.median(r["prefill_tps"] for r in rounds) / n_prompt * prompt_macs
            print(f"  {name:8} decode moves {speed * size / 1e9:.2f} GB/s of weights and does {speed * macs / 1e9:.2f} GMAC/s;"
                  f" prefill {fill / 1e9:.2f} GMAC/s [{rounds[0].get('device', '')}]")
    for row in rows:
        if "target" in row:
            print(f"  target: {row['test']} at least x{row['target'][1]:g} of {row['peer']}: x{row['ratio']:.2f}, "
                  f"{'reached' if record.meets(row) else 'MISSED'}")
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="smollm2", metavar="NAME", help="smollm2, gemma3, all, or a GGUF file")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--peers", default="vulkan,cpu")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peer")
    p.add_argument("--prompt", type=int, default=PROMPT, metavar="N", help="tokens of the prompt")
    p.add_argument("--check", action="store_true", help="fail when a target is missed")
    p.add_argument("--out", default=record.ROWS)
    a = p.parse_args()
    all_rows, is_whole = [], True
    print(f"bench: {a.prompt} tokens of prompt, {DECODE} decoded, {a.rounds} rounds in turns, {os.cpu_count()} processors, "
          f"load {os.getloadavg()[0]:.2f}" + (" (not quiet: expect noise)" if os.getloadavg()[0] > 0.5 else ""))
    for model in MODELS if a.model == "all" else [a.model]:
        source, programs = commands(model, a.peers.split(","), a.threads, a.prompt)
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
        all_rows += report(model, a.prompt, work_of(source, a.prompt), results)
    record.merge_rows(all_rows, a.out)
    if not is_whole:
        print("bench: not everything ran; the figures above are incomplete", file=sys.stderr)
        return 1
    return 3 if a.check and any(record.meets(r) is False for r in all_rows) else 0


if __name__ == "__main__":
    sys.exit(main())
