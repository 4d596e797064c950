#!/usr/bin/env python3
"""Adds up what gcov says of include/ over every object of a build; a line that ran in any, ran.

gcovr 5.2 (Debian 12) refuses headers whose functions differ between translation units.
Usage: coverage.py BUILD_DIRECTORY
"""
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

INCLUDE = Path(__file__).parents[2] / "include"


def main() -> int:
    ran = defaultdict(dict)  # header -> line -> whether it ran
    for notes in sorted(Path(sys.argv[1]).resolve().rglob("*.gcno")):
        output = subprocess.run(["gcov", "--json-format", "--stdout", str(notes)], capture_output=True,
                                text=True, check=True, cwd=INCLUDE.parent).stdout
        for document in filter(None, output.split("\n")):
            for file in json.loads(document)["files"]:
                path = (INCLUDE.parent / file["file"]).resolve()
                if path.is_relative_to(INCLUDE):
                    lines = ran[path.relative_to(INCLUDE).as_posix()]
                    for line in file["lines"]:
                        number = line["line_number"]
                        lines[number] = lines.get(number, False) or line["count"] > 0
    for header, lines in sorted(ran.items()):
        if not lines:
            continue  # declarations only
        missed = sorted(number for number, hit in lines.items() if not hit)
        shown = " ".join(map(str, missed[:12])) + (" …" if len(missed) > 12 else "")
        print(f"{100 * (1 - len(missed) / len(lines)):5.1f} %  {len(lines):5d} lines  {header}"
              + (f"  missed: {shown}" if missed else ""))
    total = sum(map(len, ran.values()))
    hit = sum(sum(lines.values()) for lines in ran.values())
    print(f"include/: {hit} of {total} lines ran, {100 * hit / max(total, 1):.1f} %")
    return 0 if total else 1


if __name__ == "__main__":
    sys.exit(main())
