"""Worlds: what is in them, what may be changed, and what a file gives back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from simulator.behaviour import (
    SimulatorSettings,
    assumptions_of,
    examination_table,
    expected_choices,
    expected_clicks,
    replace_parameter,
)
from simulator.errors import InputError
from simulator.log import split_users
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import TruePreference, small_log, small_world


def test_sessions_start_from_the_early_rows_of_the_given_users() -> None:
    rng = np.random.default_rng(0)
    log = small_log(rng)
    split = split_users(log, np.random.SeedSequence(0))
    preference = TruePreference(rng.standard_normal((130, 6)).astype(np.float32), np.zeros(130, np.float32))
    users = np.array([7, 3, 21])
    world = World.build(
        preference, log, split, users, SimulatorSettings(history_length=4), name="w", policy_features=["gender=F"]
    )
    assert world.starts.user.tolist() == [7, 3, 21]
    for row, user in enumerate(users):
        early = np.flatnonzero((log.user == user) & ~split.late)
        assert world.starts.history_items[row].tolist() == log.item[early][-4:].tolist()
        part = slice(world.starts.seen.start[row], world.starts.seen.start[row + 1])
        assert world.starts.seen.item[part].tolist() == log.item[early].tolist()
    assert np.array_equal(world.starts.user_features, log.catalogue.user_features[users][:, 1:])
    assert world.feature_names == ("gender=F",)
    with pytest.raises(InputError, match=r"policy_features: 'gender' is not a user feature; did you mean 'gender=F'\?"):
        World.build(preference, log, split, users, SimulatorSettings(), name="w", policy_features=["gender"])
    with pytest.raises(InputError, match="no users"):
        World.build(preference, log, split, users[:0], SimulatorSettings(), name="w")


def test_what_was_met_in_the_log_is_shown_again_where_the_settings_say_so() -> None:
    """Nobody's history is a candidate, or all of it is; what the session showed is none either way."""
    for again in (False, True):
        world = small_world(shown_again=again)
        users = SimulatedUsers(world, len(world.starts), seed=1, slate_size=1)
        users.start(np.arange(users.n))
        met = np.zeros((users.n, world.n_items), bool)
        met[np.repeat(np.arange(users.n), np.diff(world.starts.seen.start)), world.starts.seen.item] = True
        assert np.array_equal(users.candidates(), np.ones_like(met) if again else ~met)
        known = world.starts.seen.item[world.starts.seen.start[:-1], None].astype(np.int64)  # one of each user's own
        assert ((users.step(known).shown >= 0) == again).all()
        assert not users.candidates()[np.arange(users.n), known[:, 0]].any()


def test_every_behaviour_parameter_says_where_it_comes_from() -> None:
    world = small_world()
    parts = {(a.part, a.parameter): a for a in world.assumptions}
    assert {a.part for a in world.assumptions} == {"examination", "satiation", "drift", "leave"}
    assert parts["examination", "decay"].sweep == (0.7, 1.0)
    assert all(a.source == "assumed" and a.se is None for key, a in parts.items() if key != ("leave", "usual_rate"))
    usual = parts["leave", "usual_rate"]
    assert usual.source == "fitted"
    seen = world.starts.seen
    assert usual.value == pytest.approx(seen.primary.mean())
    # The user is the cluster: the same as the jackknife over users, up to 1/n.
    sums, rows = np.add.reduceat(seen.primary, seen.start[:-1]), np.diff(seen.start)
    left_out = (sums.sum() - sums) / (rows.sum() - rows)
    jackknife = np.sqrt((len(rows) - 1) * np.mean((left_out - left_out.mean()) ** 2))
    assert usual.se == pytest.approx(jackknife, rel=0.1)


def test_a_part_that_is_switched_on_is_swept_around_its_value_unless_the_scenario_says_how() -> None:
    """Of everything that is assumed, only how fast memories and gaps fade, a threshold and a slope are held fixed."""
    on = {
        "examination": {"model": "position"},
        "choice": {"model": "nested"},
        "boredom": {"depth": 3.0},
        "returning": {},
        "friends": {"strength": 0.4},
        "popularity": {"strength": -1.0},
    }
    rows = assumptions_of(SimulatorSettings.model_validate(on), 0.1, 0.01)
    found = {f"{a.part}.{a.parameter}": a.sweep for a in rows if a.source == "assumed"}
    assert found["friends.strength"] == (0.0, 0.8)
    assert found["popularity.strength"] == (0.0, -2.0)
    assert found["boredom.depth"] == (0.0, 6.0)
    assert found["choice.no_choice"] == (-1.0, 1.0)
    assert found["choice.dissimilarity"] == (0.25, 0.75)
    cascade = assumptions_of(SimulatorSettings.model_validate({"examination": {"model": "cascade"}}), 0.1, 0.01)
    assert {a.parameter: a.sweep for a in cascade if a.part == "examination"} == {
        "decay": (0.7, 1.0), "continuation": (0.25, 0.75)}  # fmt: skip
    assert found["returning.median_gap"] == (1.5, 6.0)
    assert found["returning.spread"] == (1.0, 2.0)
    held = {name for name, sweep in found.items() if not sweep}
    memories = {f"{part}.memory" for part in ("satiation", "boredom", "leave")}
    assert held == {*memories, "boredom.threshold", "leave.step", "returning.window", "returning.forgetting"}
    for a in rows:  # each is a value that the parameter may have
        for value in a.sweep:
            assert any(b.value == value for b in replace_parameter(rows, a.part, a.parameter, value))
    for examination in ("position", "cascade"):
        own = {part: {**settings, "sweep": []} for part, settings in on.items()}
        own |= {"examination": {"model": examination, "sweep": []}}
        own |= {"choice": {"model": "nested", "sweep": []}} if examination == "position" else {"choice": {}}
        kept = assumptions_of(SimulatorSettings.model_validate(own), 0.1, 0.01)
        assert not [a for a in kept if a.part in on and a.sweep]  # what stands beside `sweep` is held too
    off = SimulatorSettings()
    assert off.choice.sweep == off.boredom.sweep == off.friends.sweep == off.popularity.sweep == ()


def test_one_parameter_changes_and_the_rest_stays() -> None:
    world = small_world()
    other = world.with_parameter("leave", "satisfaction", 4.0)
    assert other.value("leave", "satisfaction") == 4.0
    assert world.value("leave", "satisfaction") == 2.5
    assert other.digest != world.digest
    assert other.with_parameter("leave", "satisfaction", 2.5).digest == world.digest
    assert world.with_appeal_shift(0.1).digest != world.digest
    assert replace(world, name="another name").digest == world.digest
    with pytest.raises(InputError, match=r"simulator.leave.satisfacton: not a parameter .*did you mean 'leave.satisf"):
        world.with_parameter("leave", "satisfacton", 1.0)
    with pytest.raises(InputError, match=r"simulator.leave.satisfaction: -1 is outside"):
        world.with_parameter("leave", "satisfaction", -1.0)
    with pytest.raises(InputError, match="nan is outside"):
        world.with_parameter("examination", "decay", float("nan"))


def test_appeal_shift_moves_every_logit_by_itself() -> None:
    world = small_world()
    appeal = []
    for shifted in (world, world.with_appeal_shift(0.25).with_appeal_shift(0.5)):
        users = SimulatedUsers(shifted, 5, seed=0)
        users.start(np.arange(5))
        appeal.append(users.appeal())
    assert np.allclose(appeal[1] - appeal[0], 0.75, atol=1e-5)
    starts = world.starts
    expected = starts.vector[:5] @ world.item_vectors.T + starts.bias[:5, None] + world.item_bias
    assert np.allclose(appeal[0], expected, atol=1e-5)


def test_a_world_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    world = small_world(3, examination={"model": "cascade"}).with_appeal_shift(0.3)
    path = tmp_path / "world.npz"
    world.save(path)
    back = World.load(path)
    assert back.digest == world.digest
    assert back.name == world.name
    assert back.assumptions == world.assumptions
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"'world\.npz' cannot be read as a world"):
        World.load(path)
    with pytest.raises(InputError, match=r"'nowhere\.npz' cannot be read"):
        World.load(tmp_path / "nowhere.npz")


def test_expected_clicks_of_a_cascade_are_those_of_its_chain() -> None:
    rng = np.random.default_rng(0)
    decay, continuation, rate, n = 0.9, 0.3, 0.4, 40_000
    clicks, looking = np.zeros(n), np.ones(n, bool)
    for _ in range(6):
        clicked = looking & (rng.random(n) < rate)
        clicks += clicked
        looking &= rng.random(n) < decay
        looking &= ~clicked | (rng.random(n) < continuation)
    expected = expected_clicks("cascade", examination_table("cascade", decay, continuation, 6), continuation, rate)
    assert abs(clicks.mean() - expected) < 4 * clicks.std() / np.sqrt(n)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slate_size": 0},
        {"horizon": 0},
        {"examination": {"decay": 0.0}},
        {"examination": {"model": "eye tracking"}},
        {"leave": {"satisfaction": -1}},
        {"leave": {"base_rate": 1.0}},
        {"drift": {"rate": float("nan")}},
        {"patience": 3},
        {"reward": "money"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SimulatorSettings.model_validate(wrong)


@pytest.mark.parametrize("model", ["position", "user_browsing"])
def test_expected_clicks_count_on_the_places_after_a_click(model: str) -> None:
    rng = np.random.default_rng(1)
    table, rate, n = examination_table(model, 0.8, 0.3, 5), 0.4, 40_000
    clicks, last = np.zeros(n), np.zeros(n, np.int64)
    for k in range(5):
        clicked = (rng.random(n) < table[k, last]) & (rng.random(n) < rate)
        clicks += clicked
        last = np.where(clicked, k + 1, last)
    assert abs(clicks.mean() - expected_clicks(model, table, 0.3, rate)) < 4 * clicks.std() / np.sqrt(n)


@pytest.mark.parametrize("model", ["position", "cascade"])
def test_expected_choices_are_those_of_a_multinomial_logit_over_the_places_read(model: str) -> None:
    rng = np.random.default_rng(2)
    table, rate, n = examination_table(model, 0.7, 0.0, 5), 0.3, 40_000
    looks = rng.random((n, 5)) < table[:, 0]
    read = np.logical_and.accumulate(looks, axis=1) if model == "cascade" else looks
    appeal = read.sum(axis=1) * rate / (1 - rate)
    clicked = rng.random(n) < appeal / (appeal + np.exp(0.4))
    expected = expected_choices(model, table, 0.4, rate)
    assert abs(clicked.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
