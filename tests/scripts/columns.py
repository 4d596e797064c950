#!/usr/bin/env python3
"""No line of C++, CUDA or prose is longer than 100 columns.

Left out: tables, links, and lines that a program writes.

Usage: columns.py
"""
import re
import sys
from pathlib import Path

from sources import ROOT, source_files

SOURCES = re.compile(r"\.([hc]pp|cuh?|h|inl|md)$")


def too_long(path: Path):
    generated = False  # between marks, where a program writes
    for number, line in enumerate(path.read_text().split("\n"), 1):
        generated = generated or re.search(r"<!-- (table:|.*: begin)", line) is not None
        generated = generated and not re.search(r"<!-- (end of table|.*: end)", line)
        table = path.suffix == ".md" and line.startswith("|")
        if len(line) > 100 and not (generated or table or re.search(r"https?://\S{40}", line)):
            yield number, len(line)


def main() -> int:
    files = [f for f in source_files() if SOURCES.search(f) and (ROOT / f).is_file()]
    problems = [(f, number, length) for f in files
                for number, length in too_long(ROOT / f)]
    for f, number, length in problems:
        print(f"{f}:{number}: {length} columns")
    print(f"{len(files)} files, {len(problems)} lines too long")
    return 1 if problems or len(files) < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
