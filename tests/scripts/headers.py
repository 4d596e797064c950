#!/usr/bin/env python3
"""Every public header compiles alone and twice included, without a warning; prints seconds of each.

Usage: headers.py COMPILER
"""
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
INCLUDE, CUDA = ROOT / "include", ROOT / "cuda"
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-fsyntax-only"]
# The CUDA headers as a machine without a toolkit reads them: on the emulator, by its own declarations.
# A header with a library that is not everywhere: left out where the library is, and said.
NEEDS = {"plumb/bench.hpp": "benchmark/benchmark.h"}
CUDA_FLAGS = ["-I", str(CUDA), "-isystem", str(CUDA / "emulator/toolkit"), "-Wno-unknown-pragmas"]


def is_public(name: str) -> bool:
    """Bodies that another header includes once per instruction set are not headers by themselves."""
    return not name.endswith(".inl.hpp") and not name.startswith("plumb/cpu/simd_")


def public_headers() -> list[str]:
    headers = sorted(h.relative_to(INCLUDE).as_posix() for h in INCLUDE.rglob("*.hpp"))
    headers = [h for h in headers if is_public(h)]
    return headers + sorted(h.relative_to(CUDA).as_posix() for h in (CUDA / "plumb").rglob("*.cuh"))


def has_library(compiler: str, header: str) -> bool:
    program = f"#if !__has_include(<{NEEDS[header]}>)\n#error\n#endif\n"
    return subprocess.run([compiler, "-E", "-x", "c++", "-"], input=program, capture_output=True,
                          text=True).returncode == 0


def compile_alone(compiler: str, header: str) -> tuple[float, str]:
    """Seconds, and what the compiler had to say: nothing, where all is well."""
    more = CUDA_FLAGS if header.endswith(".cuh") else []
    command = [compiler, *FLAGS, "-I", str(INCLUDE), *more, "-x", "c++", "-"]
    start = time.monotonic()
    result = subprocess.run(command, input=f"#include <{header}>\n#include <{header}>\n",
                            capture_output=True, text=True)
    wrong = (result.stderr or f"status {result.returncode}") if result.returncode else ""
    return time.monotonic() - start, wrong


def main() -> int:
    compiler = sys.argv[1]
    headers = public_headers()
    for header in [h for h in NEEDS if not has_library(compiler, h)]:
        print(f"left out: {header}, since {NEEDS[header]} is missing")
        headers.remove(header)
    failed, start = [], time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda header: compile_alone(compiler, header), headers)
        for header, (seconds, wrong) in zip(headers, results):
            print(f"{seconds:6.2f} s  {header}{'  FAILED' if wrong else ''}", flush=True)
            if wrong:
                failed.append(header)
                print(wrong[:4000], flush=True)
    seconds = time.monotonic() - start
    print(f"{len(headers)} headers by {compiler} in {seconds:.1f} s, {len(failed)} failed")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
