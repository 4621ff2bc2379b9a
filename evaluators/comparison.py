"""Simulated values and paired differences: users crossed with training seeds, over several judge worlds.

Two agents meet the same users and the same luck, so their difference is taken within the user. Its variance has a part
of the users, a part of the training seeds and what is left; simulation seeds are averaged away and never counted.
EVALUATION, section 5, has the measurements behind every choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from evaluators.estimate import Estimate
from evaluators.intervals import (
    FEW_EVENTS,
    MIN_USERS,
    clopper_pearson,
    find_door,
    n_pos,
    t_quantile,
)
from evaluators.power import Components, satterthwaite

Array = NDArray[np.float64]

OPTIMISM_LIMIT = 1.2
"""A value in the agent's own training world this many times that in the judge worlds is flagged."""


@dataclass(frozen=True, slots=True)
class AgentValues:
    """One metric of one agent.

    Attributes:
        per_user: [T, M, U] value of each user in each judge world for each training seed, simulation seeds and repeated
            sessions averaged; T is 1 for an agent that does not learn.
        trains: whether the agent learns, so that its training is one draw of many.
        planned: users planned, where looking at the differences decided how many were flown; intervals are then as wide
            as those of a confidence sequence. None where the number was fixed beforehand.
    """

    per_user: Array
    trains: bool = False
    planned: int | None = None

    @property
    def n_seeds(self) -> int:
        """T."""
        return self.per_user.shape[0]

    @property
    def n_worlds(self) -> int:
        """M."""
        return self.per_user.shape[1]

    @property
    def n_users(self) -> int:
        """U."""
        return self.per_user.shape[2]

    @property
    def by_seed(self) -> Array:
        """[T, U] mean over the worlds."""
        return self.per_user.mean(axis=1)

    @property
    def by_world(self) -> Array:
        """[M] mean over users and training seeds."""
        return self.per_user.mean(axis=(0, 2))

    @property
    def value(self) -> float:
        """Mean over everything."""
        return float(self.per_user.mean())

    @property
    def seed_variance(self) -> float:
        """Variance between training seeds of the mean over users; 0 where it is not known or there is none."""
        return float(self.by_seed.mean(axis=1).var(ddof=1)) if self.trains and self.n_seeds > 1 else 0.0

    def times(self, factor: float) -> AgentValues:
        """The same in another unit."""
        return replace(self, per_user=self.per_user * factor)


@dataclass(frozen=True, slots=True)
class SeedPool:
    """Variance between training seeds pooled over all agents that train, with its degrees of freedom."""

    variance: float = 0.0
    df: int = 0

    @classmethod
    def of(cls, agents: Iterable[AgentValues]) -> SeedPool:
        """Pool over the agents that train with more than one seed."""
        training = [agent for agent in agents if agent.trains and agent.n_seeds > 1]
        df = sum(agent.n_seeds - 1 for agent in training)
        if not df:
            return cls()
        return cls(sum((agent.n_seeds - 1) * agent.seed_variance for agent in training) / df, df)


@dataclass(frozen=True, slots=True)
class Crossed:
    """A mean of D[t, u] with users and training seeds crossed.

    Attributes:
        value: mean of D.
        forms: (variance of the value, its Satterthwaite degrees of freedom) of the two-agent and of the pooled form;
            the larger p value and the wider interval of them count.
        scores: [U] what each user adds to the value, centred.
        of_user: [U] value of each user, training seeds averaged.
        components: variance components.
    """

    value: float
    forms: tuple[tuple[float, float], ...]
    scores: Array
    of_user: Array
    components: Components

    def plus(self, variance: float, df: float) -> Crossed:
        """The same value with an independent variance added."""
        forms = tuple((v + variance, satterthwaite(v + variance, [(v, own), (variance, df)])) for v, own in self.forms)
        return Crossed(self.value, forms, self.scores, self.of_user, self.components)

    def half_width(self, level: float) -> float:
        """Half the width of the wider interval."""
        return max(t_quantile(level, df) * math.sqrt(v) if v > 0 else 0.0 for v, df in self.forms)

    @property
    def variance(self) -> float:
        """The larger variance."""
        return max(v for v, _ in self.forms)

    @property
    def p_value(self) -> float:
        """The larger two-sided p value of the value being 0; 1 where there is no difference at all."""
        if self.value == 0:
            return 1.0
        return max(float(2 * stdtr(df, -abs(self.value) / math.sqrt(v))) if v > 0 else 0.0 for v, df in self.forms)


def cross(agent: AgentValues, other: AgentValues | None, pool: SeedPool) -> Crossed:
    """Value and variance of an agent's mean, or of its paired difference to another.

    V = MST_a + MST_b + MSU - MSE (two agents) or (number that train) x MST_pool + MSU - MSE (pooled), each at least
    MSU and at least its MST part. Here every mean square is divided by T U, so that parts with different numbers of
    training seeds add up as well.
    """
    a = agent.by_seed
    b = None if other is None else other.by_seed
    n_users = a.shape[1]
    of_user = a.mean(axis=0) if b is None else a.mean(axis=0) - b.mean(axis=0)  # [U]
    value = float(of_user.mean())
    users = float(of_user.var(ddof=1)) / n_users  # MSU / (T U)
    rest, rest_df, n_seeds = _interaction(a, b)

    sides = [agent] if other is None else [agent, other]
    learners = [side for side in sides if side.trains and side.n_seeds > 1]
    own = [(side.seed_variance / side.n_seeds, float(side.n_seeds - 1)) for side in learners]
    pooled = [(sum(pool.variance / side.n_seeds for side in learners), float(pool.df))] if learners and pool.df else own
    # At the level .95; a sequence exceeds t by less at the stricter levels of families, so there this is wider still.
    widening = 1.0 if agent.planned is None else sequence_over_t(n_users, agent.planned) ** 2
    forms = []
    for seeds in (own, pooled):
        of_seeds = sum(part for part, _ in seeds)
        variance = max(of_seeds + users - rest, users, of_seeds)
        df = satterthwaite(variance, [*seeds, (users, n_users - 1), (rest, rest_df)])
        forms.append((variance * widening, df))

    components = Components(
        seeds=max(sum(s.seed_variance for s in learners) - n_seeds * rest, 0.0),
        users=max((users - rest) * n_users, 0.0),
        rest=rest * n_seeds * n_users,
        n_seeds=max((side.n_seeds for side in learners), default=1),
        n_users=n_users,
    )
    return Crossed(value, tuple(dict.fromkeys(forms)), (of_user - value) / n_users, of_user, components)


def _interaction(a: Array, b: Array | None) -> tuple[float, float, int]:
    """Residual mean square of D by (T U), its degrees of freedom, and T."""
    tables = [a]
    if b is not None:
        # A side with one row is the same for every seed of the other; else seeds pair off, and where their numbers
        # differ each side's own residual is taken: the trainings are independent, so residuals add up.
        tables = [a - b] if a.shape[0] == b.shape[0] or 1 in (a.shape[0], b.shape[0]) else [a, b]
    rest, df = 0.0, math.inf
    for table in tables:
        n_seeds, n_users = table.shape
        if n_seeds > 1:
            residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
            own_df = (n_seeds - 1) * (n_users - 1)
            rest += float((residual**2).sum()) / own_df / (n_seeds * n_users)
            df = min(df, own_df)
    return rest, df, max(table.shape[0] for table in tables)


# ------------------------------------------------------------------------------------------------ published values


@dataclass(frozen=True, slots=True)
class Rules:
    """What is known of a metric that decides how its mean may be published.

    Attributes:
        rewarded: False for metrics of the set, whose scores are no rewards, so that n_pos says nothing.
        rate: True for a share of yes/no events; below 100 events Clopper-Pearson limits are used.
        events: events, and trials: shown positions, of the agent in all its flights (rates only).
        design_effect: variance over that of independent trials, for a rate without any event.
    """

    rewarded: bool = True
    rate: bool = False
    events: float = math.inf
    trials: float = math.inf
    design_effect: float | None = None

    def rewards(self, of_user: Array) -> Array | None:
        """The users' values as rewards to be counted; None where they are none."""
        return of_user if self.rewarded else None


def simulated_mean(agent: AgentValues, pool: SeedPool, *, level: float = 0.95, rules: Rules | None = None) -> Estimate:
    """An agent's value over the judge worlds and further ones like them: V = s_M^2 (1 + 1/M) + V_within."""
    rules = rules or Rules()
    worlds = agent.by_world
    n_worlds = len(worlds)
    scope = f"scope: judge worlds ({n_worlds})" if n_worlds > 1 else "within one world, without its own error"
    method = f"mean over users x {_seeds(agent)}; {scope}{_one_training(agent)}{_watched(agent)}"
    if agent.n_users < 2:
        return Estimate.withhold(
            method, f"W3: {agent.n_users} users, needs {MIN_USERS}; simulate more", n=agent.n_users
        )
    crossed = cross(agent, None, pool)
    if n_worlds > 1:
        crossed = crossed.plus(float(worlds.var(ddof=1)) * (1 + 1 / n_worlds), n_worlds - 1)
    diagnostics: dict[str, object] = {"worlds": worlds.tolist()}
    if rules.rate and rules.events < FEW_EVENTS and agent.n_users >= MIN_USERS:
        low, high = _few_events_interval(crossed, rules, level)
        method += f"; {rules.events:.0f} events: Clopper-Pearson at the effective sample size"
        return Estimate(crossed.value, low, high, level, agent.n_users, method, None, diagnostics)
    # A yes/no rate with events enough needs no n_pos (rule W2), a metric of the set has no rewards to count.
    rewards = None if rules.rate else rules.rewards(crossed.of_user)
    return _publish(crossed, level, method, diagnostics, rewards=rewards)


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired difference or ratio.

    Attributes:
        estimate: value and interval.
        p_value: two-sided, of no difference; None where withheld.
        worlds: [M] point estimate in each world.
        components: variance components (of the log for a ratio).
        scope: what the number is about, e.g. "these 5 worlds", "this trained model".
    """

    estimate: Estimate
    p_value: float | None
    worlds: tuple[float, ...]
    components: Components | None
    scope: tuple[str, ...] = ()


def paired_difference(
    agent: AgentValues, other: AgentValues, pool: SeedPool, *, level: float = 0.95, rules: Rules | None = None
) -> Paired:
    """Agent minus other on the same users and luck, averaged over these worlds; a further world's limits beside it."""
    worlds = agent.by_world - other.by_world
    scope = _paired_scope(agent, other)
    method = f"paired difference, users x training seeds; scope: {', '.join(scope)}{_watched(agent)}"
    if agent.n_users < 2:
        why = f"W3: {agent.n_users} users, needs {MIN_USERS}; simulate more"
        return Paired(Estimate.withhold(method, why, n=agent.n_users, level=level), None, tuple(worlds), None, scope)
    crossed = cross(agent, other, pool)
    apart = not _never_apart(agent, other)
    gain = pairing_gain(agent, other) if apart else None
    diagnostics: dict[str, object] = {"worlds": worlds.tolist(), "pairing_gain": gain}
    if len(worlds) > 1:
        further = crossed.plus(float(worlds.var(ddof=1)) * (1 + 1 / len(worlds)), len(worlds) - 1)
        # A spread that is estimated adds degrees of freedom too, so that the quantile may fall by more than the error
        # grows; a further world is never better known than these.
        half = max(further.half_width(level), crossed.half_width(level))
        diagnostics["further_world"] = [crossed.value - half, crossed.value + half]
    if not apart:
        estimate = _never_differ(0.0, crossed, level, method, diagnostics)
    else:
        rewards = (rules or Rules()).rewards(crossed.of_user)
        estimate = _publish(crossed, level, method, diagnostics, rewards=rewards)
    p_value = None if estimate.value is None else crossed.p_value if apart else 1.0
    return Paired(estimate, p_value, tuple(worlds.tolist()), crossed.components, scope)


def paired_ratio(
    agent: AgentValues,
    other: AgentValues,
    everyone: Iterable[AgentValues],
    *,
    level: float = 0.95,
    rules: Rules | None = None,
) -> Paired:
    """Agent over other: delta method on the log ratio, same users and luck.

    Args:
        agent: numerator.
        other: denominator.
        everyone: all agents of the run, from which the variance of trainings is pooled (relative to their means).
        level: coverage.
        rules: how the metric may be published.
    """
    scope = _paired_scope(agent, other)
    method = (
        f"paired ratio, delta method on its log, users x training seeds; scope: {', '.join(scope)}{_watched(agent)}"
    )
    lowest = min(agent.by_world.min(), other.by_world.min())
    if agent.n_users < 2 or not lowest > 0:
        why = f"ratio: a mean of {lowest:.4g} (or {agent.n_users} users), needs means above 0; gate on the difference"
        return Paired(Estimate.withhold(method, why, n=agent.n_users, level=level), None, (), None, scope)
    pool = SeedPool.of(one.times(1 / one.value) for one in everyone if one.value > 0)
    crossed = cross(agent.times(1 / agent.value), other.times(1 / other.value), pool)
    ratio = agent.value / other.value
    worlds = tuple((agent.by_world / other.by_world).tolist())
    if _never_apart(agent, other):
        same = _never_differ(1.0, crossed, level, method, {"worlds": list(worlds)})
        return Paired(same, 1.0, worlds, crossed.components, scope)
    rewards = (rules or Rules()).rewards(crossed.of_user)
    log = _publish(crossed, level, method, {"worlds": list(worlds)}, rewards=rewards)
    if log.value is None or log.low is None or log.high is None:
        return Paired(log, None, worlds, None, scope)
    # The linearised difference has mean 0 by construction: its limits are the log's half-widths.
    moved = Crossed(math.log(ratio), crossed.forms, crossed.scores, crossed.of_user, crossed.components)
    estimate = Estimate(
        ratio, ratio * math.exp(log.low), ratio * math.exp(log.high), level, log.n, method, None, log.diagnostics
    )
    # On the ratio's own scale, so that a distance to the threshold can be compared with them.
    parts = crossed.components
    scaled = Components(
        parts.seeds * ratio**2, parts.users * ratio**2, parts.rest * ratio**2, parts.n_seeds, parts.n_users
    )
    return Paired(estimate, moved.p_value, worlds, scaled, scope)


def ratio_between_worlds(
    agent: AgentValues,
    elsewhere: AgentValues,
    everyone: Iterable[tuple[AgentValues, AgentValues]],
    *,
    level: float = 0.95,
    rules: Rules | None = None,
) -> Estimate:
    """An agent's value in these worlds over its value in others: delta method on the log, same users and luck.

    The same trainings fly in both, so what they differ by counts only as far as it moves the ratio.

    Args:
        agent: numerator.
        elsewhere: the same agent's users and trainings in the other worlds.
        everyone: both sides of all agents, from which the variance of trainings is pooled.
        level: coverage.
        rules: how the metric may be published.
    """
    scope = f"these {agent.n_worlds} worlds" if agent.n_worlds > 1 else "this world"
    method = f"ratio of one policy's values, paired by user and training; scope: {scope}{_one_training(agent)}"
    lowest = min(agent.value, elsewhere.value)
    if agent.n_users < 2 or not lowest > 0:
        why = f"ratio: a mean of {lowest:.4g} (or {agent.n_users} users), needs means above 0"
        return Estimate.withhold(method, why, n=agent.n_users, level=level)

    def gap(here: AgentValues, there: AgentValues) -> AgentValues:
        of = here.by_seed / here.value - there.by_seed / there.value
        return replace(here, per_user=of[:, None, :])

    pool = SeedPool.of(gap(here, there) for here, there in everyone if min(here.value, there.value) > 0)
    crossed = cross(gap(agent, elsewhere), None, pool)
    ratio = agent.value / elsewhere.value
    if np.array_equal(agent.by_seed, elsewhere.by_seed):
        return _never_differ(1.0, crossed, level, method, {})
    sides = [one.by_seed.mean(axis=0) for one in (agent, elsewhere)]
    rewards = (rules or Rules()).rewards(min(sides, key=n_pos))
    found = _publish(crossed, level, method, {}, rewards=rewards)
    if found.value is None or found.low is None or found.high is None:
        return found
    # The linearised difference has mean 0 by construction: its limits are the log's half-widths.
    return replace(found, value=ratio, low=ratio * math.exp(found.low), high=ratio * math.exp(found.high))


def optimism(in_training_world: AgentValues, judged: AgentValues, *, level: float = 0.95) -> Estimate:
    """What the agent's own training world claims beyond the judge worlds, A - B, on the same users and luck.

    `diagnostics["flag"]` is True where A is more than 1.2 times B.
    """
    n_worlds = judged.n_worlds
    method = f"value in the training world minus mean of {n_worlds} judge worlds, same users and luck"
    if judged.n_users < MIN_USERS:
        return Estimate.withhold(
            method, f"W3: {judged.n_users} users, needs {MIN_USERS}; simulate more", n=judged.n_users
        )
    gap = replace(judged, per_user=(in_training_world.by_seed - judged.by_seed)[:, None, :])
    crossed = cross(gap, None, SeedPool())
    if n_worlds > 1:
        crossed = crossed.plus(float(judged.by_world.var(ddof=1)) * (1 + 1 / n_worlds), n_worlds - 1)
    half = crossed.half_width(level)
    ratio = in_training_world.value / judged.value if judged.value else math.inf
    return Estimate(
        crossed.value,
        crossed.value - half,
        crossed.value + half,
        level,
        judged.n_users,
        method + _one_training(judged),
        diagnostics={
            "training_world": in_training_world.value,
            "judge_worlds": judged.value,
            "ratio": ratio if math.isfinite(ratio) else None,
            "flag": bool(in_training_world.value > OPTIMISM_LIMIT * judged.value),
        },
    )


def pairing_gain(agent: AgentValues, other: AgentValues) -> float | None:
    """How many times fewer users the pairing needs: (s_a^2 + s_b^2) / s_D^2; None where the agents never differ."""
    a, b = agent.by_seed.mean(axis=0), other.by_seed.mean(axis=0)
    paired = float((a - b).var(ddof=1))
    return float(a.var(ddof=1) + b.var(ddof=1)) / paired if paired > 0 else None


def _never_apart(agent: AgentValues, other: AgentValues) -> bool:
    """Whether they are one agent, or every training of both gave every user the same in every world."""
    first = agent.per_user[:1]
    return np.array_equal(agent.per_user, other.per_user) or bool(
        (agent.per_user == first).all() and (other.per_user == first).all()
    )


def _never_differ(
    value: float, crossed: Crossed, level: float, method: str, diagnostics: Mapping[str, object]
) -> Estimate:
    """Two agents that acted alike for every user in every flight: common noise leaves nothing to chance."""
    n_users = len(crossed.scores)
    return Estimate(value, value, value, level, n_users, f"{method}; the same for every user", None, dict(diagnostics))


def _publish(
    crossed: Crossed, level: float, method: str, diagnostics: Mapping[str, object], *, rewards: Array | None
) -> Estimate:
    """The estimate through the doors of section 4 with all weights 1, or withheld with the reason.

    `rewards` [U] are those of users that the estimate rests on; None where there are none to count.

    The third door never opens here: n_inf is U / kurtosis, and a skew that shuts the second door (above .2 sqrt U)
    makes the kurtosis exceed 1 + .04 U, so n_inf stays below 25.
    """
    n_users = len(crossed.scores)
    scores = crossed.scores
    door = find_door((scores,), None if rewards is None else n_pos(rewards), 1.0, more="simulate more users")
    kept = _finite({**diagnostics, "n_inf": door.n_inf, "n_pos": door.n_pos, "door": door.number})
    if door.number is None:
        return Estimate.withhold(method, "; ".join(door.reasons), n=n_users, level=level, diagnostics=kept)
    half = crossed.half_width(level)
    return Estimate(crossed.value, crossed.value - half, crossed.value + half, level, n_users, method, None, kept)


def _few_events_interval(crossed: Crossed, rules: Rules, level: float) -> tuple[float, float]:
    """Clopper-Pearson at n_eff = min(n, theta (1 - theta) / se^2); without events n over the pooled design effect."""
    rate = crossed.value
    if 0 < rate < 1 and crossed.variance > 0:
        effective = min(rules.trials, rate * (1 - rate) / crossed.variance)
    else:
        effective = rules.trials / rules.design_effect if rules.design_effect else float(len(crossed.scores))
    return clopper_pearson(rate * effective, effective, level)


def _finite(figures: Mapping[str, object]) -> dict[str, object]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def _seeds(agent: AgentValues) -> str:
    return f"{agent.n_seeds} training seeds" if agent.trains else "no training"


def _one_training(*agents: AgentValues) -> str:
    return "; scope: this trained model" if any(a.trains and a.n_seeds == 1 for a in agents) else ""


def _watched(agent: AgentValues) -> str:
    return "" if agent.planned is None else f"; limits of a confidence sequence, {agent.planned:,} users planned"


def _paired_scope(agent: AgentValues, other: AgentValues) -> tuple[str, ...]:
    worlds = f"these {agent.n_worlds} worlds" if agent.n_worlds > 1 else "within one world"
    trained = ("this trained model",) if _one_training(agent, other) else ()
    return (worlds, *trained)


# ------------------------------------------------------------------------------------------------ families


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the report's comparisons.

    Attributes:
        metric, agent, baseline: what is compared with what.
        difference: agent minus baseline, its interval at level 1 - 0.05/m for the m agents of the family (Bonferroni).
        p_value: of this comparison alone; None where withheld.
        p_adjusted: Holm's within the family of this metric and baseline.
        exploratory: True for every metric but the primary one.
    """

    metric: str
    agent: str
    baseline: str
    difference: Estimate
    p_value: float | None
    p_adjusted: float | None
    exploratory: bool = False
    components: Components | None = field(default=None, compare=False)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values; one that is None stays None and still counts in the family."""
    p = np.array([1.0 if value is None else value for value in p_values])
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [None if given is None else float(x) for given, x in zip(p_values, adjusted, strict=True)]


def compare_with(
    metric: str,
    baseline: str,
    agents: Mapping[str, AgentValues],
    *,
    rules: Rules | None = None,
    alpha: float = 0.05,
    exploratory: bool = False,
) -> tuple[Comparison, ...]:
    """Every agent against one baseline: one family."""
    pool = SeedPool.of(agents.values())
    names = [name for name in agents if name != baseline]
    level = 1 - alpha / max(len(names), 1)
    found = [paired_difference(agents[n], agents[baseline], pool, level=level, rules=rules) for n in names]
    adjusted = holm([paired.p_value for paired in found])
    return tuple(
        Comparison(metric, name, baseline, one.estimate, one.p_value, p, exploratory, one.components)
        for name, one, p in zip(names, found, adjusted, strict=True)
    )


def confidence_sequence(
    differences: Array, *, planned: int, alpha: float = 0.05, first_look: int = 200
) -> tuple[Array, Array]:
    """Limits [n], [n] that hold at all looks together, for watching a simulation and stopping when they say enough.

    Asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024). For simulated, unweighted
    differences only: with importance weights it misses in up to 64 % of streams.

    Args:
        differences: [n] one value a user, in the order in which users were simulated.
        planned: number of users at which the sequence is tightest.
        alpha: chance of ever missing.
        first_look: limits are infinite before this many users.
    """
    n = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / n
    spread = np.sqrt(np.maximum(np.cumsum(differences**2) / n - mean**2, 0.0))
    half = spread / np.sqrt(n) * _sequence_quantile(n, planned, alpha)
    half[: first_look - 1] = np.inf
    return mean - half, mean + half


def sequence_over_t(n_users: int, planned: int, *, level: float = 0.95) -> float:
    """How many times wider the limits of `confidence_sequence` are after `n_users` than those of a t interval."""
    quantile = float(_sequence_quantile(np.array([n_users]), planned, 1 - level)[0])
    return max(1.0, quantile / t_quantile(level, n_users - 1))


def _sequence_quantile(n: NDArray[np.int64], planned: int, alpha: float) -> Array:
    """What takes the place of t's quantile, for each number of users."""
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / planned
    return np.sqrt(2 * (n * rho2 + 1) / (n * rho2) * np.log(np.sqrt(n * rho2 + 1) / alpha))
