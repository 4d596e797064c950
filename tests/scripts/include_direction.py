#!/usr/bin/env python3
"""Layers: includes point down only. Fails on an include, or a construct, that a header may not have.

Usage: include_direction.py [include directory]
"""
import re
import sys
from pathlib import Path

# What a directory's headers may include besides their own directory: a directory or one header.
BELOW = {
    "core": [],
    "math": ["core"],
    "cpu": ["core", "math"],
    # And the emulator, from platform.cuh alone; what benchmarks ask of a device, from bench.cuh.
    "cuda": ["core", "math", "bench/device.hpp"],
    "ops": ["core", "math"],  # never cpu: kernels are found by argument-dependent lookup
    "nn": ["core", "math", "ops", "data/packing.hpp"],
    "optim": ["core", "math", "ops", "nn/parameters.hpp"],
    "rlhf": ["core", "math", "ops", "nn", "optim", "data/records.hpp", "data/packing.hpp",
             "run/statistics.hpp", "run/choice_model.hpp"],
    # Side rooms know core and nothing above it; of one another, only the earlier ones.
    "io": ["core"],
    "text": ["core", "io"],
    "data": ["core", "io", "text", "run/statistics.hpp", "run/choice_model.hpp"],
    "run": ["core", "io", "text", "data"],
    # Where the engine and the side rooms meet: files and text become models and tokens.
    "models": ["core", "math", "ops", "nn", "optim", "rlhf", "io", "text", "data"],
    # Policies whose every response can be listed, and what methods should make of them.
    "exact": ["core", "math", "ops", "nn", "optim", "rlhf"],
    "dist": ["core"],
    # Benchmarks: what a machine can do, and what a kernel makes of it.
    "bench": ["core", "cpu", "run/statistics.hpp"],
    "bench.hpp": ["core", "bench"],
    "plumb.hpp": ["core", "math", "cpu", "ops", "nn", "optim", "rlhf"],
}
ENGINE = ["core", "math", "cpu", "cuda", "ops", "nn", "optim", "rlhf", "plumb.hpp"]
# Heavy to compile; every user of the engine would pay.
BANNED_STD = ["iostream", "regex", "ranges", "filesystem"]

BANNED_CODE = [
    (re.compile(r"\bnamespace\s*\{"), "anonymous namespace in a header: one copy per translation unit"),
    (re.compile(r"^static\b"), "namespace-scope static in a header: one copy per translation unit"),
    (re.compile(r"^\s*#.*__CUDACC__"), "__CUDACC__ outside cuda/: two bodies under one name"),
]

# The system's functions round as they please. Double-precision references are what tests compare
# with, and may be another hand's.
ROUNDED = re.compile(r"\b(?:std\s*::\s*|__builtin_)(?:exp|exp2|expm1|log|log2|log10|log1p|pow|sin|cos|tan|asin|acos|atan|"
                     r"atan2|sinh|cosh|tanh|erf|erfc|cbrt|hypot|tgamma|lgamma)[fl]?\s*\(|_distribution\s*<")
REFERENCE = ("cpu/reference", "bench")  # the oracles; and times, which are no results


# The one file that asks which compiler reads it.
PLATFORM = "cuda/platform.cuh"
# The files that include what does not exist, to stop a compilation with a sentence.
STOPS = ["core/version.hpp", "bench.hpp"]


def allowed(source: str, target: str) -> bool:
    layer = source.split("/")[0]
    return any(target == b or target.split("/")[0] == b for b in [layer, *BELOW[layer]])


def without_comments(text: str) -> str:
    blank = lambda match: re.sub(r"[^\n]", " ", match.group())
    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.S)


def problems_of(root: Path, header: Path, includes):
    source = header.relative_to(root).as_posix()
    layer = source.split("/")[0]
    if layer not in BELOW:
        yield 1, f"{layer} is not a known layer (BELOW in tests/scripts/include_direction.py)"
        return
    for number, line in enumerate(without_comments(header.read_text()).split("\n"), 1):
        for pattern, message in BANNED_CODE:
            if pattern.search(line) and not (source == PLATFORM and "__CUDACC__" in message):
                yield number, message
        if ROUNDED.search(line) and not source.startswith(REFERENCE):
            yield number, "a function of the system's library: other bits elsewhere; core/real.hpp has one"
        include = re.match(r'\s*#\s*include\s*([<"])([^>"]+)', line)
        if not include:
            continue
        quote, name = include.groups()
        if source in STOPS and name.startswith("Plumb"):
            continue
        if quote == '"':
            yield number, f'"{name}": write <plumb/…>, the one path from which a header is included'
        elif name.startswith("plumb/"):
            target = name.removeprefix("plumb/")
            if not any((include / "plumb" / target).is_file() for include in includes):
                yield number, f"<{name}> does not exist"
            elif not allowed(source, target):
                below = ", ".join([layer, *BELOW[layer]])
                yield number, f"<{name}> points up; from {layer}/ allowed: {below}"
        elif name in BANNED_STD and layer in ENGINE:
            yield number, f"<{name}> is too heavy for {layer}/"


def main() -> int:
    root = Path(__file__).parents[2]
    includes = [Path(sys.argv[1])] if len(sys.argv) > 1 else [root / "include", root / "cuda"]
    headers = [(include, header) for include in includes
               for header in sorted((include / "plumb").rglob("*.[hc][pu][ph]"))]
    problems = 0
    for include, header in headers:
        for number, message in problems_of(include / "plumb", header, includes):
            print(f"{header.relative_to(include.parent)}:{number}: {message}")
            problems += 1
    print(f"{len(headers)} headers, {problems} problems")
    return 1 if problems or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
