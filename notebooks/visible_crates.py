#!/usr/bin/env python3
"""Leave in the answer of `cargo metadata` only the crates whose names a notebook can write.

usage: cargo metadata ... | visible_crates.py

rust-analyzer, inside the kernel, reads the sources of every crate it is told of, at each start. What the workspace's
crates only use inside (fonts, tokenizers, linear algebra) appears in no type a cell sees; without those crates the first
picture comes in half the time. The compiler is told nothing of this: it links what cargo has built.
"""
import json
import sys

# What shows itself beside the workspace's own crates: re-exported for notebooks, or part of a type or bound that is.
SHOWN = {"ndarray", "num-traits", "num-complex", "rawpointer", "candle-core", "half", "float8",
         "rand", "rand_core", "rand_chacha"}


def visible(metadata):
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    def shown(package):
        return names[package].startswith("rebel-") or names[package] in SHOWN

    for node in nodes.values():
        node["deps"] = [dep for dep in node["deps"] if shown(dep["pkg"])]
        node["dependencies"] = [dep for dep in node["dependencies"] if shown(dep)]

    kept, waiting = set(), list(metadata["workspace_members"])
    while waiting:
        package = waiting.pop()
        if package not in kept:
            kept.add(package)
            waiting += nodes[package]["dependencies"]
    metadata["packages"] = [package for package in metadata["packages"] if package["id"] in kept]
    metadata["resolve"]["nodes"] = [node for node in metadata["resolve"]["nodes"] if node["id"] in kept]
    return metadata


if __name__ == "__main__":
    text = sys.stdin.read()
    if not text.strip():
        sys.exit(1)  # cargo failed, and has said why
    answer = json.loads(text)
    json.dump(visible(answer) if answer.get("resolve") else answer, sys.stdout)
