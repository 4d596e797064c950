#!/usr/bin/env bash
# Builds and runs a program that uses Plumb as another project would.
# Usage: run.sh add_subdirectory|find_package|plain|two_tu|cuda BUILD_DIRECTORY; CMAKE, CXX in the environment.
set -euo pipefail
consumers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(cd "$consumers/../.." && pwd)
consumer=$1 build=$2
cmake=${CMAKE:-cmake} cxx=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build_project() {  # <cmake arguments…>
  "$cmake" -S "$consumers/$consumer" -B "$work/build" "$@"
  "$cmake" --build "$work/build" --parallel 1
}

case $consumer in
  add_subdirectory)
    build_project -DPLUMB_SOURCE_DIR="$source_dir"
    "$work/build/consumer"
    "$work/build/consumer_kernels"
    ;;
  find_package)
    "$cmake" --install "$build" --prefix "$work/prefix"
    build_project -DCMAKE_PREFIX_PATH="$work/prefix"
    "$work/build/consumer"
    if command -v pkg-config >/dev/null; then
      export PKG_CONFIG_PATH="$work/prefix/share/pkgconfig"
      # shellcheck disable=SC2046  # pkg-config prints words
      "$cxx" "$consumers/main.cpp" -o "$work/by_pkg_config" $(pkg-config --cflags --libs plumb)
      "$work/by_pkg_config"
    fi
    ;;
  plain)
    "$cxx" -std=c++20 -I "$source_dir/include" -pthread "$consumers/main.cpp" -o "$work/consumer"
    "$work/consumer"
    ;;
  two_tu)
    # One unit may use every instruction of this machine, the other only the baseline's. Whichever
    # copy of a shared inline function the linker keeps, the bits must be the same.
    compile() { "$cxx" -std=c++20 -O2 -I "$source_dir/include" -pthread -c "$@"; }
    compile -march=native "$consumers/two_tu/a.cpp" -o "$work/a.o"
    compile "$consumers/two_tu/b.cpp" -o "$work/b.o"
    "$cxx" "$work/a.o" "$work/b.o" -pthread -o "$work/ab"
    "$cxx" "$work/b.o" "$work/a.o" -pthread -o "$work/ba"
    { "$work/ab"; "$work/ba"; } | tee "$work/hashes"
    [[ $(sort -u "$work/hashes" | wc -l) == 1 ]] || { echo "the hashes differ"; exit 1; }
    ;;
  cuda)
    nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc) || { echo "skipped: nvcc is missing"; exit 77; }
    "$cmake" --install "$build" --prefix "$work/prefix"
    build_project -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES=80
    "$work/build/consumer"
    ;;
  *)
    echo "no such consumer: $consumer" >&2
    exit 2
    ;;
esac
