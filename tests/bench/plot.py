#!/usr/bin/env python3
"""Draws docs/bench/*.svg from build/bench.json and build/bench-curves.json (record.py): `make bench-plot`.

What was not measured is not drawn; the picture of before stays then. The same figures give the same files.
"""
import os
import statistics

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

import record  # noqa: E402

OUT = os.path.join(record.TOP, "docs/bench")
matplotlib.rcParams.update({"svg.hashsalt": "kotobako", "font.size": 9, "axes.spines.top": False,
                            "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False})


def save(figure, name):
    os.makedirs(OUT, exist_ok=True)
    figure.tight_layout()
    figure.savefig(os.path.join(OUT, name), metadata={"Date": None, "Creator": None})
    plt.close(figure)
    print(f"plot: docs/bench/{name}")


def middle(points):
    """x, medians, and how far the least and the most are from them."""
    xs = sorted(points, key=int)
    mid = [statistics.median(points[x]) for x in xs]
    return ([int(x) for x in xs], mid, [[m - min(points[x]) for x, m in zip(xs, mid)],
                                       [max(points[x]) - m for x, m in zip(xs, mid)]])


def streams(curves):
    figure, axes = plt.subplots(figsize=(5.5, 3.4))
    for label, points in curves["streams_decode"].items():
        x, y, spread = middle(points)
        axes.errorbar(x, y, yerr=spread, marker="o", markersize=4, capsize=2, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="answers at once", ylabel="tokens/s, all together", title="Many clients (SmolLM2-135M Q4_1, 2 cores)")
    axes.legend()
    save(figure, "streams.svg")


def length(model, c):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2))
    x, y, spread = middle(c["reading_s"])
    left.errorbar(x, y, yerr=spread, marker="o", markersize=4, capsize=2)
    left.set(xlabel="tokens of the prompt", ylabel="s", title=f"Reading ({model})", ylim=(0, None))
    x, y, spread = middle(c["decoding_ms"])
    right.errorbar(x, y, yerr=spread, marker="o", markersize=4, capsize=2, label="measured")
    right.plot(x, [c["base_ms"] + c["slope_ms"] * n for n in x], linestyle="--",
               label=f"{c['base_ms']:.1f} ms + {1e3 * c['slope_ms']:.2f} ms per 1,000")
    ideal = c["kv_bytes_per_token"] / c["copy_gbs"] / 1e6
    right.plot(x, [c["base_ms"] + ideal * n for n in x], linestyle=":", label="K and V at the copy's speed")
    right.set(xlabel="tokens in the KV cache", ylabel="ms a token", title=f"Answering ({model})", ylim=(0, None))
    right.legend()
    save(figure, f"length-{model}.svg")


def ratios(rows):
    """Ours beside llama.cpp, on a logarithmic axis: 1 is equal."""
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.38 * len(rows)))
    names = [f"{r['model']} {r['test']}, {r['peer']}" for r in rows]
    for i, r in enumerate(rows):
        axes.plot(r["spread"], [i, i], color="C0", linewidth=3, alpha=0.5)
        axes.plot([r["ratio"]], [i], marker="o", color="C0")
        axes.annotate(f"{r['ratio']:.2f}", (r["ratio"], i), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
        if "target" in r:
            axes.plot([r["target"][1]], [i], marker="|", markersize=14, color="C3")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set(xlabel="ours / peer, paired in a round; red: the aim")
    save(figure, "ratios.svg")


def main():
    rows, curves = record.load(record.ROWS, []), record.load(record.CURVES, {})
    if "streams_decode" in curves:
        streams(curves)
    for key, c in sorted(curves.items()):
        if key.startswith("length_"):
            length(key[len("length_"):], c)
    beside = [r for r in rows if r["test"] in ("prefill", "decode") and r["peer"].startswith("llama.cpp")]
    if beside:
        ratios(sorted(beside, key=lambda r: (r["model"], r["test"], r["peer"])))


if __name__ == "__main__":
    main()
