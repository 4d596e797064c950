#!/usr/bin/env python3
"""What the real compiler makes of the kernels: registers, memory, occupancy, instructions, against a budget.

Compiles .cu files with nvcc for several architectures, reads ptxas' report, PTX and (where nvdisasm is at
hand) the machine code, and compares each kernel with the table tests/cuda/budgets.json. It fails

  - always:  on a register spill, on any local memory, on a kernel of cuda/plumb/cuda that no file compiles, on
             a wide load after a store in an element-by-element kernel;
  - with the nvcc that the table was made with: on more registers or shared memory, a lower occupancy, a
    smaller share of FFMA or HMMA, lost wide loads, 1.1 times the instructions. Other versions of ptxas
    give other numbers: then this part is skipped, and says so.

What it is not: a measurement of time. Needs no GPU. About a second per kernel file and architecture, and
as much again for templates; --jobs runs architectures side by side.

Usage: gate.py [--all] [--update] [--no-table] [FILE.cu …]     (default: all_kernels.cu beside this file)
       gate.py --markdown FILE      writes the committed table, and the estimates made of it (estimate.py),
                                    between their markers in FILE
       gate.py --check-markdown FILE
Exit status: 0, 1 with a list of failures, or 77 where nvcc is missing.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import estimate
import listing
from occupancy import occupancy

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests/cuda/budgets.json"
KERNELS = ROOT / "cuda/plumb/cuda"
FLAGS = ["-std=c++20", "-fmad=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'cuda'}", f"-I{ROOT / 'include'}"]
LOADS_FIRST = "pointwise_kernel<"  # whose threads are to have all their loads under way before they store
INSTRUCTION_SLACK = 1.1
SHARE_SLACK = 0.01
MARKERS = "<!-- cuda resources: begin -->", "<!-- cuda resources: end -->"


def find_program(given, name, *places):
    """The program's path, or None."""
    for candidate in filter(None, [given, name, *places]):
        path = shutil.which(str(candidate))
        if path:
            return path
    return None


def nvcc_version(nvcc: str) -> str:
    text = subprocess.run([nvcc, "--version"], check=True, text=True, capture_output=True).stdout
    return re.search(r"V([\d.]+)", text).group(1)


def architectures(nvcc: str, everything: bool) -> list:
    """sm_80 and sm_90, or these and what came after as far as nvcc knows: 10.0 and the newest."""
    if not everything:
        return [80, 90]
    text = subprocess.run([nvcc, "--list-gpu-arch"], check=True, text=True, capture_output=True).stdout
    known = sorted(int(n) for n in re.findall(r"compute_(\d+)", text))
    return sorted({80, 90, known[-1]} | ({100} & set(known)))


def compile_one(nvcc: str, source: Path, arch: int, folder: Path, extra: list):
    """Compiles device code only. A process per architecture, so that their reports do not mix."""
    here = folder / f"{source.stem}.sm_{arch}"
    here.mkdir()
    cubin = here / "code.cubin"
    command = [nvcc, *FLAGS, *extra, f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v", "--keep", "--keep-dir", here,
               source, "-o", cubin]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{source} does not compile for sm_{arch}:\n{done.stdout}{done.stderr}")
    ptx = "".join(p.read_text() for p in here.glob("*.ptx"))
    return done.stdout + done.stderr, ptx, cubin


def measure(nvcc, nvdisasm, source: Path, arch: int, folder: Path, extra: list):
    """({kernel: numbers}, failures) of one file for one architecture."""
    report, ptx, cubin = compile_one(nvcc, source, arch, folder, extra)
    resources = listing.read_ptxas(report)
    bounds = listing.read_ptx(ptx)
    code, late = {}, {}
    if nvdisasm:
        text = subprocess.run([nvdisasm, "-c", cubin], check=True, text=True, capture_output=True).stdout
        code, late = listing.read_sass(text), listing.read_late_loads(text)
    dynamic = listing.read_launches(source.read_text())
    names = listing.demangle(resources)
    rows, failures = {}, []
    for symbol, row in resources.items():
        name = names[symbol]
        row["dynamic_shared"] = dynamic.get(name, 0)
        if bounds[symbol]["dynamic_shared"] and name not in dynamic:
            failures.append(f"{name}: has dynamic shared memory; say how much by PLUMB_LAUNCHED in {source.name}")
        row["threads"] = bounds[symbol]["threads"]
        if row["threads"] is None:
            failures.append(f"{name}: has no __launch_bounds__: how many threads a block has is not known")
            row["threads"] = 32
        shared = row["shared"] + row["dynamic_shared"]
        row["blocks"], row["occupancy"] = occupancy(arch, row["threads"], row["registers"], shared)
        if symbol in code:
            row["code"] = code[symbol]
            if name.startswith(LOADS_FIRST):
                row["late_loads"] = late[symbol]
        rows[name] = row
    return rows, failures


def share(code: dict) -> float:
    """Of the instructions, those that do the arithmetic of a product."""
    return (code.get("FFMA", 0) + code.get("HMMA", 0)) / max(code["all"], 1)


def absolute_failures(row: dict) -> list:
    """What no version of the compiler may do."""
    failures = []
    if row["spill_stores"] or row["spill_loads"]:
        failures.append(f"spills registers: {row['spill_stores']} bytes stored, {row['spill_loads']} loaded")
    elif row["stack"]:
        failures.append(f"uses local memory: {row['stack']} bytes of stack")
    local = {key: n for key, n in row.get("code", {}).items() if key.split(".")[0] in ("LDL", "STL")}
    if local and not failures:
        failures.append(f"uses local memory: {local}")
    if row.get("late_loads"):
        failures.append(f"{row['late_loads']} of its wide loads wait for a store: they are to be under way together")
    if row["blocks"] == 0:
        failures.append("does not fit on a multiprocessor: it cannot be launched")
    return failures


def budget_failures(row: dict, budget: dict) -> list:
    """Where a kernel is worse than its line of the table."""
    failures = []
    for what, unit in (("registers", "registers"), ("shared", "bytes of static shared memory"),
                       ("dynamic_shared", "bytes of dynamic shared memory")):
        if row[what] > budget[what]:
            failures.append(f"{row[what]} {unit}, budget {budget[what]}")
    if row["occupancy"] < budget["occupancy"]:
        failures.append(f"occupancy {row['occupancy']:.2f}, budget {budget['occupancy']:.2f}")
    code, wanted = row.get("code"), budget.get("code")
    if code is None or wanted is None:
        return failures
    if code["all"] > INSTRUCTION_SLACK * wanted["all"]:
        failures.append(f"{code['all']} instructions, budget {wanted['all']} times {INSTRUCTION_SLACK}")
    if share(code) < share(wanted) - SHARE_SLACK:
        failures.append(f"{share(code):.1%} of the instructions are FFMA or HMMA, budget {share(wanted):.1%}")
    for wide in ("LDG.128", "LDGSTS.128", "LDSM", "LDS.128", "STG.128"):
        if wanted.get(wide, 0) > 0 and code.get(wide, 0) == 0:
            failures.append(f"no {wide} any more")
    return failures


def uncompiled(names) -> list:
    """Kernels in the headers that none of the compiled files has."""
    compiled = {re.split(r"[<(]", name)[0].split("::")[-1] for name in names}
    failures = []
    for header in sorted(KERNELS.glob("*.cuh")):
        text = re.sub(r"//[^\n]*", "", header.read_text())
        text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", text)
        for kernel in re.findall(r"__global__[^(;]*?(\w+)\s*\(", text):
            if kernel not in compiled:
                failures.append(f"{header.name}: {kernel} is compiled by no file of the gate")
    return failures


def compare(measured: dict, table: dict, version: str) -> list:
    """All failures against the table; measured: {arch: {kernel: numbers}}."""
    if table["nvcc"] != version:
        print(f"nvcc is {version} and the table was made with {table['nvcc']}: numbers are not compared, "
              "only spills and local memory")
        return []
    failures = []
    for arch, rows in measured.items():
        lines = {name: archs[arch] for name, archs in table["kernels"].items() if arch in archs}
        for name, row in rows.items():
            if name not in lines:
                failures.append(f"{name} for {arch}: not in the table; look at its numbers, then --update")
                continue
            failures += [f"{name} for {arch}: {text}" for text in budget_failures(row, lines[name])]
        failures += [f"{name} for {arch}: in the table, but not compiled; --update" for name in lines
                     if name not in rows]
    return failures


def updated(table: dict, measured: dict, version: str) -> dict:
    """The table with the measured numbers; other architectures' stay if it is the same nvcc."""
    kernels = {}
    old = table["kernels"] if table["nvcc"] == version else {}
    keep = ("threads", "registers", "shared", "dynamic_shared", "blocks", "occupancy", "code")
    for name in sorted(set().union(*measured.values())):
        lines = {arch: line for arch, line in old.get(name, {}).items() if arch not in measured}
        for arch, rows in measured.items():
            if name in rows:
                lines[arch] = {key: rows[name][key] for key in keep if key in rows[name]}
        kernels[name] = dict(sorted(lines.items(), key=lambda item: int(item[0][3:])))
    return {"nvcc": version, "kernels": kernels}


def write_table(path: Path, table: dict) -> None:
    """One line per kernel and architecture, so that a change shows as one line."""
    out = [f'{{\n  "nvcc": {json.dumps(table["nvcc"])},\n  "kernels": {{']
    kernels = []
    for name, archs in table["kernels"].items():
        lines = ",\n".join(f"      {json.dumps(arch)}: {json.dumps(line)}" for arch, line in archs.items())
        kernels.append(f"    {json.dumps(name)}: {{\n{lines}\n    }}")
    out.append(",\n".join(kernels))
    out.append("  }\n}\n")
    path.write_text("\n".join(out))


def markdown(table: dict) -> str:
    """The table for people."""
    archs = sorted({arch for lines in table["kernels"].values() for arch in lines}, key=lambda a: int(a[3:]))
    shown = archs[0]
    columns = ["FFMA", "HMMA", "LDSM", "LDGSTS", "LDG", "STG", "LDS", "STS", "BAR", "SHFL"]
    out = [f"Compiled by nvcc {table['nvcc']}. Registers per thread and occupancy (resident warps of those that fit "
           f"on a multiprocessor) for {', '.join(archs)}; instructions of {shown}, as n/m where m of n move 16 bytes.",
           "", "| kernel | threads | shared, bytes | registers | occupancy, % | instructions | "
           + " | ".join(columns) + " |", "|" + "---|" * (6 + len(columns))]
    for name, lines in table["kernels"].items():
        present = [lines[arch] for arch in archs if arch in lines]
        one = present[0]
        code = one.get("code", {})

        def count(kind):
            n = sum(v for k, v in code.items() if k.split(".")[0] == kind)
            wide = code.get(f"{kind}.128", 0)
            return "" if n == 0 else f"{n}/{wide}" if wide else str(n)
        cells = [f"`{name}`", str(one["threads"]), str(one["shared"] + one["dynamic_shared"]),
                 ", ".join(str(line["registers"]) for line in present),
                 ", ".join(f"{100 * line['occupancy']:.0f}" for line in present), str(code.get("all", "")),
                 *map(count, columns)]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def write_between(path: Path, markers, content: str, check: bool) -> int:
    """Writes, or compares, what stands between two markers."""
    text = path.read_text()
    begin, end = (text.find(marker) for marker in markers)
    if begin < 0 or end < begin:
        sys.exit(f"{path}: the markers {markers[0]} and {markers[1]} are missing")
    fresh = f"{text[:begin]}{markers[0]}\n{content}\n{text[end:]}"
    if check:
        if fresh != text:
            print(f"{path}: what follows {markers[0]} is not what {TABLE.name} gives; run gate.py --markdown {path}")
        return int(fresh != text)
    path.write_text(fresh)
    return 0


def write_markdown(path: Path, table: dict, check: bool) -> int:
    return write_between(path, MARKERS, markdown(table), check)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true", help="for 10.0 and the newest architecture too")
    parser.add_argument("--update", action="store_true", help="rewrite the table with what was measured")
    parser.add_argument("--no-table", action="store_true", help="look for spills and local memory only")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--nvcc", help="default: from PATH, or /usr/local/cuda")
    parser.add_argument("--nvdisasm", help="default: from PATH; see fetch_nvdisasm.py")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--flag", action="append", default=[], help="one more flag for nvcc")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--check-markdown", type=Path, metavar="FILE")
    return parser.parse_args()


def measure_all(options, nvcc):
    """({arch: {kernel: numbers}}, what is not known of their launches) of all files."""
    nvdisasm = find_program(options.nvdisasm, "nvdisasm", Path(nvcc).parent / "nvdisasm")
    if not nvdisasm:
        print("no nvdisasm (fetch_nvdisasm.py has one): instructions are not counted")
    files = options.files or [Path(__file__).parent / "all_kernels.cu"]
    archs = architectures(nvcc, options.all)
    measured, failures = {f"sm_{arch}": {} for arch in archs}, []
    with tempfile.TemporaryDirectory() as folder, \
            concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        jobs = [(arch, pool.submit(measure, nvcc, nvdisasm, file, arch, Path(folder), options.flag))
                for file in files for arch in archs]
        for arch, job in jobs:
            rows, wrong = job.result()
            measured[f"sm_{arch}"].update(rows)
            failures += [text for text in wrong if text not in failures]
    return measured, failures


def main() -> int:
    options = parse_arguments()
    table = json.loads(options.table.read_text())
    page = options.markdown or options.check_markdown
    if page:
        check = options.markdown is None
        return max(write_markdown(page, table, check),
                   write_between(page, estimate.MARKERS, estimate.markdown(table["kernels"]), check))
    nvcc = find_program(options.nvcc, "nvcc", "/usr/local/cuda/bin/nvcc")
    if not nvcc:
        print("skipped: there is no nvcc")
        return 77
    version = nvcc_version(nvcc)
    measured, unknown = measure_all(options, nvcc)
    failures = [] if options.no_table else unknown
    for arch, rows in measured.items():
        for name, row in rows.items():
            failures += [f"{name} for {arch}: {text}" for text in absolute_failures(row)]
    if not options.no_table:
        failures += [] if options.files else uncompiled(set().union(*measured.values()))
        if options.update:
            write_table(options.table, updated(table, measured, version))
        else:
            failures += compare(measured, table, version)
    for text in failures:
        print(text)
    print(f"nvcc {version}: {', '.join(f'{len(rows)} kernels for {arch}' for arch, rows in measured.items())}; "
          f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
