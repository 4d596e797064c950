#!/usr/bin/env bash
# Builds and runs a program that uses Plumb as another project would.
# Usage: run.sh CONSUMER BUILD_DIRECTORY, with CMAKE and CXX in the environment. CONSUMER is a case
# below.
set -euo pipefail
consumers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(cd "$consumers/../.." && pwd)
consumer=$1 build=$2
cmake=${CMAKE:-cmake} cxx=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build_project() {  # <cmake arguments…>
  # A build type of no flags: nothing here is about speed.
  "$cmake" -S "$consumers/$consumer" -B "$work/build" -DCMAKE_BUILD_TYPE=None "$@"
  "$cmake" --build "$work/build" --parallel 1
}

case $consumer in
  add_subdirectory)
    build_project -DPLUMB_SOURCE_DIR="$source_dir"
    "$work/build/consumer"
    "$work/build/consumer_kernels"
    ;;
  fetch_content)
    build_project -DFETCHCONTENT_SOURCE_DIR_PLUMB="$source_dir" -DFETCHCONTENT_FULLY_DISCONNECTED=ON
    "$work/build/consumer"
    ;;
  find_package)
    # From a tree that was configured and never built.
    "$cmake" -S "$source_dir" -B "$work/unbuilt" -DPLUMB_TESTS=OFF -DPLUMB_EMULATOR=OFF
    "$cmake" --install "$work/unbuilt" --prefix "$work/prefix"
    build_project -DCMAKE_PREFIX_PATH="$work/prefix"
    "$work/build/consumer"
    "$work/build/consumer_kernels"
    if command -v pkg-config >/dev/null; then
      export PKG_CONFIG_PATH="$work/prefix/share/pkgconfig"
      # shellcheck disable=SC2046  # pkg-config prints words
      "$cxx" "$consumers/main.cpp" -o "$work/by_pkg_config" $(pkg-config --cflags --libs plumb)
      "$work/by_pkg_config"
    fi
    ;;
  extending)
    # The files of docs/extending.md, against an installed Plumb: they and nothing else.
    "$cmake" -S "$source_dir" -B "$work/unbuilt" -DPLUMB_TESTS=OFF -DPLUMB_EMULATOR=OFF
    "$cmake" --install "$work/unbuilt" --prefix "$work/prefix"
    mkdir "$work/project"
    awk -v to="$work/project/" '
      /^\*\*`.*`\*\*$/ { file = $0; gsub(/[*`]/, "", file) }
      /^```/ { if (inside) { inside = 0; file = "" } else if (file != "") { inside = 1; next } }
      inside { print > (to file) }' "$source_dir/docs/extending.md"
    if grep -rn 'detail' "$work/project"; then echo "the page needs plumb::detail"; exit 1; fi
    "$cmake" -S "$work/project" -B "$work/build" -DCMAKE_BUILD_TYPE=None -DCMAKE_PREFIX_PATH="$work/prefix"
    "$cmake" --build "$work/build" --parallel 1
    "$work/build/squared_relu"
    if nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc); then
      "$nvcc" -std=c++20 -fmad=false --expt-relaxed-constexpr -Xcompiler=-ffp-contract=off -arch=sm_80 \
        -I "$work/prefix/include" -I "$work/project" -DPLUMB_KERNELS_SEPARATE "$work/project/main.cu" \
        "$work/build/libplumb_kernels.a" -o "$work/on_gpu"
      "$work/on_gpu"
    else
      echo "nvcc is missing: the page's CUDA part was not built"
    fi
    ;;
  program)
    # The program, installed and moved, finds its data by its own place: it reads what is written
    # there.
    [[ -x $build/plumb ]] || { echo "skipped: the program was not built"; exit 77; }
    "$cmake" --install "$build" --prefix "$work/first"
    mv "$work/first" "$work/prefix"
    data=$work/prefix/share/plumb/data
    grep -q MIT "$data/README.md" || { echo "the licences of the data were not installed"; exit 1; }
    printf 'Zed the zebra met a cat. They played and played all day.\n<|endoftext|>\n' \
      >"$data/tinystories_heldout.txt"
    "$work/prefix/bin/plumb" generate --max-new-tokens 4 --out "$work/candidates.jsonl"
    grep -q 'Zed the zebra' "$work/candidates.jsonl" || { echo "it read other data"; exit 1; }
    ;;
  readme)
    # The README's program, by the README's command; not optimised, as nothing here is about speed.
    # shellcheck disable=SC2016  # the quotes of Markdown
    sed -n '/^```cpp$/,/^```$/p' "$source_dir/README.md" | sed '/^```/d' >"$work/main.cpp"
    command=$(sed -n 's/^    \(g++ .*main\.cpp.*\)/\1/p' "$source_dir/README.md")
    [[ -s $work/main.cpp && $command == g++* ]] || { echo "the README has no program or no command"; exit 1; }
    ln -s "$source_dir/include" "$work/include"
    cd "$work"
    # shellcheck disable=SC2086  # words
    $cxx ${command#g++} -O0 -Wall -Wextra -Werror -o main
    ./main
    ;;
  bench)
    # The program of docs/performance.md, by its command: its kernel is timed, and one beside it
    # that skips the tail is refused by name. No time is looked at.
    printf '#include <benchmark/benchmark.h>\n' | "$cxx" -E -x c++ - >/dev/null 2>&1 ||
      { echo "skipped: Google Benchmark is missing"; exit 77; }
    document=$source_dir/docs/performance.md
    sed -n '/^```cpp$/,/^```$/p' "$document" | sed '/^```/d' >"$work/my_bench.cpp"
    command=$(sed -n 's/^    \(g++ .*my_bench\.cpp.*\)/\1/p' "$document")
    [[ -s $work/my_bench.cpp && $command == g++* ]] || { echo "the document has no program"; exit 1; }
    ln -s "$source_dir/include" "$work/include"
    cd "$work"
    { sed '/^PLUMB_BENCH_MAIN/d' my_bench.cpp
      echo 'void tailless(float* y, const float* x, Index n) { my_gelu(y, x, n / 8 * 8); }'
      sed -n 's/^PLUMB_BENCH(my_gelu/PLUMB_BENCH(tailless/p; /^PLUMB_BENCH_MAIN/p' my_bench.cpp
    } >with_cheat.cpp
    # shellcheck disable=SC2086  # words
    $cxx -Wall -Wextra -Wconversion -Wshadow -Werror $(sed 's/my_bench.cpp/with_cheat.cpp/' <<<"${command#g++}")
    status=0
    ./my_bench --benchmark_min_time=0.001 --roofline out.svg >printed 2>&1 || status=$?
    cat printed
    [[ $status == 1 ]] || { echo "a wrong kernel gave status $status"; exit 1; }
    grep -q 'my_gelu/n=1023/threads:1/cold.*%bound' printed
    grep -q 'tailless/n=1023: leaves elements unwritten: .*element 1016 of argument 1' printed
    grep -q '<circle' out.svg
    ./my_bench --save one --rounds 2 --benchmark_filter=my_gelu/n=65536
    ./my_bench --compare one one | tee printed
    grep -q 'my_gelu/n=65536/threads:1 .*UNSURE' printed  # two times are too few to say more
    ./my_bench --compare ./my_bench ./my_bench --rounds 2 --benchmark_filter=my_gelu/n=65536
    ;;
  plain)
    "$cxx" -std=c++20 -I "$source_dir/include" -pthread "$consumers/main.cpp" -o "$work/consumer"
    "$work/consumer"
    ;;
  two_tu)
    # One unit may use every instruction of this machine, the other only the baseline's. Whichever
    # copy of a shared inline function the linker keeps, the bits must be the same.
    compile() { "$cxx" -std=c++20 -O1 -I "$source_dir/include" -pthread -c "$@"; }
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
