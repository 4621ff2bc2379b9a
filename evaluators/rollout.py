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

from agents.base import Agent, Feedback, Observation, learns_online
from agents.contract import check_slate
from evaluators.sessions import Sessions
from simulator.streams import stream
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

    Raises:
        AgentError: the agent returned a slate that is not one.
    """
    rows = np.arange(len(world.starts)) if start_rows is None else np.asarray(start_rows, np.int64)
    users = SimulatedUsers(world, len(rows), seed=seed)
    users.start(rows, session=session)
    rng = stream(np.random.SeedSequence(seed), "agent", name, training_seed, world_number, session)
    visit = _visit(_for_flight(agent), users, rng, np.ones(len(rows), bool))
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
        visit = _visit(agent, users, rng, here)
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
        for field in ("user", "slate", "clicks", "length", "left", "reward", "followed", "could_follow")
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

    def cut(self, lanes: NDArray[np.int64]) -> _Visit:
        return _Visit(*(getattr(self, name)[lanes] for name in self.__slots__))

    def as_sessions(
        self, name: str, number: int, seed: int, training: int, user: NDArray[np.int64], session: int, world: World
    ) -> Sessions:
        after: dict[str, NDArray[np.float32]] = {head.kind: self.after[..., at] for at, head in enumerate(world.heads)}
        return Sessions(
            name, number, seed, training, user, self.slate, self.clicks, self.length, self.left, self.reward, session,
            after,
        )  # fmt: skip


def _for_flight(agent: Agent) -> Agent:
    """The agent itself, or a copy of one that learns online, so that no flight knows what another has seen."""
    return copy.deepcopy(agent) if learns_online(agent) else agent


def _visit(agent: Agent, users: SimulatedUsers, rng: np.random.Generator, here: NDArray[np.bool_]) -> _Visit:
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
    active = np.flatnonzero(here)
    for step in range(horizon):
        seen = users.observe()
        observation = observation_of(seen, active, slate_size, privileged=privileged)
        chosen = check_slate(agent.act(observation, rng), observation)
        slate = np.full((n, slate_size), -1, np.int64)
        slate[active] = chosen
        outcome = users.step(slate)
        shown[active, step] = outcome.shown[active]
        clicks[active, step] = outcome.clicks[active]
        reward[active, step] = outcome.reward[active]
        after[active, step] = outcome.after[active]
        length[active] += 1
        left[active] = outcome.left[active]
        if learns_online(agent):
            result = outcome.clicks[active].astype(np.float32), outcome.reward[active], outcome.done[active]
            agent.observe(Feedback(observation, chosen, *result))  # type: ignore[attr-defined]
        active = active[~outcome.done[active]]
        if not len(active):
            break
    return _Visit(shown, clicks, reward, length, left, after)


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
