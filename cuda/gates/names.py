#!/usr/bin/env python3
"""Every CUDA function that the emulator defines exists in NVIDIA's own libraries.

Compiling against the toolkit's headers finds a changed type; this finds a name that a header still
declares and no library has, and a name that was never NVIDIA's.

Usage: names.py OBJECT… -- LIBRARY…
"""
import re
import subprocess
import sys

NVIDIA = re.compile(r"^(__)?(cuda|cublas)[A-Z]\w*$")


def symbols(path: str, *options: str) -> set:
    """Names defined in an object or library; a library's carry a version behind an @."""
    listing = subprocess.run(["nm", "--defined-only", *options, path], check=True, text=True,
                             capture_output=True).stdout
    lines = (line.split() for line in listing.splitlines())
    return {words[2].split("@")[0] for words in lines if len(words) == 3 and words[1] in "TWi"}


def main() -> int:
    if "--" not in sys.argv:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    defined = set()
    for path in sys.argv[1:split]:
        defined |= {name for name in symbols(path) if NVIDIA.match(name)}
    exported = set()
    for path in sys.argv[split + 1:]:
        exported |= symbols(path, "--dynamic")
    missing = sorted(defined - exported)
    for name in missing:
        print(f"{name}: defined by the emulator, in none of the libraries")
    if not defined:
        print("the objects define no function of NVIDIA's: wrong files?")
    print(f"{len(defined)} functions, {len(missing)} unknown to the libraries")
    return 1 if missing or not defined else 0


if __name__ == "__main__":
    sys.exit(main())
