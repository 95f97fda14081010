#!/usr/bin/env bash
# patch-candle.sh DIR: copies of two of candle 0.11.1's dependencies in DIR, changed so that the program looks for CUDA's
# libraries when it asks for a device, instead of not starting without them:
#   cudarc          loads libcuda, libcublas, libcurand at run time, where candle has it link them
#   candle-kernels  makes the PTX kernels of ordinary tensors only; those of quantized and mixture-of-experts inference are
#                   static code that needs libcudart and ten minutes of compiling, and abort here when called
# The dependency graph stays what Cargo.lock says, so build.sh can put the copies in place of the originals.
set -euo pipefail

cudarc=cudarc-0.19.10
kernels=candle-kernels-0.11.1

fail() { echo "scripts/cuda/patch-candle.sh: $*" >&2; exit 1; }
[ $# = 1 ] || fail "one argument (expected the folder for the copies)"
lock=$(dirname "${BASH_SOURCE[0]}")/../../Cargo.lock
for crate in $cudarc $kernels; do
  grep -A1 "^name = \"${crate%-*}\"\$" "$lock" | grep -q "^version = \"${crate##*-}\"\$" ||
    fail "Cargo.lock does not name $crate (type: cargo update ${crate%-*} --precise ${crate##*-}), or this script wants renewing"
done

this=$(sha256sum < "${BASH_SOURCE[0]}")
[ "$(cat "$1/complete" 2> /dev/null)" != "$this" ] || exit 0
sources=
for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
  [ ! -d "$folder$kernels" ] || [ ! -d "$folder$cudarc" ] || sources=$folder
done
[ -n "$sources" ] || fail "$cudarc and $kernels are not among cargo's sources (type: cargo fetch --locked)"
rm -rf "$1"
mkdir -p "$1"
cp -R "$sources$cudarc" "$sources$kernels" "$1/"

python3 - "$1/$cudarc" "$1/$kernels" << 'PY' || fail "the sources are not the expected ones"
import pathlib, re, sys

cudarc, kernels = map(pathlib.Path, sys.argv[1:])


def edit(path, *changes):
    """Makes each change (pattern, replacement, how many there must be)."""
    text = path.read_text()
    for pattern, replacement, count in changes:
        text, found = re.subn(pattern, lambda m: replacement, text, flags=re.M | re.S)
        if found != count:
            sys.exit(f"{path}: {pattern!r} is there {found} times (expected {count})")
    path.write_text(text)


# Where the linker would be given CUDA's libraries, the code is told to load them.
loading = '    println!("cargo:rustc-cfg=feature=\\"dynamic-loading\\"");\n'
edit(cudarc / "build.rs", (r"^    dynamic_linking\(major, minor\);\n", loading, 1))

# The build ends after the PTX; quantized.cu, as long to compile as all others, is an empty text.
ends = """    bindings.write(&ptx_path)?;
    let mut ptx = std::fs::read_to_string(&ptx_path)?;
    ptx.push_str("pub const QUANTIZED: &str = \\"\\";\\n");
    std::fs::write(&ptx_path, ptx)?;
    Ok(())
}
"""
edit(
    kernels / "build.rs",
    (r'"mmq_\*\.cu"', '"mmq_*.cu", "quantized.cu"', 1),
    (r"^    bindings\.write.*\Z", ends, 1),
    (r"^const CUTILE_FEATURE[^\n]*\n", "", 1),
)

# What is not built is a function of the same type that aborts.
ffi = kernels / "src/ffi.rs"
text = ffi.read_text()
declared = len(re.findall(r"^    pub fn ", text, flags=re.M))
edit(
    ffi,
    (r"^#\[allow\(improper_ctypes\)\]\n", "#[allow(warnings, clippy::all)]\n", 1),
    (r"^use core::ffi::c_void;$", "pub use absent::*;", 1),
    (r'^extern "C" \{\n', 'mod absent {\n    use core::ffi::c_void;\n', 1),
    (r"^    pub fn ", '    pub unsafe extern "C" fn ', declared),
)
text = ffi.read_text()
body = '{ panic!("quantized and mixture-of-experts kernels are not in this build") }'
text, ends = re.subn(r"^    \)( -> i32)?;$", lambda m: f"    ){m[1] or ''} {body}", text, flags=re.M)
if ends != declared:
    sys.exit(f"{ffi}: {declared} functions and {ends} ends")
ffi.write_text(text)
PY
echo "$this" > "$1/complete"
