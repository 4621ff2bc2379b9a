"""Going on from a saved model: what is saved comes back, newer rows are learned, and older ones are not forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.log import WORLD_A, Catalogue, InteractionLog, Split
from simulator.preference import Member, PreferenceSettings, TextTower, fit_preference, fitting, row_hashes
from simulator.preference.continual import SavedModel, forgetting, load, save, weigh_older
from simulator.preference.problem import Problem, build_problem
from simulator.preference.rehearsal import rehearsal_of
from simulator.preference.settings import UpdateSettings

pytest.importorskip("torch")

N_USERS, N_ITEMS, ROWS = 240, 40, 24
QUICK = PreferenceSettings(members=1, dims=(4,), epochs=10, patience=10, bias_penalty=0.2, vector_penalty=10)
IDS = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")


def drifting_log() -> tuple[InteractionLog, Split]:
    """Half of each user's rows are older; in newer ones the half of the items that they hold has changed its worth.

    Older rows are of items 0 to 39; newer ones of 0 to 19 alone, whose quality is turned round. So a model that only
    learns from newer rows has no reason to forget items 20 to 39 but drift of what all items share.
    """
    rng = np.random.default_rng(11)
    quality, mood = rng.normal(0, 1.5, N_ITEMS), rng.normal(0, 0.5, N_USERS)
    user = np.repeat(np.arange(N_USERS), ROWS)
    older = np.tile(np.arange(ROWS) < ROWS // 2, N_USERS)
    item = np.concatenate(
        [np.r_[rng.choice(N_ITEMS, ROWS // 2, replace=False), rng.choice(20, ROWS // 2, replace=False)]
         for _ in range(N_USERS)]
    )  # fmt: skip
    worth = np.where(older | (item >= 20), quality[item], -quality[item])
    liked = (rng.random(len(user)) < 1 / (1 + np.exp(-(worth + mood[user])))).astype(np.float32)
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"u{k}" for k in range(N_USERS)), np.zeros((N_USERS, 0), np.float32), (),
    )  # fmt: skip
    time = np.tile(np.arange(ROWS, dtype=float), N_USERS)
    log = InteractionLog(user, item, time, liked, catalogue, "drifting")
    role = np.where(np.arange(N_USERS) < 180, WORLD_A, 2).astype(np.int8)
    tuning = np.arange(N_USERS) % 9 == 0
    tuning &= role == WORLD_A
    return log, Split(role, tuning, np.zeros(len(log), bool))


def part(log: InteractionLog, keep: np.ndarray) -> InteractionLog:
    return replace(log, user=log.user[keep], item=log.item[keep], time=log.time[keep], primary=log.primary[keep])


@pytest.fixture(scope="module")
def root() -> np.random.SeedSequence:
    return np.random.SeedSequence(3)


@pytest.fixture(scope="module")
def made() -> tuple[InteractionLog, Split]:
    """All rows; late are the last two of the older half and of the newer half, and a tuning user's newer rows."""
    log, split = drifting_log()
    place = np.tile(np.arange(ROWS), N_USERS)
    late = np.isin(place, (ROWS // 2 - 2, ROWS // 2 - 1, ROWS - 2, ROWS - 1))
    late = np.where(split.tuning[log.user], place >= ROWS // 2 - 4, late)
    return log, replace(split, late=late)


@pytest.fixture(scope="module")
def saved(made: tuple[InteractionLog, Split], root: np.random.SeedSequence) -> SavedModel:
    """Fitted on the older rows alone."""
    log, split = made
    older = log.time < ROWS // 2
    few = part(log, older)
    model = fit_preference(few, replace(split, late=split.late[older]), WORLD_A, IDS, QUICK, root)
    return SavedModel(model, log.catalogue.item_ids, log.catalogue.user_feature_names)


def updated(
    made: tuple[InteractionLog, Split], saved: SavedModel, root: np.random.SeedSequence, **how: float
) -> tuple[float, float]:
    """Mean loss of older unseen rows after the update minus before, and of newer unseen rows after it."""
    log, split = made
    update = UpdateSettings(model="unused", learning_rate=0.02, **how)
    model = fit_preference(log, split, WORLD_A, IDS, QUICK.model_copy(update={"update": update}), root, saved=saved)
    lost = forgetting(model, saved, log, split)
    assert set(lost.user) <= set(np.flatnonzero(~split.tuning))
    newer = np.flatnonzero(split.late & (log.time >= ROWS // 2) & ~split.tuning[log.user])
    p, y = model.predict(log, split, newer), log.primary[newer]
    return float(np.mean(lost.after - lost.before)), float(-np.mean(np.log(np.where(y > 0, p, 1 - p))))


def test_a_saved_model_comes_back_to_the_last_bit(
    saved: SavedModel, tmp_path: Path, made: tuple[InteractionLog, Split]
) -> None:
    save(saved.model, made[0].catalogue, tmp_path / "world-a.npz")
    again = load(tmp_path / "world-a.npz")
    assert again.model.item_vectors.tobytes() == saved.model.item_vectors.tobytes()
    assert again.model.item_bias.tobytes() == saved.model.item_bias.tobytes()
    assert np.array_equal(again.model.seen, saved.model.seen)
    assert again.item_ids == saved.item_ids


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "judge.npz").write_bytes(b"not a zip")
    for name in ("judge.npz", "missing.npz"):
        with pytest.raises(InputError, match=r"^preference\.update\.model: .* cannot be read") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_update_starts_exactly_where_the_saved_model_ended(
    made: tuple[InteractionLog, Split], saved: SavedModel, root: np.random.SeedSequence
) -> None:
    """No pass is made (patience and epochs of one, a rate of next to nothing), items in another order, one unknown."""
    import torch

    from simulator.preference._two_tower import Heads
    from simulator.preference.problem import build_problem

    log, split = made
    known = saved.known(replace(log.catalogue, item_ids=("new", *log.catalogue.item_ids[:0:-1])))
    assert known[0] == -1
    heads = Heads(build_problem(log, split, WORLD_A), 0, 4, 0.0, torch.Generator())
    features = torch.zeros(N_ITEMS, 0)
    heads.take(saved.model.members[0], features, known)
    member = heads.export(features)
    old = saved.model.members[0]
    assert member.item_vectors[1:] == pytest.approx(old.item_vectors[:0:-1], abs=1e-6)
    assert member.item_offset[1:] == pytest.approx(old.item_offset[:0:-1], abs=1e-5)
    assert not member.item_vectors[0].any()


def test_replay_and_elastic_weights_each_forget_less_and_newer_rows_are_learned_all_the_same(
    made: tuple[InteractionLog, Split], saved: SavedModel, root: np.random.SeedSequence
) -> None:
    """Half of the items turned round, so the older rows must get worse; the more so the less they are heeded."""
    bare_lost, bare_new = updated(made, saved, root, replay=0.0)
    replay_lost, replay_new = updated(made, saved, root, replay=1.0)
    elastic_lost, elastic_new = updated(made, saved, root, replay=0.0, elastic=1.0)
    log, split = made
    newer = np.flatnonzero(split.late & (log.time >= ROWS // 2) & ~split.tuning[log.user])
    p, y = saved.on(log.catalogue).predict(log, split, newer), log.primary[newer]
    before_new = float(-np.mean(np.log(np.where(y > 0, p, 1 - p))))
    assert bare_lost > 0.1
    assert replay_lost < 0.8 * bare_lost
    assert elastic_lost < 0.8 * bare_lost
    assert bare_new < replay_new < before_new
    assert bare_new < elastic_new < before_new


def test_an_update_without_newer_rows_is_refused(
    made: tuple[InteractionLog, Split], saved: SavedModel, root: np.random.SeedSequence
) -> None:
    log, split = made
    older = log.time < ROWS // 2
    settings = QUICK.model_copy(update={"update": UpdateSettings(model="unused")})
    with pytest.raises(InputError, match=r"^preference\.update: .* no row to fit that the saved model has not seen"):
        fit_preference(
            part(log, older), replace(split, late=split.late[older]), WORLD_A, IDS, settings, root, saved=saved
        )


def test_rows_of_an_update_weigh_one_in_the_mean_and_their_rate_is_a_rate(
    made: tuple[InteractionLog, Split], saved: SavedModel
) -> None:
    """With all outcomes alike the rate is next to 1, whatever older rows weigh."""
    log, split = made
    liked = replace(log, primary=np.where(np.arange(len(log)) == 0, 0, 1).astype(np.float32))
    problem = build_problem(liked, split, WORLD_A)
    weighed, older = weigh_older(problem, liked, saved, 0.1)
    assert weighed.weight is not None
    assert older.weight is not None
    assert weighed.weight.mean() == pytest.approx(1, abs=1e-5)
    assert weighed.weight[older.weight > 0] == pytest.approx(0.1 * weighed.weight[older.weight == 0][0])
    assert weighed.base_logit == pytest.approx(problem.base_logit, abs=0.7)


def test_an_update_is_rehearsed_from_the_saved_model_and_asked_for_newer_rows_alone(
    made: tuple[InteractionLog, Split],
    saved: SavedModel,
    root: np.random.SeedSequence,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is learned (a rate of next to nothing), so the rehearsal's member is the saved one.

    It is said to have seen half of the rows that are held back.
    """
    log, split = made
    saved = replace(saved, model=replace(saved.model, seen=np.unique(row_hashes(log)[log.time < ROWS - 4])))
    asked: list[tuple[np.ndarray, Member]] = []

    def looked_at(problem: Problem, log: InteractionLog, fit: Any, rng: Any, *, seen: np.ndarray | None) -> None:
        found = rehearsal_of(problem, log, rng, seen=seen)
        assert found is not None
        asked.append((problem.rows[found.held], fit(found)))

    monkeypatch.setattr(fitting, "rehearse", looked_at)
    update = UpdateSettings(model="unused", learning_rate=1e-12, elastic=1.0)
    fit_preference(
        log, split, WORLD_A, IDS, QUICK.model_copy(update={"update": update, "epochs": 1}), root, saved=saved
    )
    rows, member = asked[0]
    assert set(log.time[rows]) == {ROWS - 4, ROWS - 3}
    assert not np.isin(row_hashes(log)[rows], saved.model.seen).any()
    assert member.item_vectors == pytest.approx(saved.model.members[0].item_vectors, abs=1e-5)
