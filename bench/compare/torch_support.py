"""What the two PyTorch programs share: the command line, timing, results.

Results have the form that bench/end_to_end.cpp writes, so that run.py compares like with like.
"""

import argparse
import ctypes
import json
import statistics
import time


def keep_memory():
    """Lets malloc keep what it frees. glibc would hand arrays above 32 MB back to the kernel after each
    call and pay a page fault for every 4 kB of the next one, which slows isolated kernels twofold."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    m_trim_threshold, m_mmap_max = -1, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=0, help="one per core by default")
    parser.add_argument("--repeat", type=int, default=5, help="timed steps after the warm-up")
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    parser.add_argument("--json", default="", help="write the results there, too")
    return parser


def reset_resident_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def resident_peak():
    """VmHWM, bytes."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


class Result:
    """One case. `amount` of something is done per step: samples are rates; 0: they are seconds."""

    def __init__(self, name, unit, amount=0):
        self.name, self.unit, self.amount = name, unit, amount
        self.samples, self.busy, self.work, self.phases, self.lengths = [], [], {}, [], []
        self.resident = 0

    def measure(self, warm_up, repeat, step):
        reset_resident_peak()
        for _ in range(warm_up):
            step()
        self.phases.clear()
        for _ in range(repeat):
            cpu, start = time.process_time(), time.perf_counter()
            step()
            seconds = time.perf_counter() - start
            self.samples.append(self.amount / seconds if self.amount else seconds)
            self.busy.append((time.process_time() - cpu) / seconds)
        self.resident = resident_peak()
        self.show()
        return self

    def show(self):
        digits = 1 if self.amount else 3
        low, middle, high = min(self.samples), statistics.median(self.samples), max(self.samples)
        print(
            f"{self.name:26} {middle:9.{digits}f} {self.unit:8} ({low:.{digits}f} … {high:.{digits}f})"
            f"  resident {self.resident / 1e6:.0f} MB",
            flush=True,
        )
        if self.phases:
            names = self.phases[0]
            middle = {n: statistics.median(phase[n] for phase in self.phases) for n in names}
            print(" " * 26, " ".join(f" {n} {s:.3f}" for n, s in middle.items()), "s", flush=True)

    def record(self):
        return {
            "name": self.name,
            "unit": self.unit,
            "samples": self.samples,
            "busy": self.busy,
            "work": self.work,
            "phases": self.phases,
            "lengths": self.lengths,
            "memory": {"resident": self.resident},
        }


def write(path, version, threads, results, engine="torch"):
    if path:
        records = [result.record() for result in results]
        whole = {"engine": engine, "version": version, "threads": threads, "results": records}
        with open(path, "w") as file:
            json.dump(whole, file, indent=1)
