#!/usr/bin/env bash
# Line coverage of include/ by the unit tests; builds in build/coverage. Not a gate: a number to
# read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${PLUMB_BUILD:-build}/coverage
# Counters are atomic because the kernels run on several threads; at -O1 lines that ran count as
# missed.
flags="--coverage -fprofile-update=atomic"
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=g++ -DCMAKE_CXX_COMPILER_LAUNCHER= \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O0 -g1 $flags" -DPLUMB_EXAMPLES=OFF >/dev/null
cmake --build "$build" --parallel "$(nproc)"
find "$build" -name '*.gcda' -delete

# An inline function that no test calls is in no object file, and so would not count as missed. One
# more object keeps every inline function of every header and is never run. (Templates that nobody
# instantiates still escape.)
mkdir -p "$build/all_headers"
(cd include && find plumb -name '*.hpp' ! -name '*.inl.hpp' ! -path 'plumb/cpu/simd_*' | sort) |
  sed 's/.*/#include <&>/' >"$build/all_headers/all_headers.cpp"
# shellcheck disable=SC2086  # flags are words
g++ -std=c++20 -O0 $flags -fkeep-inline-functions -I include -pthread \
  -c "$build/all_headers/all_headers.cpp" -o "$build/all_headers/all_headers.o"

status=0
PLUMB_TEST_SANITIZED=1 ctest --test-dir "$build" -L unit -j "$(nproc)" --output-on-failure || status=$?
python3 tests/scripts/coverage.py "$build"
exit $status
