"""Reads GGUF files by the format's description: what the benchmarks must know about the model they measure."""
import struct

# Tensor types: name, weights per block, bytes per block (ggml's block structs).
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
         7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
         12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
         30: ("BF16", 1, 2)}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    """Reads what a GGUF file begins with, in the order in which it is written."""

    def __init__(self, f, path):
        self.f = f
        if f.read(4) != b"GGUF":
            raise SystemExit(f"{path}: not a GGUF file")
        self.number("I")
        self.n_tensors, self.n_meta = self.number("Q"), self.number("Q")

    def number(self, code):
        return struct.unpack("<" + code, self.f.read(struct.calcsize("<" + code)))[0]

    def value(self, kind):
        if kind == 8:
            return self.f.read(self.number("Q"))
        if kind == 9:
            element, count = self.number("I"), self.number("Q")
            if element in SCALARS:
                size = struct.calcsize("<" + SCALARS[element])
                return list(struct.unpack(f"<{count}{SCALARS[element]}", self.f.read(size * count)))
            return [self.value(element) for _ in range(count)]
        return self.number(SCALARS[kind])

    def pairs(self):
        """(key, value, where it begins, where it ends) of each."""
        for _ in range(self.n_meta):
            begin = self.f.tell()
            key = self.f.read(self.number("Q")).decode()
            value = self.value(self.number("I"))
            yield key, value, begin, self.f.tell()


def pairs(path):
    """[(key, value, offset, end)] of a GGUF file's metadata."""
    with open(path, "rb") as f:
        return list(Reader(f, path).pairs())


def read(path):
    """({key: value}, [(name, dims, type)]) of a GGUF file."""
    with open(path, "rb") as f:
        r = Reader(f, path)
        meta = {key: value for key, value, _, _ in r.pairs()}
        tensors = []
        for _ in range(r.n_tensors):
            name = f.read(r.number("Q")).decode()
            dims = [r.number("Q") for _ in range(r.number("I"))]
            tensors.append((name, dims, r.number("I")))
            r.number("Q")
        return meta, tensors


def words(path):
    """Ids of the tokens that are one lower-case word behind a space: prompts of a known number of tokens."""
    tokens = read(path)[0]["tokenizer.ggml.tokens"]
    out = []
    for i, token in enumerate(tokens):
        text = token.decode("utf-8", "replace")
        if text[:1] in ("\u0120", "\u2581") and len(text) > 3 and text[1:].isascii() and text[1:].islower() and text[1:].isalpha():
            out.append(i)
    if len(out) < 1000:
        raise SystemExit(f"{path}: {len(out)} words in the vocabulary, too few to make prompts of")
    return out


def kv_bytes_per_token(path, bytes_per_value=2):
    """K and V of one position over all layers, as f16."""
    meta, _ = read(path)
    arch = meta["general.architecture"].decode()
    heads = meta[f"{arch}.attention.head_count"]
    dim = meta.get(f"{arch}.attention.key_length", meta[f"{arch}.embedding_length"] // heads)
    return 2 * meta[f"{arch}.block_count"] * meta.get(f"{arch}.attention.head_count_kv", heads) * dim * bytes_per_value
