#!/usr/bin/env python3
"""Compares the ladder's counts: kernels from source and from nvcc's PTX must have made the same accesses.

The library's attention looks up where its sequence lies; nvcc joins loads there that a host's compiler makes
twice. So its counts may differ by 2 %; every other rung's are equal.

Usage: ladder_counts.py CUDA_LADDER CUDA_LADDER_PTX
"""
import subprocess
import sys


def tables(program: str) -> dict:
    """Each rung's cells under their headings."""
    text = subprocess.run([program, "--markdown"], capture_output=True, text=True, check=True).stdout
    rows, heading = {}, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "rung":
            heading = cells
        elif cells[0].startswith("`"):
            rows[cells[0]] = dict(zip(heading[1:], cells[1:]))
    return rows


def agree(rung: str, a: str, b: str) -> bool:
    return a == b or ("attention_5_library" in rung and abs(float(a) - float(b)) <= 0.02 * float(b))


def main() -> int:
    source, ptx = tables(sys.argv[1]), tables(sys.argv[2])
    if len(source) < 20 or source.keys() != ptx.keys():
        print(f"{len(source)} and {len(ptx)} rungs")
        return 1
    different = [(rung, heading, cell, ptx[rung][heading]) for rung, cells in source.items()
                 for heading, cell in cells.items() if not agree(rung, cell, ptx[rung][heading])]
    for rung, heading, a, b in different:
        print(f"{rung}, {heading}: {a} from source, {b} from PTX")
    return len(different) > 0


if __name__ == "__main__":
    sys.exit(main())
