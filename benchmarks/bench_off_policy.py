"""Rounds per second of each off-policy estimator, intervals and diagnostics included, on one core.

python benchmarks/bench_off_policy.py [--rounds 1000000] [--actions 10]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from evaluators import off_policy
from simulator.streams import stream

NAMES = (
    "ips",
    "snips",
    "dm",
    "dr",
    "sndr",
    "ips(clip=10)",
    "switch_dr(lambda=5)",
    "dros(lambda=100)",
    "sgdr(lambda=0.1)",
    "tuned(dr, slope)",
)


def log(n: int, actions: int) -> tuple[off_policy.Rounds, np.ndarray, np.ndarray]:
    """Softmax policies with mild weights; five rounds a user."""
    rng = stream(np.random.SeedSequence(1), "bench", n)
    pi_b = rng.gamma(8.0, size=(n, actions))
    pi_b /= pi_b.sum(axis=1, keepdims=True)
    pi_e = rng.gamma(8.0, size=(n, actions))
    pi_e /= pi_e.sum(axis=1, keepdims=True)
    q_hat = rng.random((n, actions))
    action = (pi_b.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    taken = np.arange(n), action
    reward = (rng.random(n) < q_hat[taken]).astype(float)
    return off_policy.Rounds(action, reward, pi_b[taken], user=np.arange(n) // 5), pi_e, q_hat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--actions", type=int, default=10)
    options = parser.parse_args()
    rounds, pi_e, q_hat = log(options.rounds, options.actions)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{options.rounds:,} rounds, {options.actions} actions, {rounds.n_users:,} users")
    for name in NAMES:
        start = time.perf_counter()
        found = off_policy.estimate(rounds, pi_e, estimators=[name], q_hat=q_hat)[name]
        seconds = time.perf_counter() - start
        value = "withheld" if found.value is None else f"{found.value:.4f}"
        print(f"{name:22} {seconds:7.2f} s {options.rounds / seconds / 1e6:7.2f} M rounds/s  {value}")
    start = time.perf_counter()
    off_policy.estimate(rounds, pi_e, estimators=NAMES, q_hat=q_hat)
    print(f"{'all in one call':22} {time.perf_counter() - start:7.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 2**20:.2f} GiB, of which the inputs and their making {held / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
