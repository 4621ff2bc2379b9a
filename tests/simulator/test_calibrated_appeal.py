"""On logs of known truth a world clicks as often as the log does, however its users look and choose."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import simulator.behaviour.calibrating
import simulator.behaviour.fitting
from simulator.behaviour.calibrating import SlateBehaviour
from simulator.behaviour.examination import click_chances, examination_table, expected_choices, expected_clicks
from simulator.behaviour.leaving import running_satisfaction
from simulator.datasets import DataSettings, load_dataset
from simulator.log import JUDGE, InteractionLog, split_users
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.test_behaviour_of_a_log import ROOT, build

Floats = NDArray[np.float64]
SIZE = 6
STILL = {"satiation": {"strength": 0}, "drift": {"rate": 0}, "shown_again": True}


@pytest.fixture(scope="module")
def shown() -> tuple[InteractionLog, NDArray[np.int64]]:
    """A log of whole slates, and the slate [n, K] of rows that each of them is."""
    log = load_dataset(DataSettings(source="world:position_bias"), Path())
    order = np.lexsort((log.position, log.impression))
    whole = np.bincount(log.impression)[log.impression[order]] == SIZE
    return log, order[whole].reshape(-1, SIZE)


def truth(model: str, attraction: Floats, rng: np.random.Generator, decay: float, going_on: float) -> NDArray[np.bool_]:
    """[n, K] clicks, written down from the models' papers: no code of the simulator's."""
    n, size = attraction.shape
    click = np.zeros((n, size), bool)
    if model in ("logit", "nested"):
        odds = attraction / (1 - attraction)
        if model == "nested":  # pairs of places are nests here, of dissimilarity 1/2
            nest = np.sqrt(np.stack([odds[:, k] ** 2 + odds[:, k + 1] ** 2 for k in range(0, size, 2)], axis=1))
            odds = np.repeat(nest, 2, axis=1) * odds**2 / np.repeat(nest, 2, axis=1) ** 2
        upto = np.cumsum(odds, axis=1) / (1 + odds.sum(axis=1, keepdims=True))
        chosen = (rng.random((n, 1)) >= upto).sum(axis=1)
        click[np.flatnonzero(chosen < size), chosen[chosen < size]] = True
        return click
    alive, last = np.ones(n, bool), np.full(n, -1)
    for k in range(size):
        if model == "cascade":
            alive &= (k == 0) | (rng.random(n) < decay)
            click[:, k] = alive & (rng.random(n) < attraction[:, k])
            alive &= ~click[:, k] | (rng.random(n) < going_on)
            continue
        look = decay**k if model == "position" else np.where(last < 0, decay**k, going_on * decay ** (k - last - 1))
        click[:, k] = (rng.random(n) < look) & (rng.random(n) < attraction[:, k])
        last[click[:, k]] = k
    return click


def clicks_of(world: World, log: InteractionLog, slates: NDArray[np.int64]) -> float:
    """Clicks on the log's slates of the world's users, mean of eight flights."""
    user = log.user[slates[:, 0]]
    users = SimulatedUsers(world, len(slates), seed=3, slate_size=SIZE)
    total = 0
    for flight in range(8):
        users.start(np.searchsorted(world.starts.user, user), np.arange(len(slates)) + flight * len(slates))
        total += int(users.step(log.item[slates]).clicks.sum())
    return total / 8


@pytest.mark.parametrize(
    ("model", "decay", "going_on"),
    [("position", 0.85, 0), ("cascade", 0.85, 0.2), ("cascade", 0.85, 0.5), ("user_browsing", 0.85, 0.2),
     ("user_browsing", 0.85, 0.5), ("logit", 1, 1), ("nested", 1, 1)],
)  # fmt: skip
def test_the_worlds_clicks_on_the_logs_slates_are_those_of_the_truth(
    shown: tuple[InteractionLog, NDArray[np.int64]],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    decay: float,
    going_on: float,
) -> None:
    """Shifted for the place alone, cascades and user browsing clicked .64 to .83 as often; not at all, a choice .6."""
    log, slates = shown
    rng = np.random.default_rng(4)
    attraction = np.clip(rng.beta(2, 4, log.catalogue.n_items), 0.03, 0.9)[log.item[slates]]
    categories = np.zeros((log.catalogue.n_items, 0), np.float32)
    choosing = model in ("logit", "nested")
    primary = np.zeros(len(log), np.float32)
    primary[slates] = truth(model, attraction, rng, decay, going_on)
    log = replace(log, primary=primary, catalogue=replace(log.catalogue, item_categories=categories))
    behaviour: dict[str, Any] = {"examination": {"model": "position" if choosing else model}}
    if choosing:  # without categories nested is logit: the shift then takes up what the model lacks
        behaviour = {"examination": {"decay": 1.0, "fit": False}, "choice": {"model": model}}
    world = build(log, **STILL, **behaviour)
    ours = slates[np.isin(log.user[slates[:, 0]], split_users(log, ROOT).users(JUDGE))]
    here = np.isin(slates[:, 0], ours[:, 0])
    expected = np.mean([truth(model, attraction[here], rng, decay, going_on).sum() for _ in range(8)])
    assert clicks_of(world, log, ours) / expected == pytest.approx(1.0, abs=0.05)
    assert any(note.startswith("appeal: ") and "click as often on" in note for note in world.notes)
    assert world.fitted_shift > 0.1
    # A slate with as many clicks as the log's has satisfaction 1/2: in flight, and where leaving is fitted.
    split = split_users(log, ROOT)
    read = np.zeros(len(log), bool)
    read[split.rows(log, split.users(JUDGE), late=False)] = True
    logged = log.primary[slates[read[slates].all(axis=1)]].sum(axis=1).mean()
    assert world.expected_clicks(SIZE) == pytest.approx(logged, rel=0.02)
    usual: list[float] = []

    def satisfaction(session: NDArray[np.int64], clicks: Floats, **given: float) -> Floats:
        usual.append(given["usual"])
        return running_satisfaction(session, clicks, **given)

    monkeypatch.setattr(simulator.behaviour.fitting, "running_satisfaction", satisfaction)
    leaving = build(log, **STILL, **behaviour, leave={"fit": True})
    assert usual == pytest.approx([leaving.expected_clicks(SIZE)] * 2)


def test_users_of_ones_own_class_meet_the_models_appeal(
    shown: tuple[InteractionLog, NDArray[np.int64]], tmp_path: Path
) -> None:
    """The shift takes back the kernel's examination: a class that looks at every place clicked 2.4 times too often."""
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "from simulator.behaviour.own import Acts\n"
        "class All:\n"
        "    def begin(self, user): return {}\n"
        "    def act(self, moment):\n"
        "        clicks = moment.uniforms('click') < 1 / (1 + np.exp(-moment.appeal))\n"
        "        return Acts(clicks, leave=np.zeros(len(clicks), bool))\n"
    )
    log, slates = shown
    world = build(log, **STILL, behaviour=f"{tmp_path / 'own.py'}:All")
    assert world.fitted_shift == 0
    ours = slates[np.isin(log.user[slates[:, 0]], split_users(log, ROOT).users(JUDGE))]
    assert clicks_of(world, log, ours) / log.primary[ours].sum() == pytest.approx(1.0, abs=0.1)
    note = "appeal: examination and choice are not calibrated; users of your own class decide them"
    assert note in world.notes


def test_expected_clicks_of_slates_are_those_of_the_closed_forms_and_of_draws() -> None:
    rng = np.random.default_rng(0)
    rate = rng.random((2_000, 4))
    for model in ("position", "cascade", "user_browsing"):
        table = examination_table(model, 0.8, 0.4, 4)
        chances = click_chances(model, table, 0.4, rate)
        drawn = np.mean([truth(model, rate, rng, 0.8, 0.4).mean(axis=0) for _ in range(40)], axis=0)
        assert chances.mean(axis=0) == pytest.approx(drawn, abs=0.01)
        same = SlateBehaviour(model, table, 0.4).clicks(np.zeros((3, 4)), np.zeros((3, 4), int), rng)(0.3)
        assert same == pytest.approx(3 * expected_clicks(model, table, 0.4, 1 / (1 + np.exp(-0.3))))
    for model in ("position", "cascade"):
        table = examination_table(model, 0.8, 0.4, 4)
        choosing = SlateBehaviour(model, table, 0.4, "logit", no_choice=0.5)
        found = choosing.clicks(np.full((100, 4), -0.2), np.full((100, 4), -1), rng)(0.0) / 100
        assert found == pytest.approx(expected_choices(model, table, 0.5, 1 / (1 + np.exp(0.2))), abs=0.01)


def test_a_nest_acts_as_the_kernels_does() -> None:
    """Two of three items are one nest; the third has one of its own, and so has what has no category."""
    z, scale = np.log(np.array([[1.0, 2.0, 3.0]])), 0.5
    nests = np.array([[0, 0, -1]])
    behaviour = SlateBehaviour("position", np.ones((3, 4)), 1.0, "nested", no_choice=0.0, dissimilarity=scale)
    inclusive = (1.0 ** (1 / scale) + 2.0 ** (1 / scale)) ** scale
    chosen = behaviour.clicks(z, nests, np.random.default_rng(0))(0.0)
    assert chosen == pytest.approx((inclusive + 3) / (1 + inclusive + 3))
    empty = behaviour.clicks(np.array([[-np.inf, *z[0, 1:]]]), nests, np.random.default_rng(0))(0.0)
    assert empty == pytest.approx(5 / 6)
    flat = replace(behaviour, choice="logit").clicks(z, nests, np.random.default_rng(0))(0.0)
    assert flat == pytest.approx(6 / 7)
    nothing = np.full((2, 3), -np.inf)
    both = np.vstack([nothing[:1], z, nothing[:1], z + 1])
    of_all = behaviour.clicks(both, np.tile(nests, (4, 1)), np.random.default_rng(0))
    more = np.e * (inclusive + 3)
    assert of_all(0.0) == pytest.approx(chosen + more / (1 + more))
    assert of_all(1.0) == pytest.approx(more / (1 + more) + np.e * more / (1 + np.e * more))
    assert behaviour.clicks(nothing, np.tile(nests, (2, 1)), np.random.default_rng(0))(0.0) == 0


def test_long_slates_are_calibrated_on_fewer_and_their_nests_in_time_that_grows_with_their_places() -> None:
    """By pairs of items 1,000 slates of 300 would be 90 million pairs a shift."""
    rng = np.random.default_rng(0)
    logit, nest = rng.standard_normal((1_000, 300)), rng.integers(-1, 20, (1_000, 300))
    behaviour = SlateBehaviour("position", np.ones((300, 301)), 1.0, "nested", no_choice=4.0, dissimilarity=0.5)
    began = time.process_time()
    expected = behaviour.clicks(logit, nest, rng)
    assert expected(1.0) > expected(0.0) > expected(-1.0)
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    ("lacks", "settings", "why"),
    [
        ({"impression": None}, {"choice": {"model": "logit"}}, "data.columns.impression"),
        ({"impression": None}, {"examination": {"model": "cascade"}}, "data.columns.impression"),
        ({"position": None}, {"choice": {"model": "logit"}}, "data.columns.position"),
        ({"position": None}, {}, "data.columns.position"),
        ({}, {"choice": {"model": "logit", "no_choice": 60.0}}, "these users make"),
    ],
)
def test_where_the_log_cannot_calibrate_the_world_says_so(
    shown: tuple[InteractionLog, NDArray[np.int64]], lacks: dict[str, None], settings: dict[str, Any], why: str
) -> None:
    world = build(replace(shown[0], **lacks), **settings)
    (note,) = (note for note in world.notes if note.startswith("appeal: "))
    assert note.startswith("appeal: examination and choice are not calibrated; ")
    assert why in note
    assert world.fitted_shift == 0


def test_an_examination_that_is_assumed_is_calibrated_too_and_none_needs_nothing(
    shown: tuple[InteractionLog, NDArray[np.int64]],
) -> None:
    log, _ = shown
    assumed = build(log, examination={"decay": 0.5, "fit": False})
    assert assumed.fitted_shift > 0.5
    flat = build(log, examination={"decay": 1.0, "fit": False})
    assert flat.fitted_shift == 0
    assert not [note for note in flat.notes if note.startswith("appeal")]
    choosing = {"examination": {"decay": 1.0, "fit": False}, "choice": {"model": "logit"}}
    placed, unplaced = build(log, **choosing), build(replace(log, position=None), **choosing)
    assert placed.fitted_shift == pytest.approx(unplaced.fitted_shift, abs=1e-3)


def test_of_many_slates_some_are_replayed_evenly_from_all(
    shown: tuple[InteractionLog, NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = shown
    whole = build(log, examination={"model": "cascade"}).fitted_shift
    monkeypatch.setattr(simulator.behaviour.calibrating, "_MOST_SLATES", 600)
    for lacks, what in (({}, "600 logged slates"), ({"impression": None}, "600 logged rows")):
        model = "position" if lacks else "cascade"
        world = build(replace(log, **lacks), examination={"model": model})
        assert any(what in note for note in world.notes)
        assert world.fitted_shift == pytest.approx(whole, abs=0.5)
        assert world.fitted_shift > 0.1
    monkeypatch.setattr(simulator.behaviour.calibrating, "_MOST_PLACES", 300 * SIZE)
    assert any("300 logged slates" in note for note in build(log, examination={"model": "cascade"}).notes)
