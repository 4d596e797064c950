"""Packs the dot products of a tensor core's published model: tensor_core/mma_vectors.bin.

    python3 tests/golden/make_tensor_core.py mma_vectors.txt.gz

The text has a line for each: type, architecture, k, k bf16 or tf32 of A, k of B, c and the result
d, as the bits of floats in hex; sm_80 and sm_90 in turn, of the same operands. tensor_core/README.md
says where it is from, and how the packed file is laid out.
"""

import gzip
import itertools
import pathlib
import struct
import sys


def records(lines):
    """One record per two lines."""
    for of_80, of_90 in itertools.zip_longest(*[iter(lines)] * 2):
        kind, first, k = of_80[:3]
        assert (first, of_90[1]) == ("sm_80", "sm_90") and of_80[3:-1] == of_90[3:-1]
        assert (kind, k) in (("bf16", "16"), ("tf32", "8"))
        values = [int(x, 16) for x in of_80[3:] + of_90[-1:]]
        operands, rest = values[: 2 * int(k)], values[2 * int(k) :]
        cut = 16 if kind == "bf16" else 13
        assert len(rest) == 3 and all(x % (1 << cut) == 0 for x in operands)
        if kind == "bf16":
            yield struct.pack("<32H3I", *(x >> 16 for x in operands), *rest)
        else:
            yield struct.pack("<16I3I", *operands, *rest)


with gzip.open(sys.argv[1], "rt") as text:
    split = [line.split() for line in text if not line.startswith("#")]
packed = b"".join(records(split))
assert len(packed) == 16000 * 76 and [line[0] for line in split] == sorted(line[0] for line in split)
(pathlib.Path(__file__).parent / "tensor_core/mma_vectors.bin").write_bytes(packed)
