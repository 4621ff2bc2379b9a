"""By which path a policy acts in the simulator: through what it shows, or through how often it may show something.

Stated graph: policy -> slates -> clicks, slates -> leaving -> number of slates -> clicks. Both paths are cut by
intervention on the kernel, with every user's luck held: slates are replayed in a world that nobody leaves, and counted
up to the length of the session that the one policy or the other had. What is shown is cut further by replaying, in the
place of each item, one drawn from those equally popular, or equally popular and of the same category. So the parts are
natural effects, exact for these users and luck, and add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.scores import mean_effect
from evaluators.estimate import Estimate
from evaluators.fairness.decomposition import decompose
from evaluators.sessions import Sessions
from simulator.streams import stream
from simulator.users import SimulatedUsers

if TYPE_CHECKING:
    from simulator.world import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TENTHS = 10


@dataclass(frozen=True, slots=True)
class Flown:
    """One agent in one judge world.

    Attributes:
        length: [U] slates that each user saw before leaving.
        staying: the same users and luck where nobody leaves.
    """

    length: Ints
    staying: Sessions


@dataclass(frozen=True, slots=True)
class ItemClasses:
    """Items that a replay may put in another's place.

    Attributes:
        popularity: [I] tenth of the log's likes that the item stands in.
        mix: [I] the same crossed with the item's rarest category.
    """

    popularity: Ints
    mix: Ints

    @classmethod
    def of(cls, likes: Floats, categories: NDArray[np.floating]) -> ItemClasses:
        """Classes from likes [I] in the train rows and categories [I, C]."""
        order = np.argsort(-likes, kind="stable")
        before = np.cumsum(likes[order]) - likes[order]
        tenth = np.empty(len(likes), np.int64)
        tenth[order] = np.minimum(TENTHS * before / max(float(likes.sum()), 1e-300), TENTHS - 1).astype(np.int64)
        tenth[likes == 0] = TENTHS  # what nobody liked stands apart
        rarest = np.zeros(len(likes), np.int64)
        if categories.shape[1]:
            count = np.where(categories > 0, categories.sum(axis=0)[None, :], np.inf)
            rarest = np.where(np.isfinite(count).any(axis=1), count.argmin(axis=1) + 1, 0)
        return cls(tenth, tenth * (categories.shape[1] + 1) + rarest)


def replay(world: World, slates: NDArray[np.integer], *, seed: int, session: int = 0) -> Floats:
    """[U, T] reward of each slate [U, T, K] when it is shown to the users of the world, whatever an agent would do."""
    n, steps, size = slates.shape
    users = SimulatedUsers(world, n, seed=seed, slate_size=size)
    users.start(np.arange(n), session=session)
    out = np.empty((n, steps))
    for t in range(steps):
        out[:, t] = users.step(np.ascontiguousarray(slates[:, t], np.int64)).reward
    return out


def same_class(slates: NDArray[np.integer], classes: Ints, seen: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """The slates [U, T, K] with each item replaced by one of its class that the user has not met, none twice.

    Args:
        slates: [U, T, K] items shown; -1 stays -1.
        classes: [I] class of each item.
        seen: [U, I] items that may not be shown to each user.
        rng: draws which.
    """
    n, _, _ = slates.shape
    flat = slates.reshape(n, -1)
    out = np.full(flat.shape, -1, np.int64)
    for u in range(n):
        places = np.flatnonzero(flat[u] >= 0)
        free = np.flatnonzero(~seen[u])
        drawn = free[rng.permutation(len(free))]
        drawn = drawn[np.argsort(classes[drawn], kind="stable")]  # by class, in drawn order within
        wanted = classes[flat[u, places]]
        # The r-th place of a class takes its r-th drawn item: as many are free as the agent itself found.
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
        out[u, places[order]] = drawn[np.searchsorted(classes[drawn], ordered, side="left") + rank]
    return out.reshape(slates.shape)


def exposure_paths(
    agent: Flown,
    baseline: Flown,
    world: World,
    classes: ItemClasses,
    root: np.random.SeedSequence,
    *,
    level: float = 0.95,
) -> Mapping[str, Estimate]:
    """Agent minus baseline in reward a session, by path; the last four parts add up to the first.

    Args:
        agent: the agent's flight.
        baseline: the baseline's, same users and luck.
        world: the judge world in which nobody leaves.
        classes: items that may stand for one another.
        root: root of the streams.
        level: of each interval, paired by user.
    """
    seen = _seen(world)
    rewards = {}
    for name, flown in (("agent", agent), ("baseline", baseline)):
        slates = flown.staying.slate
        seed = flown.staying.seed
        rewards[name] = (
            _rewards(flown.staying),
            *(
                replay(world, same_class(slates, of, seen, stream(root, "paths", what)), seed=seed)
                for what, of in (("popularity", classes.popularity), ("mix", classes.mix))
            ),
        )

    def total(name: str, form: int, length: Ints) -> Floats:
        table = rewards[name][form]
        return np.asarray((table * (np.arange(table.shape[1])[None, :] < length[:, None])).sum(axis=1))

    def gap(form: int) -> Floats:
        return total("agent", form, agent.length) - total("baseline", form, agent.length)

    parts = {
        "agent - baseline": total("agent", 0, agent.length) - total("baseline", 0, baseline.length),
        "how often: number of slates": total("baseline", 0, agent.length) - total("baseline", 0, baseline.length),
        "what: popularity of the items": gap(1),
        "what: their categories": gap(2) - gap(1),
        "what: which of these items": gap(0) - gap(2),
    }
    user = agent.staying.user
    how = "reward a session, exact by intervention in judge world 1, same users and luck, paired by user"
    return {name: mean_effect(of_user, user, level=level, method=f"{name}; {how}") for name, of_user in parts.items()}


def paths_from_a_log(
    agent: Flown, baseline: Flown, x: Floats, root: np.random.SeedSequence, *, level: float = 0.95
) -> tuple[Estimate, float]:
    """Effect not by way of the number of slates: as a log would give it, and the exact one by intervention.

    A fair coin deals users to the arms, one outcome each is seen, and the direct part is estimated by the cross-fitted
    plug-in. Clicks move both satisfaction, hence the number of slates, and reward: an unmeasured common cause of
    mediator and outcome, so the plug-in may miss, and the distance shows by how much.
    """
    a, b = _rewards(agent.staying), _rewards(baseline.staying)
    steps = np.arange(a.shape[1])[None, :]
    own_a = (a * (steps < agent.length[:, None])).sum(axis=1)
    own_b = (b * (steps < baseline.length[:, None])).sum(axis=1)
    exact = float(((a * (steps < baseline.length[:, None])).sum(axis=1) - own_b).mean())
    _, index = np.unique(agent.staying.user, return_inverse=True)
    treated = stream(root, "causal", "arms").integers(0, 2, int(index.max()) + 1)[index] == 1
    found = decompose(
        np.where(treated, own_a, own_b),
        treated,
        agent.staying.user,
        stream(root, "causal", "paths"),
        confounders=x,
        mediators=np.where(treated, agent.length, baseline.length)[:, None].astype(np.float64),
        level=level,
    )
    assert found.direct is not None
    return found.direct, exact


def _rewards(sessions: Sessions) -> Floats:
    """[U, T] reward of each slate."""
    if sessions.reward is not None:
        return sessions.reward.astype(np.float64)
    return sessions.clicks.sum(axis=2).astype(np.float64)


def _seen(world: World) -> NDArray[np.bool_]:
    """[U, I] items that may not be shown to each user."""
    histories = world.barred
    out = np.zeros((len(world.starts), world.n_items), bool)
    out[np.repeat(np.arange(len(histories)), np.diff(histories.start)), histories.item] = True
    return out
