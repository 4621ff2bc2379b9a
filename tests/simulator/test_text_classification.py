"""Classes of texts: the tuned encoder finds what a head on the frozen one cannot, and unseen texts stay unseen."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.encoders.classification import TextFit, TextTask, fit_frozen, fit_tuned
from simulator.encoders.settings import HeadSettings, TuningSettings
from tests.simulator.tiny_bert import tiny_bert

HEAD = HeadSettings(hidden=(16,), dropout=(0.1,), epochs=40, patience=5, learning_rate=5e-3)
TUNING = TuningSettings(epochs=6, batch_items=16, learning_rate=3e-3, heads_learning_rate=3e-3)


def order_task(n: int = 240) -> TextTask:
    """Which of two words comes first, among words that tell nothing: a bag of words cannot know."""
    rng = np.random.default_rng(2)
    fill = ("money", "card", "rate", "please", "quiet", "funny")
    label = rng.integers(0, 2, n)
    texts = []
    for first in label:
        a, b, c = rng.choice(fill, 3)
        texts.append(f"{a} war {b} love {c}" if first else f"{a} love {b} war {c}")
    train, validation = np.arange(0, n // 2), np.arange(n // 2, 3 * n // 4)
    return TextTask(tuple(texts), train, label[train], validation, label[validation], 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_bert(tmp_path_factory.mktemp("tiny") / "bert", spread=0.1))


@pytest.fixture(scope="module")
def fits(folder: str) -> tuple[TextFit, TextFit]:
    task = order_task()
    frozen, head = fit_frozen(task, folder, HEAD, np.random.default_rng(1))
    return frozen, fit_tuned(task, folder, head, np.random.default_rng(1), tuning=TUNING)


def test_tuning_learns_an_order_of_words_that_the_frozen_vectors_hide(fits: tuple[TextFit, TextFit]) -> None:
    task, test = order_task(), np.arange(180, 240)
    answer = np.array([text.index("war") < text.index("love") for text in task.texts]).astype(int)
    losses = [-fit.log_probability[test, answer[test]].mean() for fit in fits]
    assert losses[1] < losses[0] - 0.1


def test_both_sides_are_calibrated_distributions_over_all_texts(fits: tuple[TextFit, TextFit]) -> None:
    task = order_task()
    for fit in fits:
        assert np.exp(fit.log_probability).sum(1) == pytest.approx(1)
        assert fit.log_probability.shape == (240, 2)
        logits = fit.log_probability[task.validation] * fit.temperature
        for temperature in (0.8, 1.25):  # no other temperature is better on the validation texts
            other = logits / (temperature * fit.temperature)
            other = other - np.logaddexp.reduce(other, axis=1, keepdims=True)
            loss = -other[np.arange(len(other)), task.validation_label].mean()
            assert fit.validation_loss(task) <= loss + 1e-6


def test_the_tuned_side_starts_from_the_frozen_sides_head(fits: tuple[TextFit, TextFit]) -> None:
    frozen, tuned = fits
    assert tuned.losses[0] == pytest.approx(min(frozen.losses), abs=1e-3)
    assert frozen.trained_parameters == 0
    assert tuned.trained_parameters > 10_000


def test_texts_whose_classes_are_to_be_told_change_nothing_of_what_is_learned(folder: str) -> None:
    """The same task with other words in the unseen texts; equal seeds give equal bits elsewhere."""
    task = order_task(80)
    quick = TUNING.model_copy(update={"epochs": 1})
    changed = TextTask(
        (*task.texts[:60], *("please lost" for _ in range(20))), task.train, task.train_label, task.validation,
        task.validation_label, 2,
    )  # fmt: skip
    made = []
    for one in (task, changed):
        _, head = fit_frozen(one, folder, HEAD, np.random.default_rng(1))
        made.append(fit_tuned(one, folder, head, np.random.default_rng(1), adaptation="top_layers", tuning=quick))
    assert made[0].losses == pytest.approx(made[1].losses, abs=1e-6)
    assert made[0].log_probability[:60] == pytest.approx(made[1].log_probability[:60], abs=1e-5)
