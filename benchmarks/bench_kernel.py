"""Speed of the simulator on one thread, against what the machine can do.

Three questions, each answered by runs interleaved in this process, so that a busy machine slows all sides alike:
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
from simulator.users import ItemScorer, SimulatedUsers
from simulator.world import Starts, World

WIDTH, SLATE, CATEGORIES, HISTORY, STARTS = 64, 10, 19, 50, 400
SHAPES = [(users, items) for items in (1_682, 10_000) for users in (64, 1_024, 16_384)]


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


def interleaved(jobs: Mapping[str, Callable[[], float]], seconds: float) -> dict[str, float]:
    """Seconds of each job in its best fifth (the rest is what else the machine did), the jobs taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # compiles
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, job in jobs.items():
            spent[name].append(job())
    return {name: float(np.quantile(found, 0.2)) for name, found in spent.items()}


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
    rows = np.arange(users) % STARTS
    environments = {"copies": WindtunnelVectorEnv(world, users), "views": WindtunnelVectorEnv(world, users, copy=False)}
    for env in environments.values():
        env.reset(seed=1)
    at = dict.fromkeys(("roofline", "kernel", "starts", "views", "copies"), 0)
    ended = {"steps": 0, "lanes": 0}

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
            elif name == "starts":
                took = timed(lambda: simulated.start(rows))
            else:
                took = timed(lambda: environments[name].step(slate))  # noqa: B023
                ended["steps"] += users
                ended["lanes"] += len(environments[name].ended.lanes)
            spent += took if call else 0.0
        return spent

    best = interleaved({name: lambda name=name: burst(name) for name in at}, seconds)  # type: ignore[misc]
    rate = {name: users * turns / best[name] for name in at}
    # An environment starts the next session of every user who has left; this is what the kernel takes for both.
    rate["with starts"] = 1 / (1 / rate["kernel"] + ended["lanes"] / ended["steps"] / rate.pop("starts"))
    return {
        **rate,
        "kernel/roofline": rate["kernel"] / rate["roofline"],
        "views/kernel": rate["views"] / rate["kernel"],
        "copies/kernel": rate["copies"] / rate["kernel"],
        "views/with starts": rate["views"] / rate["with starts"],
        "copies/with starts": rate["copies"] / rate["with starts"],
    }


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
    best = interleaved(jobs, seconds)
    rate = {name: len(users) / spent for name, spent in best.items()}
    return {**rate, "top_k/numpy": rate["top_k"] / rate["numpy"]}


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
    print("million user-steps per second, one thread, slate 10, 64 dimensions")
    print(
        "  users   items  roofline  kernel  starts   views  copies  kernel/roofline  views/kernel  copies/kernel  "
        "/starts"
    )
    for r in steps:
        rates = "  ".join(f"{r[name] / 1e6:6.2f}" for name in ("roofline", "kernel", "with starts", "views", "copies"))
        shares = f"{r['kernel/roofline']:15.0%}  {r['views/kernel']:12.0%}  {r['copies/kernel']:13.0%}"
        shares += f"  {r['views/with starts']:.0%}, {r['copies/with starts']:.0%}"
        print(f"{r['users']:7d} {r['items']:7d}    {rates}  {shares}")
    print("thousand users per second, ten best of all items: numpy, top_k, ratio")
    for r in top:
        print(f"{r['items']:15d} {r['numpy'] / 1e3:8.0f} {r['top_k'] / 1e3:8.0f} {r['top_k/numpy']:8.1f}")


if __name__ == "__main__":
    main()
