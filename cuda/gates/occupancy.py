"""How many blocks of a kernel a multiprocessor holds at once, from the numbers that ptxas reports.

The limits are those of "Technical Specifications per Compute Capability" in NVIDIA's CUDA C++ Programming
Guide; the rounding (registers by 256 a warp in four partitions, shared memory by 128 bytes, 1 KiB of it
reserved per block) that of NVIDIA's calculator, cuda_occupancy.h in the toolkit, with which test_gate.py
compares the results. What it is not: a prediction of speed.
"""
from typing import NamedTuple

KIB = 1024
REGISTERS = 65536           # of a multiprocessor, and at most of a block
PARTITIONS = 4              # of a multiprocessor
REGISTER_GRANULARITY = 256  # registers, per warp
SHARED_GRANULARITY = 128    # bytes, per block
RESERVED_SHARED = KIB       # bytes, per block, the system's


class Limits(NamedTuple):
    """Of one multiprocessor."""
    warps: int
    blocks: int
    shared: int  # bytes


LIMITS = {
    80: Limits(64, 32, 164 * KIB),
    86: Limits(48, 16, 100 * KIB),
    89: Limits(48, 24, 100 * KIB),
    90: Limits(64, 32, 228 * KIB),
    100: Limits(64, 32, 228 * KIB),
    103: Limits(64, 32, 228 * KIB),
    120: Limits(48, 24, 100 * KIB),
    121: Limits(48, 24, 100 * KIB),
}


def round_up(n: int, unit: int) -> int:
    return (n + unit - 1) // unit * unit


def occupancy(arch: int, threads: int, registers: int, shared: int):
    """(blocks, resident warps as a share of those that fit); shared: static and dynamic bytes of a block."""
    if arch not in LIMITS:
        raise SystemExit(f"occupancy.py: add the limits of sm_{arch} from the CUDA C++ Programming Guide")
    limits = LIMITS[arch]
    warps = round_up(threads, 32) // 32
    warp_registers = round_up(registers * 32, REGISTER_GRANULARITY)
    if warp_registers * round_up(warps, PARTITIONS) > REGISTERS or registers > 256:
        return 0, 0.0  # the launch would be refused
    block_shared = round_up(shared + RESERVED_SHARED, SHARED_GRANULARITY)
    resident = REGISTERS // PARTITIONS // warp_registers * PARTITIONS if registers else limits.warps
    blocks = min(limits.blocks, limits.warps // warps, resident // warps, limits.shared // block_shared)
    return blocks, blocks * warps / limits.warps
