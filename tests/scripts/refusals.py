#!/usr/bin/env python3
"""Mistakes that the headers answer with one error, which says what to do: an older standard, -ffast-math, a
backend that was not included.

Usage: refusals.py COMPILER
"""
import subprocess
import sys

from headers import CUDA_FLAGS, INCLUDE, public_headers

FAST = ["-Ofast", "-ffinite-math-only"]
FAST_GCC = ["-funsafe-math-optimizations", "-freciprocal-math", "-fno-signed-zeros"]  # clang says nothing of these

# Everything of a model, and no kernels.
NO_BACKEND = """
#include <plumb/nn/model.hpp>
#include <plumb/optim/adamw.hpp>
int main() {
  plumb::Model<plumb::Cpu> model(plumb::TransformerConfig{}, 1);
  plumb::AdamW<plumb::Cpu> adamw(model.parameters(), {});
  auto x = plumb::Tensor<plumb::Cpu>::from({1, 2}, {1, 2});
  plumb::Tape tape;
  auto y = plumb::tanh(plumb::linear(x, x));
  tape.backward(plumb::weighted_sum(y.reshape({1}), y.reshape({1})));
  adamw.step();
}
"""


def errors_of(compiler: str, source: str, *flags: str) -> list[str]:
    result = subprocess.run([compiler, *flags, "-fsyntax-only", "-I", str(INCLUDE), "-x", "c++", "-"],
                            input=source, capture_output=True, text=True)
    return [line for line in result.stderr.splitlines() if "error:" in line]


def errors(compiler: str, header: str, *flags: str) -> list[str]:
    more = CUDA_FLAGS if header.endswith(".cuh") else []
    return errors_of(compiler, f"#include <{header}>\nint main() {{}}\n", *flags, *more)



def main() -> int:
    compiler, failed, tried = sys.argv[1], 0, 0
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    clang = "clang" in version
    # clang reads on after what stops it, and takes a hundred times as long: some headers suffice.
    headers = ["plumb/plumb.hpp", "plumb/core/bf16.hpp"] if clang else public_headers()
    cases = [(header, ["-std=gnu++17"], "-std=c++20") for header in headers]
    cases += [(header, ["-std=c++20", "-O2", "-ffast-math"], "-ffast-math") for header in headers]
    cases += [("plumb/plumb.hpp", [f"-std={standard}"], "-std=c++20") for standard in ("c++11", "c++14")]
    cases += [("plumb/plumb.hpp", ["-std=c++20", "-O2", flag], "-ffast-math")
              for flag in FAST + ([] if clang else FAST_GCC)]
    for header, flags, says in cases:
        found = errors(compiler, header, *flags)
        tried += 1
        if len(found) != 1 or says not in found[0]:
            failed += 1
            print(f"{header} with {' '.join(flags)}: {len(found)} errors, one expected that says {says}:")
            print("\n".join(found[:3]))
    found = errors_of(compiler, NO_BACKEND, "-std=c++20")
    tried += 1
    if len(found) != 1 or "<plumb/cpu/kernels.hpp>" not in found[0]:
        failed += 1
        print(f"without a backend: {len(found)} errors, one expected that names its header:")
        print("\n".join(found[:8]))
    if found := errors_of(compiler, "#include <plumb/cpu/kernels.hpp>\n" + NO_BACKEND, "-std=c++20"):
        failed += 1
        print("with the backend:", *found[:8], sep="\n")
    print(f"{tried} compilations by {compiler}, {failed} failed")
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
