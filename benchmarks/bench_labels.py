"""The learning curve of chosen labels against random ones: log-loss of held-out users' rows at each label budget.

`made` is a log whose items are mostly sure (liked or not almost always) and in part unsure, scored against its truth;
`ml-100k` is MovieLens, frozen encoder, scored on outcomes. One member. For each seed the split, the labels and the fit
are drawn anew; gains are paired by row, above 0 where chosen labels are better. Two 95 % intervals: by user, a user's
rows of all seeds being one cluster, which says what other users of these fits would show; and by seed, which holds the
draw of split, labels and fit and is the one to judge a way of choosing by.

    python benchmarks/bench_labels.py made --seeds 0 1 2 3 4 5 6 7 --budgets 150 300 600
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluators.fidelity.checks import ratio_by_user
from simulator.cache import default_cache_folder
from simulator.datasets import DataSettings, load_dataset
from simulator.log import HELD_OUT, WORLD_A, Catalogue, InteractionLog, split_users
from simulator.preference import PreferenceSettings, TextTower, fine_tune, fit_preference

CHOICES = ("uncertainty", "random")
N_USERS, N_ITEMS, ROWS = 200, 30, 20


def made_log() -> tuple[InteractionLog, np.ndarray, PreferenceSettings]:
    """Items 0 to 19 are liked or not almost always, the others by chance; the probability of each row."""
    rng = np.random.default_rng(8)
    user = np.repeat(np.arange(N_USERS), ROWS)
    item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
    sure = np.where(np.arange(N_ITEMS) % 2, 4.0, -4.0)
    p = 1 / (1 + np.exp(-np.where(np.arange(N_ITEMS) < 20, sure, rng.normal(0, 0.5, N_ITEMS))[item]))
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    liked = (rng.random(len(user)) < p).astype(np.float32)
    log = InteractionLog(user, item, np.tile(np.arange(ROWS, dtype=float), N_USERS), liked, catalogue, "made")
    return log, p, PreferenceSettings(members=1, dims=(2,), epochs=20, patience=3, vector_penalty=20)


def movielens() -> tuple[InteractionLog, np.ndarray, PreferenceSettings]:
    """The log, its outcomes, and the defaults with one member and a frozen encoder."""
    log = load_dataset(DataSettings(source="ml-100k"), Path())
    return log, log.primary.astype(np.float64), PreferenceSettings(members=1, adaptation="frozen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("made", "ml-100k"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--budgets", type=int, nargs="+", default=[150, 300])
    args = parser.parse_args()
    log, truth, settings = made_log() if args.data == "made" else movielens()
    for budget in args.budgets:
        began, users, losses = time.process_time(), [], {choice: [] for choice in CHOICES}
        for seed in args.seeds:
            root = np.random.SeedSequence(seed)
            split = split_users(log, root)
            tower = TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
            if args.data != "made":
                tower = fine_tune(log, split, WORLD_A, settings, root, cache=default_cache_folder() / "vectors")
            rows = split.rows(log, split.users(HELD_OUT), late=True)
            users.append(log.user[rows])
            for choice in CHOICES:
                few = settings.model_copy(update={"label_budget": budget, "label_choice": choice})
                p = fit_preference(log, split, WORLD_A, tower, few, root).predict(log, split, rows)
                losses[choice].append(-(truth[rows] * np.log(p) + (1 - truth[rows]) * np.log1p(-p)))
        user = np.concatenate(users)
        chosen, any_rows = (np.concatenate(losses[choice]) for choice in CHOICES)
        gain = ratio_by_user(any_rows - chosen, np.ones(len(user)), user, method="paired")
        by_seed = [float(np.mean(b - a)) for a, b in zip(losses["uncertainty"], losses["random"], strict=True)]
        mean, half = float(np.mean(by_seed)), float("nan")
        if len(by_seed) > 1:
            half = float(t.ppf(0.975, len(by_seed) - 1) * np.std(by_seed, ddof=1) / np.sqrt(len(by_seed)))
        print(
            f"{budget} labels, {len(args.seeds)} seeds, {len(user)} rows of {len(np.unique(user))} users: chosen "
            f"{chosen.mean():.4f}, random {any_rows.mean():.4f}, gain {gain.value:+.4f}, by user [{gain.low:+.4f}, "
            f"{gain.high:+.4f}], by seed [{mean - half:+.4f}, {mean + half:+.4f}]: "
            f"{' '.join(f'{one:+.4f}' for one in by_seed)}, "
            f"{time.process_time() - began:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
