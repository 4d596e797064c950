#!/usr/bin/env bash
# Kernel and determinism tests built for 64-bit ARM and run by qemu, where each instruction set must
# give the scalar one's bits; and the fingerprints of same_bits/training.cpp, which must be those of
# this machine. Programs are linked statically, so that no libraries of that system are needed.
#
#   aarch64.sh WORK_DIRECTORY TRAINING [TEST…]
#
# TRAINING: plumb_training of this machine. TEST: names of tests; all of the kernels if none is
# given. AARCH64_CXX and AARCH64_RUN name another compiler and how its programs are run (nothing, on
# such a processor). Skipped (77) where either is missing.
set -euo pipefail

work=$1 training=$2
shift 2
tests=("$@")
((${#tests[@]})) || tests=(arithmetic attention core elementary elementwise floats gemm head loss norm ops optimizer
                           random real reduce rows sampling determinism)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cxx=${AARCH64_CXX-aarch64-linux-gnu-g++} run=${AARCH64_RUN-qemu-aarch64-static}
for tool in $cxx ${run:+"$run"}; do
  command -v "$tool" >/dev/null && continue
  echo "skipped: $tool is missing. Install it:  sudo apt-get install g++-aarch64-linux-gnu qemu-user-static"
  exit 77
done
mkdir -p "$work/headers"

# The headers of libraries that are headers alone: the rest of /usr/include is this processor's.
for header in doctest nlohmann xxhash.h xxh3.h; do
  [[ -e /usr/include/$header ]] && ln -sfn "/usr/include/$header" "$work/headers/$header"
done
if [[ ! -e $work/headers/doctest || ! -e $work/headers/xxhash.h ]]; then
  echo "skipped: doctest or xxhash.h is missing. Install it:  sudo apt-get install doctest-dev libxxhash-dev"
  exit 77
fi

flags=(-std=c++20 -ffp-contract=off -Wall -Wextra -Wconversion -Wshadow -Wno-psabi -Werror
       -I "$root/include" -isystem "$work/headers" -DPLUMB_SOURCE_DIR="\"$root\"")
compile() {  # <object> <source> <flags…>
  $(command -v ccache || true) $cxx "${flags[@]}" "${@:3}" -c "$2" -o "$1"
}
around=(-O1 -DPLUMB_KERNELS_SEPARATE)  # what is around the kernels is not where time goes
compile "$work/kernels.o" "$root/cmake/kernels.cpp" -O2
compile "$work/training.o" "$root/tests/same_bits/training.cpp" "${around[@]}"
$cxx -static "$work/training.o" "$work/kernels.o" -o "$work/training"

# Emulated, threads wait for one another longer than they work.
export PLUMB_TEST_SANITIZED=1 PLUMB_NUM_THREADS=${PLUMB_NUM_THREADS:-2}
"$training" >"$work/here.txt"
for isa in scalar neon; do
  PLUMB_ISA=$isa $run "$work/training" >"$work/$isa.txt"
  diff "$work/here.txt" "$work/$isa.txt" || { echo "FAILED: the fingerprints differ, $isa"; exit 1; }
  echo "$(wc -l <"$work/$isa.txt") fingerprints of a training are this machine's, by $isa"
done
cat "$work/here.txt"

failed=()
compile "$work/main.o" "$root/tests/main.cpp" -O1
for name in "${tests[@]}"; do
  compile "$work/test_$name.o" "$root/tests/test_$name.cpp" "${around[@]}"
  $cxx -static "$work/test_$name.o" "$work/main.o" "$work/kernels.o" -o "$work/test_$name"
  start=$SECONDS
  $run "$work/test_$name" >"$work/test_$name.txt" 2>&1 || failed+=("$name")
  echo "test_$name: $(grep 'test cases' "$work/test_$name.txt" || echo "no result"), $((SECONDS - start)) s"
  rm -f "$work/test_$name" "$work/test_$name.o"
done
if ((${#failed[@]})); then
  for name in "${failed[@]}"; do tail -n 40 "$work/test_$name.txt"; done
  echo "FAILED: ${failed[*]}"
  exit 1
fi
