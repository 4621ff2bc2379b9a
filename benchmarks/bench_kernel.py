"""Speed of the simulator on one thread, against what the machine can do.

Three questions, each answered by runs interleaved in this process, so that a busy machine slows all sides alike; a
share is the median over the rounds of the two sides' times in the same round, and stands beside its limit:
1. the kernel against a bare roofline kernel (gather the slate's vectors, dot, softmax choice with a no-click option,
   move the user's state);
2. the vector environment against the kernel alone;
3. scoring all items and taking the ten best against numpy's matmul + argpartition in chunks of 256 users.

Run: python benchmarks/bench_kernel.py [--json] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from simulator import kernel
from simulator.behaviour import SimulatorSettings, assumptions_of
from simulator.env import WindtunnelVectorEnv
from simulator.log import Histories
from simulator.top_items import ItemScorer
from simulator.users import SimulatedUsers
from simulator.world import Starts, World

WIDTH, SLATE, CATEGORIES, HISTORY, STARTS = 64, 10, 19, 50, 400
SHAPES = [(users, items) for items in (1_682, 10_000) for users in (64, 1_024, 16_384)]
LIMITS: dict[str, dict[int, float]] = {
    "kernel/roofline": {64: 0.65, 1_024: 0.65, 16_384: 0.65},
    "views/kernel": {64: 0.45, 1_024: 0.75},
    "copies/kernel": {64: 0.35, 1_024: 0.75},
}
"""The least share, by number of users; a call for 64 users is mostly Python."""
TOP_LIMIT = 2.0
"""The least ratio of top-K scoring to numpy's."""


def synthetic_world(items: int, rng: np.random.Generator) -> World:
    """World of the size of MovieLens 100k: 64 dimensions, 19 categories, histories of 80 items."""
    rows = 80
    start_items = np.array([rng.choice(items, rows, replace=False) for _ in range(STARTS)])
    seen = Histories(np.arange(STARTS + 1) * rows, start_items.ravel(), (rng.random(STARTS * rows) < 0.5).astype("f4"))
    history, feedback = seen.last(HISTORY)
    starts = Starts(
        user=np.arange(STARTS),
        vector=rng.standard_normal((STARTS, WIDTH)).astype(np.float32),
        bias=np.zeros(STARTS, np.float32),
        history_items=history,
        history_feedback=feedback,
        user_features=rng.standard_normal((STARTS, 24)).astype(np.float32),
        seen=seen,
    )
    settings = SimulatorSettings(slate_size=SLATE, history_length=HISTORY)
    return World(
        name="bench",
        item_vectors=(rng.standard_normal((items, WIDTH)) / 8).astype(np.float32),
        item_bias=rng.standard_normal(items).astype(np.float32),
        item_categories=(rng.random((items, CATEGORIES)) < 0.09).astype(np.float32),
        examination="position",
        slate_size=SLATE,
        horizon=settings.horizon,
        history_length=HISTORY,
        assumptions=assumptions_of(settings, 0.5, 0.01),
        starts=starts,
    )


@njit(cache=True, fastmath={"reassoc", "contract"})
def _dot(a, b):  # type: ignore[no-untyped-def]  # numba
    total = np.float32(0.0)
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@njit(cache=True)
def roofline(slate, vectors, bias, state, key, step, weight, choice):  # type: ignore[no-untyped-def]  # numba
    """What no simulator of this shape can leave out. The dot may be reordered (fastmath)."""
    n_users, slate_size = slate.shape
    one, rate = np.float32(1.0), np.float32(0.01)
    for user in range(n_users):
        taste = state[user]
        total = one
        for k in range(slate_size):
            item = slate[user, k]
            weight[k] = np.float32(math.exp(_dot(taste, vectors[item]) + bias[item]))
            total += weight[k]
        uniform = kernel.high_uniform(kernel.fold(key[user], np.uint64(step))) * total
        chosen, reached = -1, np.float32(0.0)
        for k in range(slate_size):
            reached += weight[k]
            if uniform < reached:
                chosen = k
                break
        choice[user] = chosen
        if chosen >= 0:
            item = slate[user, chosen]
            for j in range(taste.shape[0]):
                taste[j] += rate * (vectors[item, j] - taste[j])


def interleaved(jobs: Mapping[str, Callable[[], float]], seconds: float) -> dict[str, NDArray[np.float64]]:
    """Seconds of each job in each round, the jobs taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # compiles
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, job in jobs.items():
            spent[name].append(job())
    return {name: np.array(found) for name, found in spent.items()}


def best(spent: NDArray[np.float64]) -> float:
    """Seconds in the best fifth of the rounds: the rest is what else the machine did."""
    return float(np.quantile(spent, 0.2))


def timed(job: Callable[[], object]) -> float:
    """Processor seconds that a call took in this thread: what others run meanwhile is left out but for the caches."""
    start = time.thread_time()
    job()
    return time.thread_time() - start


def slates(rng: np.random.Generator, count: int, users: int, items: int) -> NDArray[np.int64]:
    """[count, users, K] random slates."""
    return rng.integers(0, items, (count, users, SLATE))


def bench_steps(users: int, items: int, seconds: float) -> dict[str, float]:
    """User-steps per second of roofline, kernel and vector environment, and their ratios."""
    rng = np.random.default_rng(0)
    world = synthetic_world(items, rng)
    turns = max(4, 16_384 // users)  # calls in a burst; one more before them brings the job's data into the cache
    shown = slates(rng, 20, users, items)
    state = rng.standard_normal((users, WIDTH)).astype(np.float32)
    keys = rng.integers(0, 2**63, users).astype(np.uint64)
    weight, choice = np.zeros(SLATE, np.float32), np.zeros(users, np.int64)
    simulated = SimulatedUsers(world.with_parameter("leave", "base_rate", 1e-9), users, seed=1)
    rows = np.arange(users) % STARTS  # of the kernel's lanes; an environment draws whom it starts next
    environments = {"copies": WindtunnelVectorEnv(world, users), "views": WindtunnelVectorEnv(world, users, copy=False)}
    for env in environments.values():
        env.reset(seed=1)
    at = dict.fromkeys(("roofline", "kernel", "views", "copies"), 0)

    def burst(name: str) -> float:
        spent = 0.0
        for call in range(turns + 1):
            turn = at[name] = at[name] + 1
            slate = shown[turn % 20]
            if name == "roofline":
                arguments = (slate, world.item_vectors, world.item_bias, state, keys, turn, weight, choice)
                took = timed(lambda: roofline(*arguments))  # noqa: B023  # called at once
            elif name == "kernel":
                if turn % 19 == 1:
                    simulated.start(rows)  # untimed: nobody leaves, so sessions end at the horizon only
                took = timed(lambda: kernel.step_users(slate, *simulated._step_arguments))  # noqa: B023
            else:
                took = timed(lambda: environments[name].step(slate))  # noqa: B023
            spent += took if call else 0.0
        return spent

    spent = interleaved({name: lambda name=name: burst(name) for name in at}, seconds)  # type: ignore[misc]
    rates = {name: users * turns / best(found) for name, found in spent.items()}
    pairs = [pair.split("/") for pair in LIMITS]
    return rates | {f"{a}/{b}": float(np.median(spent[b] / spent[a])) for a, b in pairs}


def numpy_top(users: NDArray[np.float32], items: NDArray[np.float32], out: NDArray[np.int64]) -> None:
    """The reference: matmul and argpartition in chunks of 256 users, the ten sorted."""
    for first in range(0, len(users), 256):
        scores = users[first : first + 256] @ items.T
        best = np.argpartition(-scores, SLATE, axis=1)[:, :SLATE]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        out[first : first + 256] = np.take_along_axis(best, order, axis=1)


def bench_top(items: int, seconds: float) -> dict[str, float]:
    """Users per second whose ten best of all items are found."""
    rng = np.random.default_rng(0)
    users = rng.standard_normal((1_024, WIDTH)).astype(np.float32)
    vectors = rng.standard_normal((items, WIDTH)).astype(np.float32)
    out = np.zeros((len(users), SLATE), np.int64)
    scorer = ItemScorer(vectors)
    jobs = {
        "numpy": lambda: timed(lambda: numpy_top(users, vectors, out)),
        "top_k": lambda: timed(lambda: scorer.top_k(users, SLATE)),
    }
    spent = interleaved(jobs, seconds)
    rate = {name: len(users) / best(found) for name, found in spent.items()}
    return {**rate, "top_k/numpy": float(np.median(spent["numpy"] / spent["top_k"]))}


def against(found: float, limit: float | None, form: str) -> str:
    """The figure, its limit and whether it holds, for a table."""
    if limit is None:
        return f"{found:{form}}"
    return f"{found:{form}} (>= {limit:{form}} {'OK' if found >= limit else 'MISSED'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds for each row")
    asked = parser.parse_args()
    with threadpool_limits(1):
        steps = [{"users": u, "items": i, **bench_steps(u, i, asked.seconds)} for u, i in SHAPES]
        top = [{"items": i, **bench_top(i, asked.seconds)} for i in (1_682, 10_000)]
    if asked.json:
        print(json.dumps({"user_steps_per_second": steps, "top_10_users_per_second": top}, indent=1))
        return
    print("million user-steps per second, one thread, slate 10, 64 dimensions; shares and their limits")
    print("  users   items  roofline  kernel   views  copies" + "".join(f"  {name:>19}" for name in LIMITS))
    for r in steps:
        rates = f"{r['roofline'] / 1e6:8.2f}" + "".join(
            f"{r[name] / 1e6:8.2f}" for name in ("kernel", "views", "copies")
        )
        shares = (against(r[name], limit.get(int(r["users"])), ".0%") for name, limit in LIMITS.items())
        print(f"{r['users']:7d} {r['items']:7d}  {rates}" + "".join(f"  {share:>19}" for share in shares))
    print("thousand users per second, ten best of all items: numpy, top_k, ratio")
    for r in top:
        ratio = against(r["top_k/numpy"], TOP_LIMIT, ".1f")
        print(f"{r['items']:15d} {r['numpy'] / 1e3:8.0f} {r['top_k'] / 1e3:8.0f}   {ratio}")


if __name__ == "__main__":
    main()
