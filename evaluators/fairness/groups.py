"""Metrics by group of users, the gap between groups, and who is served worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluators.comparison import AgentValues, SeedPool, cross
from evaluators.estimate import Estimate
from evaluators.intervals import t_quantile
from evaluators.power import satterthwaite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


FEWEST_USERS = 30
"""Smaller groups are withheld: a simultaneous interval covers from 30 users on (measured: .94 to .96)."""
FEWEST_WITH_EVENT = 10
UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Group:
    """One group of users and its mean of a per-user metric.

    Attributes:
        name: value of the attribute.
        n: users.
        mean: mean over the group's users.
        sd: standard deviation over the group's users.
        estimate: mean with the user t interval, or withheld (too few users).
        simultaneous: the same at a level that holds for all reported groups at once.
    """

    name: str
    n: int
    mean: float
    sd: float
    estimate: Estimate
    simultaneous: Estimate


@dataclass(frozen=True, slots=True)
class GroupTable:
    """A metric by group of users.

    Attributes:
        metric: what was averaged. attribute: by what users were grouped.
        groups: all groups, by name; the withheld ones among them.
        gap: largest minus smallest mean over the reported groups, simultaneous interval.
        ratio: smallest over largest mean, simultaneous interval on logs.
        worst: the reported group with the smallest lower limit (the largest upper one where less is better), its
            simultaneous interval.
        worst_name: its name, or None.
    """

    metric: str
    attribute: str
    groups: tuple[Group, ...]
    gap: Estimate
    ratio: Estimate
    worst: Estimate
    worst_name: str | None

    @property
    def reported(self) -> tuple[Group, ...]:
        """Groups that are large enough."""
        return tuple(group for group in self.groups if group.estimate.value is not None)


def by_group(
    value: Floats | AgentValues,
    group: NDArray[np.str_],
    *,
    metric: str,
    attribute: str,
    events: Floats | None = None,
    level: float = 0.95,
    scope: str = "simulated",
    higher_is_better: bool = True,
) -> GroupTable:
    """Mean of a per-user metric by group, and the gap between groups.

    Values of several judge worlds and trainings carry their spread into every interval: a group's mean by that of its
    own mean, a gap by that of the difference of the two groups, in which what moves both alike cancels.

    Args:
        value: [U] the metric of each user, NaN where a user has none (left out); or an agent's values by training,
            world and user.
        group: [U] value of the attribute; "" is unknown and left out.
        metric: name of the metric.
        attribute: name of the attribute.
        events: [U] primary behaviours of each user: a group needs 10 users with one; None where the metric has none.
        level: of all intervals.
        scope: simulated or logged, for the wording.
        higher_is_better: the metric's direction, for who is served worst.
    """
    import pandas as pd
    from fairlearn.metrics import MetricFrame

    values = value if isinstance(value, AgentValues) else AgentValues(value[None, None])
    of_user = values.per_user.mean(axis=(0, 1))
    known = (group != UNKNOWN) & np.isfinite(of_user)
    values = AgentValues(values.per_user[:, :, known], values.trains)
    mean_of_user, group = of_user[known], group[known]
    has_event = np.ones(len(group)) if events is None else (events[known] > 0).astype(np.float64)
    if not len(group):
        nothing = Estimate.withhold("groups", f"{attribute}: no user has a known value", level=level)
        return GroupTable(metric, attribute, (), nothing, nothing, nothing, None)
    # One row a user, so that fairlearn's groups are means over users and not over rows.
    frame = MetricFrame(
        metrics={"mean": _mean, "sd": _sd, "n": _count, "with_event": _positive},
        y_true=has_event,
        y_pred=mean_of_user,
        sensitive_features=pd.Series(group, name=attribute),  # an array of one user would be squeezed to none
    )
    rows = [(str(name), row) for name, row in frame.by_group.sort_index().iterrows()]
    reasons = {name: _too_small(name, int(row["n"]), int(row["with_event"])) for name, row in rows}
    n_reported = max(1, sum(reason is None for reason in reasons.values()))
    groups = []
    for name, row in rows:
        n, mean, sd, reason = int(row["n"]), float(row["mean"]), float(row["sd"]), reasons[name]
        method = f"{scope} {metric}, {attribute} = {name}, mean over users, {_what_varies(values)}"
        if reason is not None:
            withheld = Estimate.withhold(method, reason, n=n, level=level)
            groups.append(Group(name, n, mean, sd, withheld, withheld))
            continue
        mine = AgentValues(values.per_user[:, :, group == name], values.trains)
        own = _level_interval(mine, level, method)
        together = _level_interval(mine, 1 - (1 - level) / n_reported, f"{method}, all {n_reported} groups")
        groups.append(Group(name, n, mean, sd, own, replace(together, level=level)))
    moves = {name: values.per_user[:, :, group == name].mean(axis=2) for name, _ in rows}
    shared = Shared(np.stack([moves[g.name] for g in groups]), values.trains)
    return _table(metric, attribute, tuple(groups), shared, level, scope, higher_is_better=higher_is_better)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all groups share: means [K, T, M] of K groups by training and judge world.

    Attributes:
        mean: [K, T, M].
        trains: whether the agent's training is one draw of many.
    """

    mean: Floats
    trains: bool = False

    def take(self, groups: list[int]) -> Shared:
        """Some of the groups."""
        return Shared(self.mean[groups], self.trains)

    def parts(self, i: int, j: int) -> list[tuple[float, float]]:
        """(variance, degrees of freedom) that trainings and worlds add to the difference of two groups."""
        difference = self.mean[i] - self.mean[j]  # [T, M]
        n_seeds, n_worlds = difference.shape
        found = []
        if self.trains and n_seeds > 1:
            found.append((float(difference.mean(axis=1).var(ddof=1)) / n_seeds, n_seeds - 1.0))
        if n_worlds > 1:
            found.append((float(difference.mean(axis=0).var(ddof=1)) * (1 + 1 / n_worlds), n_worlds - 1.0))
        return found


def _what_varies(values: AgentValues) -> str:
    parts = ["users"]
    if values.trains and values.n_seeds > 1:
        parts.append(f"{values.n_seeds} trainings")
    if values.n_worlds > 1:
        parts.append(f"{values.n_worlds} judge worlds")
    return "user t" if len(parts) == 1 else f"over {' x '.join(parts)}"


def _level_interval(values: AgentValues, level: float, method: str) -> Estimate:
    """Mean of one group's users, over further worlds and trainings like these."""
    crossed = cross(values, None, SeedPool())
    worlds = values.by_world
    if len(worlds) > 1:
        crossed = crossed.plus(float(worlds.var(ddof=1)) * (1 + 1 / len(worlds)), len(worlds) - 1)
    half = crossed.half_width(level)
    return Estimate(crossed.value, crossed.value - half, crossed.value + half, level, values.n_users, method)


def _mean(y_true: Floats, y_pred: Floats) -> float:
    return float(np.mean(y_pred))


def _sd(y_true: Floats, y_pred: Floats) -> float:
    return float(np.std(y_pred, ddof=1)) if len(y_pred) > 1 else math.nan


def _count(y_true: Floats, y_pred: Floats) -> int:
    return len(y_pred)


def _positive(y_true: Floats, y_pred: Floats) -> int:
    return int(np.sum(y_true))


def _too_small(name: str, n: int, with_event: int) -> str | None:
    if n < FEWEST_USERS:
        return f"group size: {name} has {n} users, needs {FEWEST_USERS}; more users of this group would help"
    if with_event < FEWEST_WITH_EVENT:
        return f"group events: {name} has {with_event} users with an event, needs {FEWEST_WITH_EVENT}; fly more users"
    return None


def mean_interval(mean: float, sd: float, n: int, level: float, method: str) -> Estimate:
    """Mean of n users with the t interval."""
    half = t_quantile(level, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, level, n, method)


def _table(
    metric: str,
    attribute: str,
    groups: tuple[Group, ...],
    shared: Shared,
    level: float,
    scope: str,
    *,
    higher_is_better: bool,
) -> GroupTable:
    reported = [group for group in groups if group.estimate.value is not None]
    shared = shared.take([k for k, group in enumerate(groups) if group.estimate.value is not None])
    what = f"{scope} {metric} by {attribute}"
    if len(reported) < 2:
        small = "; ".join(g.estimate.withheld or "" for g in groups if g.estimate.value is None)
        why = f"gap: {len(reported)} of {len(groups)} groups are large enough, needs 2 ({small})"
        gap, ratio = (Estimate.withhold(f"{kind} of {what}", why, level=level) for kind in ("gap", "ratio"))
    else:
        mean, sd = np.array([g.mean for g in reported]), np.array([g.sd for g in reported])
        n = np.array([g.n for g in reported], np.float64)
        left_out = [g.name for g in groups if g.estimate.value is None]
        note = f"; not reported: {', '.join(left_out)}" if left_out else ""
        gap = _with_note(
            gap_interval(mean, sd, n, shared=shared, level=level, method=f"gap of {what}, max - min of group means"),
            note,
        )
        ratio = _with_note(
            ratio_interval(
                mean, sd, n, shared=shared, level=level, method=f"ratio of {what}, min / max of group means"
            ),
            note,
        )
    if not reported:
        why = f"worst group: none of {len(groups)} groups is large enough"
        return GroupTable(
            metric, attribute, groups, gap, ratio, Estimate.withhold(f"worst group of {what}", why, level=level), None
        )

    def served(group: Group) -> tuple[float, str]:
        """How well the group may be served at the least: its lower limit, or the upper one turned."""
        limit = group.simultaneous.low if higher_is_better else group.simultaneous.high
        assert limit is not None
        return (limit if higher_is_better else -limit), group.name

    worst = min(reported, key=served)
    return GroupTable(metric, attribute, groups, gap, ratio, worst.simultaneous, worst.name)


def _with_note(estimate: Estimate, note: str) -> Estimate:
    return replace(estimate, method=estimate.method + note)


def gap_interval(
    mean: Floats,
    sd: Floats,
    n: Floats,
    *,
    shared: Shared | None = None,
    level: float = 0.95,
    method: str = "gap",
) -> Estimate:
    """Largest minus smallest of K group means, from all pairwise differences at once (Games, Howell 1976).

    A bootstrap of max - min excludes a gap of 0 in 81 to 100 % of cases where there is none, since a maximum of
    noise is never 0. Here low = max(0, max(d - c se)), high = max(d + c se), with c from the studentised range.

    Args:
        mean: [K] group means of users.
        sd: [K] standard deviations over users.
        n: [K] users.
        shared: means of the groups by training and judge world, where there are several.
        level: simultaneous level.
        method: name of the estimate.
    """
    low, high = 0.0, 0.0
    k = len(mean)
    for i, j in combinations(range(k), 2):
        difference = abs(float(mean[i] - mean[j]))
        se, df = _welch(sd[[i, j]], n[[i, j]])
        more = [] if shared is None else [part for part in shared.parts(i, j) if part[0] > 0]
        if more:
            variance = se**2 + sum(part for part, _ in more)
            se, df = math.sqrt(variance), satterthwaite(variance, [(se**2, df), *more])
        half = _range_quantile(k, level, df) / math.sqrt(2) * se
        low, high = max(low, difference - half), max(high, difference + half)
    value = float(mean.max() - mean.min())
    total = int(n.sum())
    return Estimate(
        value,
        low,
        high,
        level,
        total,
        f"{method}, studentised range with Games-Howell df, simultaneous over {k} groups",
    )


def ratio_interval(
    mean: Floats,
    sd: Floats,
    n: Floats,
    *,
    shared: Shared | None = None,
    level: float = 0.95,
    method: str = "ratio",
) -> Estimate:
    """Smallest over largest of K group means: the gap interval on logs (delta method), in (0, 1]."""
    if (mean <= 0).any():
        return Estimate.withhold(
            method, f"ratio: a group mean is {mean.min():.3g}, needs all above 0", n=int(n.sum()), level=level
        )
    relative = None if shared is None else Shared(shared.mean / mean[:, None, None], shared.trains)
    logs = gap_interval(np.log(mean), sd / mean, n, shared=relative, level=level, method=method)
    low, high = math.exp(-float(logs.high or 0.0)), math.exp(-float(logs.low or 0.0))
    return replace(logs, value=math.exp(-float(logs.value or 0.0)), low=low, high=high)


def _welch(sd: Floats, n: Floats) -> tuple[float, float]:
    """Standard error of a difference of two means, and its Welch-Satterthwaite degrees of freedom."""
    part = sd**2 / n
    variance = float(part.sum())
    if variance == 0:
        return 0.0, float(n.sum() - 2)
    return math.sqrt(variance), variance**2 / float((part**2 / (n - 1)).sum())


def _range_quantile(k: int, level: float, df: float) -> float:
    """Quantile of the studentised range of k means; exact t for two, interpolated else."""
    if k == 2:
        return math.sqrt(2) * t_quantile(level, df)
    level = round(level, 10)
    if df >= 1 / _INVERSE_DF[-1]:
        return float(np.exp(np.polyval(_range_polynomial(k, level), 1 / df)))
    # Few worlds or trainings: between two whole degrees of freedom, on the safe side (log q is convex in 1/df).
    below = max(1, math.floor(df))
    near, far = _range_at(k, level, below), _range_at(k, level, below + 1)
    share = (1 / max(df, 1.0) - 1 / (below + 1)) / (1 / below - 1 / (below + 1))
    return float(np.exp(share * math.log(near) + (1 - share) * math.log(far)))


@lru_cache(maxsize=256)
def _range_at(k: int, level: float, df: int) -> float:
    return float(stats.studentized_range.ppf(level, k, df))


_INVERSE_DF = np.array([1e-6, 0.012, 0.024, 0.036])


@lru_cache(maxsize=64)
def _range_polynomial(k: int, level: float) -> Floats:
    # scipy integrates a tenth of a second for each quantile: four of them, and log q is a cubic in 1/df to 1e-6.
    return np.polyfit(_INVERSE_DF, np.log(stats.studentized_range.ppf(level, k, 1 / _INVERSE_DF)), 3)


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """Agent minus baseline in one group, paired by user."""

    group: str
    estimate: Estimate


def difference_by_group(
    agent: Floats | AgentValues,
    baseline: Floats | AgentValues,
    group: NDArray[np.str_],
    *,
    metric: str,
    attribute: str,
    agents: int = 1,
    pool: SeedPool | None = None,
    level: float = 0.95,
    scope: str = "simulated",
) -> tuple[GroupDifference, ...]:
    """Paired difference of a per-user metric in each group, simultaneous over groups x agents (Bonferroni).

    Users are crossed with trainings as in every paired difference, over these judge worlds.

    Args:
        agent: [U] the agent's metric of each user, or its values by training, world and user.
        baseline: the baseline's, same users and noise.
        group: [U] value of the attribute; "" is unknown and left out.
        metric: name of the metric.
        attribute: name of the attribute.
        agents: number of agents that are compared in this way.
        pool: variance between trainings, pooled over all agents that train.
        level: simultaneous level.
        scope: simulated or logged, for the wording.
    """
    a, b = (v if isinstance(v, AgentValues) else AgentValues(v[None, None]) for v in (agent, baseline))
    finite = np.isfinite(a.per_user.mean(axis=(0, 1)) - b.per_user.mean(axis=(0, 1)))
    names = [str(name) for name in np.unique(group) if name != UNKNOWN]
    sizes = {name: int(((group == name) & finite).sum()) for name in names}
    family = max(1, sum(size >= FEWEST_USERS for size in sizes.values()) * agents)
    what = f"paired by user, {_what_varies(a)}" if a.n_worlds > 1 or a.n_seeds > 1 else "paired by user"
    out = []
    for name in names:
        mine = (group == name) & finite
        n = sizes[name]
        method = f"agent - baseline, {metric}, {attribute} = {name}, {scope}, {what}, simultaneous over {family}"
        reason = _too_small(name, n, n)
        if reason is not None:
            out.append(GroupDifference(name, Estimate.withhold(method, reason, n=n, level=level)))
            continue
        one, other = (AgentValues(v.per_user[:, :, mine], v.trains) for v in (a, b))
        crossed = cross(one, other, pool or SeedPool())
        half = crossed.half_width(1 - (1 - level) / family)
        interval = Estimate(crossed.value, crossed.value - half, crossed.value + half, level, n, method)
        out.append(GroupDifference(name, interval))
    return tuple(out)


def gap_change(
    agent: Floats,
    baseline: Floats,
    group: NDArray[np.str_],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 1000,
) -> Estimate:
    """Gap under the agent minus gap under the baseline: user bootstrap within groups, recentred."""
    method = "gap(agent) - gap(baseline), user bootstrap within groups, recentred"
    names = [name for name in np.unique(group) if name != UNKNOWN and int((group == name).sum()) >= FEWEST_USERS]
    n = int(np.isin(group, names).sum())
    if len(names) < 2:
        return Estimate.withhold(
            method, f"gap change: {len(names)} groups have {FEWEST_USERS} users, needs 2", n=n, level=level
        )

    both = np.stack([agent, baseline])  # [2, U]
    means = np.stack([both[:, group == name].mean(1) for name in names])  # [g, 2]
    drawn = np.empty((resamples, len(names), 2))
    for k, name in enumerate(names):
        mine = both[:, group == name]
        size = mine.shape[1]
        weight = rng.multinomial(size, np.full(size, 1 / size), size=resamples) / size
        drawn[:, k] = weight @ mine.T
    value = float(np.ptp(means[:, 0]) - np.ptp(means[:, 1]))
    change = np.ptp(drawn[:, :, 0], axis=1) - np.ptp(drawn[:, :, 1], axis=1)
    # A resampled maximum of groups is too large by its own noise: only the spread of the resamples is used.
    low, high = np.quantile(change - change.mean() + value, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), level, n, method)


def intersection(attributes: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """[U] declared intersection of attributes: "F x 18-24"; unknown where any part is."""
    joined = np.array([" x ".join(parts) for parts in zip(*attributes, strict=True)])
    unknown = np.any([values == UNKNOWN for values in attributes], axis=0)
    return np.where(unknown, UNKNOWN, joined)
