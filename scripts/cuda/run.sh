#!/usr/bin/env bash
# run.sh PROGRAM [ARGUMENTS]: runs a program made by build.sh on a machine with an NVIDIA driver. Where no CUDA is installed,
# the libraries of a PyTorch for CUDA 13 serve (cuBLAS, cuRAND): those of `python3`, or of the one PYTHON names.
set -euo pipefail

[ $# -gt 0 ] || { echo "scripts/cuda/run.sh: no program (expected: run.sh PROGRAM [ARGUMENTS])" >&2; exit 2; }
if command -v "${PYTHON:-python3}" > /dev/null; then
  folders=$("${PYTHON:-python3}" -c '
import pathlib, sys
print(":".join(str(lib) for path in sys.path if path for lib in sorted(pathlib.Path(path).glob("nvidia/*/lib"))))')
  [ -z "$folders" ] || export LD_LIBRARY_PATH=$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# What the driver makes of the kernels for its GPU, about ten seconds' work, is kept for the next run.
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-${XDG_CACHE_HOME:-$HOME/.cache}/rebel-cuda}
export CUDA_CACHE_MAXSIZE=${CUDA_CACHE_MAXSIZE:-1073741824}
mkdir -p "$CUDA_CACHE_PATH"
exec "$@"
