#!/usr/bin/env python3
"""Makes the golden files of this directory from llama.cpp's CPU backend. See README.md for how to run it.

The oracle is llama.cpp (through tests/bench/peer.c) and gguf-py's dequantisers: nothing here was computed by
Kotobako. "q" is the file as it is, in llama.cpp's own arithmetic (activations quantised to 8 bits for each product);
"f32" is the same weights dequantised to a GGUF of 32-bit floats, which is exact arithmetic up to rounding. The KV
cache is f32 and flash attention is off in both; prompts are fed 128 tokens at a time.

kl_MODEL.bin, little-endian: reference next-token distributions of the f32 model.
  header, 64 bytes: char magic[8] = "KBKL0001"; u8 model_sha256[32] of the original GGUF; u32 n_seq, n_pos (rows over
    all sequences), vocab, k; u32 reserved[2] = 0
  n_seq x u32 len
  n_seq sequences: u32 tokens[len + 1]        row i of a sequence predicts tokens[i + 1] from tokens[0..i]
  n_pos rows, sequence by sequence: u32 ids[k], f32 logprobs[k] (natural logarithm, descending), f32 rest
    rest: log of the probability of all other tokens together (-inf when there is none)

greedy_MODEL_ARITHMETIC.txt, UTF-8 lines, words separated by one space:
  model NAME SHA256 | vocab N | new N | cases N | made-by q or f32
  case NAME chat|raw
    say "USER MESSAGE"       only for chat; strings are escaped as in JSON, without \\u escapes beyond control codes
    text "RENDERED PROMPT"
    prompt ID...
    token ID SECOND MARGIN OTHER OTHER_MARGIN OTHER_GAP      `new` lines, end tokens are generated past
  ID: greedy choice; SECOND: runner-up; MARGIN: logprob(ID) - logprob(SECOND). OTHER: the choice of the other arithmetic
  given the same prefix, OTHER_MARGIN its margin, OTHER_GAP its logprob(OTHER) - logprob(ID), 0 where both agree.
"""
import argparse
import hashlib
import json
import os
import struct
import subprocess
import sys

import gguf
import numpy as np
from gguf.quants import dequantize

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
N_NEW = 64
K = 48
MODELS = {
    "smollm2": ("smollm2-135m-instruct-q4_1.gguf", [("english", 448), ("japanese", 448), ("code", 448),
                                                    ("office", 448), ("chat", 448)]),
    "gemma3": ("gemma-3-270m-q4_k_m.gguf", [("english", 640), ("japanese", 520), ("code", 448),
                                            ("office", 448), ("chat", 448)]),
}


def file_sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def dequantise(source, target):
    """Writes every tensor of source as f32, all metadata kept (general.file_type becomes 0, all f32)."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target + ".part", architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = 0 if name == "general.file_type" else field.contents()
        kind = field.types[0]
        writer.add_key_value(name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for t in reader.tensors:
        writer.add_tensor(t.name, np.ascontiguousarray(dequantize(t.data, t.tensor_type), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(target + ".part", target)


class Peer:
    def __init__(self, program, model):
        self.program, self.model = program, model

    def lines(self, command, lines, *arguments):
        out = subprocess.run([self.program, "--kv-f32", command, self.model, *map(str, arguments)], check=True,
                             input="".join(s + "\n" for s in lines), stdout=subprocess.PIPE, text=True).stdout
        return [s.split() for s in out.splitlines()]

    def tokenize(self, texts, special):
        lines = self.lines("tokenize", [f"{int(special)} {t.encode().hex()}" for t in texts])
        return [[int(x) for x in s] for s in lines]

    def greedy(self, prompts):
        return [[(int(s[i]), int(s[i + 1]), s[i + 2]) for i in range(0, len(s), 3)]
                for s in self.lines("greedy", [" ".join(map(str, p)) for p in prompts], N_NEW)]

    def force(self, rows):
        return [[(int(s[i]), int(s[i + 1]), s[i + 2], s[i + 3]) for i in range(0, len(s), 4)]
                for s in self.lines("force", [" ".join(map(str, r)) for r in rows], N_NEW)]

    def logits(self, tokens, scratch):
        """f32 (n, vocab), mapped from a scratch file."""
        with open(scratch + ".tok", "wb") as f:
            f.write(struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens))
        subprocess.run([self.program, "--kv-f32", "logits", self.model, scratch + ".tok", scratch + ".f32"], check=True)
        return np.memmap(scratch + ".f32", dtype="<f4", mode="r").reshape(len(tokens), -1)


def chat_prompt(model, message):
    """The prompt as the model's own chat template gives it, rendered by jinja2."""
    import jinja2
    fields = gguf.GGUFReader(model).fields
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        fields["tokenizer.chat_template"].contents())
    return template.render(messages=[{"role": "user", "content": message}], add_generation_prompt=True)


def quoted(text):
    return json.dumps(text, ensure_ascii=False)


def make_cases(name, model, q):
    prompts = json.load(open(os.path.join(HERE, "prompts.json"), encoding="utf-8"))
    cases = []
    if name == "smollm2":
        for i, say in enumerate(prompts["chat"]):
            cases.append({"name": f"chat-{i + 1:02}", "kind": "chat", "say": say, "text": chat_prompt(model, say)})
    for i, text in enumerate(prompts["raw"][name]):
        cases.append({"name": f"raw-{i + 1:02}", "kind": "raw", "text": text})
    for c in cases:
        c["prompt"] = q.tokenize([c["text"]], c["kind"] == "chat")[0]
    return cases


def write_greedy(out, name, sha, vocab, kind, maker, other, cases):
    chosen = maker.greedy([c["prompt"] for c in cases])
    judged = other.force([c["prompt"] + [t[0] for t in g] for c, g in zip(cases, chosen)])
    path = os.path.join(out, f"greedy_{name}_{kind}.txt")
    differ = 0
    with open(path, "w", encoding="utf-8") as f:
        f.write("# Made by make_goldens.py, which describes the format.\n")
        f.write(f"model {name} {sha}\nvocab {vocab}\nnew {N_NEW}\ncases {len(cases)}\nmade-by {kind}\n")
        for c, g, j in zip(cases, chosen, judged):
            f.write(f"case {c['name']} {c['kind']}\n")
            if "say" in c:
                f.write(f"say {quoted(c['say'])}\n")
            f.write(f"text {quoted(c['text'])}\nprompt {' '.join(map(str, c['prompt']))}\n")
            for (a, b, margin), (oa, _, om, gap) in zip(g, j):
                f.write(f"token {a} {b} {margin} {oa} {om} {gap}\n")
                differ += a != oa
    print(f"{os.path.basename(path)}: {len(cases)} cases, {differ} of {len(cases) * N_NEW} choices differ "
          "from the other arithmetic given the same prefix")


def row_of(x, k):
    """(ids, logprobs, rest) of one logits row, in double."""
    x = np.asarray(x, dtype=np.float64)
    top = np.argpartition(x, -k)[-k:]
    top = top[np.lexsort((top, -x[top]))]
    peak = x[top[0]]
    e = np.exp(x - peak)
    total = e.sum()
    e[top] = 0
    rest = e.sum()
    return top, x[top] - peak - np.log(total), np.log(rest) - np.log(total) if rest > 0 else -np.inf


def write_kl(out, name, sha, peer, texts, scratch):
    sequences, rows = [], []
    for text, length in texts:
        body = open(os.path.join(HERE, "texts", text + ".txt"), encoding="utf-8").read()
        ids = peer.tokenize([body], False)[0]
        if len(ids) < length + 1:
            sys.exit(f"texts/{text}.txt has {len(ids)} tokens, {length + 1} are needed")
        sequences.append(ids[:length + 1])
        logits = peer.logits(ids[:length], scratch)
        vocab = logits.shape[1]
        rows += [row_of(x, K) for x in logits]
    path = os.path.join(out, f"kl_{name}.bin")
    with open(path, "wb") as f:
        f.write(struct.pack("<8s32s6I", b"KBKL0001", bytes.fromhex(sha), len(sequences), len(rows), vocab, K, 0, 0))
        f.write(struct.pack(f"<{len(sequences)}I", *[len(s) - 1 for s in sequences]))
        for s in sequences:
            f.write(struct.pack(f"<{len(s)}I", *s))
        for ids, logprobs, rest in rows:
            f.write(np.asarray(ids, "<u4").tobytes() + np.asarray(logprobs, "<f4").tobytes() + struct.pack("<f", rest))
    masses = [np.exp(r[2]) for r in rows]
    print(f"{os.path.basename(path)}: {len(rows)} positions, {os.path.getsize(path)} bytes, mass outside the top {K}: "
          f"mean {np.mean(masses):.4f} max {np.max(masses):.4f}")
    return vocab


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--peer", default=os.path.join(TOP, "build/llama/bin/kb-peer"))
    p.add_argument("--models", default=os.path.join(TOP, "build/downloads"))
    p.add_argument("--work", default=os.path.join(TOP, "build/golden"), help="scratch, up to 3 GB")
    p.add_argument("--out", default=HERE, help="where the golden files go")
    p.add_argument("--only", choices=sorted(MODELS))
    p.add_argument("--dequantise-only", action="store_true", help="make the f32 GGUF files and nothing else")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    for name, (file, texts) in MODELS.items():
        if a.only not in (None, name):
            continue
        model = os.path.join(a.models, file)
        f32 = os.path.join(a.work, name + ".f32.gguf")
        if not os.path.exists(f32):
            dequantise(model, f32)
        if a.dequantise_only:
            continue
        sha = file_sha256(model)
        q, exact = Peer(a.peer, model), Peer(a.peer, f32)
        vocab = write_kl(a.out, name, sha, exact, texts, os.path.join(a.work, name))
        cases = make_cases(name, model, q)
        write_greedy(a.out, name, sha, vocab, "q", q, exact, cases)
        write_greedy(a.out, name, sha, vocab, "f32", exact, q, cases)


if __name__ == "__main__":
    main()
