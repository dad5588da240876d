#!/usr/bin/env python3
"""Makes tests/data/pretok.golden: where each pre-tokenizer cuts, by the published expressions and another engine.

Usage: python3 make_pretok_golden.py > pretok.golden        needs: pip install regex==2026.11.15
The expressions are those of the models' own tokenizer.json files, as src/llama-vocab.cpp of llama.cpp quotes them
beside each model ("original regex from tokenizer.json"); each is a Split with "Isolated" behaviour: matches and what
lies between them are pieces. Lines: ROW <tab> hex of the UTF-8 text <tab> byte offsets where the pieces end.
"""
import random

import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def style(digits, word=r"\p{L}", tail=r"[\r\n]*", lines=r"\s*[\r\n]+"):
    other = r"[^\s%s\p{N}]" % word.strip("[]")
    return SHORT + r"|[^\r\n\p{L}\p{N}]?%s+|\p{N}%s| ?%s+%s|%s|\s+(?!\S)|\s+" % (word, digits, other, tail, lines)


def cased(digits, ending):
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (lead + upper + "*" + lower + "+" + ending + "|" + lead + upper + "+" + lower + "*" + ending +
            r"|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


EAST = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
             r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
ROWS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "llama-bpe": [style("{1,3}")],
    "qwen2": [style("")],
    "qwen35": [style("", word=r"[\p{L}\p{M}]")],
    "seed-coder": [style("", tail="")],
    "bailingmoe": [style("", lines=r"\s*[\r\n]")],
    "gpt-4o": [cased("{1,3}", SHORT + "?")],
    "tekken": [cased("", "")],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", KANA, DEEPSEEK3],
    "bloom": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
}
WORDS = ("the Quick BROWN fOX iPhone McDonald XMLHttpRequest I'm YOU'RE we'Ve it'S don't O'Brien 'tis x=1; f(a,b) !=>= "
         "/path/to.txt // # ... 3.14 1234567 12a34 ２０２６ ½ Ⅳ 東京タワー こんにちは 吾輩は猫である。 「はい」、 ｶﾞｷﾞ "
         "か\u3099 e\u0301te\u0301 Ünïcödé ЁЖик ΑΒγ 한국어 שָׁלוֹם हिन्दी 👨‍👩‍👧 🇯🇵 © ₽ ™ ǅ ﬁ … । ۔ ، _a_ $5 <tag> `x` ~ ^").split(" ")
SPACES = ["", "", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", " \n", "\n ", "\t", "\u3000", "\u00a0", " \u3000"]


def split(passes, text):
    pieces = [text]
    for expression in passes:
        cut = []
        for piece in pieces:
            at = 0
            for m in regex.finditer(expression, piece):
                if m.end() > m.start():
                    cut += [piece[at:m.start()], m.group()]
                    at = m.end()
            cut.append(piece[at:])
        pieces = [p for p in cut if p]
    return pieces


random.seed(20)
for row, passes in ROWS.items():
    for _ in range(40):
        text = "".join(random.choice(WORDS) + random.choice(SPACES) for _ in range(random.randint(1, 8)))
        if random.random() < 0.3:
            text = random.choice(SPACES) + text
        ends, at = [], 0
        for piece in split(passes, text):
            at += len(piece.encode())
            ends.append(str(at))
        print(f"{row}\t{text.encode().hex()}\t{' '.join(ends)}")
