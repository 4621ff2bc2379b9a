"""The multimodal agent in a small generated world whose truth is known: what a modality is worth on items without rows.

Items are liked for a hidden part that one modality shows. Half of the items are in no row of the log.
Sabotaged once, seen red: `id` kept for items without rows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.base import AgentError, Observation
from agents.fusion import passes
from agents.multimodal import ItemTables, MultimodalSettings, fusion_inputs
from simulator.log import InteractionLog
from tests.simulator.small_world import bare_catalogue

USERS, FRESH, ITEMS, WIDTH = 240, 120, 160, 4
COLD = np.arange(ITEMS) >= ITEMS // 2


def generated(*, shown_by: str) -> tuple[InteractionLog, np.ndarray, np.ndarray]:
    """Log of half the items; taste [FRESH, WIDTH] of users it never saw, and what the items are [ITEMS, WIDTH]."""
    rng = np.random.default_rng(21)
    hidden = rng.standard_normal((ITEMS, WIDTH))
    shows = hidden @ rng.standard_normal((WIDTH, 12)) + 0.2 * rng.standard_normal((ITEMS, 12))
    silent = rng.standard_normal((ITEMS, 12))
    text, image = (shows, silent) if shown_by == "text" else (silent, shows)
    taste = 1.5 * rng.standard_normal((USERS + FRESH, WIDTH))
    user = np.repeat(np.arange(USERS), 30)
    item = np.concatenate([rng.choice(ITEMS // 2, 30, replace=False) for _ in range(USERS)])
    like = rng.random(len(user)) < chance(taste[user], hidden[item])
    image = image.astype(np.float32)
    image[::10] = np.nan
    catalogue = bare_catalogue(
        USERS, (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32), modalities={"image": image}
    )
    log = InteractionLog(user, item, np.arange(len(user), dtype=float), like.astype(np.float32), catalogue, "generated")
    return log, taste[USERS:], hidden


def chance(taste: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(taste * hidden).sum(axis=-1)))


def fresh_users(taste: np.ndarray, hidden: np.ndarray) -> Observation:
    """Users whom the log never saw, each with a history of 20 warm items."""
    rng = np.random.default_rng(5)
    items = np.stack([rng.choice(ITEMS // 2, 20, replace=False) for _ in taste])
    liked = rng.random(items.shape) < chance(taste[:, None, :], hidden[items])
    return Observation(
        user_features=np.zeros((len(taste), 0), np.float32),
        history_items=items,
        history_feedback=liked.astype(np.float32),
        context=np.zeros((len(taste), 0), np.float32),
        candidates=np.broadcast_to(COLD, (len(taste), ITEMS)).copy(),
        step=np.zeros(len(taste), np.int64),
        slate_size=5,
    )


def learn(log: InteractionLog, *modalities: str, **settings: object) -> ItemTables:
    chosen = MultimodalSettings.model_validate({"modalities": modalities, "epochs": 30, **settings})
    *_, last = passes(log, fusion_inputs(log, log.catalogue, modalities), chosen, 3, chosen.epochs)
    return last


def worth(tables: ItemTables, taste: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """[FRESH] true chance of a like of the five cold items that rank highest for each user."""
    seen = fresh_users(taste, hidden)
    scores = np.where(COLD, tables.users(seen) @ tables.items.T + tables.bias, -np.inf)
    best = np.argsort(-scores, axis=1)[:, :5]
    return chance(taste[:, None, :], hidden[best]).mean(axis=1)


def interval(difference: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over users, paired."""
    half = 1.98 * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean() - half), float(difference.mean() + half)


@pytest.mark.parametrize(
    "fusion",
    [
        "gated",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("concatenation", "cross_attention", "transformer")),
    ],
)
def test_a_modality_that_matters_lifts_items_without_rows_far_above_text_alone(fusion: str) -> None:
    log, taste, hidden = generated(shown_by="image")
    text = worth(learn(log, "id", "text", fusion=fusion), taste, hidden)
    both = worth(learn(log, "id", "text", "image", fusion=fusion), taste, hidden)
    low, _ = interval(both - text)
    assert abs(text.mean() - 0.5) < 0.06  # text says nothing here: any five items do as well
    assert low > 0.1, interval(both - text)


def test_a_modality_that_says_nothing_costs_next_to_nothing() -> None:
    log, taste, hidden = generated(shown_by="text")
    text = worth(learn(log, "id", "text"), taste, hidden)
    both = worth(learn(log, "id", "text", "image"), taste, hidden)
    low, high = interval(both - text)
    assert text.mean() > 0.7
    assert low > -0.04, (low, high)
    assert high < 0.04, (low, high)


def test_an_item_without_a_modality_is_not_read_there() -> None:
    """Whatever stands in the place of a missing picture changes nothing; nor does the id of an item without rows."""
    log, _, _ = generated(shown_by="image")
    inputs = fusion_inputs(log, log.catalogue, ("id", "text", "image"))
    assert inputs.there[:, 2].tolist() == (np.arange(ITEMS) % 10 != 0).tolist()
    assert inputs.there[:, 0].tolist() == np.isin(np.arange(ITEMS), log.item).tolist()
    inputs.vectors[2][::10] = 99.0
    settings = MultimodalSettings(epochs=2)
    *_, loud = passes(log, inputs, settings, 3, 2)
    *_, quiet = passes(log, fusion_inputs(log, log.catalogue, ("id", "text", "image")), settings, 3, 2)
    assert np.array_equal(loud.items, quiet.items)
    assert np.array_equal(loud.bias, quiet.bias)


def test_a_bpr_loss_ranks_too_and_patience_ends_the_training() -> None:
    log, taste, hidden = generated(shown_by="text")
    assert worth(learn(log, "id", "text", loss="bpr"), taste, hidden).mean() > 0.65
    settings = MultimodalSettings(epochs=200, patience=1)
    assert len(list(passes(log, fusion_inputs(log, log.catalogue, ()), settings, 3, 200))) < 100


def test_a_name_that_the_items_do_not_have_is_one_line() -> None:
    log, _, _ = generated(shown_by="text")
    with pytest.raises(AgentError, match=r"no 'imge'; did you mean 'image'\?"):
        fusion_inputs(log, log.catalogue, ("text", "imge"))
    with pytest.raises(AgentError, match="no 'category'; there are id, text, image"):
        fusion_inputs(log, log.catalogue, ("category",))


def test_a_number_bends_at_its_quantiles_and_all_of_one_value_says_nothing() -> None:
    log, _, _ = generated(shown_by="text")
    year = np.linspace(1950, 2000, ITEMS, dtype=np.float32)[:, None]
    modalities = {"year": year, "flat": np.ones_like(year)}
    inputs = fusion_inputs(log, replace(log.catalogue, modalities=modalities), ("year", "flat"))
    assert np.all(np.diff(inputs.vectors[0].sum(axis=1)) > 0)
    assert inputs.vectors[0][0].tolist() == [-1] * 8
    assert inputs.vectors[0][-1].tolist() == [1] * 8
    assert not inputs.vectors[1].any()
