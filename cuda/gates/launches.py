"""What the CUDA kernels' launch code says of each launch, and the shapes that gate.py estimates: for estimate.py.

Bytes are those from and to DRAM, as tests/cuda/test_emulated_*traffic.cu counts them but for what a cache gives back;
blocks, tiles and pieces those of cuda/plumb/cuda/*.cuh, to be changed with them. Shapes: GPT-2 small in RLHF.
"""
from typing import NamedTuple

ADD, DOUBLE, SHARED = 4, 8, 30  # clocks until a sum, or what lies in shared memory, can be used; double: assumed
MMA = {"bf16": 4096, "tf32": 2048}  # FLOPs of an instruction


class Launch(NamedTuple):
    kernel: str             # as in budgets.json
    blocks: int
    bytes: float            # from and to DRAM
    flops: float = 0
    unit: str = "float"     # or bf16, tf32
    arithmetic: float = 0   # FFMA of all threads or HMMA of all warps; 0: what the FLOPs come to
    straight: bool = False  # without a loop: each warp runs the listing once
    way_out: bool = False   # a product, whose end is no part of the loop
    clocks: float = 0       # of dependent additions in a block
    trips: float = 0        # loads from DRAM in a block that wait for those before them
    l2_trips: float = 0     # the same from the L2 cache
    uneven: bool = False    # these are one block's, the others have few


class Row(NamedTuple):
    """A call of the library: its launches one after the other."""
    what: str
    launches: list


def over(n, d):
    return -(-n // d)


def few_rows(mode, m, n, k, size):
    """gemm_few_rows.cuh: lanes are columns × chunks of k; two pieces of 32 k are under way."""
    rows = 4 if m <= 4 else 8 if m <= 8 else 16
    slots = 1
    while 2 * slots * rows <= 32 and slots * 256 < k:
        slots *= 2
    steps = over(over(k, 256), slots) * 8
    rounded = [] if mode == "FloatSum" else [mapped("RoundOperand", m * k, 8, 2)]
    return rounded + [Launch(f"few_rows_kernel<{mode}, {rows}, {'float' if size == 4 else 'unsigned short'}>",
                             over(n, 32 // slots), 4 * m * k + size * n * k + 4 * m * n, 2 * m * n * k,
                             arithmetic=rows * n * k, clocks=32 * steps * ADD, trips=steps / 2)]


def product(mode, m, n, k, form=1, size=4):
    """C (m, n) as gemm.cuh and gemm_tensor_core.cuh launch it. form: NN 0, NT 1, TN 2; size: bytes of B's elements."""
    unit = {"Bf16Operand": "bf16", "Tf32Operand": "tf32"}.get(mode, "float")
    t = "float" if size == 4 else "unsigned short"
    flops, moved = 2 * m * n * k, 4 * m * k + size * n * k + 4 * m * n
    if form == 1 and m <= (8 if mode == "Bf16Sum" else 16):
        if unit == "float":
            return few_rows(mode, m, n, k, size)
        return [Launch(f"tensor_few_rows_kernel<{mode}, {t}>", over(n, 32), moved, flops, unit,
                       2 * 16 * n * k / MMA[unit], way_out=True, trips=k / 64 / (2 if size == 4 else 3))]
    tile = 128 if m * n >= 64 * 128 * 128 else 64
    kernel = f"{'' if unit == 'float' else 'tensor_'}tile_kernel<{mode}, (Form){form}, {tile}, {t}>"
    tiles, chunks = over(m, tile) * over(n, tile), over(k, 256)
    done = tiles * tile * tile / (1 if unit == "float" else MMA[unit] / 2)  # for each k; tiles are worked on whole
    depth = {"float": 1024 // tile, "bf16": 32, "tf32": 16}[unit]
    if unit == "float" and tile == 64 and tiles < 132 and chunks > 1:  # split over chunks
        launches, at_once = [], min(chunks, 396 // tiles)
        for first in range(0, chunks, at_once):
            here = min(at_once, chunks - first)
            part = min(k - 256 * first, 256 * here)
            launches += [Launch(kernel, tiles * here, part * (4 * m + size * n), 2 * m * n * part, unit, done * part,
                                way_out=True, trips=256 / depth),
                         Launch("add_partials_kernel<64>", over(n, 256) * m, 8 * m * n, here * m * n,
                                clocks=here * ADD, l2_trips=here / 4 + 1)]
        return launches
    if size * n * k > 20e6:  # more than the L2 cache keeps: B passes once for 8 tiles of rows
        moved += size * n * k * (over(m, 8 * tile) - 1)
    return [Launch(kernel, tiles, moved, flops, unit, done * k, way_out=True, trips=k / depth)]


# Of functors of pointwise_kernel the arrays read and written; all others are map_kernel's.
POINTWISE = {"Accumulate": (2, 1), "AccumulateBy": (2, 1), "AdamWUpdate": (4, 3), "Apply": (1, 1),
             "ApplyBackward": (3, 1), "Clamp": (1, 1), "ClampBackward": (3, 1), "CombineWhole": (2, 1),
             "CombineWholeBackward": (4, 1), "LionUpdate": (3, 2), "RoundOperand": (1, 1), "Scale": (1, 1),
             "SgdUpdate": (3, 2), "Shift": (1, 1), "Swiglu": (2, 1), "SwigluBackward": (5, 2),
             **{f"Activate<(Activation){i}> ": (1, 1) for i in range(5)},
             **{f"ActivateBackward<(Activation){i}> ": (3, 1) for i in range(5)}}


def mapped(functor, n, each, flops, **more):
    """256 threads of 4 elements, or 128 of 8 where one array is read; without a loop unless said otherwise."""
    kernel = f"map_kernel<256, {functor}>"
    if functor in POINTWISE:
        read, written = POINTWISE[functor]
        kernel = f"pointwise_kernel<{'128, 2' if read == 1 else '256, 1'}, {read}, {written}, {functor}>"
    return Launch(kernel, over(n, 1024), n * each, n * flops, **{"straight": True, **more})


def by_warps(kernel, n, c, each, flops):
    """A warp a row; its first pass waits for DRAM, four loads at a time, the others find the row in a cache."""
    return Launch(kernel, over(n, 8), n * c * each, n * c * flops, trips=c / 128)


def over_tokens(term, n, c, each):
    return [Launch(f"chunk_sums_kernel<64, {term}>", over(c, 64) * over(n, 256), n * c * each, 2 * n * c,
                   clocks=256 * ADD, trips=256 / 8),
            Launch("add_chunks_kernel<64>", over(c, 64), 8 * c, over(n, 256) * c, clocks=over(n, 256) * ADD,
                   l2_trips=over(n, 256) / 4 + 1)]


def logits(kernel, rows, each, flops, exps, maxima, tile, sums=1, clocks=0, l2_trips=0):
    """logits.cuh, 512 threads a row: its maximum, 8 loads at a time; then the terms, tile by tile, added by one warp,
    v / 32 in a chain. Read from DRAM once, then from the L2 cache. An exponential is 8 FFMA."""
    return Launch(f"{kernel}>", rows, rows * V * each, rows * V * flops, arithmetic=8 * exps * rows * V,
                  clocks=sums * V / 32 * ADD + clocks, trips=maxima * V / 4096, l2_trips=sums * V / tile + l2_trips)


def attention(t, sequences, heads=12, d=64):
    """Forward and backward; a query's keys are those up to it. Slices come one ahead, in the dkv kernel none."""
    rows, pairs, array = t * sequences, heads * sequences * t * (t + 1) / 2, 4 * t * sequences * heads * d
    queries, keys = (rows // 64 + sequences) * heads, (rows // 32 + sequences) * heads
    return ([Launch("attention_forward_kernel<64>", queries, 4 * array, 4 * d * pairs, trips=2 * t / 64)],
            [Launch("attention_delta_kernel<256>", over(rows * heads, 8), 2 * array, 2 * d * rows * heads),
             Launch("attention_dq_kernel<64>", queries, 6 * array, 6 * d * pairs, trips=3 * t / 64),
             Launch("attention_dkv_kernel<64>", keys, 8 * array, 8 * d * pairs, trips=t / 64)])


def decode(rows, keys, size, heads=12, d=64):
    """A row for each cache of `keys` positions, in blocks of 512; loads of keys 8 at a time, of values 8 KiB."""
    chunks, pairs = over(keys, 512), rows * heads * keys
    return [Launch(f"attention_decode_kernel<64, 1, {'float' if size == 4 else 'unsigned short'}>",
                   rows * heads * chunks, 2 * size * d * pairs, 4 * d * pairs, clocks=512 * ADD,
                   trips=2 * d / 8 + 512 * d / 2048),
            mapped("MergeChunks", rows * heads * d, 4 * chunks + 4, 4 * chunks, straight=False, l2_trips=chunks)]


def embedding_backward(n, c):
    """Sorted pairs, then a run a warp; one token in twenty is the same."""
    padded = max(1024, 1 << (n - 1).bit_length())
    tile = Launch("sort_tile_kernel<1024>", padded // 1024, 16 * padded, clocks=10 * SHARED, trips=1)
    step = Launch("sort_step_kernel<256>", over(padded // 2, 256), 16 * padded, straight=True, trips=1)
    launches = [Launch("sort_keys_kernel<256>", over(padded, 256), 12 * padded, straight=True),
                tile._replace(clocks=55 * SHARED)]
    for doublings in range(1, (padded // 1024).bit_length()):
        launches += doublings * [step] + [tile]
    return launches + [Launch("scatter_add_kernel<256>", over(n, 8) * over(c, 128), 12 * n * c, n * c,
                              l2_trips=2 * n / 20, uneven=True)]


def loss(stats, term, n, each, chain):
    return [Launch(f"loss_chunk_kernel<{stats}, {term}>", over(n, 256), each * n, 20 * n, clocks=256 * chain, trips=2),
            Launch(f"loss_total_kernel<{stats}>", 1, 4 * over(n, 256), over(n, 256), clocks=over(n, 256) * chain,
                   l2_trips=over(n, 256) / 4 + 1)]


# GPT-2 small: channels, hidden, tokens, parameters; and rows of a batch that is trained on.
C, F, V, P, N = 768, 3072, 50257, 124_439_808, 4096

# Of functors without a loop: bytes and FLOPs an element (activations 30 to 60: elementwise.cuh).
MAPS = {"Accumulate": (12, 2), "AccumulateBy": (12, 2), "Apply": (8, 40), "ApplyBackward": (16, 40), "Assign": (8, 1),
        "Clamp": (8, 2), "ClampBackward": (16, 3), "Combine": (12, 1), "CombineBackward": (20, 3),
        "CombineWhole": (12, 1), "CombineWholeBackward": (20, 3),
        "Expand": (5.125, 1), "ExpandBf16": (6, 0), "FinishProduct": (12, 2), "KvCopy<float> ": (16, 0),
        "KvCopy<unsigned short> ": (8, 0), "LogOdds": (8, 50), "LogOddsBackward": (16, 50), "RoundOperand": (8, 2),
        "RoundToBf16": (6, 2), "Scale": (8, 1), "Shift": (8, 1), "Swiglu": (12, 40), "SwigluBackward": (28, 45),
        **{f"Activate<(Activation){i}> ": (8, 1 if i == 3 else 45) for i in range(5)},
        **{f"ActivateBackward<(Activation){i}> ": (16, 2 if i == 3 else 60) for i in range(5)}}

NO_ESTIMATE = {"multiply_add": "the self-test's, one thread and one multiply-add"}
MODES = {"exact": ("FloatSum", 4), "exact, packed bf16": ("FloatSum", 2), "CudaBf16, packed": ("Bf16Sum", 2),
         "bf16": ("Bf16Operand", 4), "bf16, packed": ("Bf16Operand", 2), "tf32": ("Tf32Operand", 4)}


def a_product(mode, m, n=C, k=F, form=1):
    operand, size = MODES[mode]
    return Row(f"product {('NN', 'NT', 'TN')[form]} {m}x{n}x{k} {mode}", product(operand, m, n, k, form, size))


def rows():
    yield from (a_product(mode, m) for mode in ("exact", "bf16, packed") for m in (1, 8, 64, 128, N))
    yield from (a_product(mode, m) for mode in MODES for m in (8, 64) if mode not in ("exact", "bf16, packed"))
    yield from (a_product("exact", m, V, C) for m in (8, 64, 256))
    yield from (a_product("exact", N, F, C, 0), a_product("exact", C, F, N, 2))
    yield from (a_product(mode, 4096, 4096, 4096) for mode in ("exact", "bf16", "bf16, packed", "tf32"))
    for name, launches in zip(("forward", "backward"), attention(2048, 4)):
        yield Row(f"attention {name}, 4 x 2048 tokens", launches)
    for size in (4, 2):
        yield Row(f"decoding attention, 64 rows, 1024 keys of {size} bytes", decode(64, 1024, size))
    yield Row("append to the cache, 64 rows",
              [Launch("kv_append_kernel<128, float>", 64, 16 * 64 * C, trips=2 + C / 128)])
    draw = (V / 256 + 256) * ADD  # the sums of 256 tokens in order, then one of them
    for n, pairs in ((8, 8), (64, 64), (256, 125)):  # the last: what the head holds at once
        yield Row(f"log-prob, {n} rows of {V}", [logits("logprob_kernel<512, false", n, 4, 20, 1, 1, 1920)])
        yield Row(f"exact KL, {pairs} rows of {V}",  # whose second sum has two additions a term
                  [logits("kl_kernel<512", pairs, 8, 80, 4, 2, 960, 2, clocks=V / 32 * ADD)])
        yield Row(f"draw, {n} rows of {V}", [logits("sample_kernel<512, false", n, 4, 20, 1, 1, 3840, clocks=draw)])
    yield Row(f"log-prob and entropy, 256 rows of {V}", [logits("logprob_kernel<512, true", 256, 4, 22, 1, 1, 1920)])
    yield Row(f"log-prob backward, 256 rows of {V}",
              [Launch("logprob_backward_kernel<256>", 256 * over(V, 1024), 8 * 256 * V, 25 * 256 * V, straight=True)])
    yield Row(f"draw by top-k, 64 rows of {V}",  # digits of a histogram, 256 at most, in each of 8 passes
              [logits("sample_kernel<512, true", 64, 4, 20, 1, 1, 3840, clocks=draw + 8 * 256 * SHARED,
                      l2_trips=10 * V / 2048)])
    yield Row(f"arg-max, 8 rows of {V}", [Launch("argmax_kernel<256, true>", 8, 32 * V, 8 * V, trips=V / 2048)])
    for kernel, each, flops in (("argmax_kernel<256, false>", 4, 1), ("row_sums_kernel<256>", 4, 1),
                                ("softmax_kernel<256>", 8, 42), ("softmax_backward_kernel<256>", 16, 4),
                                ("embedding_kernel<256>", 8, 0), ("rms_norm_kernel<256>", 8, 5),
                                ("layer_norm_kernel<256>", 8, 8)):
        yield Row(f"{kernel.split('_kernel')[0]}, {N} x {C}", [by_warps(kernel, N, C, each, flops)])
    weight, bias = over_tokens("NormWeightTerm", N, C, 8), over_tokens("RowTerm", N, C, 4)
    yield Row(f"rms_norm backward, {N} x {C}", [by_warps("rms_norm_backward_kernel<256>", N, C, 16, 12)] + weight)
    yield Row(f"layer_norm backward, {N} x {C}",
              [by_warps("layer_norm_backward_kernel<256>", N, C, 16, 12)] + weight + bias)
    yield Row(f"transpose, {N} x {C}", [Launch("transpose_kernel<32>", over(C, 32) * over(N, 32), 8 * N * C, trips=1)])
    yield Row(f"embedding backward, {N} x {C}", embedding_backward(N, C))
    yield Row(f"rope, {N} x {C}", [Launch("rope_kernel<256, false>", over(12 * N, 8), 8 * N * C, 3 * N * C)])
    yield Row(f"rope backward, {N} x {C}", [Launch("rope_kernel<256, true>", over(12 * N, 8), 12 * N * C, 3 * N * C)])
    yield Row("adamw, 124M", [mapped("AdamWUpdate", P, 28, 12)])
    yield Row("sgd, 124M", [mapped("SgdUpdate", P, 20, 6)])
    yield Row("lion, 124M", [mapped("LionUpdate", P, 20, 8)])
    yield Row("sum of squares, 124M",  # in blocks of 4096; the total by one thread, 32 at a time
              [Launch("squares_kernel<128>", over(P, 4 * 4096), 4 * P, 2 * P, clocks=128 * ADD, trips=16),
               Launch("squares_total_kernel<1>", 1, P / 1024, P / 4096, clocks=P / 4096 * DOUBLE,
                      l2_trips=P / 4096 / 32)])
    yield Row(f"policy loss, {N} tokens", loss("PolicyStats", "PolicyTerm", N, 20, DOUBLE))
    yield Row(f"value loss, {N} tokens", loss("ValueStats", "ValueLossTerm", N, 20, DOUBLE))
    yield Row(f"KL loss, {N} tokens", loss("NoStats", "KlLossTerm", N, 16, ADD))
    yield Row("sums of 64 segments of 256",
              [mapped("SegmentSum", 64, 8 * 256, 2 * 256, straight=False, clocks=256 * ADD, trips=8)])
    yield Row("spread to 64 segments of 256",
              [mapped("SegmentSpread", 64, 12 * 256, 2 * 256, straight=False, l2_trips=256)])
    yield Row(f"quantize {C} x {C}", [mapped("Quantize", C * C // 32, 164, 64, straight=False, trips=8)])
    yield Row(f"pick, {N} rows", [mapped("Pick", N, 40, 0)])
    yield Row(f"pick backward, {N} rows", [mapped("PickBackward", N, 72, 1)])
    for name, each, flops, trips in (("GroupSums", 4, 1, 2), ("GroupSumsBackward", 8, 1, 8),
                                     ("GroupLogsumexp", 4, 22, 2), ("GroupLogsumexpBackward", 12, 22, 8)):
        yield Row(f"{name}, 512 groups of 8 x {C}",
                  [mapped(name, 512 * C, 8 * each + 4, 8 * flops, straight=False, trips=trips)])
    yield from (Row(f"{name.strip()}, {N} x {C}", [mapped(name, N * C, *each)]) for name, each in MAPS.items())
