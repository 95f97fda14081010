#!/bin/bash
# Installs the system packages the workspace can use, when root; otherwise says what to type, and goes on.
# Needed: python3 with venv (notebooks). Used where present: OpenBLAS, for the tests that compare with LAPACK.
set -u
packages=()
pkg-config --exists openblas 2>/dev/null || packages+=(pkg-config libopenblas-serial-dev)
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "== system packages: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  install() { apt-get install -y -qq --no-install-recommends "${packages[@]}" < /dev/null > /dev/null 2>&1; }
  install || { apt-get update -qq > /dev/null 2>&1; install; } && exit 0
  echo "== could not install ${packages[*]}: going on without"
else
  echo "== not installed: ${packages[*]} (type: sudo apt-get install ${packages[*]}); going on without"
fi
