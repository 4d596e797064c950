#!/usr/bin/env python3
"""No line of C++, CUDA or prose is longer than 100 columns.

Left out: tables, links, and lines that a program writes.

Usage: columns.py
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
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
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    files = listed.stdout.split("\n") if listed.returncode == 0 else [
        p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if "build" not in p.parts]
    files = [f for f in files if SOURCES.search(f) and (ROOT / f).is_file()]
    problems = [(f, number, length) for f in files
                for number, length in too_long(ROOT / f)]
    for f, number, length in problems:
        print(f"{f}:{number}: {length} columns")
    print(f"{len(files)} files, {len(problems)} lines too long")
    return 1 if problems or len(files) < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
