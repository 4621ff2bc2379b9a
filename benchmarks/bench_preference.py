"""What the preference model reaches on MovieLens 100k: log-loss against references, calibration, unseen items, seconds.

Every figure is on rows that no model saw: the fitting users' future rows ("future") and the held-out users' second half
("held out"). Intervals are 95 %, by user. Run `python benchmarks/bench_preference.py --help`; about 3 minutes a seed.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, t

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluators.fidelity import ScoredRows, calibration_floor
from simulator.cache import default_cache_folder
from simulator.datasets import DataSettings, load_dataset
from simulator.log import HELD_OUT, JUDGE, WORLD_A, InteractionLog, Split, split_users
from simulator.preference import PreferenceModel, PreferenceSettings, TextTower, fine_tune, fit_preference

ROLES = {"world A": WORLD_A, "judge": JUDGE}


@dataclass(frozen=True)
class Rows:
    """Unseen rows of one population."""

    name: str
    rows: np.ndarray
    user: np.ndarray
    liked: np.ndarray


def rows_of(name: str, log: InteractionLog, split: Split, users: np.ndarray) -> Rows:
    rows = split.rows(log, users, late=True)
    return Rows(name, rows, np.unique(log.user[rows], return_inverse=True)[1], log.primary[rows].astype(float))


def loss_of(p: np.ndarray, liked: np.ndarray) -> np.ndarray:
    return -(liked * np.log(p) + (1 - liked) * np.log1p(-p))


def ratio(a: np.ndarray, b: np.ndarray, user: np.ndarray) -> tuple[float, float, float]:
    """Ratio of user sums with its user-cluster t interval."""
    a, b = np.bincount(user, a), np.bincount(user, b)
    n, value = len(a), a.sum() / b.sum()
    half = t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1) * np.sum((a - value * b) ** 2)) / b.sum()
    return value, value - half, value + half


def slope(p: np.ndarray, rows: Rows) -> tuple[float, float, float]:
    """Slope of the logistic regression of the outcome on logit p, cluster-robust by user."""
    design = np.column_stack([np.ones(len(p)), np.log(p / (1 - p))])
    theta = np.array([0.0, 1.0])
    for _ in range(20):
        q = 1 / (1 + np.exp(-design @ theta))
        bread = np.linalg.inv((design * (q * (1 - q))[:, None]).T @ design)
        theta = theta + bread @ design.T @ (rows.liked - q)
    score = design * (rows.liked - q)[:, None]
    sums = np.column_stack([np.bincount(rows.user, column) for column in score.T])
    n = len(sums)
    se = np.sqrt((bread @ (sums.T @ sums) @ bread)[1, 1] * n / (n - 1))
    half = t.ppf(0.975, n - 1) * se
    return theta[1], theta[1] - half, theta[1] + half


def auc(score: np.ndarray, liked: np.ndarray) -> float:
    n1 = liked.sum()
    return float((rankdata(score)[liked > 0].sum() - n1 * (n1 + 1) / 2) / (n1 * (len(liked) - n1)))


def user_auc(p: np.ndarray, rows: Rows) -> float:
    found = [auc(p[rows.user == u], rows.liked[rows.user == u]) for u in np.unique(rows.user)
             if 0 < rows.liked[rows.user == u].sum() < np.sum(rows.user == u)]  # fmt: skip
    return float(np.mean(found))


def top_of_list(p: np.ndarray, rows: Rows) -> tuple[float, float, float]:
    """O/E among each user's tenth of rows that is scored highest (one row at least)."""
    order = np.lexsort((-p, rows.user))
    counts = np.bincount(rows.user)
    rank = np.arange(len(p)) - np.repeat(np.cumsum(counts) - counts, counts)
    top = order[rank < np.maximum(1, np.ceil(0.1 * counts))[rows.user[order]]]
    return ratio(rows.liked[top], p[top], rows.user[top])


def debiased_error(p: np.ndarray, rows: Rows, weight: np.ndarray | None = None) -> float:
    """Square root of the debiased squared calibration error over ten bins of equal count, 0 where it is negative."""
    weight = np.ones(len(p)) if weight is None else weight[rows.user]
    bins = np.minimum((rankdata(p, method="ordinal") - 1) * 10 // len(p), 9).astype(int)
    total = 0.0
    for b in range(10):
        here = bins == b
        n, gap = weight[here].sum(), weight[here] * (rows.liked - p)[here]
        by_user = np.bincount(rows.user[here], gap) - gap.sum() / n * np.bincount(rows.user[here], weight[here])
        total += n / weight.sum() * ((gap.sum() / n) ** 2 - np.sum(by_user**2) / n**2)
    return float(np.sqrt(max(total, 0.0)))


def error_with_upper(p: np.ndarray, rows: Rows, rng: np.random.Generator) -> tuple[float, float]:
    n = rows.user.max() + 1
    again = [debiased_error(p, rows, rng.multinomial(n, np.full(n, 1 / n)).astype(float)) for _ in range(300)]
    return debiased_error(p, rows), float(np.quantile(again, 0.975))


def floor(p: np.ndarray, rows: Rows, rng: np.random.Generator) -> float:
    """95th percentile of the error that a right model shows on such rows, whose users have moods of their own."""
    found = calibration_floor(ScoredRows(p, rows.liked, rows.user, np.ones(len(p))), rng, draws=200).debiased_95
    return float("nan") if found is None else found


def three(value: tuple[float, float, float], digits: int = 4) -> str:
    return f"{value[0]:+.{digits}f} [{value[1]:+.{digits}f}, {value[2]:+.{digits}f}]"


def show(name: str, p: np.ndarray, rows: Rows, others: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    error, upper = error_with_upper(p, rows, rng)
    gains = "  ".join(
        f"over {other} {three(ratio(loss_of(q, rows.liked) - loss_of(p, rows.liked), np.ones(len(p)), rows.user))}"
        for other, q in others.items()
    )
    observed, inside, top = ratio(rows.liked, p, rows.user), slope(p, rows), top_of_list(p, rows)
    print(f"  {rows.name:9s} {name:22s} loss {loss_of(p, rows.liked).mean():.4f}  AUC {auc(p, rows.liked):.3f} "
          f"(by user {user_auc(p, rows):.3f})  O/E {observed[0]:.3f} [{observed[1]:.2f}, {observed[2]:.2f}]  "
          f"slope {inside[0]:.2f} [{inside[1]:.2f}, {inside[2]:.2f}]  top {top[0]:.3f} [{top[1]:.2f}, {top[2]:.2f}]  "
          f"error {error:.3f} (<= {upper:.3f}, floor {floor(p, rows, rng):.3f})  {gains}", flush=True)  # fmt: skip


def timed(*args: object, **kwargs: object) -> tuple[PreferenceModel, float]:
    began = time.process_time()
    model = fit_preference(*args, **kwargs)  # type: ignore[arg-type]
    return model, time.process_time() - began


def world(
    log: InteractionLog, role: int, settings: PreferenceSettings, root: np.random.SeedSequence, cache: Path, refits: int
) -> None:
    split = split_users(log, root)
    rng = np.random.default_rng(0)
    began = time.process_time()
    tower = fine_tune(log, split, role, settings, root, cache=cache)
    spent = time.process_time() - began
    print(f" fine-tuning: kept the {tower.chosen} encoder, {spent:.0f} CPU s {tower.seconds}")
    if tower.gain is not None:
        n = len(tower.gain.rows)
        print(f"  gain over the frozen control, {n} tuning users: "
              f"{three(ratio(tower.gain.difference, tower.gain.rows.astype(float), np.arange(n)))}")  # fmt: skip
    frozen = fine_tune(log, split, role, settings.model_copy(update={"adaptation": "frozen"}), root, cache=cache)
    ids = TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
    alone = settings.model_copy(update={"categories": False})
    models = {
        "bias": timed(log, split, role, ids, settings, root, architecture="bias"),
        "MF d=64": timed(log, split, role, ids, settings, root, architecture="matrix_factorisation"),
        "two_tower ids only": timed(log, split, role, ids, alone, root),
        "two_tower text": timed(log, split, role, frozen, alone, root),
        "two_tower frozen": timed(log, split, role, frozen, settings, root),
        f"two_tower {tower.chosen}": timed(log, split, role, tower, settings, root),
    }
    for b in range(1, refits + 1):
        models[f"bootstrap {b}"] = timed(log, split, role, tower, settings, root, bootstrap=b)
    for name, (model, seconds) in models.items():
        print(f"  {name:22s} {seconds:5.1f} CPU s, {model.item_vectors.shape[1]} dims, calibration {model.slope:.3f} "
              f"{model.intercept:+.3f}, tuning log-loss {model.measures['tuning_log_loss']:.4f}")  # fmt: skip
    for rows in (
        rows_of("future", log, split, split.users(role, tuning=False)),
        rows_of("held out", log, split, split.users(HELD_OUT)),
    ):
        predicted = {name: model.predict(log, split, rows.rows) for name, (model, _) in models.items()}
        base = np.full(len(rows.rows), log.primary[split.rows(log, split.users(role, tuning=False), late=False)].mean())
        print(f"  {rows.name:9s} {len(rows.rows)} rows of {rows.user.max() + 1} users, like rate "
              f"{rows.liked.mean():.3f}, fitted base rate loses {loss_of(base, rows.liked).mean():.4f}")  # fmt: skip
        for name, p in predicted.items():
            others = {other: predicted[other] for other in ("bias", "MF d=64") if other != name}
            if name.startswith("two_tower") and tower.chosen in name:
                others["frozen"] = predicted["two_tower frozen"]
            show(name, p, rows, others, rng)


def hidden_items(
    log: InteractionLog, role: int, settings: PreferenceSettings, root: np.random.SeedSequence, cache: Path
) -> None:
    """Hide a tenth of the items from training and histories, and score the hidden items' late rows."""
    split = split_users(log, root)
    rng = np.random.default_rng(11)
    hidden = np.zeros(log.catalogue.n_items, bool)
    hidden[rng.choice(log.catalogue.n_items, log.catalogue.n_items // 10, replace=False)] = True
    kept = ~hidden[log.item]
    few = replace(
        log, user=log.user[kept], item=log.item[kept], time=log.time[kept], primary=log.primary[kept],
        behaviours={name: column[kept] for name, column in log.behaviours.items()},
    )  # fmt: skip
    few_split = Split(split.role, split.tuning, split.late[kept])
    tower = fine_tune(few, few_split, role, settings, root, cache=cache)
    text = fine_tune(few, few_split, role, settings.model_copy(update={"adaptation": "frozen"}), root, cache=cache)
    models = {
        "bias": fit_preference(few, few_split, role, tower, settings, root, architecture="bias"),
        "MF d=64": fit_preference(few, few_split, role, tower, settings, root, architecture="matrix_factorisation"),
        "two_tower frozen": fit_preference(few, few_split, role, text, settings, root),
        f"two_tower {tower.chosen}": fit_preference(few, few_split, role, tower, settings, root),
    }
    users = np.concatenate([split.users(role, tuning=False), split.users(HELD_OUT)])
    # All of the hidden items' rows are unseen; the history is what is left of the early rows.
    late = np.isin(log.user, users) & hidden[log.item]
    scored = np.flatnonzero(late)
    whole = Split(split.role, split.tuning, split.late | hidden[log.item])
    rows = Rows(
        "unseen", scored, np.unique(log.user[scored], return_inverse=True)[1], log.primary[scored].astype(float)
    )
    predicted = {name: model.predict(log, whole, scored) for name, model in models.items()}
    print(f" items hidden from training: {hidden.sum()} items, {len(scored)} rows, kept the {tower.chosen} encoder")
    for name, p in predicted.items():
        show(name, p, rows, {other: predicted[other] for other in ("bias", "MF d=64") if other != name}, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--roles", choices=list(ROLES), nargs="+", default=list(ROLES))
    parser.add_argument("--refits", type=int, default=1, help="bootstrap refits to show")
    parser.add_argument("--members", type=int, help="members in place of the default")
    parser.add_argument("--adaptation", default="top_layers", help="how the encoder is tuned, e.g. frozen")
    parser.add_argument("--no-hidden", action="store_true", help="leave the hidden items out")
    args = parser.parse_args()
    settings = PreferenceSettings.model_validate(
        {"adaptation": args.adaptation, **({} if args.members is None else {"members": args.members})}
    )
    log = load_dataset(DataSettings(source="ml-100k"), Path())
    cache = default_cache_folder() / "encodings"
    for seed in args.seeds:
        root = np.random.SeedSequence(seed)
        for name in args.roles:
            print(f"seed {seed}, {name}")
            world(log, ROLES[name], settings, root, cache, args.refits)
        if not args.no_hidden:
            hidden_items(log, WORLD_A, settings, root, cache)


if __name__ == "__main__":
    main()
