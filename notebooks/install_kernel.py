#!/usr/bin/env python3
"""Install the course's kernel into the virtual environment that runs this file, and build what notebooks import.

usage: .venv/bin/python notebooks/install_kernel.py [--check]

Three steps, each skipped when its result is there: the kernel program (about 10 CPU minutes, once a user and version),
two kernel specs (in this environment only), and two seeds, which are work folders with the facade already built, with
and without the trainer. `--check` does nothing and says whether all is there and fresh (exit code 0) or not (1).
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "0.22.0"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HOME = Path(os.environ.get("REBEL_KERNEL_HOME", HERE / ".kernel"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rebel" / f"evcxr_jupyter-{VERSION}"
PROGRAM = Path(os.environ.get("REBEL_EVCXR", CACHE / "bin" / "evcxr_jupyter"))

# kind of slot: (kernel, its name in the menu, the launcher's arguments, the dependency line of its notebooks)
KINDS = {
    "train": ("rebel-rust", "Rust (rebel)", [], ':dep rebel-notebook = { path = "facade" }'),
    "light": ("rebel-rust-light", "Rust (rebel, without the trainer)", ["--light"],
              ':dep rebel-notebook = { path = "facade", default-features = false }'),
}


def say(line):
    print(f"notebooks: {line}", flush=True)


def stamp():
    """Changes with the kernel, the compiler, the versions and the sources that the facade is built from."""
    digest = hashlib.sha256(subprocess.run(["rustc", "-vV"], capture_output=True, check=True).stdout)
    digest.update(VERSION.encode())
    files = [ROOT / "Cargo.lock", ROOT / "Cargo.toml", HERE / "launch"]
    for crate in ("theory", "trainer", "figures", "notebooks/facade"):
        files += [ROOT / crate / "Cargo.toml"] + sorted((ROOT / crate).rglob("src/**/*.rs"))
    for path in files:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest() + "\n"


def spec(name):
    return Path(sys.prefix) / "share" / "jupyter" / "kernels" / name / "kernel.json"


def is_fresh(kind, wanted):
    file = HOME / kind / "seed" / "stamp"
    return file.is_file() and file.read_text() == wanted


def install_program():
    """Builds the kernel. Its build folder lies beside it until it is done, so that an interrupted build goes on."""
    if PROGRAM.is_file():
        return
    say(f"building the kernel evcxr_jupyter {VERSION} into {CACHE} (10 CPU minutes, once)")
    begin = time.time()
    environment = {k: v for k, v in os.environ.items() if k not in ("RUSTFLAGS", "CARGO_TARGET_DIR")}
    subprocess.run(["cargo", "install", "--quiet", "evcxr_jupyter", "--version", VERSION, "--locked", "--root", CACHE,
                    "--target-dir", CACHE / "build"], env=environment, stdin=subprocess.DEVNULL, check=True)
    shutil.rmtree(CACHE / "build", ignore_errors=True)
    say(f"built the kernel in {time.time() - begin:.0f} s")


def install_specs():
    for name, shown, arguments, _ in KINDS.values():
        content = {"argv": [str(HERE / "launch"), *arguments, "{connection_file}"], "display_name": shown,
                   "language": "rust", "interrupt_mode": "message"}
        spec(name).parent.mkdir(parents=True, exist_ok=True)
        spec(name).write_text(json.dumps(content, indent=1) + "\n")


def build_seed(kind, wanted):
    """Lets the kernel itself build the facade, by the first cells of a notebook, in the folder that slots copy."""
    import nbformat

    name, shown, _, dependency = KINDS[kind]
    say(f"building what the notebooks import ({shown})")
    begin, seed = time.time(), HOME / kind / "seed"
    (seed / "stamp").unlink(missing_ok=True)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(f"{dependency}\nuse rebel_notebook::*;"),
                      nbformat.v4.new_code_cell("start();")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed-{kind}.ipynb"
        nbformat.write(notebook, path)
        subprocess.run([sys.executable, HERE / "check_notebook.py", "--kernel", name, "--folder", HERE, "--timeout",
                        "3600", path], env={**os.environ, "REBEL_BUILD_SEED": "1"}, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL if not os.environ.get("CI") else None, check=True)
    (seed / "stamp").write_text(wanted)
    say(f"built in {time.time() - begin:.0f} s: {seed}")


def main():
    wanted = stamp()
    there = PROGRAM.is_file() and all(spec(name).is_file() for name, *_ in KINDS.values())
    if "--check" in sys.argv[1:]:
        sys.exit(0 if there and all(is_fresh(kind, wanted) for kind in KINDS) else 1)
    install_program()
    install_specs()
    for kind in KINDS:
        if not is_fresh(kind, wanted):
            build_seed(kind, wanted)
    say("the kernel and its libraries are in place")


if __name__ == "__main__":
    os.environ["RUSTUP_AUTO_INSTALL"] = "0"
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"notebooks: failed: {' '.join(map(str, error.cmd))}")
