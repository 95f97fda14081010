"""What `make bench` measures the theory against: the same workloads, as one would write them in NumPy.

    peer_numpy.py WORKLOAD

Writes NumPy's version, then, for each line it reads, runs the workload once and writes the seconds it took;
`scripts/bench.py` alternates it with the program beside it (theory.rs). Data are made before the clock starts.

Mirror descent's temporaries are 0.8 MB each. In a fresh process glibc gives them back to the system and asks for them
again, page by page, in every step, which is more than half of the time; once something small lies above them, as after the
first answer here, it keeps them, and NumPy is 2 to 3 times as fast. So `scripts/bench.py` reports both.
"""
import sys
import time

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def mirror_descent(contexts=100, responses=1000, steps=1000, eta=0.01):
    reward = np.random.default_rng(0).normal(size=(contexts, responses))
    rho = np.full(contexts, 1 / contexts)

    def run():
        log = np.full((contexts, responses), -np.log(responses))
        values, divergences = np.empty(steps), np.empty(steps)
        for t in range(steps):
            new = log + eta * reward
            new -= new.max(axis=1, keepdims=True)
            weight = np.exp(new)
            total = weight.sum(axis=1, keepdims=True)
            new -= np.log(total)
            prob = weight / total
            values[t] = rho @ (prob * reward).sum(axis=1)
            divergences[t] = rho @ (prob * (new - log)).sum(axis=1)
            log = new

    return run


def gauss_newton(sets=200, pairs=1000, contexts=20, responses=50, features=50):
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(contexts, responses, features))
    reward = rng.normal(size=(contexts, responses))
    prob = np.exp(log_softmax(phi @ (rng.normal(size=features) / features)))
    score = phi - np.einsum("xy,xyk->xk", prob, phi)[:, None]
    ends = prob.cumsum(axis=1)
    ends[:, -1] = 1
    x = rng.integers(0, contexts, (sets, pairs))
    draw = lambda: np.stack([(u[:, None] > ends[c]).sum(axis=1) for u, c in zip(rng.random((sets, pairs)), x)])
    y, z = draw(), draw()

    def run():
        step = np.empty((sets, features))
        for s in range(sets):
            rows = score[x[s], y[s]] - score[x[s], z[s]]
            target = reward[x[s], y[s]] - reward[x[s], z[s]]
            step[s] = np.linalg.solve(rows.T @ rows, rows.T @ target)

    return run


class SelfPlay:
    """100 arms, the step size of 10,000 iterations; each method returns one kind of feedback as a workload."""

    def __init__(self, arms=100, horizon=10_000):
        rng = np.random.default_rng(2)
        upper = np.triu(rng.uniform(-1, 1, (arms, arms)), 1)
        self.arms, self.margin = arms, upper - upper.T
        self.win = 0.5 + 0.5 * self.margin
        self.eta = np.sqrt(2 * np.log(arms) / horizon)

    def play(self, iterations, estimate):
        def run():
            rng = np.random.default_rng(3)
            log, total = np.full(self.arms, -np.log(self.arms)), np.zeros(self.arms)
            for _ in range(iterations):
                prob = np.exp(log)
                total += prob
                log = log_softmax(log + self.eta * estimate(prob, rng))
            return 2 * (self.margin @ (total / iterations)).max()

        return run

    def exact(self, iterations=10_000):
        return self.play(iterations, lambda prob, rng: self.margin @ prob)

    def bernoulli(self, iterations=10_000):
        every = np.arange(self.arms)

        def estimate(prob, rng):
            opponent = np.searchsorted(prob.cumsum()[:-1], rng.random(self.arms))
            return 2.0 * (rng.random(self.arms) < self.win[every, opponent]) - 1

        return self.play(iterations, estimate)

    def pairs(self, iterations=1000, count=256):
        diagonal = np.arange(self.arms)

        def estimate(prob, rng):
            y, z, opponent = np.searchsorted(prob.cumsum()[:-1], rng.random((3, count)))
            first = rng.random(count) < self.win[y, opponent]
            second = rng.random(count) < self.win[z, opponent]
            target = 2.0 * (first.astype(float) - second)
            laplacian = np.zeros((self.arms, self.arms))
            np.add.at(laplacian, (y, z), -1.0)
            laplacian += laplacian.T
            laplacian[diagonal, diagonal] -= laplacian.sum(axis=1)
            balance = np.bincount(y, target, self.arms) - np.bincount(z, target, self.arms)
            return np.linalg.pinv(laplacian, rcond=1e-9, hermitian=True) @ balance

        return self.play(iterations, estimate)


def main():
    workloads = {
        "mirror_descent": mirror_descent,
        "gauss_newton": gauss_newton,
        "selfplay_exact": lambda: SelfPlay().exact(),
        "selfplay_bernoulli": lambda: SelfPlay().bernoulli(),
        "selfplay_pairs": lambda: SelfPlay().pairs(),
    }
    run = workloads[sys.argv[1]]()
    print(np.__version__, flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        run()
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
