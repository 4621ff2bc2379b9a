"""One trained agent flown wherever it is judged: judge worlds, swept assumptions, its train world, the truth, picks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Observation
from agents.contract import check_slate
from evaluators.fairness.counterfactual import Flip
from evaluators.flights import Flight, measure
from evaluators.metrics import Reference, graded
from evaluators.rollout import fly, fly_visits
from evaluators.sessions import Sessions
from simulator.streams import stream

if TYPE_CHECKING:
    from simulator.world import World

Sweep = tuple[str, str, float]
"""Assumed part, parameter, value."""

TRUTH = -1
"""Number of the true world, where there is one: judge worlds count from 1, and the train world is 0."""


@dataclass(frozen=True, slots=True)
class Flipped:
    """What one flip of an attribute did.

    Attributes:
        values: names of the attribute's values; users of value j flew as those of value j + `by`, round the end.
        by: as in the flip.
        flights: in B_1, in the order of `fairness.CASES`.
    """

    values: tuple[str, ...]
    by: int
    flights: tuple[Flight, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """Where every agent of a run is flown.

    Attributes:
        worlds: judge worlds B_1..B_M, numbered from 1.
        claimed: world A's model with the same users' histories, for optimism; numbered 0.
        sweeps: assumed parameters and the other values under which B_1 is flown again.
        seeds: simulation seeds; sessions: sessions of each user.
        metrics: names, the primary one first.
        reference: what metrics need beside the sessions.
        flips: attribute -> its flips, of B_1; only attributes that are read.
        truth: what the judge users truly do, where that is known; numbered -1.
        held_out: state of the users held out of every world, for the picks check; its slate size
            is the number of picks. None where there are none.
    """

    worlds: tuple[World, ...]
    claimed: World
    sweeps: tuple[Sweep, ...]
    seeds: tuple[int, ...]
    sessions: int
    metrics: tuple[str, ...]
    reference: Reference
    held_out: Observation | None
    flips: Mapping[str, tuple[Flip, ...]] = field(default_factory=dict)
    truth: World | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What one training of an agent did on the course.

    Attributes:
        flights: in the judge worlds.
        claimed: in world A's model.
        swept: in B_1 under each swept value.
        slates: [U, L] items for each held-out user, or None.
        first: the sessions in B_1, for the log on disk.
        staying: the same where nobody leaves; of the first training alone, else None.
        flipped: attribute -> what each of its flips did; of the first training alone.
        account: what its answers took, as it says itself; empty where it says nothing.
        truth: in the true world; empty where that is not known.
    """

    flights: tuple[Flight, ...]
    claimed: tuple[Flight, ...]
    swept: Mapping[Sweep, tuple[Flight, ...]]
    slates: NDArray[np.int64] | None
    first: Sessions
    staying: Sessions | None = None
    flipped: Mapping[str, tuple[Flipped, ...]] = field(default_factory=dict)
    account: str = ""
    truth: tuple[Flight, ...] = ()


def fly_course(
    agent: Agent,
    course: Course,
    *,
    name: str,
    training_seed: int,
    root: np.random.SeedSequence,
    report: Callable[[float, str], None],
) -> Judged:
    """Fly one training of an agent everywhere.

    Raises:
        AgentError: it broke its contract.
    """
    total = len(course.worlds) + len(course.sweeps) + 1 + (course.truth is not None)
    done = 0
    relevances = graded(course.metrics)

    def everywhere(world: World, number: int, words: str) -> tuple[tuple[Flight, ...], Sessions]:
        nonlocal done
        flown = _fly_seeds(agent, world, course, name, number, training_seed)
        done += 1
        report(done / total, words)
        return tuple(measure(sessions, course.reference, course.metrics) for sessions in flown), flown[0].first_rows(
            len(world.starts)
        )

    flights: list[Flight] = []
    first: Sessions | None = None
    for number, world in enumerate(course.worlds, start=1):
        measured, sessions = everywhere(world, number, f"judge world {number}")
        flights += measured
        first = first or sessions
    assert first is not None
    claimed, _ = everywhere(course.claimed, 0, "train world")
    swept = {}
    for part, parameter, value in course.sweeps:
        world = course.worlds[0].with_parameter(part, parameter, value)
        swept[part, parameter, value], _ = everywhere(world, 1, f"{part}.{parameter} = {value:g}")
    truth: tuple[Flight, ...] = ()
    if course.truth is not None:
        truth, _ = everywhere(course.truth, TRUTH, "true world")
    slates = None
    # A held-out user's appeal in a judge world is no fact of that user, so the oracle has no picks to check.
    if course.held_out is not None and not getattr(agent, "privileged", False):
        rng = stream(root, "picks", name, training_seed)
        slates = check_slate(agent.act(course.held_out, rng), course.held_out)
    staying, flipped = None, {}
    if training_seed == 0:
        staying = fly(
            agent, course.worlds[0].without_leaving(), name=name, world_number=1, seed=course.seeds[0], training_seed=0
        )

        def once(flown: Agent, world: World) -> Flight:
            which = (name, 1, course.seeds[0], 0)
            sessions = next(fly_all(flown, world, course.sessions, which, graded=relevances))
            return measure(sessions, course.reference, course.metrics)

        for attribute, flips in course.flips.items():
            flipped[attribute] = tuple(
                Flipped(flip.values, flip.shift.by, tuple(once(*case) for case in flip.cases(agent, course.worlds[0])))
                for flip in flips
            )
    account = getattr(agent, "account", None)
    said = "" if account is None else str(account())
    return Judged(tuple(flights), claimed, swept, slates, first, staying, flipped, said, truth)


def _fly_seeds(
    agent: Agent, world: World, course: Course, name: str, number: int, training_seed: int
) -> list[Sessions]:
    """All sessions of a world's users, for every simulation seed of the course."""
    relevances = graded(course.metrics)
    return [
        sessions
        for seed in course.seeds
        for sessions in fly_all(agent, world, course.sessions, (name, number, seed, training_seed), graded=relevances)
    ]


def fly_all(
    agent: Agent, world: World, sessions: int, which: tuple[str, int, int, int], *, graded: bool
) -> Iterator[Sessions]:
    """All sessions of a world's users: repeats from the log, or one flight of sessions that follow each other.

    Each is flown when it is asked for.

    Args:
        agent: the trained agent.
        world: the world.
        sessions: of each user.
        which: name of the agent, number of the world, simulation seed, training seed.
        graded: record relevances.
    """
    name, number, seed, training = which
    if sessions > 1 and (world.returns or world.item_clicks is not None):
        yield fly_visits(
            agent,
            world,
            name=name,
            world_number=number,
            seed=seed,
            training_seed=training,
            sessions=sessions,
            graded=graded,
        )
        return
    for session in range(sessions):
        yield fly(
            agent,
            world,
            name=name,
            world_number=number,
            seed=seed,
            training_seed=training,
            session=session,
            graded=graded,
        )


def fly_shifted(
    agent: Agent,
    course: Course,
    shifts: Sequence[float | None],
    *,
    name: str,
    training_seed: int,
) -> tuple[tuple[Flight, ...] | None, ...]:
    """Fly B_1 again with each shift added to every appeal: the flights that correct an agent's value by its picks."""
    out: list[tuple[Flight, ...] | None] = []
    for shift in shifts:
        if shift is None:
            out.append(None)
            continue
        world = course.worlds[0].with_appeal_shift(shift)
        flown = _fly_seeds(agent, world, course, name, 1, training_seed)
        out.append(tuple(measure(sessions, course.reference, course.metrics) for sessions in flown))
    return tuple(out)
