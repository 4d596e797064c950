"""An estimate of every kernel's time on an A100 and an H100, without either, and what it would wait for.

A launch is described by what its code says: blocks, bytes from and to DRAM, FLOPs of which unit, additions that the
canonical order puts one after the other, loads that wait for the loads before them. Resident blocks and instructions
are those of tests/cuda/budgets.json. The time is 3 microseconds for each launch and the largest of
  memory   bytes / bandwidth, an SM taking at most 64 bytes a clock;
  float, bf16, tf32   FLOPs / the unit's peak, on the share of the SMs' time that is work: an SM waits for the one that
           has the most blocks;
  issue    warp instructions / 4 schedulers an SM, one a clock each, of which a block of few warps uses few. Of a
           kernel without a loop all that its listing has, branches not taken too. Else those that do the arithmetic /
           their share of the listing: a static share, not the inner loop's, so too slow where much stands beside the
           loop. From products the way out is taken off, which runs once: add_partials_kernel's listing is little else;
  chain    dependent additions and dependent loads of a block, times the waves of blocks.
What it is not: a measurement, or a simulation: bank conflicts, caches and branches are as stated or left out. How far
off it is where times are known: measured(). gate.py writes and checks the text of the page.
"""
from typing import NamedTuple

from launches import C, F, MODES, N, NO_ESTIMATE, V, Row, a_product, attention, over, rows

MARKERS = "<!-- cuda estimates: begin -->", "<!-- cuda estimates: end -->"


class Card(NamedTuple):
    name: str
    arch: str
    sms: int
    clock: float         # GHz, at which float reaches its peak
    tensor_clock: float  # GHz, at which tensor cores reach theirs
    bandwidth: float     # GB/s
    peak: dict           # TFLOP/s, dense


# NVIDIA's A100 white paper (SMs, 1410 MHz, 19.5 / 156 / 312) and A100 80GB datasheet (2039 GB/s); H100 white paper
# (132 SMs) and datasheet (67 / 494.7 / 989.4, half of what it states with sparsity; 3.35 TB/s). The H100's clocks are
# what its peaks come to: 132 · 256 · 1.98 GHz = 66.9, 132 · 4096 · 1.83 GHz = 989.4. An H200 has other memory.
A100 = Card("A100", "sm_80", 108, 1.41, 1.41, 2039, {"float": 19.5, "tf32": 156, "bf16": 312})
H100 = Card("H100", "sm_90", 132, 1.98, 1.83, 3350, {"float": 66.9, "tf32": 494.7, "bf16": 989.4})
H200 = H100._replace(name="H200", bandwidth=4800)
ARCHS = "sm_80", "sm_90", "sm_100"

LAUNCH = 3e-6  # s, from one kernel's end to the next one's first loads: what small kernels on the H200 fit
DRAM = 0.7e-6  # s, a load while many are under way: what the few-rows kernels are made for
L2 = 0.2e-6    # s, a load that finds its line there; some 270 clocks


def instructions(launch, table, arch):
    """Warp instructions of a launch, or None where the listing does not say."""
    line = table.get(launch.kernel, {}).get(arch, {})
    code = line.get("code")
    if code is None:
        return None
    if launch.straight:
        return launch.blocks * over(line["threads"], 32) * code["all"]
    end = table["add_partials_kernel<64>"][arch]["code"] if launch.way_out else {}
    kind = "FFMA" if launch.unit == "float" else "HMMA"
    done = launch.arithmetic / (32 if kind == "FFMA" else 1) or launch.flops / 64
    share = (code.get(kind, 0) - end.get(kind, 0)) / (code["all"] - end.get("all", 0))
    return done / share if done and share else None


def bounds(launch, card, table):
    """({bound: seconds}, share of the SMs' time that is work) of one launch, its start left out."""
    line = table.get(launch.kernel, {}).get(card.arch, {"blocks": 1, "threads": 32})
    clock = 1e9 * (card.clock if launch.unit == "float" else card.tensor_clock)
    full, rest = divmod(launch.blocks, line["blocks"] * card.sms)
    busiest = full * line["blocks"] + over(rest, card.sms)  # blocks of the SM that has most
    busy = launch.blocks / (busiest * card.sms)
    warps = min(busiest, line["blocks"]) * over(line["threads"], 32)  # side by side on it
    chain = launch.clocks / clock + launch.trips * DRAM + launch.l2_trips * L2
    return {"memory": launch.bytes / min(1e9 * card.bandwidth, 64 * clock * min(launch.blocks, card.sms)),
            launch.unit: launch.flops / (1e12 * card.peak[launch.unit] * busy),
            "issue": (instructions(launch, table, card.arch) or 0) / (min(4, warps) * card.sms * clock * busy),
            "chain": chain * (1 if launch.uneven else over(launch.blocks, line["blocks"] * card.sms))}, busy


def estimate(row, card, table):
    """(seconds, the bound of the longest launch, the share of the SMs' time that is work in it)."""
    total, longest = LAUNCH * len(row.launches), (0, "launch", 1)
    for launch in row.launches:
        times, busy = bounds(launch, card, table)
        name = max(times, key=times.get)
        total += times[name]
        longest = max(longest, (times[name], name if times[name] > LAUNCH else "launch", busy))
    return total, *longest[1:]


# Published, not measured here. cuBLAS, bf16, 4096 cubed, H100: 716 TFLOP/s (github.com/pranjalssh/fast.cu) or, as the
# target has it, up to 760.
# FlashAttention-3 (arXiv 2407.08608, figure 5), forward, FP16, causal, head 64, 2048 tokens, H100: 371 TFLOP/s.
CUBLAS, FLASH3 = (716, 760), 371


def measured():
    """(row, microseconds) on an H200, as bench printed them (docs/kernels/cuda.md), of what is still launched so."""
    for mode, *shapes in (("exact", (1, C, F, 15.3), (16, C, F, 55.3), (2048, F, C, 290.9), (2048, V, C, 4408.4),
                           (4096, 4096, 4096, 3860.4)),
                          ("tf32", (16, C, F, 39.5), (512, C, F, 113.7), (2048, F, C, 127.9), (2048, V, C, 1991.3),
                           (4096, 4096, 4096, 1476.2)),
                          ("bf16", (16, C, F, 25.6), (512, C, F, 69.3), (2048, F, C, 84.0), (2048, V, C, 1400.4),
                           (4096, 4096, 4096, 874.4))):
        yield from ((a_product(mode, m, n, k), time) for m, n, k, time in shapes)
    known = {row.what: row for row in rows()}
    for what, time in ((f"Activate<(Activation)0>, {N} x {C}", 8.6), (f"rms_norm, {N} x {C}", 8.5),
                       (f"rms_norm backward, {N} x {C}", 26.0), ("adamw, 124M", 846.3)):
        yield known[what], time
    for t, *times in ((256, 54.9, 175.4), (1024, 400.5, 1529.2), (4096, 4582.3, 18806.3)):
        for name, launches, time in zip(("forward", "backward"), attention(t, 4), times):
            yield Row(f"attention {name}, 4 x {t} tokens", launches), time


def targets(table):
    """(target, estimate, whether it is met), on an H100."""
    known = {row.what: row for row in rows()}

    def time(what):
        return estimate(known[what], H100, table)[0]

    def speed(what):
        return sum(launch.flops for launch in known[what].launches) / 1e12 / time(what)

    def reading(size):
        return size / (1e9 * H100.bandwidth)

    tflops = speed("product NT 4096x4096x4096 bf16, packed")
    yield (f"bf16 product of 4096³: 80 % of cuBLAS's published {CUBLAS[0]} to {CUBLAS[1]} TFLOP/s, "
           f"{.8 * CUBLAS[0]:.0f} to {.8 * CUBLAS[1]:.0f}", f"{tflops:.0f} TFLOP/s", tflops >= 0.8 * CUBLAS[0])
    tflops = speed("attention forward, 4 x 2048 tokens")
    yield (f"attention forward: 60 % of FlashAttention-3's published {FLASH3} TFLOP/s, {.6 * FLASH3:.0f} (float's "
           f"peak is {H100.peak['float']}: out of reach of exact sums)",
           f"{tflops:.0f} TFLOP/s", tflops >= 0.6 * FLASH3)
    for mode in ("exact", "exact, packed bf16", "bf16, packed"):
        share = reading(MODES[mode][1] * C * F) / time(f"product NT 64x{C}x{F} {mode}")
        yield (f"64 rows, {C} x {F}, {mode}: 60 % of the speed of reading the weights once", f"{100 * share:.0f} %",
               share >= 0.6)
    for name, n, models, most in (("log-prob", 64, 1, 2), ("log-prob", 256, 1, 2), ("exact KL", 64, 2, 3),
                                  ("exact KL", 125, 2, 3)):
        times = time(f"{name}, {n} rows of {V}") / reading(4 * n * V * models)
        yield (f"{name}, {n} rows of {V}: at most {most} × reading {'both ' * (models > 1)}logits once",
               f"{times:.1f} ×", times <= most)


def without_estimate(table):
    """Families of kernels, and functors of maps, that no row has and NO_ESTIMATE does not excuse."""
    def family(kernel):
        return kernel if kernel.startswith(("map_kernel", "pointwise_kernel")) else kernel.split("<")[0]

    known = {family(launch.kernel) for row in rows() for launch in row.launches} | set(NO_ESTIMATE)
    return sorted({family(kernel) for kernel in table} - known)


def number(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2g}" if x else "0"


def markdown(table):
    out = ["ESTIMATES, not measurements, by `cuda/gates/estimate.py`, whose head says how. Targets, on an H100:", "",
           "| target | estimate | met, by the estimate |", "|---|--:|---|"]
    out += [f"| {target} | {value} | {'yes' if met else '**not met**'} |" for target, value, met in targets(table)]
    out += ["", "How far off the estimate is, as an H200's times above say:", "",
            "| what | estimate, µs | measured, µs | estimate / measured |", "|---|--:|--:|--:|"]
    for row, there in measured():
        time = 1e6 * estimate(row, H200, table)[0]
        out.append(f"| {row.what} | {number(time)} | {number(there)} | {time / there:.2f} |")
    out += ["", "ESTIMATES of all kernels. MB: from and to DRAM; M instr.: warp instructions in millions of "
            f"{', '.join(ARCHS)}, – where listings do not say; bound, and the share of the SMs' time that is work, "
            "are the longest launch's.", "",
            "| what | kernels | blocks | MB | GFLOP | M instr. | A100, µs | bound | busy, % | H100, µs | bound "
            "| busy, % |", "|---|---|--:|--:|--:|--:|--:|---|--:|--:|---|--:|"]
    for row in rows():
        names = list(dict.fromkeys(launch.kernel.split("_kernel")[0] for launch in row.launches))
        counts = [[instructions(launch, table, arch) for launch in row.launches] for arch in ARCHS]
        cells = [row.what, ", ".join(names),
                 ", ".join([str(launch.blocks) for launch in row.launches[:3]] + ["…"] * (len(row.launches) > 3)),
                 number(sum(launch.bytes for launch in row.launches) / 1e6),
                 number(sum(launch.flops for launch in row.launches) / 1e9),
                 ", ".join("–" if None in of else number(sum(of) / 1e6) for of in counts)]
        for card in (A100, H100):
            time, bound, busy = estimate(row, card, table)
            cells += [number(1e6 * time), bound, f"{100 * busy:.0f}"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out + ["", *(f"`{name}` has none: {why}." for name, why in NO_ESTIMATE.items())])
