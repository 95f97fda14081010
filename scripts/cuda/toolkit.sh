#!/usr/bin/env bash
# toolkit.sh DIR: CUDA 13.0's compiler and headers in DIR, from NVIDIA's wheels on PyPI. Needs python3 with pip, no root and
# no GPU; 102 MB are fetched, 271 MB stay. A DIR that is complete is left as it is. docs/cuda.md says what it is for.
set -euo pipefail

# A driver takes PTX up to its own CUDA version: 13.0 for the 580 drivers.
packages=(
  nvidia-cuda-nvcc==13.0.88       # nvcc, ptxas
  nvidia-cuda-crt==13.0.88        # the headers nvcc includes unasked
  nvidia-nvvm==13.0.88            # from C++ to PTX
  nvidia-cuda-runtime==13.0.96    # cuda_runtime.h, cuda_bf16.h
  nvidia-cuda-cccl==13.0.85       # cuda/std
)

fail() { echo "scripts/cuda/toolkit.sh: $*" >&2; exit 1; }
[ $# = 1 ] || fail "one argument (expected the folder to fill)"
[ "$(uname -sm)" = "Linux x86_64" ] || fail "$(uname -sm) (expected Linux x86_64; elsewhere set CUDA_HOME to a CUDA 13.0)"
command -v python3 > /dev/null || fail "python3 is missing"

dir=$1
complete=$dir/complete
[ "$(cat "$complete" 2> /dev/null)" = "${packages[*]}" ] && exit 0
[ ! -e "$dir" ] || [ -e "$complete" ] || [ -z "$(ls -A "$dir")" ] || fail "$dir holds something else (expected a new folder)"

mkdir -p "$(dirname "$dir")"
partial=$(mktemp -d "$dir.partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
echo "== CUDA's compiler (102 MB)" >&2
PIP_ROOT_USER_ACTION=ignore python3 -m pip --disable-pip-version-check install --quiet --no-deps --no-compile \
  --no-warn-conflicts --only-binary=:all: --target "$partial" "${packages[@]}" || fail "pip could not fetch ${packages[*]}"
root=$partial/nvidia/cu13
chmod +x "$root"/bin/* "$root"/nvvm/bin/*
[[ $("$root/bin/nvcc" --version) == *"release 13.0,"* ]] || fail "what was fetched is not nvcc 13.0"
echo "${packages[*]}" > "$root/complete"
rm -rf "$dir"
mv "$root" "$dir"
