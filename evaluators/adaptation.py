"""How fast an agent adapts: its worth after 0, 1, 2, 5, ... interactions with users whom it never met.

The same users are shown to every agent with their history cut to its newest k interactions. Two measures: the AUC of
the order in which the agent puts the user's own later rows (real ratings, no simulator), and the reward of the first
slate in judge worlds. An agent is asked for slates only, so any agent can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Observation
from agents.contract import check_slate
from evaluators.comparison import AgentValues, SeedPool, cross, paired_difference
from evaluators.estimate import Estimate
from evaluators.intervals import MIN_USERS
from evaluators.picks import held_out_observation
from evaluators.report import AdaptationPoint, AdaptationSection, EstimateModel, estimates
from evaluators.rollout import observation_of
from evaluators.settings import AdaptationSettings
from simulator.log import InteractionLog, Split
from simulator.streams import stream
from simulator.users import SimulatedUsers

if TYPE_CHECKING:
    from simulator.world import World

Ints = NDArray[np.int64]

INTERACTIONS = AdaptationSettings().interactions
MOST_ROWS = 50
"""Later rows of a user that are put in order: the first ones."""

TrainedAgents = Mapping[str, Sequence[Agent]]
"""Name to the trained agents, one for each training seed."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One measure of several agents after k interactions, on the same users.

    Attributes:
        measure: "auc" or "reward".
        interactions: values of k.
        values: name -> for each k the users' values.
        scope: what the users and rows are, for the estimates' method.
    """

    measure: Literal["auc", "reward"]
    interactions: tuple[int, ...]
    values: Mapping[str, tuple[AgentValues, ...]]
    scope: str

    @classmethod
    def together(cls, parts: Sequence[Adaptation]) -> Adaptation:
        """The same measure of all agents of several parts, which measured different agents on the same users."""
        first = parts[0]
        assert all((one.measure, one.interactions, one.scope) == (first.measure, first.interactions, first.scope)
                   for one in parts)  # fmt: skip
        return replace(first, values={name: of for one in parts for name, of in one.values.items()})

    def estimate(self, agent: str, interactions: int, *, level: float = 0.95) -> Estimate:
        """Mean over users, users crossed with training seeds."""
        values = self._at(agent, interactions)
        method = f"{self.scope}, history cut to {interactions}; users x {values.n_seeds} training seeds"
        if values.n_users < MIN_USERS:
            return self._of_too_few(method, values.n_users, level)
        crossed = cross(values, None, self._pool(interactions))
        half = crossed.half_width(level)
        return Estimate(crossed.value, crossed.value - half, crossed.value + half, level, values.n_users, method)

    def difference(self, agent: str, other: str, interactions: int, *, level: float = 0.95) -> Estimate:
        """Agent minus other on the same users, users crossed with training seeds."""
        pair = self._at(agent, interactions), self._at(other, interactions)
        n_users = pair[0].n_users
        if n_users < MIN_USERS:
            return self._of_too_few(f"{self.scope}, history cut to {interactions}; paired difference", n_users, level)
        found = paired_difference(*pair, self._pool(interactions), level=level).estimate
        return replace(found, method=f"{self.scope}, history cut to {interactions}; {found.method}")

    def _of_too_few(self, method: str, n_users: int, level: float) -> Estimate:
        why = (
            f"W3: {n_users} users with {max(self.interactions)} interactions and later rows of both kinds, "
            f"needs {MIN_USERS}; fewer evaluate.adaptation.interactions would help"
        )
        return Estimate.withhold(method, why, n=n_users, level=level)

    def _at(self, agent: str, interactions: int) -> AgentValues:
        return self.values[agent][self.interactions.index(interactions)]

    def _pool(self, interactions: int) -> SeedPool:
        return SeedPool.of(self._at(agent, interactions) for agent in self.values)


def sections(found: Adaptation, references: Sequence[str]) -> list[AdaptationSection]:
    """Every agent's part of the report, with its differences to those references that were measured too."""
    return [
        AdaptationSection(
            agent=name,
            measure=found.measure,
            points=[
                AdaptationPoint(
                    interactions=k,
                    value=EstimateModel.of(found.estimate(name, k)),
                    differences=estimates(
                        {
                            other: found.difference(name, other, k)
                            for other in references
                            if other in found.values and other != name
                        }
                    ),
                )
                for k in found.interactions
            ],
        )
        for name in found.values
    ]


def later_rows_ordered(
    agents: TrainedAgents,
    log: InteractionLog,
    split: Split,
    users: Ints,
    *,
    feature_names: Sequence[str],
    history_length: int,
    interactions: Sequence[int] = INTERACTIONS,
    seed: int = 0,
) -> Adaptation:
    """AUC of each user's later rows in the order in which an agent shows them.

    The candidates are the user's first MOST_ROWS later rows, and the slate is all of them. Users count who have as many
    early rows as the largest k, and later rows of both kinds; the others could not be measured at every k.

    Args:
        agents: the agents, one or more trainings each; none has seen these users.
        log: the interaction log.
        split: which rows are early.
        users: [U] users in the log's numbering.
        feature_names: user features that agents see, as `World.feature_names`.
        history_length: H.
        interactions: values of k, at most H.
        seed: of the agents' own draws.

    Raises:
        AgentError: an agent returned a slate that is not one.
    """
    rows = split.rows(log, users, late=True)
    first = np.searchsorted(log.user[rows], log.user[rows])  # where the user's later rows begin
    rows = rows[np.arange(len(rows)) - first < MOST_ROWS]
    liked = np.zeros((len(users), log.catalogue.n_items), np.int8)  # 1 liked, -1 not, 0 no later row
    line = np.full(log.catalogue.n_users, -1)
    line[users] = np.arange(len(users))
    liked[line[log.user[rows]], log.item[rows]] = np.where(log.primary[rows] > 0, 1, -1)
    seen = held_out_observation(
        log, split, users, feature_names=feature_names, history_length=history_length, slate_size=1
    )
    assert seen.candidates is not None
    liked[~seen.candidates] = 0
    enough = (seen.history_items >= 0).sum(axis=1) >= max(interactions)
    kept = np.flatnonzero(enough & (liked > 0).any(axis=1) & (liked < 0).any(axis=1))
    liked = liked[kept]
    observation = replace(
        seen,
        user_features=seen.user_features[kept],
        history_items=seen.history_items[kept],
        history_feedback=seen.history_feedback[kept],
        context=seen.context[kept],
        candidates=liked != 0,
        step=seen.step[kept],
        slate_size=int((liked != 0).sum(axis=1).max(initial=1)),
    )

    def value(name: str, number: int, agent: Agent, k: int) -> NDArray[np.float64]:
        shown = cut_history(observation, k)
        rng = stream(np.random.SeedSequence(seed), "adaptation", name, number, k)
        slates = check_slate(agent.act(shown, rng), shown)
        return _auc(np.take_along_axis(liked, np.maximum(slates, 0), axis=1) * (slates >= 0))

    values = {
        name: tuple(
            AgentValues(
                np.array([value(name, number, agent, k) for number, agent in enumerate(trained)])[:, None, :],
                trains=len(trained) > 1,
            )
            for k in interactions
        )
        for name, trained in agents.items()
    }
    return Adaptation("auc", tuple(interactions), values, f"AUC of {len(kept)} users' later rows")


def first_slates(
    agents: TrainedAgents,
    worlds: Mapping[int, World],
    *,
    interactions: Sequence[int] = INTERACTIONS,
    sessions: int = 4,
    seed: int = 0,
) -> Adaptation:
    """Reward of the first slate of a session, in judge worlds; agents meet the same users and luck.

    Args:
        agents: the agents, one or more trainings each.
        worlds: the judge worlds by number, all of the same users.
        interactions: values of k.
        sessions: first slates simulated for each user, averaged.
        seed: simulation seed.

    Raises:
        AgentError: an agent returned a slate that is not one.
    """

    def value(name: str, number: int, agent: Agent, k: int, world_number: int) -> NDArray[np.float64]:
        world = worlds[world_number]
        n = len(world.starts)
        total = np.zeros(n)
        for session in range(sessions):
            users = SimulatedUsers(world, n, seed=seed)
            users.start(np.arange(n), session=session)
            privileged = bool(getattr(agent, "privileged", False))
            seen = observation_of(users.observe(), np.arange(n), world.slate_size, privileged=privileged)
            shown = cut_history(seen, k)
            rng = stream(np.random.SeedSequence(seed), "adaptation", name, number, world_number, k, session)
            total += users.step(check_slate(agent.act(shown, rng), shown)).reward
        return total / sessions

    values = {
        name: tuple(
            AgentValues(
                np.array([[value(name, t, agent, k, m) for m in worlds] for t, agent in enumerate(trained)]),
                trains=len(trained) > 1,
            )
            for k in interactions
        )
        for name, trained in agents.items()
    }
    return Adaptation("reward", tuple(interactions), values, f"first slate in {len(worlds)} judge worlds")


def cut_history(observation: Observation, interactions: int) -> Observation:
    """The same observation with the newest `interactions` of each history only."""
    length = observation.history_items.shape[1]
    kept = np.arange(length) >= length - interactions
    return replace(
        observation,
        history_items=np.where(kept, observation.history_items, -1),
        history_feedback=np.where(kept, observation.history_feedback, 0).astype(np.float32),
    )


def _auc(shown: NDArray[np.int8]) -> NDArray[np.float64]:
    """[n] chance that a liked row stands before one that is not, of rows [n, L] in order: 1 liked, -1 not, 0 none."""
    no_above = np.cumsum(shown < 0, axis=1)
    wrong = (no_above * (shown > 0)).sum(axis=1)
    return np.asarray(1 - wrong / ((shown > 0).sum(axis=1) * (shown < 0).sum(axis=1)))
