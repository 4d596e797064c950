#!/usr/bin/env python3
"""Whether the tests would notice: faults of one line, sown one at a time in the shipped kernels and runtime.

For each mutation below a copy of cuda/ with that one change is compiled into the test named beside it, as the
build compiles it, and run. A mutation is killed if the test fails, hangs or is stopped by what watches it; what
survives is printed, and is a fault of the tests. A change whose place is not found exactly once, or that does
not compile, is a fault of this list. What it is not: a search. The list holds what hands get wrong: bounds,
masks, orders, barriers, waits, 32-bit indices, and the runtime's streams, pool and errors.

Usage: mutate.py BUILD [--only TEXT] [--jobs N]
    BUILD  a build directory of CMake with Ninja, whose tests of CUDA on the emulator are built
           (-DPLUMB_ALL_TESTS=ON): their commands are used, and they must pass unchanged
    --only TEXT  those whose file or reason contains it
Exit status: 0; 1 with the survivors.
"""
import argparse
import concurrent.futures
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900  # seconds of a test

# (file of cuda/plumb/cuda, what stands there once, what stands there instead, test, way, why it is a fault)
MUTATIONS = [
    # Rows.
    ("rows.cuh", "  if (row >= n) return;\n  const float* from = table", "  if (row > n) return;\n  const float* from = table",
     "test_emulated_memory", "trace", "a row too many is gathered"),
    ("rows.cuh", "table + static_cast<Index>(ids[row]) * c;", "table + ids[row] * static_cast<std::int32_t>(c);",
     "test_emulated_large", "fast", "a table's row by 32 bits"),
    ("rows.cuh", "  const Index end = first + kTokenChunk < n ? first + kTokenChunk : n;\n  float sum",
     "  const Index end = first + kTokenChunk;\n  float sum",
     "test_emulated_memory", "trace", "the last chunk of tokens is read whole"),
    ("rows.cuh", "for (Index chunk = 0; chunk < chunks; ++chunk) sum = sum +", "for (Index chunk = chunks; chunk-- > 0;) sum = sum +",
     "test_cuda_rows", "fast", "chunks added from the last"),
    ("rows.cuh", "(i & run) == 0", "(i & run) != 0", "test_cuda_rows", "fast", "sorted the other way round"),
    ("rows.cuh", "base + low, run);\n      __syncthreads();", "base + low, run);",
     "test_cuda_rows", "trace", "no barrier between two steps of the sort"),
    # Element by element.
    ("elementwise.cuh", "y[0] = fma(factor, x[1], x[0]);", "y[0] = factor * x[1] + x[0];",
     "test_cuda_rows", "fast", "rounded twice where the CPU rounds once"),
    ("map.cuh", "wide = wide && first + (kQuads - 1) * kThreads * 4 + 4 <= n;", "wide = wide && first + 4 <= n;",
     "test_emulated_memory", "trace", "a thread's second quad is read whole past the end"),
    ("map.cuh", "const int count = wide ? 4 : quad_count(n - i);", "const int count = 4;",
     "test_emulated_memory", "fast", "the last quad is written whole"),
    # Norms.
    ("norm.cuh", "const float r = 1.0F / sqrt(squares / static_cast<float>(c) + eps);",
     "const float r = 1.0F / sqrt((squares + eps) / static_cast<float>(c));",
     "test_cuda_rows", "fast", "eps within the mean"),
    ("norm.cuh", "const float g = weight[i] * dy[i] - mean_g;", "const float g = weight[i] * dy[i];",
     "test_cuda_rows", "fast", "the mean's gradient left out"),
    ("norm.cuh", "if (lane() == 0) mean[row] = m, rstd[row] = r;", "if (lane() == 0) mean[row] = m, rstd[row + 1] = r;",
     "test_emulated_memory", "trace", "written one place on"),
    # Reductions.
    ("reduce.cuh", "alike ? b.at < a.at :", "alike ? b.at > a.at :",
     "test_cuda_rows", "fast", "the last of equal maxima"),
    ("reduce.cuh", "if (row + i < n && column + tx < c) tile", "if (row + i <= n && column + tx < c) tile",
     "test_emulated_memory", "trace", "a row too many is transposed"),
    ("reduce.cuh", "column + tx];\n  __syncthreads();", "column + tx];",
     "test_cuda_rows", "trace", "no barrier within the transposition"),
    ("reduce.cuh", "row < offsets[g + 1]; ++row) sum = sum +", "row <= offsets[g + 1]; ++row) sum = sum +",
     "test_cuda_rows", "fast", "a group's end counted in"),
    ("reduce.cuh", "const Index matrix = static_cast<Index>(blockIdx.z) * n * c;",
     "const Index matrix = static_cast<Index>(blockIdx.z) * n * (c - 1);",
     "test_cuda_rows", "fast", "the second matrix begins too early"),
    # Losses, head and draws.
    ("loss.cuh", "  if (t < count) {\n    const LossTerm", "  if (t <= count) {\n    const LossTerm",
     "test_emulated_memory", "trace", "a term too many"),
    ("loss.cuh", "for (Index i = 0; i < chunks; ++i) sum = sum + sums[i];", "for (Index i = chunks; i-- > 0;) sum = sum + sums[i];",
     "test_cuda_loss", "fast", "chunks of the loss from the last"),
    ("head.cuh", "if (i >= v) break;", "if (i > v) break;",
     "test_emulated_memory", "trace", "a column of logits too many"),
    ("head.cuh", "if (i == target) d = d + scale * slope;", "if (i == target) d = d + slope;",
     "test_cuda_loss", "fast", "the temperature forgotten at the target"),
    ("sampling.cuh", "histogram[i] = 0;\n    __syncthreads();", "histogram[i] = 0;",
     "test_cuda_loss", "trace", "no barrier after the histogram is cleared"),
    ("sampling.cuh", "const float rest = threshold - before;", "const float rest = threshold;",
     "test_cuda_loss", "fast", "the draw goes on from the row's beginning"),
    ("logits.cuh", "        add(terms);\n      }\n    }\n    __syncthreads();", "        add(terms);\n      }\n    }",
     "test_cuda_loss", "trace", "no barrier between two tiles of a row of logits"),
    ("logits.cuh", "  if (lane() == 0) of_warp[threadIdx.x / kWarp] = most;\n  __syncthreads();", "  if (lane() == 0) of_warp[threadIdx.x / kWarp] = most;",
     "test_cuda_loss", "trace", "the warps' maxima are read before all are there"),
    ("logits.cuh", "      if (i < v) next[j] = load(i);", "      if (i <= v) next[j] = load(i);",
     "test_emulated_memory", "trace", "a logit past the row's end"),
    ("sampling.cuh", "if (weights[i] < settings.min_p) weights[i] = 0.0F;", "if (weights[i] <= settings.min_p) weights[i] = 0.0F;",
     "test_cuda_loss", "fast", "min-p's own bound left out"),
    # Optimizer.
    ("optimizer.cuh", "const Index count = n - first < kSquaresBlock ? n - first : kSquaresBlock;", "const Index count = kSquaresBlock;",
     "test_emulated_memory", "trace", "the last block is read whole"),
    # Products.
    ("gemm_tile.cuh", "        b.store(b_tiles[now ^ 1]);\n      }\n      __syncthreads();", "        b.store(b_tiles[now ^ 1]);\n      }",
     "test_cuda_gemm", "trace", "no barrier between two tiles of k"),
    ("gemm_tile.cuh", "    add = true;\n", "", "test_cuda_gemm", "fast", "chunks of k overwrite"),
    ("gemm_tile.cuh", "chunk = 1; chunk < chunks; ++chunk) x = add4(x, load4(from + chunk * (out.m * columns)));",
     "chunk = chunks; --chunk > 0;) x = add4(x, load4(from + chunk * (out.m * columns)));",
     "test_cuda_gemm", "fast", "chunks of a split product from the last"),
    ("gemm_tile.cuh", "first < split.chunks; first += split.at_once, out.accumulate = true)", "first < split.chunks; first += split.at_once)",
     "test_cuda_gemm", "fast", "the second part of a split product overwrites the first"),
    ("gemm_tile.cuh", "count_ = first_row + row_ < rows ? 4 : 0;", "count_ = first_row + row_ <= rows ? 4 : 0;",
     "test_emulated_memory", "trace", "a row too many of an operand"),
    ("gemm_tile.cuh", "from_ = operand + (first_row + row_) * static_cast<Index>(k) + begin + first_k_;",
     "from_ = operand + static_cast<int>(first_row + row_) * k + begin + first_k_;",
     "test_emulated_large", "fast", "an operand's row by 32 bits"),
    ("gemm_output.cuh", "return row < m ? quad_count(n - column) : 0;", "return row <= m ? quad_count(n - column) : 0;",
     "test_emulated_memory", "trace", "a row too many of the product"),
    ("gemm_output.cuh", "if (last && epilogue.bias != nullptr)", "if (epilogue.bias != nullptr)",
     "test_cuda_gemm", "fast", "the bias added once a chunk"),
    ("gemm_few_rows.cuh", "cp_async_wait<kStages - 2>();", "cp_async_wait<kStages - 1>();",
     "test_cuda_gemm", "fast", "a copy is read before it has come"),
    ("gemm_few_rows.cuh", "b_left_[i] = first_column_ + column < p.out.n ? k_ - at : 0;", "b_left_[i] = k_ - at;",
     "test_emulated_memory", "trace", "columns that are not there are read"),
    # Attention.
    ("attention_tile.cuh", "tile.first + row + 4 * i + 1 - block * kBlockKeys;", "tile.first + row + 4 * i - block * kBlockKeys;",
     "test_cuda_attention", "fast", "a query does not see its own key"),
    ("attention_tile.cuh", "    cp_async_wait<0>();\n    __syncthreads();\n    stage(step + 1);", "    cp_async_wait<0>();\n    stage(step + 1);",
     "test_cuda_attention", "trace", "a slice is read before all have copied it"),
    ("attention_tile.cuh", "const int left = row < rows ? columns - column : 0;", "const int left = columns - column;",
     "test_emulated_memory", "trace", "rows past a sequence's end are read"),
    ("attention_tile.cuh", "bool has(int i) const { return row + 4 * i < here; }", "bool has(int i) const { return row + 4 * i <= here; }",
     "test_emulated_memory", "trace", "a row too many is written"),
    ("attention.cuh", "l = fma(chunk_l, after, l * before);", "l = chunk_l * after + l * before;",
     "test_cuda_attention", "fast", "chunks of keys merged with another rounding"),
    ("attention.cuh", "float sum = (s[i][0] + s[i][2]) + (s[i][1] + s[i][3]);", "float sum = s[i][0] + s[i][1] + s[i][2] + s[i][3];",
     "test_cuda_attention", "fast", "a block's weights added in another order"),
    ("attention_backward.cuh", "      block.weigh(t, head, first, count);\n      __syncthreads();", "      block.weigh(t, head, first, count);",
     "test_cuda_attention", "trace", "slopes are read before all are there"),
    ("attention_backward.cuh", "if (block.own() + j >= block.keys_here()) continue;", "if (block.own() + j > block.keys_here()) continue;",
     "test_emulated_memory", "trace", "a key too many gets a gradient"),
    ("attention_cache.cuh", "const float score = at < shared.count[u] ? s[u] * scale : -__builtin_inff();", "const float score = s[u] * scale;",
     "test_cuda_attention", "fast", "keys after the query are seen"),
    ("attention_cache.cuh", "      cp_async_wait<0>();\n      __syncthreads();\n      shared.stage(tile + 1", "      cp_async_wait<0>();\n      shared.stage(tile + 1",
     "test_cuda_attention", "trace", "a tile of values is read before all have copied it"),
    # What all kernels share.
    ("lanes.cuh", "for (int apart = kWarp / 2; apart > 0; apart /= 2) x = x + __shfl_xor_sync",
     "for (int apart = 1; apart < kWarp; apart *= 2) x = x + __shfl_xor_sync",
     "test_cuda_rows", "fast", "a warp's sum in another order"),
    ("lanes.cuh", "return x + 0.0F;", "return x;", "test_cuda_rows", "fast", "the sum of -0 alone is -0"),
    # cuBLAS, and what the host reads.
    ("gemm_vendor.cuh", "    plan.lay_out(s);\n", "", "test_emulated_gemm_vendor", "fast", "a bucket's shape in place of the product's own"),
    ("gemm_vendor.cuh", "  rows = row_bucket(rows);\n", "", "test_emulated_gemm_vendor", "fast", "a plan for each number of rows"),
    ("optimizer.cuh", "  for (Index block = 0; block < blocks; ++block) all +=", "  for (Index block = blocks; block-- > 0;) all +=",
     "test_cuda_rows", "fast", "the squares of blocks from the last"),
    # The runtime.
    ("graph.cuh", "DevicePool::instance().capture_into(device.stream, &lists);", "",
     "test_emulated_memory", "trace", "a graph's temporaries go back to the pool: exact memory"),
    ("graph.cuh", "DevicePool::instance().capture_into(device.stream, &lists);", "",
     "test_emulated_device", "fast", "a graph's temporaries go back to the pool"),
    ("device_pool.cuh", "(own.captured != nullptr ? *own.captured : own.lists).free[size_class]", "own.lists.free[size_class]",
     "test_emulated_device", "fast", "what a graph frees is given to others"),
    ("device_pool.cuh", "(bytes + quarter - 1) / quarter - 4", "bytes / quarter - 4",
     "test_emulated_device", "fast", "a block is smaller than what was asked for"),
    ("device_pool.cuh", "Staging& staging_of(cudaStream_t stream) {", "Staging& staging_of(cudaStream_t) {\n    cudaStream_t stream = nullptr;",
     "test_emulated_device", "fast", "all streams share the memory of uploads"),
    ("device_pool.cuh", 'check_cuda(cudaEventSynchronize(done_[half_]), "cudaEventSynchronize");', "",
     "test_emulated_device", "fast", "staging memory is written while it is copied from"),
    ("device_pool.cuh", "!captures && give_to_device() > 0", "false && captures",
     "test_emulated_device", "fast", "cached memory is not given back when there is none"),
    ("device_pool.cuh", "if (device != device_)", "if (false)", "test_emulated_device", "fast", "another device's memory is taken for this one's"),
    ("device_pool.cuh", "    live_.erase(found);\n", "", "test_emulated_memory", "fast", "a block is released twice, unseen"),
    ("device.cuh", 'check_cuda(detail::order_streams(outer_, inner_), "cudaStreamWaitEvent");', "",
     "test_emulated_device", "fast", "a scope's stream does not wait for what came before"),
    ("device.cuh", "    const cudaError_t status = detail::order_streams(inner_, outer_);\n", "    const cudaError_t status = cudaSuccess;\n",
     "test_emulated_device", "fast", "what follows a scope does not wait for it"),
    ("device.cuh", "if (stream != nullptr) give_back_stream(stream);", "",
     "test_emulated_device", "fast", "an ended thread's stream is lost"),
    ("device.cuh", 'device.stream), "cudaMemcpy");\n  synchronize(device);\n}', 'device.stream), "cudaMemcpy");\n}',
     "test_emulated_device", "fast", "a long upload is not waited for"),
    ("device.cuh", "if (x[3] != 0.0F)", "if (x[3] > 1.0F)", "test_emulated_device", "fast", "products that are not rounded pass"),
    ("platform.cuh", "  forget_cuda(status);\n  const char* hint", "  const char* hint",
     "test_emulated_device", "fast", "an error that was told is told again by the next launch"),
]


def commands(build: Path, target: str) -> list:
    """The commands that compile and link a target's own source."""
    listed = subprocess.run(["ninja", "-C", str(build), "-t", "commands", target], check=True, text=True,
                            capture_output=True).stdout.splitlines()
    compiles = [line for line in listed if re.search(r"-c \S*tests/cuda/\w+\.cu$", line)]
    links = [line for line in listed if re.search(rf"-o \S*{target} ", line) and " -c " not in line]
    if len(compiles) != 1 or len(links) != 1:
        sys.exit(f"mutate: {target} is not built by one compilation and one link in {build}")
    return [compiles[0], links[0]]


@functools.cache
def environments(build: Path) -> dict:
    """What CTest sets for each test, by the test's name."""
    listed = subprocess.run(["ctest", "--test-dir", str(build), "--show-only=json-v1"], check=True, text=True,
                            capture_output=True).stdout
    return {test["name"]: dict(line.split("=", 1) for of in test.get("properties", []) if of["name"] == "ENVIRONMENT"
                               for line in of["value"]) for test in json.loads(listed)["tests"]}


def passes(build: Path, program: Path, target: str) -> bool:
    """As CTest runs it; with its threads in a random order where it has several."""
    known = environments(build)
    name = next(f"{target}_{order}" for order in ("random", "forward") if f"{target}_{order}" in known)
    try:
        return subprocess.run([str(program)], env=dict(os.environ, **known[name]), timeout=TIMEOUT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def try_one(build: Path, mutation) -> str:
    """'killed', 'SURVIVED', or what is wrong with the mutation."""
    file, old, new, test, way, _ = mutation
    target = f"cuda_{test}_{way}"
    source = ROOT / "cuda/plumb/cuda" / file
    text = source.read_text()
    if text.count(old) != 1:
        return f"its place is there {text.count(old)} times"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "cuda"
        shutil.copytree(ROOT / "cuda", copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "plumb/cuda" / file).write_text(text.replace(old, new))
        compiling, linking = commands(build, target)
        made, program = Path(folder) / "test.o", Path(folder) / "test"
        place = re.search(r"-o (\S+\.o) -c", compiling).group(1)
        compiling = compiling.replace(f"-I{ROOT / 'cuda'} ", f"-I{copy} ").replace(f"-o {place} ", f"-o {made} ")
        compiling = re.sub(r"-MD -MT \S+ -MF \S+", "", compiling).replace("-Werror", "")
        linking = linking.replace(place, str(made))
        linking = re.sub(rf"-o \S*{target} ", f"-o {program} ", linking)
        for command in (compiling, linking):
            done = subprocess.run(command, shell=True, cwd=build, text=True, capture_output=True)
            if done.returncode != 0:
                return "it does not compile: " + "".join(line for line in done.stderr.splitlines(True) if "error" in line)[:300]
        return "SURVIVED" if passes(build, program, target) else "killed"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    chosen = [m for m in MUTATIONS if arguments.only in m[0] or arguments.only in m[5]]
    for test, way in sorted({(m[3], m[4]) for m in chosen}):
        program = build / "tests/cuda" / f"cuda_{test}_{way}"
        if not program.exists():
            sys.exit(f"mutate: {program} is missing. HINT: cmake -DPLUMB_ALL_TESTS=ON, and build it")
        if not passes(build, program, program.name):
            sys.exit(f"mutate: {program.name} fails without a mutation")
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for mutation, outcome in zip(chosen, pool.map(lambda m: try_one(build, m), chosen)):
            bad += outcome != "killed"
            print(f"{outcome:9} {mutation[0]}: {mutation[5]} ({mutation[3]}, {mutation[4]})", flush=True)
    print(f"{len(chosen)} mutations, {len(chosen) - bad} killed, {bad} not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
