"""Processor seconds of a run's evaluation: 10 agents, 5 judge worlds, 1,000 users, 20 steps, every evaluator.

MovieLens 100k has 377 judge users. Here each of its users stands three times, every time with another nine tenths of
the ratings, so that 1,000 can be judged; what is fitted and trained is cheap (frozen encoder) and not counted. Counted
are all stages after training: flights with sweeps, picks, corrected flights, rounds logged in a judge world, the log's
own rounds, and everything that the report says of them (comparisons, ranks, power, fairness, causal effects, paths,
gates) with the page. Tasks run one after another, one thread each; on two cores the flights and estimates of ten
agents are twenty tasks that share nothing, so half the processor seconds is what a person waits.

Run: python benchmarks/bench_evaluation.py [--keep FOLDER] [--profile FILE]     (3 minutes; --keep makes the next one 1)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pipeline
from simulator.cache import StageCache
from simulator.progress import Progress

TIMES, SHARE = 3, 0.9
COUNTED = ("fly", "picks", "correct", "off-policy check", "log rounds", "off-policy", "evaluate", "report")
STORED = ("fly", "correct", "off-policy check", "log rounds", "off-policy")
SCENARIO = """
name: evaluation
seed: 7
data:
  source: movielens-thrice
  positive: rating >= 4
  item_text: [movie_title, release_year, class]
  sensitive: [gender, age]
preference: {adaptation: frozen, members: 1, refit_members: 1, dims: [16], epochs: 4, patience: 2}
simulator:
  slate_size: 10
  horizon: 20
  examination: {model: position, decay: 0.85, sweep: [0.7, 1.0]}
  leave: {satisfaction: 2.5, sweep: [0.0, 5.0]}
agents:
  - {name: random, kind: random}
  - {name: popularity, kind: popularity}
  - {name: oracle, kind: oracle}
  - {name: segments, kind: segment_popularity}
  - {name: together, kind: cooccurrence}
  - {name: content, kind: content}
  - {name: ease, kind: "recbole:EASE"}
  - {name: even, kind: "rerank:popularity"}
  - {name: epsilon, kind: epsilon_greedy, train: {seeds: 1, steps: 20000}}
  - {name: linucb, kind: linucb, train: {seeds: 3, steps: 20000}}
evaluate:
  baseline: popularity
  users: 1000
  worlds: 5
  metrics: [reward, click_rate, session_length, diversity, novelty, coverage, exposure_gini, regret]
  off_policy: [ips, snips, dm, dr, sndr, "ips(clip=10)", "dr(clip=10)", "switch_dr(lambda=5)", "dros(lambda=100)",
               "sgdr(lambda=0.1)", "tuned(dr, slope)", mips]
  fairness: {attributes: [gender, age], intersections: [[gender, age]], metric: click_rate,
             mediators: [like_share, history_length]}
gates:
  - {name: better, rule: "difference(reward, vs=popularity) > 0 and fairness.gap(click_rate, gender) <= 0.05"}
  - {name: by the log, rule: "off_policy_difference(dr, vs=logged) > 0"}
"""


def thrice(folder: Path) -> None:
    """Write MovieLens 100k with every user three times, each with another nine tenths of the ratings."""
    from simulator.datasets.sources import locate_dataset

    found = locate_dataset("ml-100k")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("inter", "user", "item"):
        lines = (found / f"ml-100k.{part}").read_text(encoding="utf-8").splitlines()
        rows = lines[1:]
        if part == "user":
            rows = [_banded(row) for row in rows]
        if part != "item":
            kept = SHARE if part == "inter" else 1.0
            rows = [f"{k}00{row}" for k in range(1, TIMES + 1) for row in rows if rng.random() < kept]
        (folder / f"{folder.name}.{part}").write_text("\n".join([lines[0], *rows]) + "\n", encoding="utf-8")


def _banded(row: str) -> str:
    """A user's row with the age in bands, so that groups are large enough to be compared."""
    user, age, *rest = row.split("\t")
    band = next(band for top, band in ((25, "to 24"), (35, "to 34"), (50, "to 49"), (200, "older")) if int(age) < top)
    return "\t".join([user, band, *rest])


def main() -> None:
    """Print processor seconds by stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder for what is fitted and trained; a second run reads it")
    parser.add_argument("--profile", type=Path, help="file for a profile (cProfile) of the evaluation")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = asked.keep or Path(passing)
        os.environ["WINDTUNNEL_CACHE"] = str(folder / "cache")
        if not (folder / "movielens-thrice").exists():
            thrice(folder / "movielens-thrice")
        scenario = folder / "evaluation.yaml"
        scenario.write_text(SCENARIO, encoding="utf-8")
        cache = StageCache(folder / "cache")
        for stage in STORED:
            for file in (cache.folder / stage).glob("*.pkl"):
                file.unlink()
        profiler = None
        if asked.profile is not None:
            import cProfile

            profiler = cProfile.Profile()
            profiler.enable()
        progress = Progress()
        began = time.monotonic()
        pipeline.run(scenario, out=folder / "runs", workers=1, progress=progress)
        if profiler is not None:
            profiler.disable()
            profiler.dump_stats(asked.profile)
        print(f"{'stage':<20}{'cpu seconds':>12}")
        counted = {stage: progress.cpu_seconds.get(stage, 0.0) for stage in COUNTED}
        for stage, seconds in counted.items():
            print(f"{stage:<20}{seconds:>12.1f}")
        total = sum(counted.values())
        print(f"{'all':<20}{total:>12.1f}; {total / 2:.0f} s on two cores (limit 60); {time.monotonic() - began:.0f} s"
              " passed with reading, fitting and training")  # fmt: skip


if __name__ == "__main__":
    main()
