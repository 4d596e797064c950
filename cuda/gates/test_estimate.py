#!/usr/bin/env python3
"""Tests of the estimates: rows worked out by hand, the launch code's shapes, and that no kernel is without one."""
import json
import unittest
from unittest import mock

import estimate
import gate
from estimate import A100, H100
from launches import Launch, Row, product, rows

TABLE = json.loads(gate.TABLE.read_text())["kernels"]
# Two kernels with round numbers: 100 of the loop's 400 instructions are FFMA, 50 of another's 1000 HMMA.
LINE = {"blocks": 2, "threads": 256, "code": {"all": 600, "FFMA": 150}}
END = {"blocks": 32, "threads": 64, "code": {"all": 200, "FFMA": 50}}
TENSOR = {"blocks": 2, "threads": 128, "code": {"all": 1200, "FFMA": 50, "HMMA": 50}}
ROUND = {"tile_kernel<FloatSum, (Form)1, 128, float>": {"sm_80": LINE, "sm_90": LINE},
         "tensor_tile_kernel<Bf16Operand, (Form)1, 128, unsigned short>": {"sm_80": TENSOR, "sm_90": TENSOR},
         "add_partials_kernel<64>": {"sm_80": END, "sm_90": END}}


def named(what):
    found = [row for row in rows() if row.what == what]
    assert len(found) == 1, what
    return found[0]


class ByHand(unittest.TestCase):
    def test_adamw_is_bound_by_memory(self):
        # 28 bytes of each of 124,439,808 parameters: 3484.3 MB; and 3 µs for the launch.
        for card, microseconds in ((A100, 1708.8 + 3), (H100, 1040.1 + 3)):
            time, bound, busy = estimate.estimate(named("adamw, 124M"), card, TABLE)
            self.assertAlmostEqual(1e6 * time, microseconds, 1)
            self.assertEqual((bound, round(busy, 2)), ("memory", 1.0))

    def test_exact_product(self):
        launch, = product("FloatSum", 4096, 4096, 4096)
        # 32 x 32 tiles; A once, B once for each 1024 rows, C: 67.1 MB six times.
        self.assertEqual((launch.blocks, launch.bytes), (1024, 6 * 4 * 4096 ** 2))
        # An H100 holds 264: three times all, then 232, which are two for some: 8 of an SM, 7.76 on average.
        times, busy = estimate.bounds(launch, H100, ROUND)
        self.assertAlmostEqual(busy, 1024 / 132 / 8)
        # 2^36 multiply-adds, a quarter of what is issued: 2^36 / 32 · 4 instructions on 132 · 4 schedulers.
        self.assertAlmostEqual(1e3 * times["issue"], 2 ** 33 / (132 * 4 * 1.98e9) / busy * 1e3, 6)
        self.assertAlmostEqual(1e3 * times["issue"], 8.473, 3)
        self.assertAlmostEqual(1e3 * times["float"], 2 ** 37 / 66.9e12 / busy * 1e3, 6)
        # 512 steps of k in each of 4 waves, each a load from DRAM.
        self.assertAlmostEqual(1e6 * times["chain"], 4 * 512 * 0.7)

    def test_tensor_core_product(self):
        launch, = product("Bf16Operand", 4096, 4096, 4096, size=2)
        times, busy = estimate.bounds(launch, H100, ROUND)
        # 2^37 FLOPs, 4096 each; 50 of 1200 - 200 instructions.
        self.assertAlmostEqual(estimate.instructions(launch, ROUND, "sm_90"), 2 ** 25 * 20)
        self.assertAlmostEqual(1e6 * times["issue"], 2 ** 25 * 20 / (132 * 4 * 1830) / busy, 3)
        self.assertAlmostEqual(1e6 * times["bf16"], 2 ** 37 / 989.4e6 / busy, 3)

    def test_a_row_of_logits_is_a_chain(self):
        launch, = named("log-prob, 8 rows of 50257").launches
        self.assertEqual(launch.clocks, 50257 / 32 * 4)  # one warp's additions, 4 clocks each
        slow = {launch.kernel: {"sm_90": {"blocks": 4, "threads": 512}}}  # no listing, so no issue
        times, busy = estimate.bounds(launch._replace(flops=0), H100, slow)
        # Its maximum: 12.3 loads from DRAM one after the other; then 26.2 tiles of terms from the L2 cache.
        self.assertAlmostEqual(1e6 * times["chain"], 6282.1 / 1980 + 12.27 * 0.7 + 26.18 * 0.2, 2)
        self.assertAlmostEqual(busy, 8 / 132)
        # 8 SMs, of 64 bytes a clock each, are slower than the memory.
        self.assertAlmostEqual(1e6 * times["memory"], 8 * 50257 * 4 / (8 * 64 * 1980), 2)

    def test_the_total_of_squares_is_one_threads(self):
        blocks, total = named("sum of squares, 124M").launches
        self.assertEqual((blocks.blocks, total.blocks), (7596, 1))
        times, busy = estimate.bounds(total, A100, {})
        # 30,381 additions in double, 8 clocks each, and 3,798 sectors of 8 sums.
        self.assertAlmostEqual(1e6 * times["chain"], 30381 * 8 / 1410 + 949.4 * 0.2, 0)
        self.assertAlmostEqual(busy, 1 / 108)

    def test_one_warp_uses_one_scheduler(self):
        launch = Launch("k", 132, 0, 2 * 32 * 1000)
        table = {"k": {"sm_90": {"blocks": 8, "threads": 32, "code": {"all": 10, "FFMA": 10}}}}
        one = estimate.bounds(launch, H100, table)[0]["issue"]
        self.assertAlmostEqual(one, 1000 / (132 * 1.98e9))
        table["k"]["sm_90"]["threads"] = 256
        self.assertAlmostEqual(estimate.bounds(launch, H100, table)[0]["issue"], one / 4)

    def test_a_row_adds_its_launches(self):
        launch = Launch("k", 1000, 3350e3)  # a microsecond
        time, bound, _ = estimate.estimate(Row("twice", [launch, launch]), H100, {})
        self.assertAlmostEqual(1e6 * time, 2 * (1 + 3))
        self.assertEqual(bound, "launch")


class Shapes(unittest.TestCase):
    """As the launch functions choose them."""

    def blocks(self, *arguments, **more):
        return [(launch.kernel.split("<")[0], launch.blocks) for launch in product(*arguments, **more)]

    def test_products(self):
        self.assertEqual(self.blocks("FloatSum", 1, 768, 3072), [("few_rows_kernel", 192)])  # 8 chunks of 4 columns
        self.assertEqual(self.blocks("FloatSum", 16, 768, 3072), [("few_rows_kernel", 48)])
        self.assertEqual(self.blocks("Bf16Sum", 8, 768, 3072), [("pointwise_kernel", 24), ("few_rows_kernel", 96)])
        split = [("tile_kernel", 144), ("add_partials_kernel", 3 * 64)]
        self.assertEqual(self.blocks("FloatSum", 64, 768, 3072), split)
        self.assertEqual(self.blocks("FloatSum", 17, 768, 3072), [split[0], ("add_partials_kernel", 3 * 17)])
        # 96 tiles of 12 chunks: four chunks at a time.
        self.assertEqual(self.blocks("FloatSum", 512, 768, 3072),
                         3 * [("tile_kernel", 384), ("add_partials_kernel", 1536)])
        self.assertEqual(self.blocks("FloatSum", 4096, 768, 3072), [("tile_kernel", 192)])
        self.assertEqual(self.blocks("FloatSum", 64, 768, 256), [("tile_kernel", 12)])  # one chunk
        self.assertEqual(self.blocks("FloatSum", 8, 768, 3072, 0)[0], ("tile_kernel", 144))  # few rows: NT alone
        self.assertEqual(self.blocks("Bf16Operand", 16, 768, 3072), [("tensor_few_rows_kernel", 24)])
        self.assertEqual(self.blocks("Tf32Operand", 17, 768, 3072), [("tensor_tile_kernel", 12)])

    def test_chunks_cover_k(self):
        parts = product("FloatSum", 512, 768, 3000)
        self.assertEqual(sum(launch.flops for launch in parts[::2]), 2 * 512 * 768 * 3000)
        self.assertEqual(parts[-2].arithmetic, 512 * 768 * (3000 - 8 * 256))

    def test_sorting(self):
        # 4096 pairs: the tiles; runs of 2048 by one step and the tiles, of 4096 by two.
        kernels = [launch.kernel.split("_kernel")[0] for launch in named("embedding backward, 4096 x 768").launches]
        self.assertEqual(kernels, ["sort_keys", "sort_tile", "sort_step", "sort_tile", "sort_step", "sort_step",
                                   "sort_tile", "scatter_add"])


    def test_the_headers_are_those_described(self):
        """What launches.py took from them; whoever changes a line changes launches.py, and this."""
        for header, texts in {
                "gemm_tile": ("kLargeTilesFrom = 64 * 128 * 128;", "kSplitBelow = 132;", "kTileThreads = 256;",
                              "kPartialTiles = 3 * kSplitBelow;", "kPartialThreads = 64;",
                              "kDepth = 4 * kTileThreads / kTile;", "if (tiles >= kSplitBelow || chunks < 2)"),
                "gemm_few_rows": ("kStep = 32, kStages = 3;", "kFewRows = Sum::kPairs ? 8 : 16;",
                                  "while (2 * slots * rows <= kWarp && slots * kGemmChunk < p.k) slots *= 2;"),
                "gemm_tensor_few_rows": ("kPiece = 64, kStages = sizeof(T) == 4 ? 3 : 4;", "kTensorFewRows = 16;",
                                         "kStep = 16, kDepth = 32;", "kStep = 8, kDepth = 16;"),
                "gemm_tensor_core": ("if (p.out.m * p.out.n >= kLargeTilesFrom) launch_tensor_tile<E, form, 128>",
                                     "else launch_tensor_tile<E, form, 64>", "if (p.out.m <= kTensorFewRows)"),
                "gemm_output": ("kGemmChunk = 256;",),
                "map": ("kMapThreads = 256;", "kPerThread = 4;",
                        "kQuads = kIn == 1 ? 2 : 1, kThreads = kMapThreads / kQuads;"),
                "logits": ("kLogitThreads = 512,", "kFewLogits = 4096;", "kMakers = kThreads - kWarp,"),
                "head": ("TermTiles<kThreads, kTerms, 4>", "TermTiles<kThreads, 2, 2> norms;",
                         "TermTiles<kThreads, 3, 2> terms;", "kSlopeColumns = 1024;"),
                "sampling": ("TermTiles<kThreads, 1, 8>", "kDrawBlock = 256;"),
                "attention": ("kRows = kSize <= 128 ? 4 : 2;", "kQueries = 16 * kRows;"),
                "attention_cache": ("kDecodeThreads = 256;", "kTileKeys = 2048 / kSize;"),
                "optimizer": ("kSquaresBlock = 4096;", "kSquaresThreads = 128;", "squares_total_kernel<1>), 1, 1,"),
                "rows": ("kRowThreads = 256;", "kColumnThreads = 64;", "kSortTile = 1024;")}.items():
            code = " ".join((gate.KERNELS / f"{header}.cuh").read_text().split())
            for text in texts:
                self.assertIn(text, code, header)


class Complete(unittest.TestCase):
    def test_every_kernel_has_an_estimate_or_a_reason(self):
        self.assertEqual(estimate.without_estimate(TABLE), [])
        more = {"new_kernel<1>": {}, "map_kernel<256, New>": {}, "tile_kernel<New>": {}}
        self.assertEqual(estimate.without_estimate(TABLE | more), ["map_kernel<256, New>", "new_kernel"])

    def test_every_estimate_is_of_a_kernel(self):
        kernels = {launch.kernel for row in rows() for launch in row.launches}
        kernels |= {launch.kernel for row, _ in estimate.measured() for launch in row.launches}
        self.assertLessEqual(kernels, set(TABLE))
        self.assertEqual(len({row.what for row in rows()}), len(list(rows())))

    def test_targets_hang_on_the_estimate(self):
        met = [met for _, _, met in estimate.targets(TABLE)]
        self.assertFalse(met[0])  # 157 TFLOP/s were measured
        fast = H100._replace(clock=1e9, tensor_clock=1e9, peak=dict.fromkeys(H100.peak, 1e9))
        with mock.patch.multiple(estimate, H100=fast, LAUNCH=0, DRAM=0, L2=0):  # memory is all that counts
            self.assertTrue(all(met for _, _, met in estimate.targets(TABLE)))

    def test_the_page_says_what_it_is(self):
        text = estimate.markdown(TABLE)
        self.assertTrue(text.startswith("ESTIMATES, not measurements"))
        for row in rows():
            self.assertEqual(text.count(f"\n| {row.what} | "), 2 if row.what in
                             {there.what for there, _ in estimate.measured()} else 1, row.what)

    def test_within_a_factor_of_what_was_measured(self):
        for row, there in estimate.measured():
            ratio = 1e6 * estimate.estimate(row, estimate.H200, TABLE)[0] / there
            self.assertTrue(0.4 < ratio < 2, (row.what, ratio))


if __name__ == "__main__":
    unittest.main()
