"""The multimodal agent in a small generated world whose truth is known: what a modality is worth on items without rows.

Items are liked for a hidden part that one modality shows. Half of the items are in no row of the log.
Sabotaged once, seen red: `id` kept for items without rows; a like counted the same however expected; rates shrunk to
the mean of all; a choice kept that earned less; repetition against what was logged before the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.base import AgentError, Observation
from agents.features import newest_rows
from agents.fusion import Fusion, Passes, _Held, _Rows, _tables, users_of
from agents.multimodal import Inputs, ItemTables, MultimodalSettings, balanced, fusion_inputs
from agents.slates import top_slates
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


def passes(
    log: InteractionLog, inputs: Inputs, settings: MultimodalSettings, seed: int, most: int
) -> Iterator[ItemTables]:
    """The tables before and after each pass, until there is nothing more to learn."""
    learner = Passes(log, inputs, settings, seed)
    yield learner.policy()
    for _ in range(most):
        more = learner.advance()
        yield learner.policy()
        if not more:
            return


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
    assert text.mean() < 0.56  # text says nothing here, so any five items do as well; in one world noise may mislead
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


def test_users_that_act_are_those_that_trained() -> None:
    """A like counts by how little it was expected, a row without one by how much: in torch and in arrays."""
    log, _, _ = generated(shown_by="text")
    inputs = fusion_inputs(log, log.catalogue, ())
    model = Fusion(inputs, 0, MultimodalSettings())
    with torch.no_grad():
        model.origin += torch.randn(model.origin.shape, generator=torch.Generator().manual_seed(1))
        for head in (model.bias, model.liked, model.other):
            head.weight *= 50
    held, users = _Held(inputs, log), np.arange(USERS)
    batch = _Rows(log, users).of(users)
    item = torch.from_numpy(batch.item)
    fused, bias = model.fuse(item, held.vectors, held.there[batch.item])
    theirs = users_of(model, held, batch, np.ones(len(batch.item), bool), fused, bias)
    tables = _tables(model, held)
    ours = tables.users(newest_rows(log, length=30, slate_size=5))
    assert np.allclose(ours, theirs[:, :-1].detach().numpy(), rtol=1e-3, atol=1e-4)
    assert np.ptp(tables.chance) > 0.5
    assert np.abs(ours - ours[0]).max() > 0.5


def test_what_few_chose_is_not_thought_as_good_as_the_rest() -> None:
    """Items of many rows are liked in 70 %, those of two in 20 %: one whose two rows are liked is below the many."""
    rng = np.random.default_rng(3)
    rows = np.where(np.arange(ITEMS) < 40, 80, 2)
    item = np.repeat(np.arange(ITEMS), rows)
    like = rng.random(len(item)) < np.where(item < 40, 0.7, 0.2)
    like[item == 50] = True
    user = rng.integers(0, USERS, len(item))
    order = np.argsort(user, kind="stable")
    catalogue = bare_catalogue(USERS, rng.standard_normal((ITEMS, 4)).astype(np.float32))
    log = InteractionLog(
        user[order], item[order], np.arange(len(item), dtype=float), like[order].astype(np.float32), catalogue, "rare"
    )
    inputs = fusion_inputs(log, catalogue, ())
    chance = 1 / (1 + np.exp(-(inputs.rate + inputs.mean)))
    assert chance[50] < 0.45
    assert chance[50] > chance[[51, 52, 53]].mean()
    assert abs(chance[:40].mean() - 0.7) < 0.05


def test_what_harms_sessions_is_taken_back_and_what_helps_is_kept() -> None:
    log, _, _ = generated(shown_by="text")
    inputs = fusion_inputs(log, log.catalogue, ())
    *_, learned = passes(log, inputs, MultimodalSettings(epochs=2), 3, 2)
    start = inputs.rate * inputs.there[:, 0]
    size = float(np.abs(learned.items).sum())

    def worth(tables: ItemTables) -> float:
        """Most with half the taste, no learned bias, repetition at 1, and items without rows 1 lower."""
        rest = np.abs(tables.bias - start + ~inputs.there[:, 0]).sum()
        return -abs(tables.repetition - 1) - abs(np.abs(tables.items).sum() / size - 0.5) - float(rest)

    found = balanced(learned, inputs, worth)
    assert found.repetition == 1
    assert np.allclose(found.items, 0.5 * learned.items)
    assert np.allclose(found.bias, start - ~inputs.there[:, 0])
    assert balanced(learned, inputs, lambda tables: None) is learned
    assert balanced(learned, inputs, lambda tables: -float(tables is not learned)) is learned


def test_repetition_is_held_against_the_last_two_slates_of_the_session_alone() -> None:
    log, taste, hidden = generated(shown_by="text")
    *_, learned = passes(log, fusion_inputs(log, log.catalogue, ()), MultimodalSettings(epochs=1), 3, 1)
    kinds = np.eye(ITEMS, dtype=np.float32)
    seen = replace(
        fresh_users(taste, hidden), step=np.ones(FRESH, np.int64)
    )  # one slate of five, after 15 logged items
    costs = replace(learned, kinds=kinds, repetition=2.0).scores(seen) - learned.scores(seen)
    shown = np.zeros((FRESH, ITEMS))
    np.put_along_axis(shown, seen.history_items[:, -5:], -2.0 / 5, axis=1)
    assert np.allclose(costs, shown, atol=1e-5)


def test_slates_of_a_block_of_users_at_a_time_are_those_of_all_scores() -> None:
    log, taste, hidden = generated(shown_by="text")
    *_, learned = passes(log, fusion_inputs(log, log.catalogue, ()), MultimodalSettings(epochs=1), 3, 1)
    tables = replace(learned, kinds=np.eye(4, dtype=np.float32)[np.arange(ITEMS) % 4], repetition=20.0)
    seen = replace(fresh_users(taste, hidden), step=np.ones(FRESH, np.int64))
    assert (tables.slates(seen) == top_slates(tables.scores(seen), seen)).all()
