"""What training buys: each agent of scenarios/movielens.yaml, taught in world A and judged in worlds of other users.

Worlds stand on the frozen encoder, which is quick; one of the judge worlds is of another model class. Intervals are
95 %, users crossed with training seeds, within these worlds. `gain` is the last point of the learning curve less the
first, in world A. Run `python benchmarks/bench_agents.py --help`; about 4 minutes a split.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents.base import Training
from agents.loading import AgentSettings, AgentSpec, Trained, resolve_kind, train, training_seeds
from evaluators.comparison import AgentValues, SeedPool, paired_difference
from evaluators.rollout import fly
from scenarios.loading import load_scenario
from scenarios.stages.training import MakeTrainEnv, training_log
from simulator.cache import default_cache_folder
from simulator.datasets import load_dataset
from simulator.log import JUDGE, WORLD_A, split_users
from simulator.preference import PreferenceSettings, fine_tune, fit_preference
from simulator.streams import stream, stream_word
from simulator.world import World

PROJECT = Path(__file__).resolve().parent.parent
CLASSES = {1: ("two_tower", None), 2: ("two_tower", 2), 3: ("matrix_factorisation", 3)}


def worlds_of(seed: int) -> tuple[World, dict[int, World], Training]:
    """World A, the judge worlds, and what every agent's training has in common."""
    scenario = load_scenario(PROJECT / "scenarios" / "movielens.yaml")
    root = np.random.SeedSequence(seed)
    log = load_dataset(scenario.data, PROJECT / "scenarios", seed=seed)
    split = split_users(log, root)
    settings = PreferenceSettings(adaptation="frozen", members=2)
    tower = fine_tune(log, split, WORLD_A, settings, root, cache=default_cache_folder() / "vectors")
    log = replace(log, catalogue=replace(log.catalogue, content=tower.vectors))

    def world(role: int, name: str, architecture: str, bootstrap: int | None) -> World:
        model = fit_preference(log, split, role, tower, settings, root, architecture=architecture, bootstrap=bootstrap)
        return World.build(model, log, split, split.users(role), scenario.simulator, name=name)

    a = world(WORLD_A, "A", "two_tower", None)
    judges = {number: world(JUDGE, f"B{number}", *made) for number, made in CLASSES.items()}
    rows = training_log(log, split)
    shared = Training(
        log=rows,
        catalogue=rows.catalogue,
        make_env=MakeTrainEnv(a, rows.catalogue.content),
        slate_size=a.slate_size,
        horizon=a.horizon,
        rng=np.random.default_rng(0),
        seed=0,
        budget=None,
        report=lambda steps, value: None,
    )
    return a, judges, shared


def teach(spec: AgentSpec, shared: Training, root: np.random.SeedSequence, number: int) -> Trained:
    name = spec.settings.name
    training = replace(
        shared, rng=stream(root, "train", name, number), seed=stream_word(root, "train", name, number, bits=31)
    )
    return train(spec, training, PROJECT / "scenarios")


def clicks_of(trained: list[Trained], judges: dict[int, World], name: str) -> np.ndarray:
    """[T, M, U] clicks a session."""
    return np.array(
        [
            [
                fly(one.agent, judge, name=name, world_number=m, seed=1, training_seed=t).clicks.sum(axis=(1, 2))
                for m, judge in judges.items()
            ]
            for t, one in enumerate(trained)
        ],
        dtype=float,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7, help="seed of the split, the worlds and the trainings")
    parser.add_argument("--trainings", type=int, default=3, help="training seeds of each agent that draws")
    parser.add_argument("--agents", nargs="*", help="names of the scenario's agents; all where left out")
    parser.add_argument("--kinds", nargs="*", default=[], help="further kinds, with their defaults")
    chosen = parser.parse_args()
    began = time.process_time()
    _, judges, shared = worlds_of(chosen.seed)
    root = np.random.SeedSequence(chosen.seed)
    print(f"seed {chosen.seed}: {len(judges[1].starts)} judge users; worlds {time.process_time() - began:.0f} cpu s")

    values: dict[str, AgentValues] = {}
    figures: dict[str, tuple[float, str]] = {}
    further = [AgentSettings(name=kind.replace(":", " "), kind=kind) for kind in chosen.kinds]
    for entry in [*load_scenario(PROJECT / "scenarios" / "movielens.yaml").agents, *further]:
        if (
            chosen.agents is not None
            and entry not in further
            and entry.name not in {*chosen.agents, "random", "popularity"}
        ):
            continue
        spec = resolve_kind(entry, PROJECT / "scenarios")
        began = time.process_time() + sum(os.times()[2:4])
        trained = [teach(spec, shared, root, number) for number in range(min(chosen.trainings, training_seeds(spec)))]
        seconds = (time.process_time() + sum(os.times()[2:4]) - began) / len(trained)
        curves = [one.curve for one in trained if one.curve]
        gain = ", ".join(f"{curve[0][1]:.1f} to {curve[-1][1]:.1f}" for curve in curves)
        values[entry.name] = AgentValues(clicks_of(trained, judges, entry.name), trains=spec.learns)
        figures[entry.name] = (seconds, gain)

    pool = SeedPool.of(values.values())
    print(
        f"{'agent':<12}{'clicks':>8}  {'by world':<22}{'over random':>22}{'over popularity':>22}{'cpu s':>8}  gain in A"
    )
    for name, of in values.items():
        cells = []
        for other in ("random", "popularity"):
            made = paired_difference(of, values[other], pool).estimate
            if name == other:
                cells.append("")
            elif made.value is None or made.low is None or made.high is None:
                cells.append("withheld")
            else:
                cells.append(f"{made.value:+.2f} [{made.low:+.2f}, {made.high:+.2f}]")
        worlds = " ".join(f"{value:.2f}" for value in of.by_world)
        seconds, gain = figures[name]
        print(f"{name:<12}{of.value:>8.2f}  {worlds:<22}{cells[0]:>22}{cells[1]:>22}{seconds:>8.1f}  {gain}")


if __name__ == "__main__":
    main()
