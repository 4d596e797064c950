#!/usr/bin/env python3
"""What ptx_translate.py must refuse, with the line and the kernel in its message, and what it must take.

    ptx_refusals.py <ptx_translate.py>
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """.version 9.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 room[];
.visible .entry kernel(
	.param .u64 kernel_param_0
)
{
	.reg .pred 	%p<4>;
	.reg .f32 	%f<8>;
	.reg .b32 	%r<8>;
	.reg .b64 	%rd<4>;
"""
LINE = HEAD.count("\n") + 1  # of the first statement

# statement, what the message must hold (None: taken), options
CASES = [
    ("add.s32 %r1, %r2, 1;", None),
    ("wgmma.fence.sync.aligned;", "opcode wgmma.fence"),
    ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f1, %f2}];", "opcode tex.2d"),
    ("add.wrap.s32 %r1, %r2, 1;", "modifier .wrap"),
    ("ld.global.L3::keep.f32 %f1, [%rd1];", "modifier .L3::keep"),
    ("add.e4m3 %r1, %r2, %r3;", "type of add.e4m3"),
    ("ld.global.b128 %rd1, [%rd1];", "type of ld.global.b128"),
    ("bar.sync 0;", None),
    ("bar.sync 1, 64;", "only barrier 0"),
    ("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r1,%r2,%r3,%r4}, {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r1,%r2,%r3,%r4};", "not known"),
    ("cp.async.cg.shared.global [%r1], [%rd1], 8;", "cp.async.cg"),
    ("cp.async.bulk.commit_group;", "not known"),
    ("mov.u32 %r1, %cluster_ctaid.x;", "special register %cluster_ctaid.x"),
    ("mov.u32 %r1, %r9;", "special register %r9"),
    ("mov.u32 %r1, nowhere;", "operand nowhere"),
    ("bra $L__nowhere;", "label $L__nowhere"),
    ("ld.param.u64 %rd1, [kernel_param_0+4];", "bytes 4 to 12"),
    ("ld.param.u64 %rd1, [kernel_param_1];", "parameter kernel_param_1"),
    ("call.uni vprintf, (kernel_param_0);", "call of vprintf"),
    ("cvt.f16.f32 %r1, %f1;", "without a rounding"),
    ("cvt.s32.f32 %r1, %f1;", "without a rounding"),
    ("@%p9 ret;", "predicate %p9"),
    ("setp.lo.f32 %p1, %f1, %f2;", "comparison .lo"),
    (".maxnreg 32;", "directive .maxnreg"),
    ("add.s32 %r1, %r2, 1", "does not end"),
    ("ex2.approx.f32 %f1, %f2;", None),
    ("ex2.approx.f32 %f1, %f2;", "--forbid-approximate rules out", "--forbid-approximate"),
    ("div.full.f32 %f1, %f2, %f3;", "--forbid-approximate rules out", "--forbid-approximate"),
    ("div.rn.f32 %f1, %f2, %f3;", None, "--forbid-approximate"),
]


def translate(translator, folder, statement, options):
    source = folder / "case.ptx"
    source.write_text(HEAD + "\t" + statement + "\n\tret;\n}\n" if statement.endswith(";") else HEAD + "\t" + statement + "\n}\n")
    return subprocess.run([sys.executable, "-B", translator, source, "-o", folder / "case.cpp", *options],
                          capture_output=True, text=True, check=False)


def main():
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for statement, expected, *options in CASES:
            output = folder / "case.cpp"
            output.unlink(missing_ok=True)
            result = translate(sys.argv[1], folder, statement, options)
            if expected is None:
                good = result.returncode == 0 and output.exists()
            else:
                place = re.match(rf".*case\.ptx:{LINE}: error: ", result.stderr)
                named = "kernel" in result.stderr or expected == "does not end"
                good = result.returncode == 1 and expected in result.stderr and place and named and not output.exists()
            if not good:
                failures += 1
                print(f"{statement}\n  expected: {expected or 'taken'}\n  status {result.returncode}: {result.stderr.strip()}")
        contractible = translate(sys.argv[1], folder, "add.f32 %f1, %f2, %f3;", [])
        if contractible.returncode != 0 or "may contract" not in contractible.stderr:
            failures += 1
            print(f"a contractible add must be a warning: {contractible.stderr}")
    print(f"{len(CASES) + 1} cases, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
