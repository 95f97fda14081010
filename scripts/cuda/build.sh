#!/usr/bin/env bash
# build.sh [CARGO ARGUMENTS]: cargo with what the feature `cuda` needs, on a machine with neither GPU nor CUDA.
# Without arguments: build --release --locked --features cuda. The program is target/cuda/build/release/rebel.
#
# Everything is kept in target/cuda: the compiler (toolkit.sh), the changed copies of two dependencies (patch-candle.sh) and
# a target folder of its own. Cargo.toml, Cargo.lock and target/release stay as they are.
#   CUDA_HOME         a CUDA 13.0 that is there already, instead of the fetched one
#   CUDA_COMPUTE_CAP  the oldest GPU the kernels are for: 80 by default, which every later one runs too
set -euo pipefail

[ $# -gt 0 ] || set -- build --release --locked --features cuda
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/cuda
mkdir -p "$work"
work=$(cd "$work" && pwd)

if [ ! -x "${CUDA_HOME:-}/bin/nvcc" ]; then
  "$here/toolkit.sh" "$work/toolkit"
  CUDA_HOME=$work/toolkit
fi
(cd "$root" && cargo fetch --quiet --locked --target x86_64-unknown-linux-gnu)
"$here/patch-candle.sh" "$work/candle"

export CUDA_HOME CUDA_PATH=$CUDA_HOME NVCC=$CUDA_HOME/bin/nvcc PATH=$CUDA_HOME/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CUDARC_CUDA_VERSION=13000
export CARGO_TARGET_DIR=$work/build
# An override of paths wants no change of Cargo.lock. It stands after the subcommand: clippy gets nothing of what is before.
cd "$root"
exec cargo "$1" --config "paths = [\"$work/candle/cudarc-0.19.10\", \"$work/candle/candle-kernels-0.11.1\"]" "${@:2}"
