#!/usr/bin/env python3
"""Makes bundle.golden: signed images after docs/images.md, signed by openssl, and what a box must say to each. A row of
tests/unit/storage/bundle_test.c: name, the root that the box trusts (1 or 2), the image without its payload (hex), which
payload follows (GOOD, OTHER, MIXED: the tree of OTHER with the data of GOOD, REST: GOOD without the block that a delta
copies, NONE), how many bytes are too many, error. The
good payload's byte i is byte_at(i) of verity_test.c; the first row is a good image. Some of the heads are tests/fuzz/corpus/
bundle too.
"""
import hashlib
import os
import struct
import tempfile

from make_manifest_corpus import NUMBER, manifest
from make_root_golden import MODEL, ROOT, Key, block, root

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "../fuzz/corpus/bundle")
SEEDS = ("a delta", "good", "good, with a new root", "revoked", "signed as another kind of thing", "with room for more signatures")
BLOCK = 4096


def payload(size, seed=0):
    return bytes(((i + seed) * 2654435761 >> 13 ^ (i + seed) >> 7) & 255 for i in range(size))


def sha(data):
    return hashlib.sha256(data.ljust(BLOCK, b"\0")).digest()


def tree(data):
    """(root, stream): recursive, unlike the C. The test builds its streams itself: a compiler's strings are short."""
    def node(level, index):
        if level == 0:
            piece = data[index * BLOCK:(index + 1) * BLOCK]
            return sha(piece), piece
        children = [node(level - 1, i) for i in range(index * 128, min(index * 128 + 128, count[level - 1]))]
        own = b"".join(h for h, _ in children).ljust(BLOCK, b"\0")
        return sha(own), own + b"".join(s for _, s in children)
    count = [-(-len(data) // BLOCK)]
    while count[-1] > 1:
        count.append(-(-count[-1] // 128))
    return node(len(count) - 1, 0)


def pair(data, signatures):
    return struct.pack("<II", len(data), len(signatures)) + data + signatures


def main():
    rows, data = [], payload(BLOCK + 5)
    top, _ = tree(data)
    digest = hashlib.sha256(bytes([1, 1, 12, 0]) + bytes(4) + struct.pack("<Q", len(data)) + top.ljust(64, b"\0") +
                            bytes(176)).digest()
    about = {21: NUMBER(len(data)), 23: top}
    with tempfile.TemporaryDirectory() as d:
        a, b, m, n, x = (Key(d, name, curve) for name, curve in (("a", 1), ("b", 2), ("m", 1), ("n", 2), ("x", 1)))
        first = root([a, b, m], [(ROOT, 2, [0, 1]), (MODEL, 1, [2])])
        second = root([a, b, n], [(ROOT, 2, [0, 1]), (MODEL, 1, [2])], 2)  # key m has gone, n has come
        chain = [pair(first, block(first, [a, b])), pair(second, block(second, [a, b]))]

        def image(about, signers, roots=None, domain=b"kotobako model manifest 1", room=b"", encoding=0):
            roots, text = chain[:1] if roots is None else roots, manifest(about)
            return (b"KBBUNDL1" + struct.pack("<II", len(roots), encoding) + b"".join(roots) +
                    pair(text, block(text, signers, domain) + room))

        def add(name, data, error="KB_OK", trusts=1, stream="GOOD", extra=0):
            rows.append(f'\t{{"{name}", {trusts}, "{data.hex()}", {stream}, {extra}, {error}}},\n')
            if name in SEEDS:
                with open(os.path.join(CORPUS, name.replace(",", "").replace(" ", "-")), "wb") as f:
                    f.write(data)
        good = image(about, [m])
        add("good", good)
        add("good, with a new root", image(about, [n], chain))
        add("the chain is known already", image(about, [n], chain), trusts=2)
        add("older than the box's root, but its key may sign still", image(about, [n]), trusts=2)
        add("rolled back to a key that has gone", image(about, [m]), "KB_EDENIED", 2)
        add("signed by a key that the new root took away", image(about, [m], chain), "KB_EDENIED")
        add("signed by a root key", image(about, [a]), "KB_EDENIED")
        add("signed by a stranger", image(about, [x]), "KB_EDENIED")
        add("not signed", image(about, []), "KB_EDENIED")
        add("signed as another kind of thing", image(about, [m], domain=b"kotobako root 1"), "KB_EBAD")
        add("a signature over another manifest",
            good[:16 + len(chain[0])] + pair(manifest(about), block(manifest({**about, 3: NUMBER(9)}), [m],
                                                                    b"kotobako model manifest 1")), "KB_EBAD")
        add("the payload of another image", good, "KB_ECORRUPT", stream="OTHER")
        add("the tree of another image", good, "KB_ECORRUPT", stream="MIXED")
        add("it ends early", good, "KB_EBAD", extra=-1)
        add("it does not end", good, "KB_EBAD", extra=1)
        add("it ends within a root", good[:60], "KB_EBAD", stream="NONE")
        add("no such file", b"GGUF" + good[4:], "KB_EBAD")
        other = root([a, b, m], [(ROOT, 2, [0, 1]), (MODEL, 1, [2])], fleet=b"another fleet!!!")
        add("another fleet's", image(about, [m], [pair(other, block(other, [a, b]))]), "KB_EDENIED")
        fork = root([a, b, x], [(ROOT, 2, [0, 1]), (MODEL, 1, [2])])
        add("another root of the same version", image(about, [x], [pair(fork, block(fork, [a, b]))]), "KB_EDENIED")
        add("a new root that only one has signed",
            image(about, [n], [chain[0], pair(second, block(second, [a]))]), "KB_EDENIED")
        add("a root left out", image(about, [n], [chain[0], pair(root([a, b, n], [(ROOT, 2, [0, 1]), (MODEL, 1, [2])], 3),
                                                                 block(second, [a, b]))]), "KB_EBAD")
        taken = root([a, b, m], [(ROOT, 2, [0, 1]), (MODEL, 1, [2])], 2, revoked=[digest])
        add("revoked", image(about, [m], [chain[0], pair(taken, block(taken, [a, b]))]), "KB_EDENIED")
        add("for a newer firmware", image({**about, 17: NUMBER(100)}, [m]), "KB_EUNSUPPORTED")
        add("with room for more signatures", image(about, [m], room=bytes(300)))
        add("with something in that room", image(about, [m], room=bytes(200) + b"x" + bytes(99)), "KB_EBAD")
        add("encoded in a way of the future", image(about, [m], encoding=77), "KB_EUNSUPPORTED")
        def delta(*runs, base=b"\xba" * 32, n=None):
            return (image(about, [m], encoding=1) + b"KBDELTA1" + base + struct.pack("<II", len(runs) if n is None else n, 0) +
                    b"".join(struct.pack("<QQQ", *r) for r in runs))
        add("a delta", delta((0, 1, 3)), stream="REST")
        add("a delta that copies nothing", delta())
        add("a delta for another base", delta((0, 1, 3), base=bytes(32)), "KB_ENOTFOUND", stream="REST")
        add("a delta that copies the wrong block", delta((0, 1, 4)), "KB_ECORRUPT", stream="REST")
        add("a delta that copies beyond the end", delta((0, 2, 3)), "KB_EBAD", stream="REST")
        add("a delta with the block that is copied", delta((0, 1, 3)), "KB_ECORRUPT")
        add("a delta without its rest", delta((0, 1, 3)), "KB_EBAD", stream="NONE")
        add("a delta of endless runs", delta((0, 1, 3), n=1 << 20), "KB_ELIMIT", stream="REST")
        add("no roots", b"KBBUNDL1" + bytes(8) + good[16:], "KB_EBAD")
        add("endless manifest", good[:16 + len(chain[0])] + struct.pack("<II", 1 << 30, 100), "KB_ELIMIT",
            stream="NONE")
        with open(os.path.join(HERE, "bundle.golden"), "w", encoding="ascii") as f:
            # A file of two halves: definitions, and what is included within an array.
            f.write("#ifndef ROWS\n")
            for name, value in (("FIRST", first), ("SECOND", second)):
                f.write(f'#define {name} "{value.hex()}"\n')
            f.write("#else\n")
            f.writelines(rows)
            f.write("#endif\n")


if __name__ == "__main__":
    main()
