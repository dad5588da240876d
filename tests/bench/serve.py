#!/usr/bin/env python3
"""The box as a server, beside llama-server on the same GGUF file: `make bench-serve`.

Ours is kotobakod with TLS and a paired client (servers.py); the peer is llama-server with plain HTTP, on its CPU
backend and, where named, on its Vulkan backend. All are started once and measured in turns; prompts are the same token
ids, no two of them begin alike. Times are those of one client program on the same machine.

  streams   N clients at once, N = 1 2 4 8 16 32: each reads a prompt and gets 64 tokens. decode: tokens a second
            while all N are answering (from the last first token to the first last token); whole: of everything
  trace     requests that come by a Poisson process with a fixed seed, prompts of 32, 128 and 512 tokens, answers of
            16 and 48: time to first token, gap between tokens, tokens a second
  fair      the gaps between tokens of one client while another has a prompt of 2,000 tokens read
  prefix    time to first token of a prompt of 1,032 tokens, of one that shares its first 1,000, of one that does not
  copy      summarise-with-quotes and an edit of code, greedy, with and without speculation (engine: --speculate)

Writes rows to build/bench.json and what the plots need to build/bench-curves.json (record.py).
Exits 1 when ours could not be run; a peer that fails is reported as failed and has no rows.
Usage: serve.py [--tests streams,trace,...] [--rounds N] [--peers cpu,vulkan] [--engine-option=X ...]
"""
import argparse
import asyncio
import os
import random
import statistics
import sys
import time
import traceback

import gguf
import record
import servers
import tasks

MODELS = {"smollm2": ("build/downloads/smollm2-135m-instruct-q4_1.gguf", "build/models/smollm2-135m-instruct.kbm")}
STREAMS = [1, 2, 4, 8, 16, 32]
PROMPT, ANSWER = 32, 64
KV_TOKENS = 8192  # of all clients together, as our engine has it by default
TRACE_SEED, TRACE_REQUESTS, TRACE_RATE = 20, 24, 0.6
LONG_PROMPT, PREFIX, TAIL = 2000, 1000, 32
FAIR_BEFORE, FAIR_AFTER = 24, 8
TOGETHER = 0.001  # seconds: tokens of one step


def ms(seconds):
    return f"{1e3 * seconds:.0f}"


class Bench:
    def __init__(self, a):
        self.model, self.rounds = a.model, a.rounds
        self.gguf, self.image = MODELS[a.model]
        self.words = gguf.words(self.gguf)
        self.seed, self.round, self.attempt = int(time.time()), 0, 0
        self.rows, self.curves, self.device = [], {}, ""
        self.threads, self.peers = os.cpu_count(), [p for p in a.peers.split(",") if p]
        self.options = a.engine_option
        self.running, self.is_patient = [], not a.impatient
        self.n_measured = self.n_disturbed = 0

    def prompts(self, what, *sizes):
        """Prompts of so many tokens: for each server the same in one round, otherwise unlike from the first token on
        (in rounds, in further attempts, in another run of this program), so that no cache knows them."""
        r = random.Random(f"{self.seed} {what} {self.round} {self.attempt}")
        return [[r.choice(self.words) for _ in range(n)] for n in sizes]

    async def warm(self, all_servers, n=4):
        """Pipelines are compiled, code is read."""
        for s in filter(None, all_servers):
            self.round, self.attempt = -1, id(s)
            await burst(s, self.prompts("warm", *[128] * n), 16)

    def start(self, make):
        """A server, kept for stop(); None (and a word on stderr) when it does not start."""
        try:
            s = make()
        except (RuntimeError, OSError) as e:
            print(f"bench-serve: failed: {e}", file=sys.stderr)
            return None
        self.running.append(s)
        return s

    def start_ours(self, name="ours", options=()):
        ours = self.start(lambda: servers.Ours(self.image, name, [*self.options, *options]))
        self.device = ours.info()["device"] if ours else self.device
        return ours

    def start_peer(self, backend, name, *options):
        return self.start(lambda: servers.Llama(self.gguf, backend, f"llama-{backend}-{name}", options, self.threads))

    def stop(self, *which):
        for s in which or list(self.running):
            if s in self.running:
                self.running.remove(s)
                s.stop()

    def add(self, test, ours, peer, theirs, unit, target=None):
        if ours and theirs:
            self.rows.append(record.row(self.model, test, ours, peer, theirs, self.device, unit, target))

    async def undisturbed(self, s, measure):
        """What measure() gives. While other programs use the processors it waits a little, and where they did so in the
        middle it measures again, twice at most: which result counts is decided by their load, never by the result."""
        best, best_others = None, 0
        for self.attempt in range(3 if self.is_patient else 1):
            if self.is_patient:
                record.wait_for_quiet(s.pids())
            watch = record.Watch(s.pids())
            result = await measure()
            others = watch.others()
            if best is None or others < best_others:
                best, best_others = result, others
            if others <= record.QUIET:
                break
            print(f"    (others used {100 * others:.0f} % of the processors meanwhile)", flush=True)
        self.n_measured += 1
        self.n_disturbed += best_others > record.QUIET
        return best

    async def rounds_of(self, all_servers, n_rounds, one):
        """one(server, round) for each server in turns: {server: [results of whole rounds]}. A peer that fails is left
        out from then on; ours failing ends everything."""
        results = {s: [] for s in all_servers if s}
        for i in range(n_rounds):
            for s in list(results):
                self.round = i
                try:
                    results[s].append(await self.undisturbed(s, lambda: one(s, i)))
                except (RuntimeError, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as e:
                    if s.label.startswith("ours"):
                        raise
                    print(f"bench-serve: {s.label}: failed: {e!r}", file=sys.stderr)
                    del results[s]
        return results


# --- N clients at once ---------------------------------------------------------------

async def burst(server, prompts, n_tokens):
    """All prompts at once over ready connections: (decode t/s, whole t/s, slowest first token)."""
    connections = await servers.connections(server, len(prompts))
    answers = await asyncio.gather(*[c.ask(prompt=p, max_tokens=n_tokens, ignore_eos=True)
                                     for c, p in zip(connections, prompts)])
    for c in connections:
        c.close()
    if any(a.tokens != n_tokens for a in answers):
        raise RuntimeError(f"answers of {[a.tokens for a in answers]} tokens")
    last_first, first_last = max(a.times[0] for a in answers), min(a.times[-1] for a in answers)
    begin, end = min(a.asked for a in answers), max(a.times[-1] for a in answers)
    together = sum(a.tokens_between(last_first, first_last) for a in answers)
    return {"decode": together / (first_last - last_first) if first_last > last_first else 0,
            "whole": len(answers) * n_tokens / (end - begin), "first": max(a.first for a in answers)}


async def streams(b):
    print(f"\nstreams: {PROMPT} tokens of prompt, {ANSWER} of answer each; t/s while all answer (of everything)")
    ours = b.start_ours()
    if not ours:
        return
    # A slot of the peer has room for one request of the burst; a cache that is not split by slots is slower there.
    peers = [b.start_peer("cpu", "streams", "--parallel", "32", "-c", str(KV_TOKENS), "-no-kvu", "--cache-ram", "0")
             if "cpu" in b.peers else None]
    levels = [(n, i) for i in range(b.rounds) for n in STREAMS]
    for n in STREAMS:
        await b.warm([ours, *peers], n)

    async def one(s, at):
        n, i = levels[at]
        r = await burst(s, b.prompts("streams", *[PROMPT] * n), ANSWER)
        print(f"  round {i + 1} {n:2} streams {s.label:14} {r['decode']:7.1f} ({r['whole']:6.1f}) t/s, "
              f"last first token {r['first']:.2f} s", flush=True)
        return r
    results = await b.rounds_of([ours, *peers], len(levels), one)
    by = {s: {n: [r for (m, _), r in zip(levels, rs) if m == n] for n in STREAMS} for s, rs in results.items()}
    for kind in ("decode", "whole"):
        medians = {s: {n: [r[kind] for r in by[s][n]] for n in STREAMS} for s in by}
        b.curves[f"streams_{kind}"] = {s.label: {str(n): v for n, v in m.items()} for s, m in medians.items()}
        for s, m in medians.items():
            print(f"  {kind:6} {s.label:14} " + "  ".join(f"{n}: {statistics.median(m[n]):.1f}" for n in STREAMS))
        for peer in list(by)[1:]:
            for n in STREAMS:
                b.add(f"{n} streams, {kind}", medians[ours][n], peer.label, medians[peer][n], "t/s")
        v = medians[ours]
        b.add(f"8 streams over one, {kind}", v[8], "ours, one stream", v[1], "t/s", ("at_least", 3.0))
        for few, more in zip(STREAMS, STREAMS[1:]):
            b.add(f"{more} streams over {few}, {kind}", v[more], f"ours, {few} streams", v[few], "t/s",
                  ("at_least", 1.0))
    if "vulkan" in b.peers:
        b.stop(*filter(None, peers))
        await streams_vulkan(b, ours)


async def streams_vulkan(b, ours):
    """The Vulkan peer answers with a few tokens a second: fewer streams, fewer tokens, one round, ours beside it."""
    peer = b.start_peer("vulkan", "streams", "--parallel", "8", "-c", "4096", "-no-kvu", "--cache-ram", "0")
    if not peer:
        return
    n_prompt, n_tokens = 8, 8

    async def one(s, at):
        n = (1, 8)[at % 2]
        r = await burst(s, b.prompts("few", *[n_prompt] * n), n_tokens)
        print(f"  {n:2} streams {s.label:16} {r['decode']:7.1f} ({r['whole']:6.1f}) t/s of {n_tokens} tokens", flush=True)
        return r
    results = await b.rounds_of([ours, peer], 2, one)
    if len(results.get(peer, [])) == 2:
        for i, n in enumerate((1, 8)):
            b.add(f"{n} streams of {n_tokens} tokens, decode", [results[ours][i]["decode"]], peer.label,
                  [results[peer][i]["decode"]], "t/s")
        b.curves["streams_decode"][peer.label] = {str(n): [results[peer][i]["decode"]] for i, n in enumerate((1, 8))}


# --- requests that come when they come ---------------------------------------------------

def arrivals():
    """[(second, tokens of prompt, tokens of answer)], always the same."""
    r, at, out = random.Random(TRACE_SEED), 0.0, []
    for _ in range(TRACE_REQUESTS):
        at += r.expovariate(TRACE_RATE)
        out.append((at, r.choices((32, 128, 512), (40, 40, 20))[0], r.choice((16, 48))))
    return out


async def trace(b):
    events = arrivals()
    print(f"\ntrace: {len(events)} requests in {events[-1][0]:.0f} s, {sum(e[1] for e in events)} tokens of prompts, "
          f"{sum(e[2] for e in events)} of answers")
    ours = next((s for s in b.running if s.label == "ours"), None) or b.start_ours()
    peer = b.start_peer("cpu", "trace", "--parallel", "8", "-c", str(KV_TOKENS), "-kvu") if "cpu" in b.peers else None
    await b.warm([ours, peer])

    async def request(s, begin, event, prompt):
        at, _, n_answer = event
        c = await servers.Connection(s).open()
        await asyncio.sleep(max(0, begin + at - time.perf_counter()))
        a = await c.ask(prompt=prompt, max_tokens=n_answer, ignore_eos=True)
        c.close()
        return a

    async def one(s, i):
        begin = time.perf_counter() + 1
        prompts = b.prompts("trace", *[e[1] for e in events])
        answers = await asyncio.gather(*[request(s, begin, e, p) for e, p in zip(events, prompts)])
        firsts, gaps = [a.first for a in answers], [g for a in answers for g in a.gaps]
        whole = sum(a.tokens for a in answers) / (max(a.times[-1] for a in answers) - min(a.asked for a in answers))
        r = {"first p50": record.percentile(firsts, 50), "first p95": record.percentile(firsts, 95),
             "gap p50": record.percentile(gaps, 50), "gap p95": record.percentile(gaps, 95), "aggregate": whole}
        print(f"  round {i + 1} {s.label:14} first token p50 {ms(r['first p50'])} p95 {ms(r['first p95'])} ms, gap p50 "
              f"{ms(r['gap p50'])} p95 {ms(r['gap p95'])} ms, {whole:.1f} t/s", flush=True)
        return r
    results = await b.rounds_of([ours, peer], max(1, b.rounds - 1), one)
    if peer in results:
        for key in results[ours][0]:
            b.add(f"trace, {key}", [r[key] for r in results[ours]], peer.label, [r[key] for r in results[peer]],
                  "t/s" if key == "aggregate" else "s")
    b.stop(*filter(None, [peer]))


# --- one answers while another reads -------------------------------------------------------

async def fair(b):
    print(f"\nfair: gaps between tokens of one client while another has {LONG_PROMPT} tokens read")
    ours = next((s for s in b.running if s.label == "ours"), None) or b.start_ours()
    peer = b.start_peer("cpu", "fair", "--parallel", "4", "-c", str(KV_TOKENS), "-kvu") if "cpu" in b.peers else None

    async def one(s, i):
        decoder, reader = await servers.connections(s, 2)
        short_prompt, long_prompt = b.prompts("fair", PROMPT, LONG_PROMPT)
        seen, reading = [], {}

        def on_data():
            seen.append(time.perf_counter())

        def leave():  # some tokens after the other one's first
            return "end" in reading and sum(t > reading["end"] for t in seen) >= FAIR_AFTER
        answering = asyncio.create_task(decoder.ask(prompt=short_prompt, max_tokens=KV_TOKENS // 2, ignore_eos=True,
                                                    on_data=on_data, leave=leave))
        while len(seen) < FAIR_BEFORE and not answering.done():
            await asyncio.sleep(0.005)
        long = await reader.ask(prompt=long_prompt, max_tokens=2, ignore_eos=True)
        reading["end"] = long.times[0]
        answer = await answering
        reader.close()
        # A gap begins at its time. Guesses that were right come together: between them there is none.
        pairs = [(t, g) for t, g in zip(answer.times, answer.gaps) if g > TOGETHER]
        alone = [g for t, g in pairs if t + g <= long.asked][2:]
        during = [g for t, g in pairs if t + g > long.asked and t < long.times[0]]
        r = {"alone": statistics.median(alone), "median": statistics.median(during), "n": len(during),
             "p95": record.percentile(during, 95), "max": max(during), "first": long.first}
        print(f"  round {i + 1} {s.label:14} alone {ms(r['alone'])}; during: {r['n']} gaps, median {ms(r['median'])}, p95 "
              f"{ms(r['p95'])}, max {ms(r['max'])} ms; {LONG_PROMPT} tokens read in {r['first']:.2f} s", flush=True)
        return r
    await b.warm([ours, peer])
    results = await b.rounds_of([ours, peer], b.rounds, one)
    v = results[ours]
    b.add("gap while another reads, p95 over median", [r["p95"] for r in v], "ours, median of the same gaps",
          [r["median"] for r in v], "s", ("at_most", 2.0))
    b.add("gap while another reads, p95 over undisturbed median", [r["p95"] for r in v], "ours, median alone",
          [r["alone"] for r in v], "s")
    if peer in results:
        for key, name in (("median", "median gap"), ("p95", "p95 gap"), ("max", "longest gap"), ("first", "first token")):
            b.add(f"one answers, one reads {LONG_PROMPT}: {name}", [r[key] for r in v], peer.label,
                  [r[key] for r in results[peer]], "s")
    b.stop(*filter(None, [peer]))


# --- prompts that begin alike ------------------------------------------------------------------

async def prefix(b):
    print(f"\nprefix: seconds to the first token of {PREFIX} + {TAIL} tokens: first, sharing {PREFIX}, sharing none")
    ours = next((s for s in b.running if s.label == "ours"), None) or b.start_ours()
    peer = b.start_peer("cpu", "prefix", "--parallel", "4", "-c", str(KV_TOKENS), "-kvu") if "cpu" in b.peers else None

    async def one(s, i):
        shared, other, *tails = b.prompts("prefix", PREFIX, PREFIX, TAIL, TAIL, TAIL)
        r = {}
        for name, head, tail in zip(("first", "shared", "control"), (shared, shared, other), tails):
            (c,) = await servers.connections(s, 1)
            r[name] = (await c.ask(prompt=head + tail, max_tokens=4, ignore_eos=True)).first
            c.close()
        print(f"  round {i + 1} {s.label:14} first {r['first']:.3f}, shared {r['shared']:.3f} (x"
              f"{r['first'] / r['shared']:.1f} sooner), control {r['control']:.3f} s", flush=True)
        return r
    await b.warm([ours, peer])
    results = await b.rounds_of([ours, peer], b.rounds, one)
    for s, v in results.items():
        name = "first token, shared prefix" if s is ours else f"first token, shared prefix ({s.label} by itself)"
        b.add(f"{name}", [r["first"] for r in v], f"{s.label}, the second request", [r["shared"] for r in v], "s",
              ("at_least", 10.0) if s is ours else None)
    b.add("first token, no shared prefix", [r["first"] for r in results[ours]], "ours, the third request",
          [r["control"] for r in results[ours]], "s")
    if peer in results:
        for key, name in (("first", "first token, 1032 tokens"), ("shared", "first token, 1000 of 1032 tokens known")):
            b.add(name, [r[key] for r in results[ours]], peer.label, [r[key] for r in results[peer]], "s")
    b.stop(*filter(None, [peer]))


# --- answers that copy from their prompt ----------------------------------------------------------

async def copy(b):
    print("\ncopy: t/s of greedy answers that repeat parts of their prompts")
    b.stop()
    without = b.start_ours("ours-plain", ("--speculate", "0"))
    with_it = b.start_ours()
    if not with_it or not without:
        raise RuntimeError("no engine to measure")
    plain = b.start_peer("cpu", "copy", "--parallel", "1", "-c", str(KV_TOKENS)) if "cpu" in b.peers else None
    ngram = b.start_peer("cpu", "copy-ngram", "--parallel", "1", "-c", str(KV_TOKENS), "--spec-type",
                         "ngram-mod") if "cpu" in b.peers else None
    if ngram:
        ngram.label += " n-gram"
    everyone = [with_it, without, plain, ngram]
    await b.warm(everyone, 1)
    for name, prompt, n_tokens in tasks.COPY:
        async def one(s, i):
            (c,) = await servers.connections(s, 1)
            a = await c.ask("/v1/chat/completions", messages=[{"role": "user", "content": prompt}], max_tokens=n_tokens)
            c.close()
            rate = (a.tokens - 1) / (a.times[-1] - a.times[0])
            print(f"  round {i + 1} {name:10} {s.label:22} {a.tokens} tokens, {rate:.1f} t/s", flush=True)
            return rate, a.text
        results = await b.rounds_of(everyone, b.rounds, one)
        speeds = {s: [r[0] for r in v] for s, v in results.items()}
        texts = {text for s in (with_it, without) for _, text in results[s]}
        print(f"  {name}: the answers are " + ("the same" if len(texts) == 1 else "NOT the same"))
        b.add(f"{name}, speculating", speeds[with_it], "ours, not speculating", speeds[without], "t/s", ("at_least", 1.5))
        b.rows[-1]["same_output"] = len(texts) == 1
        for peer in (plain, ngram):
            if peer in speeds:
                b.add(name, speeds[with_it], peer.label, speeds[peer], "t/s")
    b.stop()


TESTS = {"streams": streams, "trace": trace, "fair": fair, "prefix": prefix, "copy": copy}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="smollm2", choices=[*MODELS])
    p.add_argument("--tests", default=",".join(TESTS))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--peers", default="cpu,vulkan", help="of llama-server; empty: ours alone")
    p.add_argument("--engine-option", action="append", default=[], metavar="X", help="more words for kotobako-engine")
    p.add_argument("--impatient", action="store_true", help="do not wait for other programs, do not measure again")
    p.add_argument("--check", action="store_true", help="fail when a target is missed")
    a = p.parse_args()
    machine = record.machine()
    print(f"bench-serve: {machine['processors']} processors, load {machine['load_before']:.2f}"
          + (" (not quiet: expect noise)" if machine["load_before"] > 0.5 else ""))
    b, failed = Bench(a), False
    b.curves["machine_serve"] = machine
    for name in a.tests.split(","):
        try:
            asyncio.run(TESTS[name](b))
        except Exception:  # noqa: BLE001 - one test that fails does not take the others' figures along
            traceback.print_exc()
            failed = True
            b.stop()
    b.stop()
    print()
    for r in b.rows:
        is_met = record.meets(r)
        if is_met is not None:
            print(f"target: {r['test']}: x{r['ratio']:.2f} ({r['spread'][0]:.2f}-{r['spread'][1]:.2f}), "
                  f"{r['target'][0].replace('_', ' ')} {r['target'][1]:g}: {'reached' if is_met else 'MISSED'}")
    machine.update(measured=b.n_measured, disturbed=b.n_disturbed)
    print(f"bench-serve: {b.n_disturbed} of {b.n_measured} measurements were disturbed by other programs")
    record.merge_rows(b.rows)
    record.merge_curves(b.curves)
    if failed:
        return 1
    return 3 if a.check and any(record.meets(r) is False for r in b.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
