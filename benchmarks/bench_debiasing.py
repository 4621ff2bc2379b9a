"""What correcting for self-selection buys on Coat: fitted on ratings people chose to give, scored on coats at random.

Declared before the random part was read: log-loss of "rating >= 4", naive fit minus debiased fit, paired, 95 % interval
by user; and O/E. The penalties are those that are best for the *naive* fit, and the correction is the best one,
both on the self-selected part's held-out rows (the debiased ones by their inverse propensities). Needs the dataset
`coat` under WINDTUNNEL_DATA; two minutes.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from pathlib import Path

import numpy as np
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluators.estimate import Estimate
from evaluators.fidelity.calibration import observed_over_expected
from evaluators.fidelity.checks import ratio_by_user
from evaluators.fidelity.scored_rows import log_loss
from simulator.datasets import DataSettings, load_dataset
from simulator.log import WORLD_A, InteractionLog, Split
from simulator.preference import PreferenceModel, PreferenceSettings, fine_tune, fit_preference

DATA = DataSettings(
    source="coat",
    positive="rating >= 4",
    item_text=["gender_of_coat", "jackettype", "color"],
    item_categories=["gender_of_coat", "jackettype", "color", "onfrontpage"],
    policy_inputs=["location", "fashioninterest"],
)
NAIVE = PreferenceSettings(
    adaptation="frozen", members=2, dims=(8,), bias_penalty=1.0, vector_penalty=10.0, patience=10
)
CORRECTIONS = {"naive": "none", "ips": "ips", "doubly robust": "doubly_robust"}


def split_of(log: InteractionLog, seed: int) -> Split:
    """Every user fits or tunes (a fifth of them); the random part is the test, so no user need be held out."""
    rng = np.random.default_rng(seed)
    n_users = log.catalogue.n_users
    tuning = np.zeros(n_users, bool)
    tuning[rng.permutation(n_users)[: round(0.2 * n_users)]] = True
    start = log.row_starts()
    order = np.lexsort((rng.random(len(log)), log.user))
    rank = np.empty(len(log), np.int64)
    rank[order] = np.arange(len(log)) - start[log.user]
    early = np.maximum(1, np.floor(np.where(tuning, 0.5, 0.8) * np.diff(start)))
    return Split(np.zeros(n_users, np.int8), tuning, rank >= early[log.user])


def on_pairs(
    model: PreferenceModel, log: InteractionLog, split: Split, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """Probabilities of pairs, the users folded in from their early self-selected rows."""
    users, who = np.unique(user, return_inverse=True)
    states = model.user_states(split.histories(log, users), log.catalogue.user_features[users])
    return np.asarray(expit(model.logits(states, who, item)))


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--random", action="store_true", help="score the random part too; look once")
    args = parser.parse_args()
    log = load_dataset(DATA, Path())
    assert log.random is not None
    assert log.propensity is not None
    tested = log.random
    p_random: dict[str, list[np.ndarray]] = {name: [] for name in CORRECTIONS}
    for seed in args.seeds:
        split, root = split_of(log, seed), np.random.SeedSequence(seed)
        tower = fine_tune(log, split, WORLD_A, NAIVE, root)
        rows = split.rows(log, split.users(WORLD_A, tuning=False), late=True)
        y, weight = log.primary[rows].astype(float), 1 / log.propensity[rows]
        weight = np.minimum(weight, 20 * weight.mean())
        for name, correction in CORRECTIONS.items():
            settings = NAIVE.model_copy(update={"debias": correction})
            model = fit_preference(log, split, WORLD_A, tower, settings, root)
            p = model.predict(log, split, rows)
            print(
                f"seed {seed} {name:14s} self-selected, held out: log-loss {log_loss(p, y).mean():.4f}, by inverse "
                f"propensity {weight @ log_loss(p, y) / weight.sum():.4f}, O/E {weight @ y / (weight @ p):.3f}",
                flush=True,
            )
            if args.random:
                p_random[name].append(on_pairs(model, log, split, tested.user, tested.item))
    if not args.random:
        return
    y = tested.primary.astype(float)
    print(f"random part: {len(y)} rows of {len(np.unique(tested.user))} users, rate {y.mean():.4f}")
    ones = np.ones(len(y))
    losses = {name: np.array([log_loss(p, y) for p in many]) for name, many in p_random.items()}
    for name, many in p_random.items():
        gain = losses["naive"] - losses[name]
        mean = np.mean(many, axis=0)
        observed = observed_over_expected(mean, y, tested.user)
        print(
            f"{name:14s} log-loss {losses[name].mean():.4f}, O/E {shown(observed)}, gain over naive "
            f"{shown(ratio_by_user(gain.mean(0), ones, tested.user, method='paired'))}, by seed "
            f"{' '.join(f'{one.mean():+.4f}' for one in gain)}"
        )


if __name__ == "__main__":
    main()
