"""Flights: who is asked, what is recorded, and that users' luck belongs to the users.

Sabotaged once, each seen red: the agent's name in the users' seed (an agent differs from itself), all users asked
instead of those who are there, a learner that flies itself instead of a copy, the record written for users who had
left, `appeal` handed to everyone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import AgentError, Feedback, Observation
from evaluators.comparison import AgentValues
from evaluators.flights import Flight, Flights, gather, measure
from evaluators.intervals import clopper_pearson
from evaluators.metrics import Reference, user_metric
from evaluators.rollout import fly
from evaluators.sessions import Sessions
from simulator.world import World
from tests.simulator.small_world import small_world

METRICS = ("reward", "click_rate", "session_length", "coverage", "novelty")


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(1, users=60, horizon=6, slate_size=4)


@dataclass
class FirstCandidates:
    """Shows the candidates of smallest number; remembers what it saw."""

    seen: list[Observation] = field(default_factory=list)
    privileged: bool = False

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        self.seen.append(observation)
        assert observation.candidates is not None
        return np.argsort(~observation.candidates, axis=1, kind="stable")[:, : observation.slate_size]


class RandomCandidates:
    """Shows candidates in random order, drawn from the generator that it is given."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        assert observation.candidates is not None
        order = np.where(observation.candidates, rng.random(observation.candidates.shape), 2.0)
        return np.argsort(order, axis=1)[:, : observation.slate_size]


class Vandal(FirstCandidates):
    """Overwrites everything that it is shown."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        slate = super().act(observation, rng)
        for array in (observation.history_items, observation.history_feedback, observation.user_features):
            array[...] = 7
        assert observation.candidates is not None
        observation.candidates[...] = True
        observation.step[...] = 0
        return slate


class AlwaysTheSame:
    """Shows items 0 to K - 1, whoever asks and whatever they have seen."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.tile(np.arange(observation.slate_size), (len(observation), 1))


def flight_of(agent: object, world: World, name: str = "agent", **changes: int) -> Sessions:
    settings = {"world_number": 1, "seed": 5, "training_seed": 0} | changes
    return fly(agent, world, name=name, **settings)  # type: ignore[arg-type]


def same(a: Sessions, b: Sessions) -> bool:
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("slate", "clicks", "length", "left"))


def test_a_flight_has_a_session_of_every_start_user_and_nothing_after_a_user_left(world: World) -> None:
    sessions = flight_of(RandomCandidates(), world)
    np.testing.assert_array_equal(sessions.user, world.starts.user)
    step = np.arange(world.horizon)
    was_there = step < sessions.length[:, None]
    assert 0 < sessions.left.mean() < 1
    np.testing.assert_array_equal(sessions.shown.all(axis=2), was_there)
    np.testing.assert_array_equal(sessions.shown.any(axis=2), was_there)
    assert not sessions.clicks[~was_there].any()
    assert sessions.reward is not None
    assert not sessions.reward[~was_there].any()
    np.testing.assert_array_equal(sessions.reward, sessions.clicks.sum(axis=2))
    assert (sessions.length[~sessions.left] == world.horizon).all()


def test_nobody_is_shown_an_item_twice_or_one_of_the_logged_history(world: World) -> None:
    sessions = flight_of(RandomCandidates(), world)
    for row in range(len(sessions)):
        items = sessions.slate[row][sessions.slate[row] >= 0]
        assert len(set(items)) == len(items)
        seen = world.starts.seen
        assert not set(items) & set(seen.item[seen.start[row] : seen.start[row + 1]])


class BestOfAll(FirstCandidates):
    """Shows what the world itself likes best."""

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        assert observation.appeal is not None
        order = np.argsort(-np.where(observation.candidates, observation.appeal, -np.inf), axis=1, kind="stable")
        return order[:, : observation.slate_size]


def test_relevance_is_the_probability_that_the_first_place_is_clicked() -> None:
    """The first place is always looked at: over 4,000 sessions |z| is below 4; the oracle shows the best there is."""
    world = small_world(2, users=400, horizon=3, slate_size=4)
    flown = [flight_of(RandomCandidates(), world, seed=seed, graded=True) for seed in range(10)]
    shown = np.concatenate([one.shown[:, :, 0] for one in flown])
    click = np.concatenate([one.clicks[:, :, 0] for one in flown])[shown].astype(float)
    p = np.concatenate([one.relevance[:, :, 0] for one in flown if one.relevance is not None])[shown].astype(float)
    looked = float(world.examination_table(4)[0, 0])
    assert abs((click - looked * p).sum()) < 4 * np.sqrt((looked * p * (1 - looked * p)).sum())
    assert abs(np.corrcoef(click, p)[0, 1]) > 0.1
    best = flight_of(BestOfAll(privileged=True), world, graded=True)
    reference = Reference(np.ones(world.n_items, np.int64), np.ones(world.n_items, bool))
    np.testing.assert_allclose(user_metric("ndcg", best, reference), 1.0)
    below = user_metric("ndcg", flown[0], reference)
    assert (below < 1).all()
    assert (user_metric("err", best, reference) > user_metric("err", flown[0], reference)).all()
    again = flight_of(Vandal(), world, graded=True)  # what an agent overwrites changes no relevance
    plain = flight_of(FirstCandidates(), world, graded=True)
    np.testing.assert_array_equal(again.best_relevance, plain.best_relevance)
    assert same(again, flight_of(Vandal(), world))


def test_the_agent_is_asked_for_the_users_who_are_still_there(world: World) -> None:
    agent = FirstCandidates()
    sessions = flight_of(agent, world)
    there = [int((sessions.length > step).sum()) for step in range(len(agent.seen))]
    assert [len(observation) for observation in agent.seen] == there
    assert there[0] > there[-1]
    for step, observation in enumerate(agent.seen):
        assert (observation.step == step).all()
        assert observation.slate_size == world.slate_size


def test_only_a_privileged_agent_sees_the_worlds_own_appeal(world: World) -> None:
    plain, oracle = FirstCandidates(), FirstCandidates(privileged=True)
    flight_of(plain, world)
    flight_of(oracle, world)
    assert all(observation.appeal is None for observation in plain.seen)
    assert all(
        observation.appeal is not None and observation.appeal.shape == (len(observation), world.n_items)
        for observation in oracle.seen
    )


def test_an_agent_that_overwrites_what_it_is_shown_changes_nothing(world: World) -> None:
    assert same(flight_of(Vandal(), world), flight_of(FirstCandidates(), world))


def test_a_slate_that_is_none_is_the_agents_failure(world: World) -> None:
    with pytest.raises(AgentError, match="not among the candidates"):
        flight_of(AlwaysTheSame(), world)


def test_an_agents_draws_depend_on_its_name_and_training_and_on_nothing_that_flew_before(world: World) -> None:
    alone = flight_of(RandomCandidates(), world, "mine")
    flight_of(RandomCandidates(), world, "other")
    assert same(alone, flight_of(RandomCandidates(), world, "mine"))
    assert not same(alone, flight_of(RandomCandidates(), world, "other"))
    assert not same(alone, flight_of(RandomCandidates(), world, "mine", training_seed=1))


def test_users_have_the_same_luck_with_every_agent_and_other_luck_in_another_seed_or_session(world: World) -> None:
    first = flight_of(FirstCandidates(), world, "one")
    assert same(first, flight_of(FirstCandidates(), world, "another", training_seed=3))
    assert not same(first, flight_of(FirstCandidates(), world, "one", seed=6))
    assert not same(first, flight_of(FirstCandidates(), world, "one", session=1))


def test_some_users_alone_meet_what_they_meet_among_all(world: World) -> None:
    rows = np.array([50, 3, 17])
    sessions = fly(FirstCandidates(), world, name="agent", world_number=1, seed=5, training_seed=0, start_rows=rows)
    everyone = flight_of(FirstCandidates(), world)
    np.testing.assert_array_equal(sessions.user, world.starts.user[rows])
    np.testing.assert_array_equal(sessions.slate, everyone.slate[rows])
    np.testing.assert_array_equal(sessions.clicks, everyone.clicks[rows])


# ------------------------------------------------------------------------------------------ flights in one table


def course(worlds: list[World], names: list[str], *, seeds: tuple[int, ...] = (3, 4)) -> list[Flight]:
    reference = Reference(np.ones(worlds[0].n_items, np.int64), np.ones(worlds[0].n_items, bool))
    agents = {"first": FirstCandidates(), "same": FirstCandidates(), "random": RandomCandidates()}
    return [
        measure(flight_of(agents[name], world, name, world_number=number, seed=seed), reference, METRICS)
        for name in names
        for number, world in enumerate(worlds, 1)
        for seed in seeds
    ]


def test_an_agent_under_another_name_differs_from_itself_by_exactly_nothing() -> None:
    worlds = [small_world(seed, users=60, horizon=6, slate_size=4) for seed in (1, 2)]
    table = gather(course(worlds, ["first", "same", "random"]), METRICS)
    assert table.n_worlds == 2
    for metric in METRICS:
        paired = table.difference("first", "same", metric)
        assert (paired.estimate.value, paired.estimate.low, paired.estimate.high) == (0.0, 0.0, 0.0)
        assert paired.p_value == 1.0
        assert set(paired.worlds) == {0.0}
    assert table.difference("first", "random", "reward").estimate.value != 0


def test_simulation_seeds_are_averaged_within_the_user_and_worlds_are_not(world: World) -> None:
    flights = course([world, world], ["random"])
    table = gather(flights, METRICS)
    values = table.values["reward"]["random"].per_user
    assert values.shape == (1, 2, len(world.starts))
    by_key = {(flight.world, flight.seed): flight.values["reward"] for flight in flights}
    for number in (1, 2):
        np.testing.assert_allclose(values[0, number - 1], (by_key[number, 3] + by_key[number, 4]) / 2)


def test_flights_that_do_not_pair_are_refused(world: World) -> None:
    flights = course([world], ["first", "random"])
    with pytest.raises(ValueError, match="flights are missing"):
        gather(flights[:-1], METRICS)
    with pytest.raises(ValueError, match="came twice"):
        gather([*flights, flights[0]], METRICS)
    reference = Reference(np.ones(world.n_items, np.int64), np.ones(world.n_items, bool))
    others = [
        measure(
            fly(FirstCandidates(), world, name="other", world_number=1, seed=seed, training_seed=0,
                start_rows=np.arange(40)),
            reference,
            METRICS,
        )
        for seed in (3, 4)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="not on the same users"):
        gather([*flights, *others], METRICS)


def test_an_agent_that_is_barred_has_no_number_and_a_reason_everywhere(world: World) -> None:
    table = gather(course([world], ["first", "random"]), METRICS, barred={"first": "policy may have seen these rows"})
    assert table.agents == ("random",)
    for estimate in (table.simulated("first", "reward"), table.difference("random", "first", "reward").estimate):
        assert estimate.value is None
        assert estimate.withheld == "first: policy may have seen these rows"
    (row,) = (c for c in table.comparisons(["random"]) if c.metric == "reward")
    assert (row.agent, row.difference.withheld) == ("first", "first: policy may have seen these rows")


def test_regret_is_the_oracles_reward_minus_the_agents_for_the_same_user_and_luck(world: World) -> None:
    flights = course([world], ["first", "random"])
    without = gather(flights, ("reward", "regret"))
    assert "oracle" in (without.simulated("random", "regret").withheld or "")
    table = gather(flights, ("reward", "regret"), oracle="first")
    reward = table.values["reward"]
    np.testing.assert_allclose(
        table.values["regret"]["random"].per_user, reward["first"].per_user - reward["random"].per_user
    )
    assert table.simulated("first", "regret").value == 0


def test_a_rate_of_few_events_gets_the_limits_of_its_events() -> None:
    rng = np.random.default_rng(4)
    clicks = np.zeros(200)
    clicks[rng.choice(200, 9, replace=False)] = 1.0
    by_agent = {"rare": clicks, "never": np.zeros(200), "often": rng.integers(0, 3, 200).astype(np.float64)}
    table = Flights(
        np.arange(200),
        ("click_rate",),
        {"click_rate": {name: AgentValues((count / 20)[None, None]) for name, count in by_agent.items()}},
        clicks=by_agent,
        shown=dict.fromkeys(by_agent, np.full(200, 20.0)),
    )
    rare, never, often = (table.simulated(name, "click_rate") for name in by_agent)
    assert "9 events: Clopper-Pearson" in rare.method
    low, high = clopper_pearson(9, 4_000)
    assert rare.low == pytest.approx(low, rel=0.1)
    assert rare.high == pytest.approx(high, rel=0.1)
    assert never.value == never.low == 0
    assert never.high == pytest.approx(3.69 / 4_000, rel=0.3)
    assert "Clopper" not in often.method


def test_a_comparison_says_what_it_could_have_seen(world: World) -> None:
    table = gather(course([world], ["first", "random"]), METRICS)
    comparisons = table.comparisons(["random"])
    rows = table.power(comparisons)
    assert {(row.metric, row.agent, row.baseline) for row in rows} == {(m, "first", "random") for m in METRICS}
    reward = rows[0]
    assert (reward.users, reward.training_seeds) == (60, 1)
    (estimate,) = (c.difference for c in comparisons if c.metric == "reward")
    assert estimate.low is not None
    assert estimate.high is not None
    # Half-width t se against (t + .84) se.
    assert reward.detectable == pytest.approx((estimate.high - estimate.low) / 2 * (2.001 + 0.84) / 2.001, rel=1e-3)


@dataclass
class Disappointed:
    """Shows what disappointed least in this flight; learns online."""

    score: NDArray[np.float64]
    told: list[Feedback] = field(default_factory=list)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        assert observation.candidates is not None
        score = np.where(observation.candidates, self.score, -np.inf)
        return np.argsort(-score, axis=1, kind="stable")[:, : observation.slate_size]

    def observe(self, feedback: Feedback) -> None:
        self.told.append(feedback)
        np.add.at(self.score, feedback.slates, feedback.clicks - 1)


def test_an_agent_that_learns_online_learns_within_a_flight_and_not_beyond_it(world: World) -> None:
    agent = Disappointed(np.zeros(world.n_items))
    flown = {"name": "one", "world_number": 1, "seed": 5, "training_seed": 0}
    first, again = (fly(agent, world, **flown) for _ in range(2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.slate, again.slate)
    assert agent.told == []
    assert agent.score.sum() == 0
    agent.online = False  # type: ignore[attr-defined]
    frozen = fly(agent, world, **flown)  # type: ignore[arg-type]
    np.testing.assert_array_equal(frozen.slate[:, 0], first.slate[:, 0])
    assert (frozen.slate[:, 1] != first.slate[:, 1]).any()


def test_it_is_told_of_those_who_were_shown_a_slate_and_of_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Feedback] = []
    monkeypatch.setattr(Disappointed, "observe", lambda self, feedback: heard.append(feedback))
    flown = fly(Disappointed(np.zeros(world.n_items)), world, name="one", world_number=1, seed=5, training_seed=0)
    assert sum(len(one.slates) for one in heard) == flown.length.sum()
    assert sum(one.clicks.sum() for one in heard) == flown.clicks.sum()
    assert sum(one.reward.sum() for one in heard) == pytest.approx(flown.reward.sum(), rel=1e-5)
    for now, after in itertools.pairwise(heard):
        assert len(after.slates) == (~now.done).sum()
