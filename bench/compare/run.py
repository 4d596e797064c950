#!/usr/bin/env python3
"""Plumb beside its peers: the same work, in the same session, in turn; one table of ratios.

Sets the peers up and builds (setup.sh, preset `bench`), then runs ours, PyTorch, ours, PyTorch, …; the other
libraries' matrix products run in turn with ours inside one process. Everything goes to build/compare.json,
the table, in Markdown, to standard output. A ratio is printed only where both did the same work: shapes,
tokens, updates and weights must agree. Above 1: Plumb is faster, or smaller. A run of everything also
writes its table to docs/performance.md, and the rows of whole steps to README.md.

    run.py               everything: an hour or more
    run.py --quick       kernels and size S
    run.py --from FILE…  the table of earlier runs; with --write, to the documents, too
"""

import argparse
import collections
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = pathlib.Path(os.environ.get("PLUMB_BUILD") or ROOT / "build")
GEMM_PEERS = ("openblas", "onednn", "eigen", "torch")
NAMES = {
    "torch": "PyTorch",
    "openblas": "OpenBLAS",
    "onednn": "oneDNN",
    "eigen": "Eigen",
    "llama": "llama.cpp",
    "trl": "TRL",
}
# Steps of training, which PyTorch runs in four ways; the fastest counts.
TRAINING = ("train", "reward", "ranked", "group")
TORCH = {
    "torch": "PyTorch, float",
    "torch-autocast": "PyTorch, bf16 autocast",
    "torch-compile": "torch.compile, float",
    "torch-autocast-compile": "torch.compile, bf16 autocast",
}
TRL = {"trl": "TRL, float", "trl-autocast": "TRL, bf16 autocast"}
BF16 = "/bf16"  # what the names of our cases in bf16 end with
FOREIGN_LOAD = 0.05  # processors that others kept busy, above which a measurement is marked


def say(text):
    print(f"compare: {text}", file=sys.stderr, flush=True)


# --- running --------------------------------------------------------------------------------------


def busy_seconds(cpus):
    """Seconds that these processors have worked, for anybody, stolen time included."""
    total = 0
    with open("/proc/stat") as file:
        for line in file:
            fields = line.split()
            if fields[0].startswith("cpu") and fields[0][3:].isdigit():
                if int(fields[0][3:]) in cpus:
                    user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
                    total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK")


def own_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Session:
    """Runs programs one after another, and keeps what they measured."""

    def __init__(self, options):
        self.options = options
        self.work = BUILD / "compare"
        self.work.mkdir(parents=True, exist_ok=True)
        self.cpus = sorted(os.sched_getaffinity(0))
        self.shim = options.venv / "mkl_vendor.so"
        self.data = {"machine": machine(), "engines": {}, "measurements": []}

    def has(self, package):
        return any(self.options.venv.glob(f"lib/python*/site-packages/{package}"))

    def environment(self, forced):
        environment = dict(os.environ)
        if forced and self.shim.exists():
            environment["LD_PRELOAD"] = str(self.shim)
        return environment

    def run(self, command, json_path, forced=False):
        """Runs a program and returns the JSON that it wrote, with the load that others made."""
        json_path.unlink(missing_ok=True)
        start, busy, own = time.monotonic(), busy_seconds(self.cpus), own_seconds()
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment(forced),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not json_path.exists():
            raise SystemExit(f"{done.stdout[-3000:]}\ncompare: failed: {' '.join(map(str, command))}")
        with open(json_path) as file:
            result = json.load(file)
        seconds = time.monotonic() - start
        others = busy_seconds(self.cpus) - busy - (own_seconds() - own)
        result["foreign"] = max(0.0, others / seconds)
        result["failed"] = done.returncode != 0
        if done.returncode != 0:
            say(done.stdout.strip().splitlines()[-1])
        return result

    def keep(self, engine, round, result):
        self.data["engines"][engine] = result.get("version", "")
        if "gflops" in result:
            self.data["machine"].setdefault("gflops", result["gflops"])
        for case in result["results"]:
            self.data["measurements"].append(
                {
                    "engine": engine,
                    "round": round,
                    "threads": result["threads"],
                    "foreign": result["foreign"],
                    **case,
                }
            )
        with open(self.options.out, "w") as file:
            json.dump(self.data, file)

    # Ours and PyTorch in turn, a process each time.

    def kernels(self, threads):
        ours = program(self.options.binaries, "compare_kernels")
        for round in range(self.options.kernel_rounds):
            say(f"kernels, {threads} threads, round {round + 1}")
            prefix = self.work / "kernels"
            path = lambda engine: self.work / f"kernels.{engine}.json"
            for engine in GEMM_PEERS:
                path(engine).unlink(missing_ok=True)
            common = ["--threads", threads, "--rounds", 1]
            load = self.run([ours, *common, "--json", prefix], path("plumb"))
            self.keep("plumb", round, load)
            for engine in ("openblas", "onednn", "eigen"):
                if path(engine).exists():
                    with open(path(engine)) as file:
                        result = json.load(file)
                    self.keep(engine, round, {**result, "foreign": load["foreign"]})
            python = self.options.venv / "bin" / "python"
            command = [python, HERE / "torch_kernels.py", *common, "--json", path("torch")]
            self.keep("torch", round, self.run(command, path("torch"), True))

    def end_to_end(self, what, size, threads):
        ours = program(self.options.binaries, "end_to_end")
        python = self.options.venv / "bin" / "python"
        repeat = 1 if what == "ppo" else 2 if size == "L" or what == "generate" else 4
        common = ["--what", what, "--size", size, "--threads", threads, "--repeat", repeat]
        plumb, torch = self.work / "plumb.json", self.work / "torch.json"
        for round in range(self.options.rounds):
            say(f"{what}, size {size}, {threads} threads, round {round + 1}")
            self.keep("plumb", round, self.run([ours, *common, "--json", plumb], plumb))
            command = [python, HERE / "torch_end_to_end.py", *common, "--json", torch]
            if what == "ppo":
                command += ["--lengths", plumb]
            self.keep("torch", round, self.run(command, torch, True))
            if what in TRAINING:
                in_bf16 = [ours, *common, "--precision", "bf16", "--json", plumb]
                self.keep("plumb", round, self.run(in_bf16, plumb))
                ways = {"torch-autocast": ["--autocast"]}
                if self.options.compile:
                    ways["torch-compile"] = ["--compile"]
                    ways["torch-autocast-compile"] = ["--autocast", "--compile"]
                for engine, flags in ways.items():
                    self.keep(engine, round, self.run([*command, *flags], torch, True))
            if what in ("train", "reward") and self.has("trl"):
                for engine, flags in (("trl", []), ("trl-autocast", ["--autocast"])):
                    theirs = [python, HERE / "trl_end_to_end.py", *common, *flags, "--json", torch]
                    self.keep(engine, round, self.run(theirs, torch, True))
            if what == "generate" and self.has("llama_cpp"):
                llama = [python, HERE / "llama_generate.py", *common, "--json", torch]
                self.keep("llama", round, self.run(llama, torch))
            if what == "train" and self.shim.exists():
                self.keep("torch-as-installed", round, self.run(command, torch))


def machine():
    model, flags = "", ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = value
    widest = "AVX-512" if " avx512f " in flags else "AVX2" if " avx2 " in flags else "neither AVX"
    return {"processor": model, "instructions": widest, "cores": os.cpu_count(),
            "date": time.strftime("%Y-%m-%d")}


def prepare(options):
    if options.set_up:
        more = [flag for flag, wanted in (("--llama", options.llama), ("--trl", options.trl)) if wanted]
        subprocess.run([HERE / "setup.sh", *more, options.venv], check=True)
    if options.binaries is None:
        for command in (
            ["cmake", "--preset", "bench", "-B", BUILD / "bench"],
            ["cmake", "--build", BUILD / "bench", "--target", "end_to_end", "compare_kernels"],
        ):
            subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        options.binaries = BUILD / "bench" / "bench"


def different(a, b):
    return any(a[key] != b[key] for key in ("processor", "instructions", "cores"))


def program(directory, name):
    """An executable in a build directory or one level below."""
    for path in (directory / name, directory / "compare" / name):
        if path.is_file():
            return path
    raise SystemExit(f"compare: {name} is not in {directory}")


# --- comparing ------------------------------------------------------------------------------------


def check_equal_work(a, b):
    """Two measurements of a case may be compared only if they did the same."""
    same = a["work"].keys() == b["work"].keys() and all(
        math.isclose(a["work"][key], b["work"][key], rel_tol=1e-9) for key in a["work"]
    )
    lengths = not a.get("lengths") or not b.get("lengths") or a["lengths"] == b["lengths"]
    if not same or not lengths or a["unit"] != b["unit"]:
        raise SystemExit(
            f"compare: not the same work, so no ratio: {a['name']}\n"
            f"  {a['engine']}: {a['work']} {a['unit']}\n  {b['engine']}: {b['work']} {b['unit']}"
            + ("" if lengths else "\n  and the lengths of the responses differ")
        )


class Table:
    def __init__(self, data):
        self.data = data
        self.cases = collections.defaultdict(list)  # (name, threads, engine) -> measurements
        for m in data["measurements"]:
            self.cases[m["name"], m["threads"], m["engine"]].append(m)
        self.threads = sorted({m["threads"] for m in data["measurements"]})
        self.names = list(dict.fromkeys(m["name"] for m in data["measurements"]))

    def value(self, name, threads):
        """Ours: the median over the quiet rounds, or all if none was."""
        measurements = self.cases[name, threads, "plumb"]
        quiet = [m for m in measurements if m["foreign"] <= FOREIGN_LOAD]
        return statistics.median(all_samples(quiet or measurements))

    def fastest(self, name, threads, ways):
        """Of the ways in which a peer did a case, the fastest."""
        ways = [way for way in ways if self.has(name, threads, way)]
        middle = lambda way: statistics.median(all_samples(self.cases[name, threads, way]))
        seconds = ways and self.cases[name, threads, ways[0]][0]["unit"] == "s"
        return (min if seconds else max)(ways, key=middle, default=None)

    def ratio(self, name, threads, peer):
        """(ratio of medians, the least and the largest of a round, whether others disturbed it, the ratio
        by processor time or None)."""
        theirs = self.cases[name.removesuffix(BF16), threads, peer]
        pairs = list(zip(self.cases[name, threads, "plumb"], theirs))
        for a, b in pairs:
            check_equal_work(a, b)
        # Rounds that others disturbed do not count where as many were quiet.
        quiet = [pair for pair in pairs if max(m["foreign"] for m in pair) <= FOREIGN_LOAD]
        disturbed = 2 * len(quiet) < len(pairs)
        ours, theirs = zip(*(pairs if disturbed else quiet))
        faster = lambda a, b: b / a if ours[0]["unit"] == "s" else a / b
        rounds = [
            faster(statistics.median(a["samples"]), statistics.median(b["samples"]))
            for a, b in zip(ours, theirs)
        ]
        middle = faster(*(statistics.median(all_samples(side)) for side in (ours, theirs)))
        work = [statistics.median(processor_samples(side)) for side in (ours, theirs) if has_busy(side)]
        return middle, min(rounds), max(rounds), disturbed, faster(*work) if len(work) == 2 else None

    def has(self, name, threads, engine):
        return (name, threads, engine) in self.cases

    def row(self, label, against, cells):
        """`cells`: by threads, (value, ratio) or None."""
        columns = []
        for threads in self.threads:
            value, ratio = cells.get(threads) or ("", "")
            columns += [value, ratio]
        return "| " + " | ".join([label, against, *columns]) + " |"

    def head(self):
        columns = [c for t in self.threads for c in (f"Plumb, {plural(t, 'thread')}", "ratio")]
        return self.row("work", "peer", dict(zip(self.threads, zip(columns[::2], columns[1::2])))) + (
            "\n|---|---|" + "---:|---:|" * len(self.threads)
        )

    def simple_rows(self, names, peer="torch", against="PyTorch"):
        for name in names:
            cells = {}
            for threads in self.threads:
                if self.has(name, threads, "plumb") and self.has(name, threads, peer):
                    unit = self.cases[name, threads, "plumb"][0]["unit"]
                    value = show_value(self.value(name, threads), unit)
                    cells[threads] = (value, show_ratio(*self.ratio(name, threads, peer)))
            if cells:
                yield self.row(label(name), against, cells)

    def training_rows(self, names, ways):
        """Steps of training, in float and in bf16, beside the fastest of a peer's ways."""
        for name in names:
            cells = {}
            for threads in self.threads:
                peer = self.fastest(name.removesuffix(BF16), threads, ways)
                if peer and self.has(name, threads, "plumb"):
                    unit = self.cases[name, threads, "plumb"][0]["unit"]
                    value = show_value(self.value(name, threads), unit)
                    cells.setdefault(peer, {})[threads] = (value, show_ratio(*self.ratio(name, threads, peer)))
            for peer, found in cells.items():
                yield self.row(label(name), ways[peer], found)

    def memory_rows(self, names):
        """The most memory resident at once, for cases that have a process to themselves."""
        for name in names:
            cells = {}
            for threads in self.threads:
                if self.has(name, threads, "plumb") and self.has(name, threads, "torch"):
                    ours, theirs = (
                        max(m["memory"]["resident"] for m in self.cases[name, threads, engine])
                        for engine in ("plumb", "torch")
                    )
                    cells[threads] = (f"{ours / 1e6:.0f} MB", f"{theirs / ours:.2f}")
            if cells:
                yield self.row(f"{label(name)}: memory", "PyTorch", cells)

    def gemm_rows(self):
        groups = collections.defaultdict(list)
        for name in self.names:
            if name.startswith("gemm/"):
                groups[gemm_group(name)].append(name)
        for group, names in groups.items():
            cells, peers = {}, [p for p in GEMM_PEERS if self.has(names[0], self.threads[0], p)]
            for threads in self.threads:
                if peers and self.has(names[0], threads, "plumb"):
                    cells[threads] = self.gemm_cell(names, threads, peers)
            if cells:
                yield self.row(group, "the best of " + str(len(peers)) if peers else "", cells)

    def gemm_cell(self, names, threads, peers):
        """Geometric means over shapes: of GFLOP/s, and of the ratio to the shape's best peer."""
        rates, ratios, lows, highs, disturbed = [], [], [], [], False
        for name in names:
            each = [self.ratio(name, threads, peer) for peer in peers if self.has(name, threads, peer)]
            middle, low, high, load, _ = min(each)
            flops = self.cases[name, threads, "plumb"][0]["work"]["flops"]
            rates.append(flops / self.value(name, threads) * 1e-9)
            ratios.append(middle)
            lows.append(low)
            highs.append(high)
            disturbed = disturbed or load
        mean = statistics.geometric_mean
        return f"{mean(rates):.0f} GFLOP/s", show_ratio(mean(ratios), mean(lows), mean(highs), disturbed)

    def text(self, whole_steps_only=False):
        training = tuple(what + "/" for what in TRAINING)
        whole = (*training, "generate/", "ppo/")
        steps = [n for n in self.names if n.startswith(whole)]
        alone = [n for n in steps if n.startswith("train/") and not n.endswith(BF16)]
        ops = [n for n in self.names if not n.startswith(whole + ("gemm/",))]
        steps_of_training = [n for n in steps if n.startswith(training)]
        rows = [self.head(), *self.training_rows(steps_of_training, TORCH)]
        rows += self.training_rows(steps_of_training, TRL)
        rows += self.simple_rows(n for n in steps if not n.startswith(training))
        rows += self.simple_rows(steps, "llama", "llama.cpp")
        rows += self.memory_rows(alone)
        if not whole_steps_only:
            rows += self.simple_rows(alone, "torch-as-installed", "PyTorch as installed")
            rows += [*self.gemm_rows(), *self.simple_rows(ops)]
        return "\n".join(rows) + "\n\n" + self.notes()

    def write(self):
        """To the documents, between the marks that they have for it."""
        for path, short in ((ROOT / "README.md", True), (ROOT / "docs" / "performance.md", False)):
            begin, end = "<!-- table: written by ./plumb bench --peers -->\n", "<!-- end of table -->"
            document = path.read_text()
            if begin not in document or end not in document:
                raise SystemExit(f"compare: {path} has no {begin.strip()} … {end}")
            before, rest = document.split(begin)
            path.write_text(before + begin + self.text(short) + "\n" + end + rest.split(end)[1])
            say(f"written: {path}")

    def notes(self):
        computer, engines = self.data["machine"], self.data["engines"]
        versions = [f"{NAMES[e]} {engines[e]}" for e in NAMES if e in engines]
        text = (
            f"Ratios above 1: Plumb is faster (or smaller); in brackets the least and the largest of a "
            f"round, after a dot the ratio by processor time. {computer['cores']} cores of "
            f"{computer['processor']}, {computer['instructions']}, {computer.get('date', '')}. "
            f"Peers: {'; '.join(versions)}, in steps of training the fastest of its ways."
        )
        if gflops := computer.get("gflops"):
            text += " One core does " + " and ".join(
                f"{rate:.0f} GFLOP/s by {name}" for name, rate in gflops.items() if rate > 0
            ) + "."
        if "torch-as-installed" in engines:
            text += (
                " PyTorch's MKL is made to use AVX-512, which it does not do by itself on this maker's "
                "processors; *as installed*: as it comes."
            )
        if "llama" in engines:
            text += " llama.cpp keeps its cache of keys and values in 16 bits."
        return text + " ~: measured beside other load."


def all_samples(measurements):
    return [x for m in measurements for x in m["samples"]]


def has_busy(measurements):
    return all(m.get("busy") for m in measurements)


def processor_samples(measurements):
    """Samples as they would be if the processors had done nothing else: per second of processor."""
    for m in measurements:
        for sample, busy in zip(m["samples"], m["busy"]):
            yield sample * busy if m["unit"] == "s" else sample / busy


def plural(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def gemm_group(name):
    _, form, shape = name.split("/")
    m, n, k = map(int, shape.split("x"))
    tokens = k if form == "TN" else m
    which = "head of 50257, " if 50257 in (m, n, k) else ""
    use = {"NN": "x·W", "NT": "x·Wᵀ", "TN": "dyᵀ·x", "packed": "x·Wᵀ, packed once"}[form]
    return f"{use}, {which}{plural(tokens, 'token')}"


def label(name):
    if name.endswith(BF16):
        return label(name.removesuffix(BF16)) + ", bf16"
    parts = name.split("/")
    if parts[0] == "train":
        return f"training step, {parts[1]}"
    if parts[0] == "generate":
        return f"generation, {parts[1]}, batch {parts[2][1:]}" + "".join(f", {p}" for p in parts[3:])
    if parts[0] == "ppo":
        value = {"separate": "value model", "shared": "shared value head"}[parts[2]]
        lengths = {"full": "full length", "geometric": "geometric lengths"}[parts[3]]
        return f"PPO iteration, {parts[1]}, {value}, {lengths}"
    if parts[0] == "reward":
        return f"reward-model step, {parts[1]}, pairs"
    if parts[0] == "ranked":
        return f"reward-model step, {parts[1]}, {parts[2][1:]} ranked responses"
    if parts[0] == "group":
        return f"update on groups of 8 responses, {parts[1]}"
    passes = f", {parts[2].replace('+', ' + ')}" if len(parts) > 2 else ""
    return f"{parts[0].replace('_', ' ')} {parts[1].replace('x', ' × ')}{passes}"


def show_value(value, unit):
    if unit != "s":
        return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def show_ratio(middle, low, high, disturbed, processor=None):
    work = f" · {processor:.2f}" if processor else ""
    return f"{'~' if disturbed else ''}**{middle:.2f}** ({low:.2f} … {high:.2f}){work}"


# --------------------------------------------------------------------------------------------------


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    build = BUILD
    cores = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--quick", action="store_true", help="kernels and size S only")
    add("--what", default="kernels,train,generate,ppo,reward,ranked,group", help="some of these")
    add("--sizes", default="S,M,L", help="of training and generation; PPO: not L; reward: S")
    add("--threads", default="1" if cores == 1 else f"1,{cores}", help="numbers of threads")
    add("--rounds", type=int, default=3, help="of the whole steps")
    add("--kernel-rounds", type=int, default=5)
    add("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    add("--llama", action="store_true", help="build llama-cpp-python, and compare generation with it")
    add("--trl", action="store_true", help="install TRL, and compare training with its trainers")
    add("--no-set-up", dest="set_up", action="store_false", help="the peers are there already")
    add("--venv", type=pathlib.Path, default=build / "compare-venv")
    add("--binaries", type=pathlib.Path, help="where end_to_end and compare_kernels are: do not build")
    add("--out", type=pathlib.Path, default=build / "compare.json")
    add("--from", dest="sources", type=pathlib.Path, nargs="+", help="the table of these files")
    add("--write", action="store_true", help="the table to the documents, as a run of everything does")
    # ./plumb bench --peers hands its arguments to Google Benchmark, too.
    options, unknown = parser.parse_known_args()
    for word in unknown:
        if not word.startswith("--benchmark_"):
            parser.error(f"unknown argument {word}")
    options.venv = options.venv.absolute()
    return options


def finish(table, write):
    print(table.text())
    if write:
        table.write()


def main():
    options = arguments()
    if options.sources:
        runs = [json.loads(path.read_text()) for path in options.sources]
        for run in runs[1:]:
            if different(run["machine"], runs[0]["machine"]):
                raise SystemExit("compare: these files are of different machines")
            runs[0]["engines"].update(run["engines"])
            runs[0]["measurements"] += run["measurements"]
        finish(Table(runs[0]), options.write)
        return
    build = BUILD
    build.mkdir(exist_ok=True)
    prepare(options)
    session = Session(options)
    sizes = ["S"] if options.quick else options.sizes.split(",")
    what = options.what.split(",")
    for threads in map(int, options.threads.split(",")):
        if "kernels" in what:
            session.kernels(threads)
        for work in ("train", "generate", "ppo", "reward", "ranked", "group"):
            for size in sizes:
                known = {"ppo": "SM", "reward": "SM", "ranked": "SM", "group": "SM"}.get(work, "SML")
                if work in what and size in known:
                    session.end_to_end(work, size, threads)
    everything = {"kernels", "generate", "ppo", *TRAINING} <= set(what) and len(sizes) == 3
    finish(Table(session.data), options.write or everything)
    say(f"all measurements: {options.out}")


if __name__ == "__main__":
    main()
