#!/usr/bin/env bash
# Gets what the comparison needs: OpenBLAS, oneDNN and Eigen from the distribution, PyTorch in a
# virtual environment of its own.
#   bench/compare/setup.sh [--llama] [--trl] [DIRECTORY]     DIRECTORY: build/compare-venv
# PyTorch's Linux wheel is the CUDA build, and does not load without CUDA's libraries even where
# there is no GPU: 4.4 GB. --llama also builds llama-cpp-python, which takes a while (its log:
# DIRECTORY/llama.log); --trl installs TRL.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
llama='' trl=''
while [[ ${1:-} == --* ]]; do
  case $1 in
    --llama) llama=yes ;;
    --trl) trl=yes ;;
  esac
  shift
done
venv=${1:-${PLUMB_BUILD:-$here/../../build}/compare-venv}

say() { printf '%s\n' "setup: $*" >&2; }

# --- The distribution's packages: each peer is optional ---------------------------------------

header() {
  local directory
  for directory in /usr/include /usr/include/*-linux-gnu{,/openblas*}; do
    [[ -e $directory/$1 ]] && return 0
  done
  return 1
}
missing=()
header cblas.h || missing+=(libopenblas-dev)
header dnnl.h || missing+=(libdnnl-dev)
header eigen3/Eigen/Core || missing+=(libeigen3-dev)
if ((${#missing[@]})); then
  if ((EUID == 0)) && command -v apt-get >/dev/null; then
    say "to install with apt: ${missing[*]}"
    apt-get update >/dev/null || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" \
      </dev/null >/dev/null || say "apt-get could not install them: these peers are left out"
  else
    say "these peers are left out unless you install them: ${missing[*]}"
  fi
fi

# --- PyTorch ----------------------------------------------------------------------------------

mkdir -p "$(dirname "$venv")"
[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
imports() { "$venv/bin/python" -c 'import torch' >/dev/null 2>&1; }

# What the wheel asks for, without those whose name matches $1.
requirements() {
  "$venv/bin/python" - "$1" <<'PYTHON'
import importlib.metadata, re, sys
for line in importlib.metadata.requires("torch"):
    if "extra ==" not in line and not re.match(sys.argv[1], line):
        print(line)
PYTHON
}

if ! imports; then
  say "installing PyTorch"
  pip --no-deps torch
  # From the leanest to the whole: a CPU build would do without CUDA; Triton serves GPUs alone.
  for without in 'nvidia|cuda|triton' 'cuda-bindings|triton' 'nothing'; do
    mapfile -t wanted < <(requirements "$without")
    pip numpy "${wanted[@]}" 2>/dev/null || true
    if imports; then break; fi
    say "does not load without: $without"
  done
  imports || { "$venv/bin/python" -c 'import torch' || true; say "PyTorch does not load"; exit 1; }
fi
if grep -q AuthenticAMD /proc/cpuinfo; then
  "${CC:-cc}" -shared -fPIC -O2 "$here/mkl_vendor.c" -o "$venv/mkl_vendor.so"
fi
say "$("$venv/bin/python" -c 'import torch; print("PyTorch", torch.__version__)') in $venv"

if [[ -n $trl ]]; then
  pip trl || say "TRL was not installed: it is left out"
fi

# --- llama.cpp, by its Python binding ---------------------------------------------------------

if [[ -n $llama ]] && ! "$venv/bin/python" -c 'import llama_cpp, gguf' 2>/dev/null; then
  say "building llama-cpp-python (at most 30 minutes)"
  export CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF"
  timeout 1800 "$venv/bin/python" -m pip install --verbose --no-binary llama-cpp-python \
    llama-cpp-python gguf >"$venv/llama.log" 2>&1 ||
    say "llama-cpp-python was not built: it is left out (see $venv/llama.log)"
fi
