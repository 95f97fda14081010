#!/usr/bin/env python3
"""Find the standard library's sources for the kernel, without downloading anything.

usage: std_sources.py FOLDER          prints the folder to put into RUST_SRC_PATH

rust-analyzer, inside the kernel, needs them to know the type of a `let`. Tried in this order:
  1. the toolchain's own `rust-src`, where it is installed;
  2. the toolchain's `rust-docs`: every source file is among its pages, marked up; the text is taken back out of them;
  3. a package of the distribution (Debian's rust-src or rust-web-src), the newest first;
  4. an empty folder: the kernel starts, but most `let`s then need a type. The exit code is 3, so that a caller may know.
Asked again about the same toolchain it answers at once.
"""
import glob
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CRATES = ("core", "alloc", "std")  # enough for types and completion, and loaded faster than all of them
COMPONENT = "the toolchain's rust-src"
NOTHING = "none found, so most `let`s need a type"

LINE_NUMBER = re.compile(r"<a href=#\d+ id=\d+ data-nosnippet>\d+</a>")
TAG = re.compile(r"<[^>]*>")
FILE_NAME = re.compile(r"Source of the Rust file `library/([^`]+)`")
CODE = re.compile(r'<pre class="rust"><code>(.*?)</code></pre>', re.DOTALL)


def rustc(*arguments):
    return subprocess.run(["rustc", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def complete(folder):
    return all((folder / crate / "src/lib.rs").is_file() for crate in CRATES)


def link(library, folder):
    """Links to the crates, but not to the library's Cargo.toml: with it rust-analyzer runs `cargo metadata` there."""
    folder.mkdir(parents=True)
    for crate in CRATES:
        (folder / crate).symlink_to(library / crate)


def from_pages(pages, folder):
    """Writes the source file of every documentation page into `folder`."""
    for crate in CRATES:
        for page in (pages / crate).rglob("*.rs.html"):
            text = page.read_text(encoding="utf-8")
            name, code = FILE_NAME.search(text), CODE.search(text)
            if not (name and code):
                continue
            path = os.path.normpath(name[1])  # std names its siblings `std/src/../../backtrace/...`
            if path.split("/")[0] not in CRATES:
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(html.unescape(TAG.sub("", LINE_NUMBER.sub("", code[1]))), encoding="utf-8")


def packages():
    """The distribution's `library` folders, newest first."""
    found = glob.glob("/usr/src/rustc-*/library")
    found.sort(key=lambda path: [int(n) for n in re.findall(r"\d+", path)], reverse=True)
    return [Path(path) for path in found + ["/usr/lib/rustlib/src/rust/library"] if complete(Path(path))]


def make(folder):
    """Fills `folder` if it does not hold this toolchain's sources yet; says where they are from."""
    sysroot, version = Path(rustc("--print", "sysroot")), rustc("--version")
    component, pages = sysroot / "lib/rustlib/src/rust/library", sysroot / "share/doc/rust/html/src"
    made_for = folder / ".made-for"
    if made_for.is_file():
        toolchain, origin = made_for.read_text().splitlines()
        newer = origin != COMPONENT and complete(component)
        if toolchain == version and not newer and (complete(folder) or (origin == NOTHING and not pages.is_dir())):
            return origin

    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    if complete(component):
        origin = COMPONENT
        link(component, fresh)
    else:
        from_pages(pages, fresh)
        origin = "the pages of the toolchain's rust-docs"
        if not complete(fresh):
            shutil.rmtree(fresh, ignore_errors=True)
            package = next(iter(packages()), None)
            if package:
                origin = f"the distribution's {package.parent.name}"
                link(package, fresh)
            else:
                origin = NOTHING
                (fresh / "core").mkdir(parents=True)
    (fresh / ".made-for").write_text(f"{version}\n{origin}\n")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        fresh.rename(folder)
    except OSError:  # another kernel, started at the same moment, was quicker
        shutil.rmtree(fresh, ignore_errors=True)
    return origin


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: std_sources.py FOLDER")
    destination = Path(sys.argv[1]).resolve()
    source = make(destination)
    print(f"standard library sources: {source}", file=sys.stderr)
    print(destination)
    sys.exit(3 if source == NOTHING else 0)
