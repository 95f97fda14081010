"""Measures the theory's workloads against NumPy, or the memory that training takes.

    make bench                       # the theory beside NumPy: prints the table
    make bench WRITE=1 ROUNDS=15     # and rewrites figures/data/bench_theory.json
    make bench BENCH=memory WRITE=1  # bytes of an update, by what is trained; rewrites figures/data/bench_memory.json

theory: both sides on one thread, alternating in one run, medians and ratios. Only the ratios count: on another machine, or
beside another program, both sides change. The exit status is 1 if a workload misses its target.
memory: bytes counted by the allocator, the same on every run.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What a run of each workload is, and how many times faster than NumPy it should be.
WORKLOADS = {
    "mirror_descent": ("1000 exact steps, 100 x 1000, traces of J and KL", 10),
    "gauss_newton": ("200 data sets of 1000 pairs, 50 features", 2),
    "selfplay_exact": ("100 arms, 10,000 iterations, exact reward", 5),
    "selfplay_bernoulli": ("100 arms, 10,000 iterations, one outcome an arm", 10),
    "selfplay_pairs": ("100 arms, 1000 iterations of 256 pairs", 10),
}

# One thread on either side; set for the two processes alone.
ONE_THREAD = {name: "1" for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Side:
    """A program that answers a workload's name with the seconds one run took."""

    def __init__(self, command):
        environment = {**os.environ, **ONE_THREAD}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self):
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"bench: {' '.join(self.process.args)}: ended with status {self.process.wait()}")
        return answer.strip()

    def run(self, workload):
        self.process.stdin.write(workload + "\n")
        self.process.stdin.flush()
        return float(self.line())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return os.uname().machine


def commit():
    try:
        run = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True)
        return run.stdout.strip() + ("+" if changed.stdout.strip() else "")
    except FileNotFoundError:
        return ""


def measure(ours, peer, rounds):
    """Seconds of each round: ours, NumPy's first run in a fresh process, its second run there."""
    for workload in WORKLOADS:  # once unmeasured: caches, clock rate, first pages
        ours.run(workload)
    seconds = {workload: [] for workload in WORKLOADS}
    for _ in range(rounds):
        for workload, taken in seconds.items():
            theirs = peer(workload)
            version = theirs.line()
            taken.append((ours.run(workload), theirs.run(workload), theirs.run(workload)))
            theirs.end()
    return version, seconds


def summary(seconds):
    rows = []
    for workload, taken in seconds.items():
        what, target = WORKLOADS[workload]
        mine, first, second = zip(*taken)
        ratios = [b / a for a, b in zip(mine, first)]
        rows.append({
            "workload": workload,
            "what": what,
            "ours_s": statistics.median(mine),
            "numpy_s": statistics.median(first),
            "numpy_again_s": statistics.median(second),
            "ratio": statistics.median(ratios),
            "ratio_least": min(ratios),
            "ratio_most": max(ratios),
            "ratio_again": statistics.median(b / a for a, b in zip(mine, second)),
            "target": target,
        })
    return rows


def write(path, command, more, rows):
    """The numbers with how they were made."""
    record = {
        "command": command,
        "commit": commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
        **more,
        "data": rows,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")


def memory(flags, path):
    """Bytes of an update in each mode."""
    command = ["cargo", "bench", "--quiet", *flags, "--bench", "memory", "--", "--json"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"bench: {' '.join(command)}: ended with status {run.returncode}")
    rows = json.loads(run.stdout)
    print("One REBEL update of 4 pairs of 128 tokens, 3 million parameters, f32; bytes counted by the allocator, MiB.")
    print(f"{'trained':32} {'recomputed':>10} {'weights':>9} {'held':>9} {'peak':>9} {'all tracked':>12}")
    for row in rows:
        mib = [row[key] / 2**20 for key in ("weights_bytes", "held_bytes", "peak_bytes", "peak_bytes_tracked")]
        print(f"{row['trained']:32} {'yes' if row['recompute'] else 'no':>10} {mib[0]:9.1f} {mib[1]:9.1f} {mib[2]:9.1f} {mib[3]:12.1f}")
    print("held: weights, reference and moments between updates; all tracked: the peak of a graph that makes every gradient.")
    if path:
        write(path, "make bench BENCH=memory WRITE=1", {"threads": 1}, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", nargs="?", default="theory", choices=["theory", "memory"])
    parser.add_argument("--cargo-flags", default="--workspace", help="flags of cargo, as the Makefile has them")
    parser.add_argument("--python", default=str(ROOT / ".venv/bin/python"), help="a Python that has NumPy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="also writes the numbers, as JSON")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")

    # cargo's bench profile is the release profile; it knows no --release.
    flags = [flag for flag in arguments.cargo_flags.split() if flag != "--release"]
    if arguments.bench == "memory":
        return memory(flags, arguments.write)
    ours = Side(["cargo", "bench", "--quiet", *flags, "--bench", "theory", "--", "--serve"])
    peer = lambda workload: Side([arguments.python, "theory/benches/peer_numpy.py", workload])
    version, seconds = measure(ours, peer, arguments.rounds)
    ours.end()
    rows = summary(seconds)

    print(f"{processor()}, one thread each, NumPy {version}, {arguments.rounds} alternating rounds; medians.")
    print("NumPy runs twice in a process of its own; the ratio is to its first run, `again` to its second.")
    print(f"{'':20} {'ours, ms':>10} {'NumPy, ms':>10} {'ratio':>7} {'least - most':>15} {'again':>7} {'target':>7}")
    for row in rows:
        spread = f"{row['ratio_least']:.1f} - {row['ratio_most']:.1f}"
        print(f"{row['workload']:20} {row['ours_s'] * 1e3:10.2f} {row['numpy_s'] * 1e3:10.2f} {row['ratio']:7.1f} "
              f"{spread:>15} {row['ratio_again']:7.1f} {row['target']:6d}x  {row['what']}")
    if arguments.write:
        command = f"make bench WRITE=1 ROUNDS={arguments.rounds}"
        write(arguments.write, command, {"numpy": version, "threads": 1, "rounds": arguments.rounds}, rows)
    sys.exit(any(row["ratio"] < row["target"] for row in rows))


if __name__ == "__main__":
    main()
