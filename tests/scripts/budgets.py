#!/usr/bin/env python3
"""Reports what is over its budget: lines of headers, functions and examples, seconds to compile.

Budgets are argued in review, so only what is far over fails: a header at 1.25 times its lines, or a
compilation at 3 times its seconds (shared machines are noisy).

Usage: budgets.py COMPILER
"""
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 60
EXAMPLE_LINES = 120
COMPILE_SECONDS = 4.0
CONTROL = re.compile(r"^(if|for|while|switch|catch|namespace|class|struct|union|enum|extern|do|else)\b")


def header_limit(header: Path) -> int:
    if header.parts[-2:] == ("rlhf", "ppo.hpp"):
        return 300
    return 600 if header.name.startswith(("gemm", "attention")) else 400


def blanked(text: str) -> str:
    """Comments, literals and preprocessor lines as spaces; line breaks stay."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S | re.M)


def functions(text: str):
    """(name, first line, lines) of every outermost brace block that follows a parameter list."""
    text = blanked(text)
    depth, inside, head_start = 0, None, 0
    for position, c in enumerate(text):
        if c == "{":
            start = position - len(text[head_start:position].lstrip())
            head = re.sub(r"^\s*template\s*<[^>]*>", "", text[start:position]).strip()
            call = re.search(r"([\w~]+|operator\s*\S+)\s*\(", head)
            if inside is None and call and not CONTROL.match(head) and "=" not in head[: call.start()]:
                inside = (depth, call.group(1), start)
            depth += 1
        elif c == "}":
            depth -= 1
            if inside and depth == inside[0]:
                _, name, start = inside
                yield name, text.count("\n", 0, start) + 1, text.count("\n", start, position) + 1
                inside = None
        if c in "{};":
            head_start = position + 1


def compile_seconds(compiler: str, *flags: str) -> float:
    start = time.monotonic()
    subprocess.run([compiler, "-std=c++20", "-O0", "-c", "-o", "/dev/null", "-I", str(ROOT / "include"),
                    *flags, "-x", "c++", "-"], input="#include <plumb/plumb.hpp>\n", text=True, check=True)
    return time.monotonic() - start


def main() -> int:
    failures = 0
    headers = sorted((ROOT / "include").rglob("*.hpp")) + sorted(
        h for h in (ROOT / "cuda").rglob("*") if h.suffix in (".hpp", ".cuh"))
    total = 0
    for header in headers:
        text = header.read_text()
        lines, limit = text.count("\n"), header_limit(header)
        total += lines
        if lines > limit:
            far = lines > 1.25 * limit
            failures += far
            print(f"{header.relative_to(ROOT)}: {lines} lines, budget {limit}{'  FAILED' if far else ''}")
        for name, first, length in functions(text):
            if length > FUNCTION_LINES:
                print(f"{header.relative_to(ROOT)}:{first}: {name} has {length} lines, "
                      f"budget {FUNCTION_LINES}")
    print(f"{len(headers)} headers, {total} lines")

    for example in sorted((ROOT / "examples").glob("*.cpp")):
        lines = example.read_text().count("\n")
        if lines > EXAMPLE_LINES:
            print(f"{example.relative_to(ROOT)}: {lines} lines, budget {EXAMPLE_LINES}")

    whole = compile_seconds(sys.argv[1])
    separate = compile_seconds(sys.argv[1], "-DPLUMB_KERNELS_SEPARATE")
    far = whole > 3 * COMPILE_SECONDS
    failures += far
    print(f"plumb.hpp at -O0: {whole:.1f} s, budget {COMPILE_SECONDS:.0f} s "
          f"({separate:.1f} s with plumb::kernels){'  FAILED' if far else ''}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
