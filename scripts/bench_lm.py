"""Measures training and sampling of a small language model, beside PyTorch where a Python with torch is named.

    make bench BENCH=lm                                         # ours, with each instruction set of this machine
    make bench BENCH=lm TORCH_PYTHON=venv/bin/python            # and PyTorch, alternating in one run
    make bench BENCH=lm TORCH_PYTHON=... CHECK=1                # exit status 1 where a ratio misses its target
    make bench BENCH=lm TORCH_PYTHON=... WRITE=1 ROUNDS=10      # also rewrites figures/data/bench_lm.json

Every line of a round is a process of its own: `rebel bench`, or its peer trainer/benches/lm/peer_torch.py. Ratios are
taken within a round, and their medians shown: on another machine, or beside another program, both sides change.
docs/speed.md describes the workloads and the table.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from bench import ROOT, processor, write

PEER = ROOT / "trainer/benches/lm/peer_torch.py"
MODES = ["sft", "rebel", "rebel-unshared", "sample"]
SIZES = {"layers": 6, "hidden": 256, "heads": 8, "vocab": 2048, "seq": 128, "batch": 8}

# Holds PyTorch and the libraries under it to 256-bit registers.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}

# How many times faster than PyTorch a step should be, with the same instructions; and the memory it may take.
TARGETS = {
    ("sft", "avx512"): 1.8, ("rebel", "avx512"): 2.5, ("rebel-unshared", "avx512"): 2.0, ("sample", "avx512"): 5.0,
    ("sft", "avx2"): 1.5, ("rebel", "avx2"): 2.1, ("sample", "avx2"): 4.0,
}
MOST_MIB = 350


def output(command, environment={}):
    run = subprocess.run(
        [str(word) for word in command], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    if run.returncode:
        sys.exit(f"bench: {' '.join(map(str, command))}: ended with status {run.returncode}")
    return run.stdout


class Side:
    """One that computes the workloads: us with an instruction set, or PyTorch."""

    def __init__(self, name, command, environment={}, modes=MODES):
        self.name, self.command, self.environment, self.modes = name, command, environment, modes

    def run(self, mode):
        return json.loads(output([*self.command, "--mode", mode], self.environment))


def sides(arguments):
    """Ours, and PyTorch's with the name of the instruction set that each is compared with."""
    sizes = [word for name in SIZES for word in (f"--{name}", getattr(arguments, name))]
    common = ["--threads", arguments.threads, *sizes, "--repeat"]
    sets = output([arguments.rebel, "bench", "--list-instructions"]).split()
    repeat = lambda name: 1 if name == "portable" else arguments.repeat
    ours = [
        Side(name, [arguments.rebel, "bench", "--json", "--instructions", name, *common, repeat(name)]) for name in sets
    ]
    peers = []
    if arguments.torch_python:
        command, modes = [arguments.torch_python, PEER, *common, arguments.repeat], [mode for mode in MODES if mode != "rebel-unshared"]
        peers.append(Side("torch", command, modes=modes))
        if {"avx512", "avx2"} <= set(sets):  # elsewhere PyTorch has no wider registers to be held from
            peers.append(Side("torch avx2", command, AVX2, modes))
    return ours, peers


def measure(all_sides, rounds):
    """What each side said of each workload, round by round; the portable kernels, many times slower, in the first alone."""
    said = {}
    for number in range(rounds):
        for mode in MODES:
            for side in all_sides:
                if mode in side.modes and (number == 0 or side.name != "portable"):
                    said.setdefault((mode, side.name), []).append(side.run(mode))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return said


def peer_of(mode, who, said):
    """PyTorch's runs that `who` is compared with."""
    mode = "rebel" if mode == "rebel-unshared" else mode
    held = said.get((mode, "torch avx2")) if who == "avx2" else None
    return held or said.get((mode, "torch"))


def ratios(peer, runs, key):
    pairs = [(p[key], r[key]) for p, r in zip(peer or [], runs)]
    return [round(p / r, 3) for p, r in pairs if p and r]


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def summary(said):
    rows = []
    for (mode, who), runs in said.items():
        of = lambda key: [run[key] for run in runs]
        row = {
            "workload": mode,
            "who": who,
            "step_s": median(of("step_s")),
            "step_s_rounds": of("step_s"),
            "step_s_best": min(of("step_s_min")),
            "tokens_per_s": median(of("tokens_per_s")),
            "cpu_s": median(of("step_cpu_s_min")),
            "peak_mib": max((mib for mib in of("peak_rss_mb") if mib is not None), default=None),
        }
        if not who.startswith("torch"):
            peer = peer_of(mode, who, said)
            wall = ratios(peer, runs, "step_s")
            row |= {"wall_ratio": median(wall), "wall_ratio_rounds": wall,
                    "cpu_ratio": median(ratios(peer, runs, "step_cpu_s_min")), "target": TARGETS.get((mode, who))}
        rows.append(row)
    return rows


def show(rows):
    number = lambda value, digits, mark="": "-" if value is None else f"{value:.{digits}f}{mark}"
    print(f"{'workload':15} {'who':11} {'step, ms':>9} {'best, ms':>9} {'tokens/s':>9} {'CPU s/step':>10} "
          f"{'peak, MiB':>9} {'wall':>7} {'CPU':>7} {'target':>7}")
    for row in rows:
        cells = [number(row["step_s"] * 1e3, 1), number(row["step_s_best"] * 1e3, 1), number(row["tokens_per_s"], 0)]
        print(f"{row['workload']:15} {row['who']:11} {cells[0]:>9} {cells[1]:>9} {cells[2]:>9} "
              f"{number(row['cpu_s'], 3):>10} {number(row['peak_mib'], 0):>9} {number(row.get('wall_ratio'), 2):>7} "
              f"{number(row.get('cpu_ratio'), 2):>7} {number(row.get('target'), 1, 'x'):>7}")


def misses(rows):
    """In words, what does not reach its target."""
    for row in rows:
        name, ratio, target = f"{row['workload']}, {row['who']}", row.get("wall_ratio"), row.get("target")
        if ratio and target and ratio < target:
            yield f"{name}: {ratio:.2f} times PyTorch's speed (target {target})"
        if not row["who"].startswith("torch") and (row["peak_mib"] or 0) > MOST_MIB:
            yield f"{name}: a peak of {row['peak_mib']:.0f} MiB (target {MOST_MIB})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rebel", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--torch-python", help="a Python that has torch and transformers")
    for name, default in {**SIZES, "threads": 2, "rounds": 5, "repeat": 12}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--check", action="store_true", help="exit status 1 where a target is missed")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="also writes the numbers, as JSON")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")

    ours, peers = sides(arguments)
    busy = os.getloadavg()[0]
    said = measure(peers + ours, arguments.rounds)
    rows = summary(said)

    versions = {name: run[name] for name in ("torch", "transformers") for run in said.get(("sft", "torch"), [])[:1]}
    beside = ", ".join(f"{name} {version}" for name, version in versions.items()) or "no PyTorch (TORCH_PYTHON=...)"
    print(f"{processor()}, {arguments.threads} threads; {beside}; alternating rounds: {arguments.rounds}, "
          f"steps in each: {arguments.repeat}; load before: {busy:.2f}")
    print("Medians over rounds; best, and peak: of all. wall, CPU: PyTorch's by ours, the median of the rounds' ratios; "
          "avx2 beside PyTorch held to it, rebel-unshared beside PyTorch's rebel.")
    show(rows)
    missed = list(misses(rows))
    print("\n".join(f"missed: {line}" for line in missed) or "no target is missed")
    if arguments.write:
        command = f"make bench BENCH=lm WRITE=1 ROUNDS={arguments.rounds} THREADS={arguments.threads}"
        command += " TORCH_PYTHON=..." if versions else ""
        sizes = {name: getattr(arguments, name) for name in SIZES}
        more = {**versions, "threads": arguments.threads, "rounds": arguments.rounds, "repeat": arguments.repeat}
        write(arguments.write, command, {**more, "load_before": round(busy, 2), **sizes}, rows)
    sys.exit(bool(arguments.check and missed))


if __name__ == "__main__":
    main()
