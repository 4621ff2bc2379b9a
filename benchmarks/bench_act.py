"""How long every kind of agent takes to act for 1,000 users in a catalogue of 100,000 items, on one core.

The catalogue, its text vectors and 100,000 logged rows of 2,000 users are generated; each kind is trained for a few
user-steps, which is enough for its arrays to have their full size, in a process of its own with a limit on memory, and
then acts for 1,000 users in the middle of a session. `seconds` is processor time of one `act`, the least of several, so
that a busy machine does not raise it. A kind that cannot work at this size says why in its row.

Run: python benchmarks/bench_act.py [--kinds linucb dqn ...] [--items N] [--users N]; exit code 1 where one that can
work takes longer than `--limit` seconds.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents.kinds import KINDS

USERS, WIDTH, CONTENT, SLATE, HORIZON, HISTORY = 2_000, 16, 64, 10, 20, 50
ROWS_A_USER = 50
STEPS = 128
"""User-steps that each kind is trained for."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "recbole:MODEL": (
        "recbole:BPR",
        "recbole:GRU4Rec",
        "recbole:ItemKNN",
        "recbole:LightGCN",
        "recbole:MultiVAE",
        "recbole:Pop",
    ),
    "rerank:AGENT": ("rerank:popularity",),
    "http://HOST": (),
    "language_model": (),
    "bert_q": (),
    "slate_q": ("slate_q", "slate_q one"),
}
"""Kinds to try for the rows of the table that take a parameter, or several for one with several parameters of `PARAMS`;
for those that wait for a service or a model, none, and none for `bert_q`, whose encoder would read texts for minutes
before it acts as `dqn` does."""

PARAMS: dict[str, dict[str, Any]] = {
    **{f"recbole:{model}": {"epochs": 1} for model in ("BPR", "GRU4Rec", "LightGCN", "MultiVAE")},
    "uplift": {"trial_steps": 1_000},
    "slate_q one": {"choice": "one"},
}
MEMORY = 14 * 2**30
"""Bytes of address space that a kind may take."""


def unwatched(steps: int, value: float) -> None:
    """A curve that nobody watches."""


def world_and_training(items: int) -> tuple[Any, Any]:
    """A generated world with so many items, and what `fit` gets in it."""
    from agents.base import Training
    from scenarios.stages.training import MakeTrainEnv
    from simulator.behaviour import SimulatorSettings
    from simulator.log import Catalogue, InteractionLog, split_users
    from simulator.world import World
    from tests.simulator.small_world import TruePreference

    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((items, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
    bias = rng.normal(-1, 1, items).astype(np.float32)
    content = np.concatenate([vectors, rng.standard_normal((items, CONTENT - WIDTH)) / 20], axis=1, dtype=np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    user = np.repeat(np.arange(USERS), ROWS_A_USER)
    first = rng.integers(0, items, USERS)  # a stride that is prime to the size: no item twice for a user
    item = (items * (((first[:, None] + 7_919 * np.arange(ROWS_A_USER)) % items / items) ** 2)).astype(np.int64).ravel()
    taste = rng.standard_normal((USERS, WIDTH))
    chance = 1 / (1 + np.exp(-np.einsum("nd,nd->n", taste[user], vectors[item]) - bias[item]))
    catalogue = Catalogue(
        item_ids=tuple(f"i{i}" for i in range(items)),
        item_text=tuple(f"item {i}" for i in range(items)),
        item_categories=np.eye(20, dtype=np.float32)[vectors[:, :10].argmax(axis=1) + 10 * (vectors[:, 10] > 0)],
        category_names=tuple(f"c{c}" for c in range(20)),
        user_ids=tuple(f"u{u}" for u in range(USERS)),
        user_features=rng.standard_normal((USERS, 4)).astype(np.float32),
        user_feature_names=("a", "b", "c", "d"),
        content=content,
    )
    clicked = (rng.random(len(user)) < chance).astype(np.float32)
    time_of = np.arange(len(user), dtype=np.float64)
    log = InteractionLog(user, item, time_of, clicked, catalogue, "generated", self_selected=False)
    settings = SimulatorSettings.model_validate({"slate_size": SLATE, "horizon": HORIZON, "history_length": HISTORY})
    split = split_users(log, np.random.SeedSequence(3))
    world = World.build(TruePreference(vectors, bias), log, split, np.arange(USERS), settings, name="generated")
    training = Training(
        log=log,
        catalogue=catalogue,
        make_env=MakeTrainEnv(world, content),
        slate_size=SLATE,
        horizon=HORIZON,
        rng=np.random.default_rng(1),
        seed=1,
        budget=STEPS,
        report=unwatched,
    )
    return world, training


def observed(world: Any, users: int) -> Any:
    """So many users after two slates."""
    from evaluators.rollout import observation_of
    from simulator.users import SimulatedUsers

    simulated = SimulatedUsers(world, users, seed=4)
    simulated.start(np.arange(users))
    for _ in range(2):
        simulated.step(np.argsort(~simulated.candidates(), axis=1, kind="stable")[:, :SLATE])
    return observation_of(simulated.observe(), np.arange(users), SLATE, privileged=True)


def measure(kind: str, world: Any, training: Any, users: int, sender: Any) -> None:
    """Send (seconds of training, seconds of an act) or the reason why there are none."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        from dataclasses import replace

        from agents.loading import AgentSettings, train

        began = time.process_time()
        entry = AgentSettings.model_validate({"name": "one", "kind": kind.split()[0], "params": PARAMS.get(kind, {})})
        agent = train(entry, training, Path()).agent
        trained = time.process_time() - began
        observation = observed(world, users)
        if not getattr(agent, "privileged", False):
            observation = replace(observation, appeal=None)
        taken = []
        for number in range(4):
            began = time.process_time()
            agent.act(observation, np.random.default_rng(number))
            taken.append(time.process_time() - began)
        sender.send((trained, min(taken)))
    except MemoryError:
        sender.send(f"needs more than {MEMORY / 2**30:.0f} GB")
    except Exception as error:  # noqa: BLE001  a kind that fails is a row of the table
        sender.send(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", help="kinds to measure; all where left out")
    parser.add_argument("--items", type=int, default=100_000, help="items of the catalogue")
    parser.add_argument("--users", type=int, default=1_000, help="users served by one call")
    parser.add_argument("--limit", type=float, default=1.0, help="processor seconds that an act may take")
    chosen = parser.parse_args()
    kinds = chosen.kinds or [kind for name in KINDS for kind in EXAMPLES.get(name, (name,))]
    context = multiprocessing.get_context("spawn")
    world, training = world_and_training(chosen.items)
    slow = False
    print(f"{chosen.users} users, {chosen.items} items\n{'kind':<24}{'act s':>8}{'train s':>9}")
    for kind in kinds:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(kind, world, training, chosen.users, sender))
        process.start()
        sender.close()
        try:
            found = receiver.recv()
        except EOFError:
            found = "its process ended"
        process.join()
        if isinstance(found, str):
            print(f"{kind:<24}{'-':>8}{'-':>9}  {found}", flush=True)
            continue
        trained, seconds = found
        slow |= seconds > chosen.limit
        print(f"{kind:<24}{seconds:>8.2f}{trained:>9.1f}{'  slow' if seconds > chosen.limit else ''}", flush=True)
    sys.exit(int(slow))


if __name__ == "__main__":
    main()
