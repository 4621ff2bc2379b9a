"""KuaiRec's watch ratio as a distribution: calibration and skill at each threshold on users held out, by user.

Needs the dataset `kuairec-sample` under WINDTUNNEL_DATA. It is neither the whole matrix nor a uniform sample of it, and
has no times: see the data card. A few minutes.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluators.estimate import Estimate
from evaluators.fidelity.calibration import logistic_recalibration, observed_over_expected
from evaluators.fidelity.checks import ratio_by_user
from evaluators.fidelity.prediction import skill_over
from simulator.datasets import DataSettings, load_dataset
from simulator.log import HELD_OUT, JUDGE, split_users
from simulator.preference import PreferenceSettings, TextTower
from simulator.preference.graded import fit_graded

THRESHOLDS = (0.25, 0.5, 1.0, 2.0)


def shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "withheld"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="matrix_factorisation")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    data = DataSettings(source="kuairec-sample", positive="watch_ratio >= 1", behaviours=["watch_ratio"])
    log, root = load_dataset(data, Path()), np.random.SeedSequence(args.seed)
    split = split_users(log, root)
    tower = TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
    settings = PreferenceSettings(architecture=args.architecture, factors=16)
    model = fit_graded(log, split, JUDGE, tower, settings, root, "watch_ratio", THRESHOLDS)
    rows = split.rows(log, split.users(HELD_OUT), late=True)
    fitted = split.rows(log, split.users(JUDGE, tuning=False), late=False)
    survival, value, user = model.survival(log, split, rows), log.behaviours["watch_ratio"], log.user[rows]
    print(f"{len(rows)} rows of {len(np.unique(user))} held-out users, {args.architecture}")
    for k, threshold in enumerate(THRESHOLDS):
        y, p = (value[rows] >= threshold).astype(float), survival[:, k]
        base = np.full(len(rows), (value[fitted] >= threshold).mean())
        print(f"  watch ratio >= {threshold:g}: rate {y.mean():.3f}, O/E {shown(observed_over_expected(p, y, user))}, "
              f"slope {shown(logistic_recalibration(p, y, user))}, skill over the base rate "
              f"{shown(skill_over(p, base, y, user))}", flush=True)  # fmt: skip
    mean, seen = model.mean(survival), value[rows]
    gain = ratio_by_user((seen - mean) ** 2, (seen - value[fitted].mean()) ** 2, user, method="squared error")
    print(
        f"  mean: O/E {shown(ratio_by_user(seen, mean, user, method='O/E'))}, squared error over that of the "
        f"fitted mean {shown(gain)}"
    )


if __name__ == "__main__":
    main()
