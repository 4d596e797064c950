"""The files of this tree, for the scripts that look at all of them: git's, or where there is no git
(or no repository) those that lie here."""
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def source_files() -> list[str]:
    if shutil.which("git"):
        listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
        if listed.returncode == 0:
            return listed.stdout.split("\n")
    return [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*")
            if not {"build", ".git", "__pycache__"} & set(p.relative_to(ROOT).parts)]
