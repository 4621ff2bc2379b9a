"""What learns from the log alone: what came of a row, better than the mixed policy that logged, and nothing untried.

Sabotaged once, each seen red: a bootstrap beyond the user's last row, the discount of one row for several, the sign of
the advantage, the conservative part left out, the return asked for left out, padding that is looked at, a window that
ends a row early, states taken as known that were not computed, a row before taken for all of them in what was met, and
what was met left among what could come (in either learner); what may be shown again masked; the order of the file kept
in a log without times, slates torn apart there, clicks left behind by the items that they are of.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.base import Agent, Training
from agents.decision_transformer import DecisionTransformer, Sequences
from agents.features import fit_features
from agents.loading import AgentSettings, train
from agents.logged_choices import LoggedChoices, in_order
from agents.offline import CQL
from agents.train_world import Lanes, session_values
from simulator.behaviour import SimulatorSettings
from simulator.log import InteractionLog, split_users
from simulator.world import World
from tests.agents.taught_world import ITEMS, USERS, WIDTH, observed, taught_world, training_in
from tests.simulator.small_world import TruePreference, bare_catalogue

WorldAndLog = tuple[World, InteractionLog]


@pytest.fixture(scope="module")
def mixed() -> WorldAndLog:
    """Half of the users were led to good items, the others, further, to bad ones."""
    return taught_world(pull=0.7)


def taught(kind: str, where: WorldAndLog, budget: int, **params: object) -> Agent:
    settings = AgentSettings.model_validate({"name": "one", "kind": kind, "params": params})
    return train(settings, training_in(*where, budget=budget), Path()).agent


def values_of(where: WorldAndLog, *agents: Agent) -> list[np.ndarray]:
    """[256] reward a session of each, in the same users' sessions with the same luck."""
    lanes = Lanes(training_in(*where), 256, seed=99)
    values = [session_values(lanes, agent.act) for agent in agents]
    lanes.close()
    return values


def lower_end(difference: np.ndarray) -> float:
    """Of the paired 95 % interval."""
    return float(difference.mean() - 1.96 * difference.std() / np.sqrt(len(difference)))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_what_came_of_a_row_ends_with_the_users_rows(mixed: WorldAndLog, n_steps: int) -> None:
    log, gamma = mixed[1], 0.7
    rows = np.concatenate([np.arange(45), np.arange(len(log) - 5, len(log))])
    came = LoggedChoices(log, fit_features(training_in(*mixed)), slate_size=4).transitions(
        rows, gamma=gamma, n_steps=n_steps
    )
    for number, row in enumerate(rows):
        own = np.flatnonzero(log.user == log.user[row])
        ahead = own[(own >= row) & (own < row + n_steps)]
        assert came.reward[number] == pytest.approx(sum(gamma**k * log.primary[r] for k, r in enumerate(ahead)))
        assert came.item[number] == log.item[row]
        if row + n_steps in own:
            assert came.following[number] == row + n_steps
            assert came.discount[number] == pytest.approx(gamma**n_steps)
        else:
            assert came.discount[number] == 0


def test_states_of_rows_are_the_same_whether_kept_or_computed_anew(
    mixed: WorldAndLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, rows = fit_features(training_in(*mixed)), np.array([7, 3, 200, 3])
    kept = LoggedChoices(mixed[1], features, slate_size=4)
    kept.states(rows[:2])
    monkeypatch.setattr("agents.logged_choices.KEPT", 0)
    anew = LoggedChoices(mixed[1], features, slate_size=4)
    assert kept.states(rows) == pytest.approx(anew.states(rows), abs=1e-6)


def test_what_a_user_has_met_cannot_come_next_unless_the_log_has_it_twice(mixed: WorldAndLog) -> None:
    log, features = mixed[1], fit_features(training_in(*mixed))
    rows = np.array([0, 3, 40, len(log) - 1])
    met = LoggedChoices(log, features, slate_size=4).met(rows)
    for row, of_row in zip(rows, met, strict=True):
        before = log.item[(log.user == log.user[row]) & (np.arange(len(log)) < row)]
        assert np.array_equal(np.flatnonzero(of_row), np.sort(before))
    twice = replace(log, item=np.where(np.arange(len(log)) == 1, log.item[0], log.item))
    assert not LoggedChoices(twice, features, slate_size=4).met(rows).any()
    assert not LoggedChoices(log, features, slate_size=4, shown_again=True).met(rows).any()


def without_times(log: InteractionLog) -> InteractionLog:
    return replace(log, time=np.full(len(log), np.nan))


@pytest.mark.parametrize("slates", [False, True])
def test_rows_without_times_come_in_an_order_that_is_drawn_and_slates_stay_together(
    slates: bool, mixed: WorldAndLog
) -> None:
    row = np.arange(len(mixed[1]))
    log = replace(mixed[1], behaviours={"row": row.astype(np.float64)}, impression=row // 4 if slates else None)
    assert in_order(training_in(mixed[0], log)).log is log
    drawn = in_order(training_in(mixed[0], without_times(log))).log
    was = drawn.behaviours["row"].astype(int)
    assert np.array_equal(np.sort(was), row)
    for name in ("user", "item", "primary"):
        assert np.array_equal(getattr(drawn, name), getattr(log, name)[was])
    on, same_user = np.diff(was) == 1, log.user[:-1] == log.user[1:]
    if slates:
        assert drawn.impression is not None
        same_slate = np.diff(drawn.impression) == 0
        assert on[same_user & same_slate].all()
        same_user &= ~same_slate
    assert on[same_user].mean() < 0.25


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("behaviour_cloning", {}),
        ("reinforce", {"log_share": 1.0}),
        pytest.param("decision_transformer", {"width": 8, "layers": 1}, marks=pytest.mark.slow),
    ],
)
def test_rows_without_times_teach_what_they_would_teach_in_the_drawn_order(
    kind: str, params: dict[str, object], mixed: WorldAndLog
) -> None:
    world, log = mixed
    spec, seen = AgentSettings.model_validate({"name": "one", "kind": kind, "params": params}), observed(world)

    def slates(training: Training) -> np.ndarray:
        return train(spec, training, Path()).agent.act(seen, np.random.default_rng(0))

    drawn = in_order(training_in(world, without_times(log), budget=600))
    timed = replace(drawn, log=replace(drawn.log, time=log.time))
    assert np.array_equal(slates(training_in(world, without_times(log), budget=600)), slates(timed))
    assert not np.array_equal(slates(training_in(world, log, budget=600)), slates(timed))


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("behaviour_cloning", {}),
        pytest.param("decision_transformer", {"width": 16, "layers": 1, "learning_rate": 0.01}, marks=pytest.mark.slow),
    ],
)
def test_who_imitates_does_not_shun_what_was_met_by_then(
    kind: str, params: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the users met what is good first, so later rows have what is left.

    Who takes what they had met for passed over shows what is left. Paired 95 % interval, one training each.
    """
    where = taught_world(pull=1.5)
    heeds = taught(kind, where, 6_000, **params)
    monkeypatch.setattr(LoggedChoices, "met", lambda self, rows: np.zeros((len(rows), ITEMS), bool))
    shuns, better = values_of(where, taught(kind, where, 6_000, **params), heeds)
    assert lower_end(better - shuns) > 0


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("behaviour_cloning", {}),
        pytest.param("decision_transformer", {"width": 8, "layers": 1}, marks=pytest.mark.slow),
    ],
)
def test_what_was_met_may_come_next_where_the_train_world_shows_it_again(
    kind: str, params: dict[str, object], mixed: WorldAndLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, log = mixed
    seen = observed(world)

    def slates(where: World) -> np.ndarray:
        return taught(kind, (where, log), 600, **params).act(seen, np.random.default_rng(0))

    heeds, again = slates(world), slates(replace(world, shown_again=True))
    monkeypatch.setattr(LoggedChoices, "met", lambda self, rows: np.zeros((len(rows), ITEMS), bool))
    assert np.array_equal(again, slates(world))
    assert not np.array_equal(again, heeds)


@pytest.mark.parametrize("kind", ["cql", "iql"])
def test_what_was_met_is_not_looked_up_for_who_does_not_heed_it(
    kind: str, mixed: WorldAndLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LoggedChoices, "met")
    taught(kind, mixed, 300)


def test_iql_beats_behaviour_cloning_on_a_mixed_log(mixed: WorldAndLog) -> None:
    """Cloning shows what was shown most; weighed by advantages, what was good. Paired 95 % interval, one training."""
    cloned, weighed = values_of(mixed, taught("behaviour_cloning", mixed, 4_000), taught("iql", mixed, 4_000))
    assert lower_end(weighed - cloned) > 2


@pytest.mark.slow
def test_a_decision_transformer_asked_for_much_beats_cloning_and_itself_asked_for_little(mixed: WorldAndLog) -> None:
    small = {"width": 16, "layers": 1, "learning_rate": 0.01, "dropout": 0.0}
    much, little = (taught("decision_transformer", mixed, 24_000, target=target, **small) for target in (0.9, 0.1))
    cloned, asked_much, asked_little = values_of(mixed, taught("behaviour_cloning", mixed, 24_000), much, little)
    assert lower_end(asked_much - cloned) > 1
    assert lower_end(asked_much - asked_little) > 2


def untried_world() -> tuple[World, InteractionLog, np.ndarray]:
    """World, log and [I] whether the log ever showed an item.

    Quality rises along one direction of content as far as the log has tried, in which the worse items were shown more
    often. Beyond, where a network that goes on in that direction expects the best, no item is any good.
    """
    rng = np.random.default_rng(15)
    content = (0.3 * rng.standard_normal((ITEMS, WIDTH))).astype(np.float32)
    content[:, 0] = rng.uniform(-1, 1, ITEMS)
    tried = content[:, 0] < -0.2
    quality = np.where(tried, 3 * content[:, 0] + 1, -3).astype(np.float32)
    known = np.flatnonzero(tried)
    often = np.exp(-3 * content[known, 0])
    lengths = rng.integers(20, 41, USERS)
    user = np.repeat(np.arange(USERS), lengths)
    item = np.concatenate([rng.choice(known, n, replace=False, p=often / often.sum()) for n in lengths])
    taste = rng.standard_normal((USERS, WIDTH)) * (np.arange(WIDTH) > 0)
    logit = np.einsum("ij,ij->i", taste[user], content[item]) + quality[item]
    primary = (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    catalogue = bare_catalogue(USERS, content)
    log = InteractionLog(user, item, np.arange(len(user), dtype=np.float64), primary, catalogue, "untried")
    settings = SimulatorSettings.model_validate({"slate_size": 2, "horizon": 6})
    split = split_users(log, np.random.SeedSequence(3))
    preference = TruePreference(content, quality)
    return World.build(preference, log, split, np.arange(USERS), settings, name="untried"), log, tried


def test_cql_does_not_fall_for_what_the_log_never_tried_and_dqn_does() -> None:
    """With gamma 0 a Q is the chance of a click, so what each thinks of the untried items can be held to the truth."""
    world, log, tried = untried_world()
    where = world, log
    plain, conservative = (
        taught("cql", where, 20_000, alpha=alpha, gamma=0.0, weight_decay=0.01) for alpha in (0.0, 0.1)
    )
    assert isinstance(plain, CQL)
    assert isinstance(conservative, CQL)
    start = observed(world, USERS)
    truth = 1 / (1 + np.exp(-observed(world, USERS, privileged=True).appeal))  # type: ignore[operator]
    best = truth[:, ~tried].max(axis=1)
    over = [agent.scores(start)[:, ~tried].max(axis=1) - best for agent in (plain, conservative)]
    assert lower_end(over[0]) > 0.02
    assert over[1].max() < 0
    assert tried[conservative.act(start, np.random.default_rng(0))].all()
    worse, better = values_of(where, plain, conservative)
    assert lower_end(better - worse) > 0


@pytest.fixture(scope="module")
def transformer(mixed: WorldAndLog) -> DecisionTransformer:
    settings = AgentSettings.model_validate(
        {"name": "one", "kind": "decision_transformer", "params": {"length": 5, "width": 8}}
    )
    agent = train(settings, training_in(*mixed, budget=512), Path()).agent
    assert isinstance(agent, DecisionTransformer)
    return agent


def test_the_arrays_say_what_hugging_face_s_model_says(mixed: WorldAndLog, transformer: DecisionTransformer) -> None:
    """Short histories are padded on the left, and the padding is not looked at."""
    import torch

    from agents.decision_transformer_trainer import SequenceNetwork
    from agents.deep_rl import StateScale

    training = training_in(*mixed)
    features = fit_features(training)
    scale = StateScale.of(features, training)
    torch.manual_seed(4)
    network = SequenceNetwork(transformer.settings, features, scale, 2).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    start = observed(mixed[0])
    items, feedback = start.history_items.copy(), start.history_feedback.copy()
    for user, length in enumerate((0, 1, 3)):
        items[user, : items.shape[1] - length] = -1
        feedback[user, : items.shape[1] - length] = 0
    read = Sequences.of(replace(start, history_items=items, history_feedback=feedback), length=5, gamma=0.5, target=0.8)
    arrays, _ = network.as_arrays(features, scale)
    with torch.no_grad():
        theirs = network.said(read)[:, -1].numpy()
    assert np.abs(theirs).max() > 0.5
    assert arrays(read) == pytest.approx(theirs, abs=1e-4)
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-3


def test_a_window_of_the_log_is_read_as_the_same_rows_are_when_the_agent_acts(mixed: WorldAndLog) -> None:
    """The return to go of the newest row given, both have the same returns, states and items."""
    from agents.decision_transformer_trainer import windows
    from agents.logged_choices import discounted_rows

    log, length, gamma = mixed[1], 5, 0.6
    choices = LoggedChoices(log, fit_features(training_in(*mixed)), slate_size=4)
    returns = (1 - gamma) * discounted_rows(log, gamma)
    last = np.array([0, 2, 25, len(log) - 1])
    trained_on, rows = windows(choices, returns, last, length)
    assert np.array_equal(rows[:, -1], last)
    for number in range(len(last)):
        acted_on = Sequences.of(
            choices.before(last[[number]]), length=length, gamma=gamma, target=float(returns[last[number]])
        )
        there = trained_on.there[number]
        assert np.array_equal(there, acted_on.there[0])
        assert trained_on.returns[number][there] == pytest.approx(acted_on.returns[0][there], abs=2e-3)
        assert np.array_equal(trained_on.items[number, :-1], acted_on.items[0, :-1])
        assert (trained_on.items[number, -1], acted_on.items[0, -1]) == (log.item[last[number]], -1)
        # The place before the window is not known in either, whatever stood there.
        assert np.array_equal(trained_on.states[number][there], acted_on.states[0][there])
