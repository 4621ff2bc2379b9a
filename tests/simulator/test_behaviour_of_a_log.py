"""What a log tells of behaviour reaches the world as fitted parameters with standard errors; the rest stays assumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluators.fidelity.sessions import gaps_within_users
from simulator.behaviour import Assumption, SimulatorSettings, assumptions_of
from simulator.behaviour.calibrating import SlateBehaviour
from simulator.behaviour.fitting import fitted_table, logged_steps
from simulator.behaviour.leaving import in_slates
from simulator.behaviour.settings import ChoiceSettings
from simulator.datasets import DataSettings, load_dataset
from simulator.errors import InputError, LogError
from simulator.log import JUDGE, InteractionLog, split_users
from simulator.users import SimulatedUsers
from simulator.world import World
from tests.simulator.small_world import TruePreference, small_log

ROOT = np.random.SeedSequence(0)


def marginal_preference(log: InteractionLog) -> TruePreference:
    """What a preference model that knows no positions learns: each item's rate in the log."""
    n = log.catalogue.n_items
    rate = (np.bincount(log.item, log.primary, n) + 1) / (np.bincount(log.item, minlength=n) + 3)
    return TruePreference(np.zeros((n, 4), np.float32), np.log(rate / (1 - rate)).astype(np.float32))


class NoTaste(TruePreference):
    def user_states(self, histories: object, user_features: np.ndarray) -> object:  # type: ignore[override]
        states = super().user_states(histories, user_features)  # type: ignore[arg-type]
        return replace(states, bias=states.bias * 0)


def build(log: InteractionLog, **settings: object) -> World:
    split = split_users(log, ROOT)
    plain = marginal_preference(log)
    preference = NoTaste(plain.item_vectors, plain.item_bias)
    chosen = SimulatorSettings.model_validate({"slate_size": 6, "leave": {"fit": False}, **settings})
    return World.build(preference, log, split, split.users(JUDGE), chosen, name="w")


@pytest.fixture(scope="module")
def positions() -> InteractionLog:
    return load_dataset(DataSettings(source="world:position_bias"), Path())


def test_a_log_with_positions_gives_a_fitted_examination(positions: InteractionLog) -> None:
    world = build(positions)
    places = {a.parameter: a for a in world.assumptions if a.parameter.startswith("place")}
    assert set(places) == {f"place_{k}" for k in range(6)}
    for k in range(1, 6):
        found = places[f"place_{k}"]
        assert (found.source, found.sweep) == ("fitted", ())
        assert found.se is not None
        assert abs(found.value - 0.6**k) < 3 * found.se
    assert np.allclose(world.examination_table(6)[:, 0], [places[f"place_{k}"].value for k in range(6)])
    changed = world.with_parameter("examination", "place_1", 0.9)
    assert changed.examination_table(6)[1, 0] == pytest.approx(0.9)
    assert not [a for a in world.assumptions if a.parameter in ("decay", "continuation") and a.sweep]
    assert any("examination: fitted on" in note for note in world.notes)
    with pytest.raises(InputError, match=r"place_1: 1.2 is outside \[0, 1\]"):
        world.with_parameter("examination", "place_1", 1.2)


def test_what_serves_no_place_that_was_not_fitted_is_not_swept() -> None:
    """With every place fitted a sweep of decay or continuation would fly for nothing; wider slates decay on."""
    settings = SimulatorSettings.model_validate({"slate_size": 3, "examination": {"model": "user_browsing"}})
    places = ["place_0", "place_1", "place_1_after_0", "place_2", "place_2_after_0", "place_2_after_1"]

    def swept(*left_out: str, choice: str = "independent") -> set[str]:
        fitted = [Assumption("examination", name, 0.5, "fitted", 0.1) for name in places if name not in left_out]
        chosen = settings.model_copy(update={"choice": ChoiceSettings(model=choice)})  # type: ignore[arg-type]
        rows = [a for a in assumptions_of(chosen, 0.1, 0.01, fitted) if a.part == "examination"]
        assert {a.parameter for a in rows if a.source == "assumed"} >= {"decay"}
        return {a.parameter for a in rows if a.sweep}

    assert swept() == set()
    assert swept("place_2") == {"decay"}
    assert swept("place_2_after_1") == {"continuation"}  # right below the click nothing has decayed
    assert swept("place_2_after_0") == {"decay", "continuation"}
    assert swept(*places) == {"decay", "continuation"}
    # Who chooses one item clicks none above another: what is done after a click is never asked.
    assert swept("place_2_after_0", choice="logit") == set()
    assert swept(*places, choice="nested") == {"decay"}


@pytest.mark.parametrize("model", ["position", "user_browsing"])
def test_places_below_the_fitted_ones_are_looked_at_on_from_the_last(positions: InteractionLog, model: str) -> None:
    """Sessions are flown at the log's own width: with no decay left, places four to six were never looked at."""
    world = build(positions, slate_size=3, examination={"model": model, "decay": 0.5})
    table = world.examination_table(6)
    assert table[3:, 0] == pytest.approx(table[2, 0] * np.array([0.5, 0.25, 0.125]))
    assert table.min(where=np.tri(6, 7, dtype=bool), initial=1.0) > 0
    assert not [a for a in world.assumptions if a.parameter == "decay" and a.sweep]


@pytest.mark.parametrize("model", ["cascade", "user_browsing"])
def test_who_chooses_one_item_has_no_continuation(positions: InteractionLog, model: str) -> None:
    world = build(positions, examination={"model": model, "fit": False}, choice={"model": "logit"})
    assert {a.parameter: bool(a.sweep) for a in world.assumptions if a.part == "examination"} == {"decay": True}
    flat = build(positions, examination={"model": model, "decay": 1.0, "fit": False}, choice={"model": "logit"})
    assert flat.looks_at_all(6)


def test_without_the_fit_the_declared_values_hold_and_are_swept(positions: InteractionLog) -> None:
    world = build(positions, examination={"decay": 0.7, "fit": False})
    assert {a.source for a in world.assumptions if a.part == "examination"} == {"assumed"}
    assert world.examination_table(3)[:, 0] == pytest.approx([1, 0.7, 0.49])


def test_appeal_is_that_of_an_examined_item_so_that_the_worlds_click_rate_is_the_logs(
    positions: InteractionLog,
) -> None:
    """Rates of places that were seldom looked at are no appeals: without the shift the world clicks too little."""
    rates = {}
    for fit in (True, False):
        world = build(positions, satiation={"strength": 0}, drift={"rate": 0}, examination={"fit": True})
        if not fit:
            world = replace(world, item_bias=marginal_preference(positions).item_bias)
        users = SimulatedUsers(world, len(world.starts), seed=1)
        users.start(np.arange(users.n))
        clicks = shown = 0
        rng = np.random.default_rng(0)
        for _ in range(4):
            o = users.step(rng.integers(0, world.n_items, (users.n, 6)))
            clicks += int(o.clicks.sum())
            shown += int((o.shown >= 0).sum())
        rates[fit] = clicks / shown
    assert rates[True] == pytest.approx(positions.primary.mean(), rel=0.12)
    assert rates[False] < 0.6 * positions.primary.mean()


def test_slates_longer_than_the_logs_decay_on_from_its_last_place(positions: InteractionLog) -> None:
    world = build(positions)
    table = fitted_table("position", world.assumptions, 0.5, 0.0, 8)
    assert table[6, 0] == pytest.approx(0.5 * table[5, 0])
    assert table[7, 3] == pytest.approx(0.25 * table[5, 0])


def test_models_that_need_whole_slates_say_so_where_the_log_has_none(positions: InteractionLog) -> None:
    world = build(replace(positions, impression=None), examination={"model": "cascade"})
    assert {a.source for a in world.assumptions if a.part == "examination"} == {"assumed"}
    assert any("data.columns.impression" in note for note in world.notes)
    fitted = build(positions, examination={"model": "user_browsing"})
    assert any(a.parameter.startswith("place_1_after_0") and a.source == "fitted" for a in fitted.assumptions)


def with_behaviours(seed: int = 0) -> InteractionLog:
    rng = np.random.default_rng(seed)
    log = small_log(rng, users=400)
    like = (rng.random(len(log)) < 0.3).astype(float)
    dwell = np.where(log.primary > 0, np.exp(3 + 0.5 * rng.standard_normal(len(log))), np.nan)
    return replace(log, behaviours={"liked": like, "seconds": dwell})


def test_gaps_of_a_world_are_those_of_the_log_although_early_rows_end_before_it() -> None:
    """Median 3 days, spread 1, sixty days of log. From early rows, taken as censored at the log's end: 3.3 and 1.1."""
    rng, users = np.random.default_rng(8), 400
    begin = rng.random(users)[:, None] * 3 + np.cumsum(np.append(np.zeros((users, 1)), 3 * np.exp(
        rng.standard_normal((users, 60))), axis=1), axis=1)  # fmt: skip
    user, visit = np.nonzero(begin < 60)
    user, day = np.repeat(user, 5), np.repeat(begin[user, visit], 5)
    log = small_log(rng, users=users)
    item = rng.integers(0, 130, len(user))
    log = replace(
        log, user=user, item=item, time=86_400 * day + 60 * np.tile(np.arange(5), len(user) // 5),
        primary=(rng.random(len(user)) < 0.5).astype(np.float32), behaviours={},
    )  # fmt: skip
    world = build(log, returning={})
    fitted = {a.parameter: a for a in world.assumptions if a.part == "returning" and a.source == "fitted"}
    for parameter, truth in (("median_gap", 3.0), ("spread", 1.0)):
        assert fitted[parameter].se is not None
        assert abs(fitted[parameter].value - truth) < 3 * fitted[parameter].se
    assert fitted["median_gap"].se < 0.4
    assert any(note.startswith("returning: fitted on ") for note in world.notes)


def test_heads_are_fitted_on_clicked_rows_of_users_who_fit_nothing_else() -> None:
    log = with_behaviours()
    world = build(log, behaviours={"seconds": "dwell", "liked": "like"}, reward="dwell")
    assert [head.kind for head in world.heads] == ["like", "dwell"]
    like = {a.parameter: a for a in world.assumptions if a.part == "like"}
    assert like["intercept"].source == "fitted"
    assert abs(like["slope"].value) < 4 * like["slope"].se
    split = split_users(log, ROOT)
    rows = split.rows(log, split.users(JUDGE, tuning=True), late=True)
    assert world.heads[0].n == int(log.primary[rows].sum())
    z = np.zeros(1)
    assert world.heads[0].mean(z)[0] == pytest.approx(0.3, abs=0.12)
    assert world.heads[1].mean(z)[0] == pytest.approx(np.exp(3.125), rel=0.2)
    with pytest.raises(LogError, match=r"simulator.behaviours.bought: the log keeps no such column"):
        build(log, behaviours={"bought": "purchase"})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"reward": "dwell"}, "'dwell' needs a dwell in simulator.behaviours"),
        ({"behaviours": {"a": "like", "b": "like"}}, "two columns are a like"),
    ],
)
def test_settings_that_lack_what_they_need_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SimulatorSettings.model_validate(wrong)


def test_a_file_of_friends_is_read_and_its_mistakes_are_one_line(tmp_path: Path) -> None:
    log = small_log(np.random.default_rng(0), users=60)
    (tmp_path / "friends.csv").write_text("who,whom\nu1,u2\nu2,u3\nu9,nobody\n")
    split = split_users(log, ROOT)
    plain = marginal_preference(log)
    chosen = SimulatorSettings.model_validate({"friends": {"strength": 0.5, "pairs": "friends.csv"}})
    users = np.arange(60)
    world = World.build(plain, log, split, users, chosen, name="w", folder=tmp_path)
    assert world.friends is not None
    sizes = np.diff(world.friends.start)
    assert sizes[[1, 2, 3]].min() > 0
    assert sizes.sum() == sizes[[1, 2, 3]].sum()
    assert not world.bare
    assert any(note.startswith("friends: assumed; ") for note in world.notes)
    unnamed = SimulatorSettings.model_validate({"friends": {"strength": 0.5}})
    known = replace(log, friends=np.array([[1, 2], [2, 3]]))
    own = World.build(plain, known, split, users, unnamed, name="w").friends
    assert own is not None
    assert np.array_equal(own.item, world.friends.item)
    with pytest.raises(InputError, match=r"simulator.friends.pairs: .* does not say who is whose friend; name a file"):
        World.build(plain, log, split, users, unnamed, name="w")
    (tmp_path / "friends.csv").write_text("who,whom\nx,y\n")
    with pytest.raises(LogError, match=r"simulator.friends.pairs: 'friends.csv' names no two users"):
        World.build(plain, log, split, users, chosen, name="w", folder=tmp_path)


@pytest.mark.parametrize("hazard", [0.3, 0.9])
def test_the_base_rate_of_leaving_comes_back_from_sessions_that_the_split_and_the_logs_end_cut(hazard: float) -> None:
    """Each user's last leaving is late: early slates alone say .246 +- .004 where .3 is true."""
    rng = np.random.default_rng(2)
    users, day = 3_000, 86_400.0
    starts = 10.0 * rng.exponential(size=(users, 12)).cumsum(axis=1)
    lengths = rng.geometric(hazard, starts.shape)
    user, begin, length = (
        a.ravel() for a in (np.broadcast_to(np.arange(users)[:, None], starts.shape), starts, lengths)
    )
    step = np.concatenate([np.arange(n) for n in length])
    user, time = np.repeat(user, length), day * np.repeat(begin, length) + 60.0 * step
    user, time = user[time < 30 * day], time[time < 30 * day]
    order, n = np.lexsort((time, user)), len(user)
    catalogue = small_log(rng, users=users, items=40).catalogue
    log = InteractionLog(
        user[order], rng.integers(0, 40, n), time[order], rng.random(n) < 0.3, catalogue, "cut", impression=np.arange(n)
    )
    world = build(log, slate_size=1, leave={"fit": True, "satisfaction": 0, "repetition": 0})
    (base,) = (a for a in world.assumptions if (a.part, a.parameter) == ("leave", "base_rate"))
    assert base.source == "fitted"
    assert base.se is not None
    assert abs(base.value - hazard) < 3 * base.se < 0.06


def test_the_rows_of_a_slate_stand_together_although_another_was_logged_between_them() -> None:
    rng = np.random.default_rng(2)
    catalogue = small_log(rng, users=2, items=40).catalogue
    time = np.array([0.0, 1, 2, 3, 9, 9, 0, 5])
    user, slate = np.array([0, 0, 0, 0, 0, 0, 1, 1]), np.array([1, 0, 1, 0, 2, 2, 3, 4])
    log = InteractionLog(user, np.arange(8), time, np.arange(8) % 2, catalogue, "between", impression=slate)
    assert slate[in_slates(log, np.arange(8))].tolist() == [1, 1, 0, 0, 2, 2, 3, 4]
    assert gaps_within_users(log).tolist() == [1, 8, 5]

    def looks_at_all(size: int) -> SlateBehaviour:
        return SlateBehaviour("position", np.ones((size, size + 1)), 1.0)

    steps = logged_steps(log, np.arange(8), SimulatorSettings(slate_size=2), looks_at_all, 0.3)
    assert steps.left.tolist() == [False] * 3
