"""MovieLens 100k, default split: the preference model against RecBole's context models, and an ensemble against one.

RecBole's context models read user, item and genres. They cannot fold a user in, so they are given more rows than the
preference model: the early rows of tuning and held-out users, too. Pass and calibration are chosen on the tuning users'
late rows, as for every other model. Log-loss a row on rows that no model saw, 95 % intervals by user. After the last
seed the seeds are taken together: a user's rows of all of them are one cluster. About five minutes of processor time a
seed.
"""

from __future__ import annotations

import argparse
import copy
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents.recbole_training import contained
from evaluators.fidelity.checks import ratio_by_user
from evaluators.fidelity.scored_rows import inside, log_loss
from simulator.cache import default_cache_folder
from simulator.datasets import DataSettings, load_dataset
from simulator.log import HELD_OUT, JUDGE, InteractionLog, Split, split_users
from simulator.preference import PreferenceSettings, TextTower, fine_tune, fit_preference
from simulator.preference.calibration import calibrate

DATA = DataSettings(source="ml-100k", positive="rating >= 4", item_text=["movie_title", "release_year", "class"])
CONTEXT_MODELS = ("FM", "DeepFM", "WideDeep", "AutoInt", "DCNV2", "xDeepFM")
PASSES, PATIENCE = 30, 3
PLACES = ("future", "held out")
Probabilities = np.ndarray[Any, np.dtype[np.float64]]


def write_rows(log: InteractionLog, parts: dict[str, np.ndarray], folder: Path) -> None:
    """Atomic files of RecBole: a file of rows for each part, and the items' genres."""
    folder.mkdir()
    for name, rows in parts.items():
        lines = ["user_id:token\titem_id:token\tlabel:float"]
        lines += [f"{log.user[r]}\t{log.item[r]}\t{log.primary[r]:.0f}" for r in rows]
        (folder / f"ml.{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    genres = [" ".join(f"g{k}" for k in np.flatnonzero(row)) for row in log.catalogue.item_categories]
    lines = ["item_id:token\tgenres:token_seq", *(f"{k}\t{text}" for k, text in enumerate(genres))]
    (folder / "ml.item").write_text("\n".join(lines) + "\n", encoding="utf-8")


def context_model(name: str, log: InteractionLog, parts: dict[str, np.ndarray], seed: int) -> dict[str, Probabilities]:
    """Uncalibrated probabilities of RecBole's model for each part, in the order of its rows."""
    import torch

    with contained() as folder:
        from recbole.config import Config
        from recbole.data import create_dataset
        from recbole.utils import get_model, init_seed

        write_rows(log, parts, folder / "ml")
        config = Config(model=name, dataset="ml", config_dict={
            "data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "benchmark_filename": list(parts),
            "load_col": {"inter": ["user_id", "item_id", "label"], "item": ["item_id", "genres"]},
            "LABEL_FIELD": "label", "threshold": None, "seed": seed, "reproducibility": True, "use_gpu": False,
            "gpu_id": "", "state": "CRITICAL", "show_progress": False, "weight_decay": 0.0,
        })  # fmt: skip
        init_seed(seed, reproducibility=True)
        dataset = create_dataset(config)
        built = dict(zip(parts, dataset.build(), strict=True))
        model = get_model(name)(config, built["train"])
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

        def predict(part: str) -> Probabilities:
            model.eval()
            with torch.no_grad():
                return np.asarray(model.predict(dataset.join(built[part].inter_feat)), np.float64)

        best, kept, since = np.inf, copy.deepcopy(model.state_dict()), 0
        rows, y = dataset.join(built["train"].inter_feat), log.primary[parts["valid"]].astype(float)
        for _ in range(PASSES):
            model.train()
            for part in torch.randperm(len(rows)).split(512):
                loss = model.calculate_loss(rows[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            now = log_loss(inside(predict("valid")), y).mean()
            if now < best:
                best, kept, since = now, copy.deepcopy(model.state_dict()), 0
            elif (since := since + 1) >= PATIENCE:
                break
        model.load_state_dict(kept)
        return {part: predict(part) for part in parts if part != "train"}


@dataclass(frozen=True)
class Scored:
    """Unseen rows: [m] the user of each, and [m] its log-loss by each model."""

    user: np.ndarray[Any, np.dtype[np.int64]]
    loss: dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def scores(log: InteractionLog, split: Split, root: np.random.SeedSequence, seed: int) -> dict[str, Scored]:
    parts = {
        "train": np.flatnonzero(
            ~split.late & np.isin(log.user, np.concatenate([split.users(JUDGE), split.users(HELD_OUT)]))
        ),
        "valid": split.rows(log, split.users(JUDGE, tuning=True), late=True),
        "future": split.rows(log, split.users(JUDGE, tuning=False), late=True),
        "held out": split.rows(log, split.users(HELD_OUT), late=True),
    }
    predicted: dict[str, dict[str, Probabilities]] = {}
    for name in CONTEXT_MODELS:
        raw = context_model(name, log, {k.replace(" ", "_"): v for k, v in parts.items()}, seed)
        tuned = parts["valid"]
        fit = calibrate(logit(inside(raw["valid"])), log.primary[tuned], log.user[tuned])
        predicted[name] = {
            place: expit(fit.slope * logit(inside(raw[place.replace(" ", "_")])) + fit.intercept) for place in PLACES
        }
    settings = PreferenceSettings()
    cache = default_cache_folder() / "vectors"
    ids = TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
    tower = fine_tune(log, split, JUDGE, settings, root, cache=cache)
    frozen = fine_tune(log, split, JUDGE, settings.model_copy(update={"adaptation": "frozen"}), root, cache=cache)
    print(f"seed {seed}: kept the {tower.chosen} encoder", flush=True)
    models = {
        "bias": fit_preference(log, split, JUDGE, ids, settings, root, architecture="bias"),
        "MF": fit_preference(log, split, JUDGE, ids, settings, root, architecture="matrix_factorisation"),
        "frozen": fit_preference(log, split, JUDGE, frozen, settings, root),
        "one member": fit_preference(log, split, JUDGE, tower, settings.model_copy(update={"members": 1}), root),
        "two_tower": fit_preference(log, split, JUDGE, tower, settings, root),
    }
    for name, model in models.items():
        predicted[name] = {place: model.predict(log, split, parts[place]) for place in PLACES}
    return {
        place: Scored(
            log.user[parts[place]],
            {
                name: log_loss(inside(p[place]), log.primary[parts[place]].astype(float))
                for name, p in predicted.items()
            },
        )
        for place in PLACES
    }


def show(title: str, scored: Scored) -> None:
    mine = scored.loss["two_tower"]
    print(f"{title}: {len(mine)} rows of {len(np.unique(scored.user))} users, two_tower loses {mine.mean():.4f}")
    for name, theirs in scored.loss.items():
        if name != "two_tower":
            gain = ratio_by_user(theirs - mine, np.ones(len(mine)), scored.user, method="paired")
            print(f"  {name:10s} {theirs.mean():.4f}, two_tower gains {gain.value:+.4f} "
                  f"[{gain.low:+.4f}, {gain.high:+.4f}]", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    log = load_dataset(DATA, Path())
    every: dict[str, list[Scored]] = {place: [] for place in PLACES}
    for seed in parser.parse_args().seeds:
        root = np.random.SeedSequence(seed)
        for place, scored in scores(log, split_users(log, root), root, seed).items():
            show(f"seed {seed}, {place}", scored)
            every[place].append(scored)
    for place, several in every.items():
        user = np.concatenate([one.user for one in several])
        together = {name: np.concatenate([one.loss[name] for one in several]) for name in several[0].loss}
        show(f"all seeds, {place}", Scored(user, together))


if __name__ == "__main__":
    main()
