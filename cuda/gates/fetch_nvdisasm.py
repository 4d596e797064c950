#!/usr/bin/env python3
"""Fetches nvdisasm, which the CUDA toolkit's smaller packages leave out, from PyPI into a folder.

The gate counts instructions with it. A later nvdisasm reads what an earlier nvcc wrote.

Usage: fetch_nvdisasm.py FOLDER      prints the program's path; 77 and the reason where it cannot
"""
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nvidia-cuda-nvdisasm==13.5.37"


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = Path(sys.argv[1]).resolve() / "nvdisasm"
    if not program.exists():
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder,
                                   PACKAGE], text=True, capture_output=True)
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode != 0 or not wheels:
                print(f"skipped: pip cannot fetch {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                return 77
            with zipfile.ZipFile(wheels[0]) as wheel:
                name = next(n for n in wheel.namelist() if n.endswith("bin/nvdisasm"))
                program.parent.mkdir(parents=True, exist_ok=True)
                program.write_bytes(wheel.read(name))
                program.chmod(0o755)
    print(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
