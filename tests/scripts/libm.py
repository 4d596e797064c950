#!/usr/bin/env python3
"""No result depends on the system's mathematics library.

Runs a short training, and a short `plumb align`, with the system's library and with others, whose
functions give the next double or one that is 2^30 further: every printed figure must be the same.
And no program may ask that library for a function whose result is not fixed to the bit.

usage: libm.py OTHER_LIBRARY TRAINING [PLUMB WORK_DIRECTORY]
"""
import json
import os
import shutil
import subprocess
import sys

ROUNDED = set("exp exp2 exp10 expm1 log log2 log10 log1p pow sin cos tan sincos asin acos atan atan2 sinh cosh tanh "
              "asinh acosh atanh erf erfc cbrt hypot tgamma lgamma".split())
LIBRARIES = ["1", str(2**30)]
ALIGN = ["--rounds", "1", "--rank-prompts", "20", "--generate-max-new-tokens", "24", "--ppo-max-new-tokens", "24",
         "--iterations", "3", "--ppo-prompts", "8", "--minibatches", "2", "--ppo-epochs", "2", "--kl", "k3",
         "--micro-tokens", "2048", "--reward-micro-tokens", "2048", "--sft-micro-tokens", "2048",
         "--eval-prompts", "8", "--eval-stories", "5"]
failures = []


def check(ok, what):
    print(("ok      " if ok else "FAILED  ") + what, flush=True)
    if not ok:
        failures.append(what)


def asks_for(program):
    """Functions of the library that a program needs, by its table of symbols."""
    table = subprocess.run(["nm", "--dynamic", "--undefined-only", program], capture_output=True, text=True, check=True)
    names = {line.split()[-1].split("@")[0] for line in table.stdout.splitlines()}
    return sorted(n for n in names if n.removesuffix("f") in ROUNDED or n.removesuffix("l") in ROUNDED)


def environment(ulps):
    if ulps is None:
        return dict(os.environ)
    return {**os.environ, "LD_PRELOAD": OTHER, "PLUMB_ULPS_OFF": ulps}


def training(ulps):
    done = subprocess.run([TRAINING], capture_output=True, text=True, check=True, env=environment(ulps))
    return done.stdout


def align(ulps):
    """The results of a run, but for times."""
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    done = subprocess.run([PLUMB, "align", "--run", "run", *ALIGN, "--json", "out.json"], capture_output=True,
                          text=True, cwd=WORK, env=environment(ulps))
    if done.returncode:
        sys.exit(f"plumb align: {done.stderr[-2000:]}")
    results = json.load(open(os.path.join(WORK, "out.json")))
    return {key: value for key, value in results.items() if "second" not in key}


OTHER, TRAINING = map(os.path.abspath, sys.argv[1:3])
# The other library must be in force, or every comparison would hold.
probe = "import math; print(math.exp(1.1), math.pow(1.1, 2.2), math.log(3), math.cos(1))"
said = {subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True,
                       env=environment(ulps)).stdout for ulps in [None, *LIBRARIES]}
check(len(said) == 3, "another library changes what python computes")

own = training(None)
print(own, end="")
check(len(own.splitlines()) > 10, "the training prints a fingerprint of each part")
for ulps in LIBRARIES:
    check(training(ulps) == own, f"the training by a library that is {ulps} off")
programs = [TRAINING]
if len(sys.argv) > 3:
    PLUMB, WORK = map(os.path.abspath, sys.argv[3:5])
    programs.append(PLUMB)
    own = align(None)
    print("policy", own["policy_fingerprint"])
    for ulps in LIBRARIES:
        other = align(ulps)
        differ = sorted(key for key in {*own, *other} if own.get(key) != other.get(key))
        check(not differ, f"plumb align by a library that is {ulps} off" + (f": {differ}" if differ else ""))
for program in programs:
    asked = asks_for(program)
    check(not asked, f"{os.path.basename(program)} asks for none of its functions" + (f": {asked}" if asked else ""))
sys.exit(1 if failures else 0)
