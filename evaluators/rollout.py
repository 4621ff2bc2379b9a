"""Agents flown in worlds, paired by common random numbers.

The users' luck is keyed by (simulation seed, user, session, step, position) and never by the agent, so flights of two
agents in one world and seed differ only by what the agents showed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Observation
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
    They do depend on who flies together: the users of one flight are not to be split over several calls.

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
    n, slate_size, horizon = len(rows), world.slate_size, world.horizon
    users = SimulatedUsers(world, n, seed=seed)
    users.start(rows, session=session)
    rng = stream(np.random.SeedSequence(seed), "agent", name, training_seed, world_number, session)
    privileged = bool(getattr(agent, "privileged", False))

    shown = np.full((n, horizon, slate_size), -1, np.int32)
    clicks = np.zeros((n, horizon, slate_size), np.uint8)
    reward = np.zeros((n, horizon), np.float32)
    length = np.zeros(n, np.int64)
    left = np.zeros(n, bool)
    active = np.arange(n)
    for step in range(horizon):
        seen = users.observe()
        observation = _observation(seen, active, slate_size, privileged=privileged)
        chosen = check_slate(agent.act(observation, rng), observation)
        slate = np.full((n, slate_size), -1, np.int64)
        slate[active] = chosen
        outcome = users.step(slate)
        shown[active, step] = outcome.shown[active]
        clicks[active, step] = outcome.clicks[active]
        reward[active, step] = outcome.reward[active]
        length[active] += 1
        left[active] = outcome.left[active]
        active = active[~outcome.done[active]]
        if not len(active):
            break
    return Sessions(
        name, world_number, seed, training_seed, world.starts.user[rows], shown, clicks, length, left, reward, session
    )


def _observation(seen: ObservedUsers, rows: NDArray[np.int64], slate_size: int, *, privileged: bool) -> Observation:
    """What the agent may see of the users who are still there."""
    return Observation(
        user_features=seen.user_features[rows],
        history_items=seen.history_items[rows],
        history_feedback=seen.history_feedback[rows],
        context=seen.context[rows],
        candidates=seen.candidates()[rows],
        step=seen.step[rows],
        slate_size=slate_size,
        appeal=seen.appeal()[rows] if privileged else None,
    )
