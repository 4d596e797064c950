#!/usr/bin/env bash
# ./plumb where things are set up in other ways: a path that is not ASCII, no g++, another CXX, a
# place to build that is not in the tree. Usage: setup.sh SCRATCH_DIRECTORY
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$1
rm -rf "$scratch"
mkdir -p "$scratch"
unset CXX PLUMB_BUILD CMAKE_GENERATOR

fail() {
  echo "FAILED: $*"
  exit 1
}

# The sources under a name that is not ASCII and has a space.
tree="$scratch/plümb тест"
mkdir "$tree"
tar -C "$root" --exclude=./build --exclude=./.git -cf - . | tar -C "$tree" -xf -
before=$(cd "$tree" && find . | sort | sha256sum)

# By the real CMake: a preset, elsewhere.
(cd "$tree" && cmake --preset dev -B "$scratch/by cmake" && cmake --build "$scratch/by cmake" \
  --target plumb_test_main) >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "a path that is not ASCII"; }

# Every program of this machine, but CMake, which says how it was called, and apt, which must not
# be.
tools="$scratch/tools"
mkdir "$tools"
ln -s /usr/bin/* /usr/local/bin/* "$tools" 2>/dev/null || true
rm -f "$tools"/{cmake,apt-get,sudo}
cat >"$tools/cmake" <<'STUB'
#!/bin/sh
if [ "$1" = --version ]; then echo "cmake version 3.25.1"; else echo "CXX=$CXX $*" >>"$CALLS"; fi
STUB
printf '#!/bin/sh\necho "apt-get was called" >&2\nexit 1\n' >"$tools/apt-get"
chmod +x "$tools/cmake" "$tools/apt-get"
export CALLS="$scratch/calls"

# called NAME=VALUE…: how `./plumb build` then calls CMake.
called() {
  : >"$CALLS"
  (cd / && env PATH="$tools" "$@" "$tree/plumb" build) >"$scratch/log" 2>&1 ||
    { cat "$scratch/log"; fail "./plumb build with $*"; }
  cat "$CALLS"
}
[[ $(called PLUMB_BUILD="$scratch/other") == *"-B $scratch/other/release"*"--build $scratch/other/release"* ]] ||
  fail "PLUMB_BUILD is not where it builds"
[[ $(called PLUMB_BUILD="$scratch/other" CXX="g++ -pipe") == "CXX=g++ -pipe "* ]] || fail "CXX is not what it builds with"
touch "$scratch/other/release/CMakeCache.txt"
called PLUMB_BUILD="$scratch/other" CXX=g++ >/dev/null
[[ ! -e $scratch/other/release/CMakeCache.txt ]] || fail "the cache of another compiler was kept"
if (PATH="$tools" CXX=none-such PLUMB_BUILD="$scratch/other" "$tree/plumb" build) >"$scratch/log" 2>&1 ||
  ! grep -q "CXX is 'none-such'" "$scratch/log"; then
  fail "a CXX that is not there"
fi
if command -v clang++ >/dev/null; then
  rm -f "$tools"/{g++,gcc,c++,cc}
  [[ $(called PLUMB_BUILD="$scratch/clang") == CXX=clang++* ]] || fail "clang alone does not do"
else
  echo "not tried, as there is no clang++: clang alone"
fi
touch "$scratch/a file"
if (PATH="$tools" PLUMB_BUILD="$scratch/a file" "$tree/plumb" build) >"$scratch/log" 2>&1 ||
  ! grep -q "HINT: PLUMB_BUILD" "$scratch/log"; then
  fail "a place that cannot be written to"
fi
[[ $(cd "$tree" && find . | sort | sha256sum) == "$before" ]] || fail "a build elsewhere wrote into its tree"

# What the commands write by default is not the repository's.
if git -C "$root" rev-parse >/dev/null 2>&1; then
  for file in run/report.html ppo-run/policy.safetensors plumb-demo-1/report.html; do
    git -C "$root" check-ignore -q $file || fail "git sees the directories of runs"
  done
  ! git -C "$root" check-ignore -q include/plumb/run/metrics.hpp || fail "git ignores sources"
fi
echo "all right"
