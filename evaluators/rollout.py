"""Agents flown in worlds, paired by common random numbers.

The users' luck is keyed by (simulation seed, user, session, step, position) and never by the agent, so flights of two
agents in one world and seed differ only by what the agents showed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from agents.base import Agent, Feedback, Observation, learns_online
from agents.contract import check_slate
from evaluators.sessions import BY_ROW, Sessions
from simulator.streams import stream
from simulator.top_items import best_of_scores
from simulator.users import ObservedUsers, SimulatedUsers

if TYPE_CHECKING:
    from simulator.world import World


def fly(
    agent: Agent,
    world: World,
    *,
    name: str,
    world_number: int,
    seed: int,
    training_seed: int,
    start_rows: NDArray[np.int64] | None = None,
    session: int = 0,
    graded: bool = False,
) -> Sessions:
    """One session of every start user with an agent, all users in lock-step.

    The agent is asked once a step for all users who are still there. Its own draws come from a stream named after it,
    so they are never mixed with the users' luck and do not depend on which other agents fly, in what order or process.
    They do depend on who flies together: the users of one flight are not to be split over several calls. An agent that
    learns online does so in a copy for this flight, from all of its users.

    Args:
        agent: the trained agent; one with `privileged = True` sees the world's own appeal.
        world: the world in which users are simulated.
        name: name of the agent in the scenario.
        world_number: number of the world, for the record and the agent's stream.
        seed: simulation seed.
        training_seed: which training this agent is, 0 where it does not learn.
        start_rows: [n] rows of `world.starts` to fly; default all.
        session: number of the session, where several are flown for each user.
        graded: record the relevance of what is shown, and of the best that could be: a matrix product a step.

    Raises:
        AgentError: the agent returned a slate that is not one.
    """
    rows = np.arange(len(world.starts)) if start_rows is None else np.asarray(start_rows, np.int64)
    users = SimulatedUsers(world, len(rows), seed=seed)
    users.start(rows, session=session)
    rng = stream(np.random.SeedSequence(seed), "agent", name, training_seed, world_number, session)
    visit = _visit(_for_flight(agent), users, rng, np.ones(len(rows), bool), graded=graded)
    who = world.starts.user[rows]
    return visit.as_sessions(name, world_number, seed, training_seed, who, session, world)


def fly_visits(
    agent: Agent,
    world: World,
    *,
    name: str,
    world_number: int,
    seed: int,
    training_seed: int,
    sessions: int,
    graded: bool = False,
) -> Sessions:
    """Sessions that follow each other: users come back, or do not, and popularity feeds back between the sessions.

    A row for each session that took place, users in their order within each session. Clicks that make items popular are
    those of all users of the flight, so a flight does not depend on how work is shared out.

    Args:
        agent: the trained agent.
        world: the world.
        name: name of the agent in the scenario.
        world_number: number of the world.
        seed: simulation seed.
        training_seed: which training this agent is.
        sessions: at most so many for each user.
        graded: as in `fly`.

    Raises:
        AgentError: the agent returned a slate that is not one.
    """
    agent = _for_flight(agent)
    n = len(world.starts)
    users = SimulatedUsers(world, n, seed=seed)
    users.start(np.arange(n))
    clicks = world.item_clicks
    here = np.ones(n, bool)
    parts: list[Sessions] = []
    for session in range(sessions):
        rng = stream(np.random.SeedSequence(seed), "agent", name, training_seed, world_number, session)
        visit = _visit(agent, users, rng, here, graded=graded)
        took = np.flatnonzero(here)
        one = visit.cut(took).as_sessions(name, world_number, seed, training_seed, world.starts.user[took], 0, world)
        if clicks is not None:
            clicked = one.slate[one.clicks > 0]
            clicks = clicks + np.bincount(clicked, minlength=world.n_items)
        last = session + 1 == sessions
        back = np.zeros(n, bool) if last else users.come_back(session + 1, here, clicks)
        parts.append(replace(one, followed=back[took], could_follow=np.full(len(took), not last)))
        here = back
        if not here.any():
            break
    together: dict[str, Any] = {
        field: np.concatenate([getattr(part, field) for part in parts])
        for field in BY_ROW
        if getattr(parts[0], field) is not None
    }
    after = {kind: np.concatenate([part.after[kind] for part in parts]) for kind in parts[0].after}
    whole = replace(parts[0], **together, after=after)
    return whole if world.returns else replace(whole, followed=None, could_follow=None)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One session of n lanes: arrays as in `Sessions`; after: [n, T, K, B]."""

    slate: NDArray[np.int32]
    clicks: NDArray[np.uint8]
    reward: NDArray[np.float32]
    length: NDArray[np.int64]
    left: NDArray[np.bool_]
    after: NDArray[np.float32]
    relevance: NDArray[np.float32] | None
    best_relevance: NDArray[np.float32] | None

    def cut(self, lanes: NDArray[np.int64]) -> _Visit:
        def of_lanes(array: Any) -> Any:
            return None if array is None else array[lanes]

        return _Visit(*(of_lanes(getattr(self, name)) for name in self.__slots__))

    def as_sessions(
        self, name: str, number: int, seed: int, training: int, user: NDArray[np.int64], session: int, world: World
    ) -> Sessions:
        after: dict[str, NDArray[np.float32]] = {head.kind: self.after[..., at] for at, head in enumerate(world.heads)}
        return Sessions(
            name, number, seed, training, user, self.slate, self.clicks, self.length, self.left, self.reward, session,
            after, relevance=self.relevance, best_relevance=self.best_relevance,
        )  # fmt: skip


def _for_flight(agent: Agent) -> Agent:
    """The agent itself, or a copy of one that learns online, so that no flight knows what another has seen."""
    return copy.deepcopy(agent) if learns_online(agent) else agent


def _visit(
    agent: Agent, users: SimulatedUsers, rng: np.random.Generator, here: NDArray[np.bool_], *, graded: bool
) -> _Visit:
    """Fly the session that was begun in these lanes to its end."""
    world, n = users.world, users.n
    slate_size, horizon = world.slate_size, world.horizon
    privileged = bool(getattr(agent, "privileged", False))
    shown = np.full((n, horizon, slate_size), -1, np.int32)
    clicks = np.zeros((n, horizon, slate_size), np.uint8)
    reward = np.zeros((n, horizon), np.float32)
    after = np.zeros((n, horizon, slate_size, len(world.heads)), np.float32)
    length = np.zeros(n, np.int64)
    left = np.zeros(n, bool)
    graded &= world.own is None
    relevance, best = (np.zeros(shown.shape, np.float32) if graded else None for _ in range(2))
    active = np.flatnonzero(here)
    for step in range(horizon):
        seen = users.observe()
        observation = observation_of(seen, active, slate_size, privileged=privileged)
        appeal = None
        if relevance is not None and best is not None:  # before the agent, which may write where it should not
            appeal = users.appeal()[active] - _nothing(world)
            best[active, step] = _chance(appeal, _best_of(appeal, observation, slate_size))
        chosen = check_slate(agent.act(observation, rng), observation)
        slate = np.full((n, slate_size), -1, np.int64)
        slate[active] = chosen
        outcome = users.step(slate)
        shown[active, step] = outcome.shown[active]
        clicks[active, step] = outcome.clicks[active]
        reward[active, step] = outcome.reward[active]
        after[active, step] = outcome.after[active]
        if relevance is not None and appeal is not None:
            relevance[active, step] = _chance(appeal, outcome.shown[active])
        length[active] += 1
        left[active] = outcome.left[active]
        if learns_online(agent):
            result = outcome.clicks[active].astype(np.float32), outcome.reward[active], outcome.done[active]
            agent.observe(Feedback(observation, chosen, *result))  # type: ignore[attr-defined]
        active = active[~outcome.done[active]]
        if not len(active):
            break
    return _Visit(shown, clicks, reward, length, left, after, relevance, best)


def _nothing(world: World) -> np.float32:
    """Logit that choosing nothing has, where a user chooses one thing of all."""
    return np.float32(0.0 if world.choice == "independent" else world.value("choice", "no_choice"))


def _chance(appeal: NDArray[np.float32], items: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """[m, K] logistic of the items' appeal [m, I]; 0 for no item."""
    there = np.take_along_axis(appeal, np.maximum(items, 0).astype(np.int64), axis=1)
    return np.where(items >= 0, expit(there), np.float32(0)).astype(np.float32)


def _best_of(appeal: NDArray[np.float32], observation: Observation, slate_size: int) -> NDArray[np.int64]:
    """[m, K] candidates of highest appeal."""
    out = np.empty((len(appeal), slate_size), np.int64)
    assert observation.candidates is not None
    best_of_scores(appeal, observation.candidates, np.empty(out.shape, np.float32), out)
    return out


def observation_of(seen: ObservedUsers, rows: NDArray[np.int64], slate_size: int, *, privileged: bool) -> Observation:
    """What the agent may see of the users who are still there."""
    return Observation(
        user_features=seen.user_features[rows],
        history_items=seen.history_items[rows].astype(np.int64),
        history_feedback=seen.history_feedback[rows],
        context=seen.context[rows],
        candidates=seen.candidates()[rows],
        step=seen.step[rows],
        slate_size=slate_size,
        appeal=seen.appeal()[rows] if privileged else None,
    )
