#!/usr/bin/env python3
"""What the documents name exists: every path, and every name of code, in README, CONTRIBUTING and docs/.

A path is a link or what looks like one in backticks; a name of code is an identifier in backticks with an
underscore, a capital inside or parentheses behind it.

Usage: docs.py
"""
import re
import sys
from pathlib import Path

from sources import ROOT, source_files

# Where a path may begin.
BASES = ["", "include/plumb", "cuda", "cuda/plumb", "docs", "examples", "tests", "cuda/emulator"]
# Names that no source has, each with its reason.
ALLOWED = {
    "PascalCase", "snake_case", "kName", "trailing_",  # how names are formed
    "target_clones", "vdpbf16ps", "find_package",  # of compilers, processors and CMake
    "LogExpLoss", "center_rewards_coefficient",  # of the programs that a formula comes from
}


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tracked() -> tuple[set[str], str]:
    files = source_files()
    code = "\n".join((ROOT / f).read_text(errors="replace") for f in files
                     if re.search(r"\.([hc]pp|cuh?|py|sh|cmake|inl|in|json)$|CMakeLists.txt$|^plumb$|^\.ci/run$", f)
                     and not f.startswith("examples/data") and (ROOT / f).is_file())
    return set(files), code


def path_exists(document: Path, path: str) -> bool:
    path = path.split("#")[0].rstrip("/")
    places = [document.parent, *(ROOT / base for base in BASES)]
    return any((place / path).exists() or ("*" in path and any(place.glob(path))) for place in places)


def problems(document: Path, files: set[str], code: str, words: set[str]):
    text = document.read_text()
    for match in re.finditer(r"\]\(([^)\s]+)\)", text):
        target = match.group(1)
        if not re.match(r"https?:|#", target) and not path_exists(document, target):
            yield match.start(), f"links to {target}, which does not exist"
    text = re.sub(r"^```.*?^```", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S | re.M)
    for match in re.finditer(r"`([^`\n]+)`", text):
        name = match.group(1)
        if re.fullmatch(r"[\w.*-]+(/[\w.*-]+)+/?|[\w-]+\.(hpp|cuh|cpp|cu|py|md|json|cmake)", name):
            # A name with a slash may be a metric's.
            if not (path_exists(document, name) or any(f.endswith("/" + name) for f in files)
                    or f'"{name}"' in code or f"**`{name}`**" in text):  # of which the text is there
                yield match.start(), f"names the path {name}, which does not exist"
        elif re.fullmatch(r"(\w+::)*\w+(\(.*\))?", name) and re.search(r"_|[a-z][A-Z]|\(", name):
            for part in re.split(r"::", name.split("(")[0]):
                if part not in words and part not in ALLOWED:
                    yield match.start(), f"names {part}, which no source has"


def main() -> int:
    files, code = tracked()
    words = set(re.findall(r"\w+", code)) | {Path(f).stem for f in files}
    found = 0
    for document in documents():
        for start, message in problems(document, files, code, words):
            line = document.read_text().count("\n", 0, start) + 1
            print(f"{document.relative_to(ROOT)}:{line}: {message}")
            found += 1
    print(f"{len(documents())} documents, {found} problems")
    return 1 if found or len(words) < 1000 else 0


if __name__ == "__main__":
    sys.exit(main())
