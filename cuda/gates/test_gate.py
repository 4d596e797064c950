#!/usr/bin/env python3
"""Tests of the gate: its readers on stored output, its rules, and that it refuses what it is to refuse.

What needs nvcc, or NVIDIA's occupancy calculator, is skipped where there is none, and says so.
"""
import contextlib
import copy
import io
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import gate
import listing
from occupancy import LIMITS, occupancy

HERE = Path(__file__).resolve().parent
SAMPLES = HERE / "samples"
NVCC = gate.find_program(None, "nvcc", "/usr/local/cuda/bin/nvcc")
CALCULATOR = Path("/usr/local/cuda/include/cuda_occupancy.h") if NVCC is None else \
    Path(NVCC).resolve().parents[1] / "include/cuda_occupancy.h"
CLEAN = "_ZN5plumb4v0_17kernels3gpu12clean_kernelILNS2_3WayE1ELi128EEEvP6float4PKS5_"

ROW = {"threads": 256, "registers": 40, "shared": 1024, "dynamic_shared": 0, "blocks": 6, "occupancy": 0.75,
       "stack": 0, "spill_stores": 0, "spill_loads": 0,
       "code": {"all": 200, "FFMA": 100, "LDG.128": 4, "LDSM": 2}}


class Readers(unittest.TestCase):
    def test_ptxas(self):
        kernels = listing.read_ptxas((SAMPLES / "ptxas.txt").read_text())
        self.assertEqual(kernels["_Z15spilling_kernelPfi"],
                         {"registers": 32, "barriers": 0, "shared": 0, "stack": 464, "spill_stores": 1040,
                          "spill_loads": 1200})
        self.assertEqual(kernels[CLEAN], {"registers": 22, "barriers": 1, "shared": 2048, "stack": 0,
                                          "spill_stores": 0, "spill_loads": 0})

    def test_called_functions_count_for_their_kernel(self):
        report = ("ptxas info    : Compiling entry function 'k' for 'sm_80'\n"
                  "ptxas info    : Function properties for k\n"
                  "    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
                  "ptxas info    : Function properties for called\n"
                  "    16 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
                  "ptxas info    : Used 10 registers, used 2 barriers\n")
        row = listing.read_ptxas(report)["k"]
        self.assertEqual((row["stack"], row["spill_stores"], row["spill_loads"]), (24, 4, 12))
        self.assertEqual((row["registers"], row["barriers"], row["shared"]), (10, 2, 0))

    def test_ptx(self):
        kernels = listing.read_ptx((SAMPLES / "clean.ptx").read_text())
        self.assertEqual(kernels, {CLEAN: {"threads": 128, "dynamic_shared": True}})
        plain = listing.read_ptx(".visible .entry k(\n)\n.maxntid 16, 4, 2\n{\n ret;\n}\n.entry l(\n)\n{\n}\n")
        self.assertEqual(plain["k"], {"threads": 128, "dynamic_shared": False})
        self.assertIsNone(plain["l"]["threads"])

    def test_sass(self):
        code = listing.read_sass((SAMPLES / "clean.sass").read_text())[CLEAN]
        self.assertEqual(code, {"BAR": 1, "FFMA": 1, "LDG.128": 2, "LDS.128": 1, "LDS.32": 1, "SHFL": 1,
                                "STG.128": 1, "STS.128": 2, "all": 19})

    def test_late_loads(self):
        text = (SAMPLES / "clean.sass").read_text()
        self.assertEqual(listing.read_late_loads(text), {CLEAN: 0})
        line = next(line for line in text.splitlines() if "LDG.E.128" in line)
        self.assertEqual(listing.read_late_loads(f"{text}\n{line}\n{line.replace('.128', '')}\n"), {CLEAN: 1})

    def test_instruction_classes(self):
        for opcode, kind in (("FFMA.FTZ", "FFMA"), ("FFMA2", "FFMA"), ("HMMA.16816.F32.BF16", "HMMA"),
                             ("HFMA2.MMA", None), ("LDGSTS.E.BYPASS.128", "LDGSTS.128"), ("LDG.E", "LDG.32"),
                             ("LDG.E.U16.CONSTANT", "LDG.16"), ("LDS.U.128", "LDS.128"), ("STL.64", "STL.64"),
                             ("LDSM.16.MT88.4", "LDSM"), ("BAR.SYNC", "BAR"), ("IMAD.WIDE", None)):
            self.assertEqual(listing.instruction_class(opcode), kind, opcode)

    def test_cuobjdump_prints_the_same_otherwise(self):
        text = ("\t\tFunction : k\n\t.headerflags\t@\"EF_CUDA_SM90\"\n"
                "        /*0000*/               @!P0 LDL.64 R1, [R2] ;   /* 0x00000a00ff017b82 */\n"
                "                                                        /* 0x000fe20000000800 */\n"
                "        /*0010*/               @UP1 NOP ;\n"
                "        /*0020*/              @!UPT STL R1, [R2] ;\n")
        self.assertEqual(listing.read_sass(text), {"k": {"LDL.64": 1, "STL.32": 1, "all": 2}})

    def test_launches(self):
        text = ('#define PLUMB_LAUNCHED(kernel, bytes, value) static_assert((bytes) == (value))\n'
                'PLUMB_LAUNCHED("k<(Form)1, 2>", gpu::Tile<1, 2>::kBytes, 4096);\n'
                'PLUMB_LAUNCHED("l",\n               sizeof(float), 4);\n')
        self.assertEqual(listing.read_launches(text), {"k<(Form)1, 2>": 4096, "l": 4})

    def test_names(self):
        self.assertEqual(listing.demangle([CLEAN]), {CLEAN: "clean_kernel<(Way)1, 128>"})
        self.assertEqual(listing.demangle(["_Z1kIiEvT_", "_Z1kIiEvT_S0_"]),
                         {"_Z1kIiEvT_": "k<int> [_Z1kIiEvT_]", "_Z1kIiEvT_S0_": "k<int> [_Z1kIiEvT_S0_]"})
        self.assertEqual(listing.demangle([]), {})


class Occupancy(unittest.TestCase):
    def test_by_hand(self):
        self.assertEqual(occupancy(80, 256, 32, 0), (8, 1.0))            # by warps
        self.assertEqual(occupancy(80, 256, 128, 0), (2, 0.25))          # by registers
        self.assertEqual(occupancy(80, 256, 32, 40 * 1024), (4, 0.5))    # by shared memory: 4 times 41 KiB
        self.assertEqual(occupancy(80, 32, 16, 0), (32, 0.5))            # by blocks
        self.assertEqual(occupancy(120, 1024, 32, 0), (1, 32 / 48))
        self.assertEqual(occupancy(80, 1024, 65, 0), (0, 0.0))           # too many registers for one block
        self.assertEqual(occupancy(80, 256, 32, 164 * 1024), (0, 0.0))   # too much shared memory
        with self.assertRaises(SystemExit):
            occupancy(42, 256, 32, 0)

    @unittest.skipUnless(CALCULATOR.exists(), "there is no cuda_occupancy.h")
    def test_against_nvidias_calculator(self):
        cases = [(arch, threads, registers, shared) for arch in LIMITS for threads in (32, 96, 128, 224, 256, 512, 1024)
                 for registers in (16, 24, 31, 40, 65, 96, 128, 168, 255) for shared in (0, 100, 8448, 24576, 49000)]
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "calculator"
            subprocess.run(["c++", "-isystem", CALCULATOR.parent, SAMPLES / "calculator.cpp", "-o", program], check=True)
            lines = "".join(f"{arch} {t} {r} {s} {LIMITS[arch].warps * 32} {LIMITS[arch].shared}\n"
                            for arch, t, r, s in cases)
            out = subprocess.run([program], input=lines, check=True, text=True, capture_output=True).stdout
        theirs = [int(line) for line in out.splitlines()]
        self.assertEqual(len(theirs), len(cases))
        for case, blocks in zip(cases, theirs):
            self.assertEqual(occupancy(*case)[0], blocks, case)


class Rules(unittest.TestCase):
    def changed(self, **changes):
        row = copy.deepcopy(ROW)
        code = changes.pop("code", {})
        row.update(changes)
        row["code"].update(code)
        return row

    def test_within_the_budget(self):
        self.assertEqual(gate.budget_failures(ROW, ROW), [])
        self.assertEqual(gate.absolute_failures(ROW), [])
        better = self.changed(registers=32, shared=512, occupancy=1.0, code={"all": 190})
        self.assertEqual(gate.budget_failures(better, ROW), [])
        self.assertEqual(gate.budget_failures(self.changed(code={"all": 220, "FFMA": 110}), ROW), [])
        without = self.changed()
        del without["code"]  # no disassembler
        self.assertEqual(gate.budget_failures(without, ROW), [])

    def test_each_rule(self):
        for changes, word in ((dict(registers=41), "registers"), (dict(shared=1025), "static shared"),
                              (dict(dynamic_shared=1), "dynamic shared"), (dict(occupancy=0.6), "occupancy"),
                              (dict(code={"all": 221, "FFMA": 111}), "instructions"),
                              (dict(code={"FFMA": 97}), "FFMA or HMMA"), (dict(code={"LDG.128": 0}), "LDG.128"),
                              (dict(code={"LDSM": 0}), "LDSM")):
            failures = gate.budget_failures(self.changed(**changes), ROW)
            self.assertEqual(len(failures), 1, (changes, failures))
            self.assertIn(word, failures[0])
        for changes, word in ((dict(spill_stores=4, stack=4), "spills"), (dict(spill_loads=4), "spills"),
                              (dict(stack=8), "stack"), (dict(code={"LDL.32": 1}), "local"),
                              (dict(code={"STL.64": 1}), "local"), (dict(blocks=0), "launched"),
                              (dict(late_loads=1), "wait for a store")):
            failures = gate.absolute_failures(self.changed(**changes))
            self.assertEqual(len(failures), 1, (changes, failures))
            self.assertIn(word, failures[0])

    def test_the_table(self):
        table = {"nvcc": "1.2", "kernels": {"k": {"sm_80": ROW, "sm_90": ROW}}}
        compare = lambda rows, version="1.2": gate.compare({"sm_80": rows}, table, version)
        self.assertEqual(compare({"k": ROW}), [])
        self.assertIn("not in the table", compare({"k": ROW, "new": ROW})[0])
        self.assertIn("not compiled", compare({})[0])
        worse = self.changed(registers=99)
        self.assertEqual(len(compare({"k": worse})), 1)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(compare({"k": worse}, "1.3"), [])
        self.assertIn("not compared", said.getvalue())

        fresh = gate.updated(table, {"sm_80": {"k": worse}}, "1.2")
        self.assertEqual(fresh["kernels"]["k"]["sm_80"]["registers"], 99)
        self.assertEqual(fresh["kernels"]["k"]["sm_90"]["registers"], 40)
        self.assertNotIn("sm_90", gate.updated(table, {"sm_80": {"k": worse}}, "1.3")["kernels"]["k"])
        with tempfile.TemporaryDirectory() as folder:
            gate.write_table(Path(folder) / "t.json", fresh)
            self.assertEqual(json.loads((Path(folder) / "t.json").read_text()), fresh)

    def test_the_page(self):
        table = {"nvcc": "1.2", "kernels": {"k<int>": {"sm_80": ROW, "sm_90": ROW}}}
        line = gate.markdown(table).splitlines()[-1]
        self.assertEqual(line, "| `k<int>` | 256 | 1024 | 40, 40 | 75, 75 | 200 | 100 |  | 2 |  | 4/4 |  |  |  |  |  |")
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            page = Path(folder) / "page.md"
            page.write_text(f"before\n{gate.MARKERS[0]}\nold\n{gate.MARKERS[1]}\nafter\n")
            self.assertEqual(gate.write_markdown(page, table, check=True), 1)
            self.assertEqual(gate.write_markdown(page, table, check=False), 0)
            self.assertEqual(gate.write_markdown(page, table, check=True), 0)
            text = page.read_text()
            self.assertTrue(text.startswith("before\n") and text.endswith("after\n") and line in text)

    def test_every_kernel_has_to_be_compiled(self):
        failures = gate.uncompiled({"map_kernel<256, Add>"})
        self.assertFalse(any("map_kernel" in text for text in failures))
        self.assertTrue(any("sample_kernel" in text for text in failures), failures)


@unittest.skipUnless(NVCC, "there is no nvcc")
class Compiled(unittest.TestCase):
    """The gate as a command, on kernels written for it."""

    def run_gate(self, *arguments):
        done = subprocess.run([sys.executable, HERE / "gate.py", "--nvcc", NVCC, *arguments], text=True,
                              capture_output=True)
        return done.returncode, done.stdout + done.stderr

    def test_a_spill_fails(self):
        status, said = self.run_gate("--no-table", SAMPLES / "spills.cu")
        self.assertEqual(status, 1, said)
        self.assertRegex(said, r"spilling_kernel for sm_80: spills registers: \d+ bytes stored")
        self.assertRegex(said, r"spilling_kernel for sm_90: spills")

    def test_local_memory_fails(self):
        status, said = self.run_gate("--no-table", SAMPLES / "local.cu")
        self.assertEqual(status, 1, said)
        self.assertIn("local_kernel for sm_80: uses local memory", said)

    def test_a_clean_kernel_passes_once_it_is_in_the_table(self):
        self.assertEqual(self.run_gate("--no-table", SAMPLES / "clean.cu")[0], 0)
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "budgets.json"
            table.write_text('{"nvcc": "", "kernels": {}}')
            silent = Path(folder) / "silent.cu"
            silent.write_text("\n".join(line for line in (SAMPLES / "clean.cu").read_text().splitlines()
                                        if not line.startswith("PLUMB_LAUNCHED")))
            status, said = self.run_gate("--table", table, "--update", silent)
            self.assertEqual(status, 1)
            self.assertIn("has dynamic shared memory", said)
            self.assertEqual(self.run_gate("--table", table, "--update", SAMPLES / "clean.cu")[0], 0)
            status, said = self.run_gate("--table", table, SAMPLES / "clean.cu")
            self.assertEqual(status, 0, said)
            content = json.loads(table.read_text())
            self.assertEqual(content["kernels"]["clean_kernel<(Way)1, 128>"]["sm_80"]["dynamic_shared"], 2048)
            content["kernels"]["clean_kernel<(Way)1, 128>"]["sm_90"]["registers"] -= 1
            table.write_text(json.dumps(content))
            status, said = self.run_gate("--table", table, SAMPLES / "clean.cu")
            self.assertEqual(status, 1)
            self.assertRegex(said, r"clean_kernel<\(Way\)1, 128> for sm_90: \d+ registers, budget")


if __name__ == "__main__":
    unittest.main()
