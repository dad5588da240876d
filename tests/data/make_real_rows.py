#!/usr/bin/env python3
"""Makes tests/data/real_rows.txt: checksums of rows of the two real models, dequantised by gguf-py.

Fifty random rows of every weight kind a model has. Lines: FILE TENSOR ROW CRC32, where CRC32 (zlib) is of the row's
weights as little-endian f32 by gguf 0.19.0 (PyPI) gguf.quants.dequantize.
Usage: make_real_rows.py OUT FILE.gguf...        needs: pip install gguf==0.19.0
"""
import collections
import pathlib
import sys
import zlib

import gguf
import numpy as np
from gguf import quants

rng = np.random.default_rng(11)
with open(sys.argv[1], "w") as out:
    for path in map(pathlib.Path, sys.argv[2:]):
        by_kind = collections.defaultdict(list)
        for t in gguf.GGUFReader(path).tensors:
            by_kind[t.tensor_type].append(t)
        for kind, tensors in by_kind.items():
            for _ in range(50):
                t = tensors[rng.integers(len(tensors))]
                rows = int(np.prod(t.shape[1:])) if len(t.shape) > 1 else 1
                row = int(rng.integers(rows))
                data = t.data.reshape(rows, -1)[row:row + 1]
                y = np.ascontiguousarray(quants.dequantize(data, kind), dtype="<f4")
                out.write(f"{path.name} {t.name} {row} {zlib.crc32(y.tobytes()):08x}\n")
