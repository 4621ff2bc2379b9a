"""What each modality of an item adds on items without a row: the multimodal agent's own fusion of real modalities.

Items are dealt into folds. Those of one fold are taken out of the log, the fusion is taught on the rest, and the fold's
rows are put in order: each user is known by his rows of the other items. So every row is predicted once by a fusion
that never met its item. The value is the AUC of a user's own rows of a fold, averaged over users who have both kinds;
what a modality adds to the first set is paired by user, with a 95 % interval over users. Of emotify it is the AUC over
all rows of an emotion, with an interval over clips drawn again: clips are told apart there, not tastes.

    films     ml-latest-small: titles, genres, overviews, low-level features of trailers, films that have one
    movielens ml-100k: titles, genres, year of release
    emotify   400 clips of music: for each of nine emotions whether a listener felt it, by genre and by sound
    clothing  120 photographs of ten kinds of garment; nobody's choices are known, so users who like two kinds are drawn

Run `python benchmarks/bench_modalities.py --help`; one to three minutes each at rest.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents.base import Observation
from agents.fusion import Passes
from agents.multimodal import MultimodalSettings, fusion_inputs
from evaluators.intervals import t_quantile
from simulator.cache import default_cache_folder
from simulator.datasets import DataSettings, load_dataset, read_dataset
from simulator.datasets.emotify import EMOTIONS
from simulator.encoders.image import encode_images
from simulator.encoders.text import encode_texts, resolve_encoder
from simulator.log import Catalogue, InteractionLog, histories_of

Sets = Mapping[str, tuple[str, ...]]

FOLDS, HISTORY = 4, 50


def cold_scores(log: InteractionLog, modalities: tuple[str, ...], fold: np.ndarray, seed: int) -> np.ndarray:
    """[m] log-odds of a like of each row, by a fusion that met no item of the row's fold."""
    found = np.zeros(len(log))
    settings = MultimodalSettings(modalities=modalities)
    for held in range(fold.max() + 1):
        cold = fold[log.item] == held
        warm = InteractionLog(
            log.user[~cold], log.item[~cold], log.time[~cold], log.primary[~cold], log.catalogue, log.source
        )
        inputs = fusion_inputs(warm, warm.catalogue, modalities)
        learner = Passes(warm, inputs, settings, seed)
        while learner.steps < settings.epochs * len(warm) and learner.advance():
            pass
        tables = learner.policy()
        users, row = np.unique(log.user[cold], return_inverse=True)
        items, feedback = histories_of(log, users, keep=~cold).last(HISTORY)
        seen = Observation(
            user_features=log.catalogue.user_features[users],
            history_items=items,
            history_feedback=feedback,
            context=np.zeros((len(users), 0), np.float32),
            candidates=None,
            step=np.zeros(len(users), np.int64),
            slate_size=1,
        )
        vectors = tables.users(seen)
        item = log.item[cold]
        found[cold] = (vectors[row] * tables.items[item]).sum(axis=1) + tables.bias[item]
    return found


def auc(score: np.ndarray, liked: np.ndarray, fold: np.ndarray) -> float:
    """Chance that a liked row stands above one of its fold that is not; ties count half, NaN where there is no pair.

    Rows of two folds are not compared: who likes much of one fold has a history of the others that says less of him.
    """
    ahead = pairs = 0.0
    for held in np.unique(fold):
        rows = fold == held
        yes = int((liked[rows] > 0).sum())
        ahead += rankdata(score[rows])[liked[rows] > 0].sum() - yes * (yes + 1) / 2
        pairs += yes * (rows.sum() - yes)
    return ahead / pairs if pairs else np.nan


def by_user(log: InteractionLog, score: np.ndarray, counted: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """[U] AUC of each user's counted rows."""
    out = np.full(log.catalogue.n_users, np.nan)
    of, starts = fold[log.item], log.row_starts()
    for user in range(log.catalogue.n_users):
        rows = np.arange(starts[user], starts[user + 1])
        rows = rows[counted[rows]]
        out[user] = auc(score[rows], log.primary[rows], of[rows])
    return out


def line(name: str, values: np.ndarray, reference: np.ndarray | None) -> None:
    """Print a mean over users and the paired difference to the first set."""
    text = f"  {name:<34}{np.nanmean(values):.3f}"
    if reference is not None:
        gain = (values - reference)[np.isfinite(values)]
        half = t_quantile(0.95, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
        text += f"   {gain.mean():+.3f} [{gain.mean() - half:+.3f}, {gain.mean() + half:+.3f}]"
    print(text, flush=True)


def table(log: InteractionLog, sets: Sets, counted: Mapping[str, np.ndarray], seeds: Sequence[int]) -> None:
    """Print AUC within users, mean over training seeds, for each set of modalities and each part of the rows."""
    fold = np.random.default_rng(7).permutation(log.catalogue.n_items) % FOLDS
    scores = {name: [cold_scores(log, of, fold, seed) for seed in seeds] for name, of in sets.items()}
    for part, rows in counted.items():
        values = {name: np.mean([by_user(log, one, rows, fold) for one in of], axis=0) for name, of in scores.items()}
        first = next(iter(values.values()))
        print(f"{part}: {np.isfinite(first).sum()} users, {rows.sum()} rows")
        for name, of in values.items():
            line(name, of, None if of is first else first)


def with_text(log: InteractionLog, max_tokens: int = 64) -> InteractionLog:
    """The log with content vectors by the default encoder."""
    vectors = encode_texts(
        log.catalogue.item_text,
        resolve_encoder("minilm", Path()),
        cache=default_cache_folder() / "vectors",
        max_tokens=max_tokens,
    )
    return replace(log, catalogue=replace(log.catalogue, content=vectors))


def films(seeds: Sequence[int]) -> None:
    settings = DataSettings.model_validate(
        {
            "source": "ml-latest-small",
            "item_text": ["title", "overview"],
            "modalities": {"trailer": {"kind": "vectors"}},
        }
    )
    log = with_text(load_dataset(settings, Path()))
    sets = {
        "title, overview": ("id", "text"),
        "nothing": ("id",),
        "trailer alone": ("id", "trailer"),
        "title, overview, trailer": ("id", "text", "trailer"),
        "title, overview, genre": ("id", "text", "category"),
        "all": ("id", "text", "category", "trailer"),
    }
    trailer = np.isfinite(log.catalogue.modalities["trailer"]).all(axis=1)
    everything = np.ones(len(log), bool)
    table(log, sets, {"all films": everything, "films with a trailer": trailer[log.item]}, seeds)


def movielens(seeds: Sequence[int]) -> None:
    settings = DataSettings.model_validate(
        {
            "source": "ml-100k",
            "item_text": ["movie_title"],
            "modalities": {"year": {"kind": "number", "column": "release_year"}},
        }
    )
    log = with_text(load_dataset(settings, Path()))
    sets = {
        "title": ("id", "text"),
        "nothing": ("id",),
        "title, genre": ("id", "text", "category"),
        "title, year": ("id", "text", "year"),
        "all": ("id", "text", "category", "year"),
    }
    table(log, sets, {"all films": np.ones(len(log), bool)}, seeds)


def emotify(seeds: Sequence[int]) -> None:
    """AUC over all rows of an emotion; the clips are drawn again, for it is they that are told apart."""
    sets: Sets = {"genre": ("id", "category"), "sound": ("id", "sound"), "genre and sound": ("id", "category", "sound")}
    rng = np.random.default_rng(11)
    together: dict[str, list[np.ndarray]] = {name: [] for name in sets}
    print(
        f"{'emotion':<22}{'felt':>6}" + "".join(f"{name:>18}" for name in sets) + "   sound over genre, both over genre"
    )
    for emotion in EMOTIONS:
        settings = DataSettings.model_validate(
            {"source": "emotify", "positive": f"{emotion} == 1", "modalities": {"sound": {"kind": "audio"}}}
        )
        log = load_dataset(settings, Path())
        n_items = log.catalogue.n_items
        fold = np.random.default_rng(7).permutation(n_items) % FOLDS
        scores = {
            name: np.mean([cold_scores(log, of, fold, seed) for seed in seeds], axis=0) for name, of in sets.items()
        }
        rows = [np.flatnonzero(log.item == item) for item in range(n_items)]
        drawn = [np.concatenate([rows[item] for item in rng.integers(n_items, size=n_items)]) for _ in range(200)]
        value = {name: auc(of, log.primary, fold[log.item]) for name, of in scores.items()}
        again = {
            name: np.array([auc(of[d], log.primary[d], fold[log.item[d]]) for d in drawn])
            for name, of in scores.items()
        }
        for name in sets:
            together[name].append(np.append(value[name], again[name]))
        gains = [
            limits(value[name] - value["genre"], again[name] - again["genre"]) for name in ("sound", "genre and sound")
        ]
        felt = f"{log.primary.mean():>6.2f}"
        print(f"{emotion:<22}{felt}" + "".join(f"{value[name]:>18.3f}" for name in sets) + "   " + ", ".join(gains))
    mean = {name: np.mean(of, axis=0) for name, of in together.items()}
    gains = [
        limits((mean[name] - mean["genre"])[0], (mean[name] - mean["genre"])[1:])
        for name in ("sound", "genre and sound")
    ]
    print(f"{'mean of nine':<28}" + "".join(f"{mean[name][0]:>18.3f}" for name in sets) + "   " + ", ".join(gains))


def limits(value: float, again: np.ndarray) -> str:
    half = t_quantile(0.95, np.inf) * again.std(ddof=1)
    return f"{value:+.3f} [{value - half:+.3f}, {value + half:+.3f}]"


def clothing(seeds: Sequence[int]) -> None:
    media = read_dataset("clothing-images").media
    assert media is not None
    picture = encode_images([media.read(name) for name in media.names], "statistics", folder=Path())
    rng = np.random.default_rng(5)
    users, rows, n_items = 400, 30, len(media.names)
    fond = np.stack([rng.permutation(len(media.classes))[:2] for _ in range(users)])
    user = np.repeat(np.arange(users), rows)
    item = np.concatenate([rng.choice(n_items, rows, replace=False) for _ in range(users)])
    chance = np.where((media.label[item][:, None] == fond[user]).any(axis=1), 0.9, 0.1)
    catalogue = Catalogue(
        item_ids=media.item_ids,
        item_text=("",) * n_items,
        item_categories=np.zeros((n_items, 0), np.float32),
        category_names=(),
        user_ids=tuple(str(one) for one in range(users)),
        user_features=np.zeros((users, 0), np.float32),
        user_feature_names=(),
        modalities={"picture": picture, "kind": np.eye(len(media.classes), dtype=np.float32)[media.label]},
    )
    liked = (rng.random(len(user)) < chance).astype(np.float32)
    log = InteractionLog(user, item, np.arange(len(user), dtype=np.float64), liked, catalogue, "clothing")
    sets = {"nothing": ("id",), "picture": ("id", "picture"), "the kind itself": ("id", "kind")}
    table(log, sets, {"all garments": np.ones(len(log), bool)}, seeds)


PARTS = {"films": films, "movielens": movielens, "emotify": emotify, "clothing": clothing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all where left out")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each fusion, averaged")
    chosen = parser.parse_args()
    for name in chosen.parts or PARTS:
        began = time.process_time()
        print(f"\n{name}")
        PARTS[name](range(chosen.seeds))
        print(f"  {time.process_time() - began:.0f} processor seconds")


if __name__ == "__main__":
    main()
