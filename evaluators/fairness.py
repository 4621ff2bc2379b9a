"""Who is served how well: metrics by group of users, exposure of items and providers, counterfactual flips.

Statements are about the simulator or the log named in `method`, never about intent: "agent - baseline, group g:
+x [l, h], simulated" (EVALUATION, section 7). Groups that are too small are withheld and listed, never merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from agents.base import Observation
from evaluators.estimate import Estimate
from evaluators.intervals import Ratios, cluster_index, percentile_interval, recentred_interval, t_quantile, user_sums
from evaluators.off_policy.reward_model import user_folds
from evaluators.sessions import Sessions
from simulator.world import Preference, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_USERS = 30
"""Smaller groups are withheld: a simultaneous interval covers from 30 users on (measured: .94 to .96)."""
FEWEST_WITH_EVENT = 10
FEWEST_IMPRESSIONS_PER_ITEM = 10
UNKNOWN = ""


# ----------------------------------------------------------------------------------------------------- user groups


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
        worst: the reported group with the smallest lower limit, its simultaneous interval.
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
    value: Floats,
    group: NDArray[np.str_],
    *,
    metric: str,
    attribute: str,
    events: Floats | None = None,
    level: float = 0.95,
    scope: str = "simulated",
) -> GroupTable:
    """Mean of a per-user metric by group, and the gap between groups.

    Args:
        value: [U] the metric of each user; NaN where a user has none (left out).
        group: [U] value of the attribute; "" is unknown and left out.
        metric: name of the metric.
        attribute: name of the attribute.
        events: [U] primary behaviours of each user: a group needs 10 users with one; None where the metric has none.
        level: of all intervals.
        scope: simulated or logged, for the wording.
    """
    from fairlearn.metrics import MetricFrame

    known = (group != UNKNOWN) & np.isfinite(value)
    value, group = value[known], group[known]
    has_event = np.ones(len(value)) if events is None else (events[known] > 0).astype(np.float64)
    if not len(value):
        nothing = Estimate.withhold("groups", f"{attribute}: no user has a known value", level=level)
        return GroupTable(metric, attribute, (), nothing, nothing, nothing, None)
    # One row a user, so that fairlearn's groups are means over users and not over rows.
    frame = MetricFrame(
        metrics={"mean": _mean, "sd": _sd, "n": _count, "with_event": _positive},
        y_true=has_event,
        y_pred=value,
        sensitive_features=group,
    )
    rows = [(str(name), row) for name, row in frame.by_group.sort_index().iterrows()]
    reasons = {name: _too_small(name, int(row["n"]), int(row["with_event"])) for name, row in rows}
    n_reported = max(1, sum(reason is None for reason in reasons.values()))
    groups = []
    for name, row in rows:
        n, mean, sd, reason = int(row["n"]), float(row["mean"]), float(row["sd"]), reasons[name]
        method = f"{scope} {metric}, {attribute} = {name}, mean over users, user t"
        if reason is not None:
            withheld = Estimate.withhold(method, reason, n=n, level=level)
            groups.append(Group(name, n, mean, sd, withheld, withheld))
            continue
        own = _mean_interval(mean, sd, n, level, method)
        together = _mean_interval(mean, sd, n, 1 - (1 - level) / n_reported, f"{method}, all {n_reported} groups")
        groups.append(Group(name, n, mean, sd, own, replace(together, level=level)))
    return _table(metric, attribute, tuple(groups), level, scope)


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


def _mean_interval(mean: float, sd: float, n: int, level: float, method: str) -> Estimate:
    half = t_quantile(level, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, level, n, method)


def _table(metric: str, attribute: str, groups: tuple[Group, ...], level: float, scope: str) -> GroupTable:
    reported = [group for group in groups if group.estimate.value is not None]
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
            gap_interval(mean, sd, n, level=level, method=f"gap of {what}, max - min of group means"), note
        )
        ratio = _with_note(
            ratio_interval(mean, sd, n, level=level, method=f"ratio of {what}, min / max of group means"), note
        )
    if not reported:
        why = f"worst group: none of {len(groups)} groups is large enough"
        return GroupTable(
            metric, attribute, groups, gap, ratio, Estimate.withhold(f"worst group of {what}", why, level=level), None
        )
    worst = min(reported, key=lambda g: (-math.inf if g.simultaneous.low is None else g.simultaneous.low, g.name))
    return GroupTable(metric, attribute, groups, gap, ratio, worst.simultaneous, worst.name)


def _with_note(estimate: Estimate, note: str) -> Estimate:
    return replace(estimate, method=estimate.method + note)


def gap_interval(mean: Floats, sd: Floats, n: Floats, *, level: float = 0.95, method: str = "gap") -> Estimate:
    """Largest minus smallest of K group means, from all pairwise differences at once (Games, Howell 1976).

    A bootstrap of max - min excludes a gap of 0 in 81 to 100 % of cases where there is none, since a maximum of
    noise is never 0. Here low = max(0, max(d - c se)), high = max(d + c se), with c from the studentised range.

    Args:
        mean: [K] group means of users.
        sd: [K] standard deviations over users.
        n: [K] users.
        level: simultaneous level.
        method: name of the estimate.
    """
    low, high = 0.0, 0.0
    k = len(mean)
    for i, j in combinations(range(k), 2):
        difference = abs(float(mean[i] - mean[j]))
        se, df = _welch(sd[[i, j]], n[[i, j]])
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


def ratio_interval(mean: Floats, sd: Floats, n: Floats, *, level: float = 0.95, method: str = "ratio") -> Estimate:
    """Smallest over largest of K group means: the gap interval on logs (delta method), in (0, 1]."""
    if (mean <= 0).any():
        return Estimate.withhold(
            method, f"ratio: a group mean is {mean.min():.3g}, needs all above 0", n=int(n.sum()), level=level
        )
    logs = gap_interval(np.log(mean), sd / mean, n, level=level, method=method)
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
    """Quantile of the studentised range of k means; exact t for two, interpolated for 28 df or more."""
    if k == 2:
        return math.sqrt(2) * t_quantile(level, df)
    if df < 1 / _INVERSE_DF[-1]:
        return float(stats.studentized_range.ppf(level, k, df))
    return float(np.exp(np.polyval(_range_polynomial(k, round(level, 10)), 1 / df)))


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
    agent: Floats,
    baseline: Floats,
    group: NDArray[np.str_],
    *,
    metric: str,
    attribute: str,
    agents: int = 1,
    level: float = 0.95,
    scope: str = "simulated",
) -> tuple[GroupDifference, ...]:
    """Paired difference of a per-user metric in each group, simultaneous over groups x agents (Bonferroni).

    Args:
        agent: [U] the agent's metric of each user.
        baseline: [U] the baseline's, same users and noise.
        group: [U] value of the attribute; "" is unknown and left out.
        metric: name of the metric.
        attribute: name of the attribute.
        agents: number of agents that are compared in this way.
        level: simultaneous level.
        scope: simulated or logged, for the wording.
    """
    names = [str(name) for name in np.unique(group) if name != UNKNOWN]
    large = [name for name in names if int((group == name).sum()) >= FEWEST_USERS]
    family = max(1, len(large) * agents)
    out = []
    for name in names:
        difference = (agent - baseline)[group == name]
        difference = difference[np.isfinite(difference)]
        n = len(difference)
        method = (
            f"agent - baseline, {metric}, {attribute} = {name}, {scope}, paired by user, simultaneous over {family}"
        )
        reason = _too_small(name, n, n)
        if reason is not None:
            out.append(GroupDifference(name, Estimate.withhold(method, reason, n=n, level=level)))
            continue
        sd = float(difference.std(ddof=1))
        interval = _mean_interval(float(difference.mean()), sd, n, 1 - (1 - level) / family, method)
        out.append(GroupDifference(name, replace(interval, level=level)))
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


# --------------------------------------------------------------------------------------------- items and providers


def exposure_by_user(
    sessions: Sessions, n_items: int, *, attention: Literal["log", "even"] | Floats = "log"
) -> tuple[Any, Floats]:
    """Attention that each item got from each user: sparse [U, I], and impressions of each user [U].

    Args:
        sessions: one flight.
        n_items: items I of the catalogue.
        attention: 1/log2(2 + position) ("log"), 1 ("even"), or [K] the simulator's own examination probabilities.
    """
    from scipy.sparse import csr_matrix

    n_users, steps, size = sessions.slate.shape
    if isinstance(attention, str):
        of_position = 1 / np.log2(2 + np.arange(size)) if attention == "log" else np.ones(size)
    else:
        of_position = np.asarray(attention, np.float64)
    item = sessions.slate.reshape(n_users, steps * size)
    shown = item >= 0
    user = np.broadcast_to(np.arange(n_users)[:, None], item.shape)[shown]
    weight = np.broadcast_to(np.tile(of_position, steps), item.shape)[shown]
    exposure = csr_matrix((weight, (user, item[shown])), shape=(n_users, n_items))
    return exposure, shown.sum(1).astype(np.float64)


def gini(exposure: Floats) -> float:
    """Gini coefficient of non-negative exposures: 0 even, towards 1 when one item has all."""
    n = len(exposure)
    total = float(exposure.sum())
    if total == 0:
        return 0.0
    ordered = np.sort(exposure)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def _too_few_impressions(impressions: int, n_items: int) -> str:
    each = impressions / max(1, n_items)
    return f"exposure: {each:.1f} impressions an item, needs {FEWEST_IMPRESSIONS_PER_ITEM}; fly more users"


def exposure_gini(
    exposure: Any,
    impressions: Floats,
    rng: np.random.Generator,
    *,
    eligible: NDArray[np.bool_] | None = None,
    resamples: int = 200,
    level: float = 0.95,
) -> Estimate:
    """Gini of exposure over the catalogue, or over the eligible items; less what even exposure would show.

    A handful of impressions is uneven by chance: the mean Gini of multinomial draws of the *even* exposure with the
    same number of impressions is subtracted; under 10 impressions an item the value is withheld.

    Args:
        exposure: [U, I] sparse, from `exposure_by_user`.
        impressions: [U] impressions of each user.
        rng: draws the user bootstrap and the even exposure.
        eligible: [I] True for items that may be shown; None for the whole catalogue.
        resamples: of the bootstrap.
        level: of the interval.
    """
    n_users = exposure.shape[0]
    chosen = exposure if eligible is None else exposure[:, np.flatnonzero(eligible)]
    n_items = chosen.shape[1]
    over = "the catalogue" if eligible is None else "eligible items"
    method = f"Gini of exposure over {over}, less that of even exposure, user bootstrap of {resamples}"
    total = int(impressions.sum())
    if total < FEWEST_IMPRESSIONS_PER_ITEM * n_items:
        why = _too_few_impressions(total, n_items)
        return Estimate.withhold(method, why, n=n_users, level=level)
    by_chance = float(
        np.mean([gini(rng.multinomial(total, np.full(n_items, 1 / n_items)).astype(float)) for _ in range(20)])
    )
    value = gini(np.asarray(chosen.sum(0)).ravel()) - by_chance
    weight = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples).astype(np.float64)
    drawn = np.array([gini(np.asarray(chosen.T @ w).ravel()) for w in weight]) - by_chance
    low, high = recentred_interval(value, drawn, level)
    return Estimate(value, low, high, level, n_users, method, diagnostics={"by_chance": by_chance})


def provider_ratio(
    exposure: Any,
    merit: Any,
    provider: NDArray[np.str_],
    first: str,
    second: str,
    rng: np.random.Generator,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Exposure per merit of one provider group over another's: disparate treatment (Singh, Joachims 2018); 1 is even.

    Args:
        exposure: [U, I] sparse attention, from `exposure_by_user`.
        merit: [U, I] relevance in the *judge world*, not the agent's own score.
        provider: [I] provider group of each item.
        first: group in the numerator.
        second: group in the denominator.
        rng: draws the user bootstrap.
        resamples: of the bootstrap.
        level: of the interval.
    """
    method = f"exposure per merit (judge world's) of {first} over that of {second}, user bootstrap of {resamples}"
    n_users = exposure.shape[0]
    columns = []
    for name in (first, second):
        items = np.flatnonzero(provider == name)
        columns += [np.asarray(exposure[:, items].sum(1)).ravel(), np.asarray(merit[:, items].sum(1)).ravel()]
    table = np.stack(columns)  # [4, U]
    total = table.sum(1)
    if (total <= 0).any():
        return Estimate.withhold(
            method, f"provider ratio: {first} or {second} has no exposure or no merit", n=n_users, level=level
        )

    def ratio(sums: Floats) -> Floats:
        return (sums[..., 0] / sums[..., 1]) / (sums[..., 2] / np.maximum(sums[..., 3], 1e-300))

    weight = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples)
    drawn = ratio(weight @ table.T)
    value = float(ratio(total))
    low, high = np.nanquantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), level, n_users, method)


def amortised_rank_unfairness(
    exposure: Any, relevance: Any, rng: np.random.Generator, *, resamples: int = 200, level: float = 0.95
) -> Estimate:
    """Sum over items of |share of attention - share of relevance| (Biega, Gummadi, Weikum 2018); 0 is fair, at most 2.

    Less the same sum under multinomial draws of the relevance shares: with few impressions it is large by chance.
    """
    method = f"sum |attention share - relevance share|, less its mean by chance, user bootstrap of {resamples}"
    n_users, n_items = exposure.shape
    attention = np.asarray(exposure.sum(0)).ravel()
    merit = np.asarray(relevance.sum(0)).ravel()
    impressions = int(exposure.getnnz())
    if impressions < FEWEST_IMPRESSIONS_PER_ITEM * n_items:
        why = _too_few_impressions(impressions, n_items)
        return Estimate.withhold(method, why, n=n_users, level=level)
    share = merit / merit.sum()
    by_chance = float(
        np.mean([np.abs(rng.multinomial(impressions, share) / impressions - share).sum() for _ in range(20)])
    )
    value = float(np.abs(attention / attention.sum() - share).sum()) - by_chance
    drawn = []
    for w in rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples):
        a, r = np.asarray(exposure.T @ w).ravel(), np.asarray(relevance.T @ w).ravel()
        drawn.append(float(np.abs(a / a.sum() - r / r.sum()).sum()) - by_chance)
    low, high = recentred_interval(value, np.array(drawn), level)
    return Estimate(value, low, high, level, n_users, method, diagnostics={"by_chance": by_chance})


# ------------------------------------------------------------------------------------------------- counterfactuals


@dataclass(frozen=True, slots=True)
class CounterfactualFlip:
    """Effect of flipping a sensitive attribute, everything exogenous held: a statement about the simulator.

    Attributes:
        agent: flipped only in what the agent sees: the agent's direct use of it. Exactly 0 if it reads nothing.
        world: flipped only in the world: the world's own dependence.
        both: flipped in both.
    """

    agent: Estimate
    world: Estimate
    both: Estimate


class FlippedAgent:
    """An agent that is shown flipped user features; histories and everything else stay as they are (direct effect)."""

    def __init__(self, agent: Any, flip: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._agent = agent
        self._flip = flip

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The agent's slates for the same users with their features flipped."""
        return self._agent.act(replace(observation, user_features=self._flip(observation.user_features)), rng)


def swap_columns(first: int, second: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A flip of a one-hot attribute: users of the first value get the second and the other way round."""

    def flip(features: NDArray[np.float32]) -> NDArray[np.float32]:
        flipped = features.copy()
        flipped[:, first], flipped[:, second] = features[:, second], features[:, first]
        return flipped

    return flip


def flipped_world(
    world: World,
    preference: Preference,
    user_features: NDArray[np.float32],
    flip: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> World:
    """The same world with every user's state made from the same history and the flipped attribute.

    What agents see of the user (`starts.user_features`) stays as it is.

    Args:
        world: a judge world.
        preference: the model that the world was built from.
        user_features: [U, f] the catalogue's features of the world's users, in the order of its starts.
        flip: flips the attribute in user features.
    """
    states = preference.user_states(world.starts.seen, flip(user_features))
    vector = np.ascontiguousarray(states.vector, np.float32)
    starts = replace(world.starts, vector=vector, bias=np.ascontiguousarray(states.bias, np.float32))
    return replace(world, starts=starts)


def counterfactual_flip(
    fly: Callable[[Any, Any], Floats],
    agent: Any,
    world: Any,
    flipped_world: Any,
    flip: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    user: Ints,
    *,
    attribute: str,
    metric: str,
    level: float = 0.95,
) -> CounterfactualFlip:
    """Mean over users of metric(flipped) - metric(as is), same noise, same initial state (EVALUATION, section 7).

    Args:
        fly: `fly(agent, world) -> [U]` metric of each start; same noise whatever agent and world.
        agent: the agent.
        world: a judge world.
        flipped_world: the same world with its users' states made from the flipped attribute.
        flip: flips the attribute in user features [n, f].
        user: [U] cluster of each start.
        attribute: its name.
        metric: name of the metric.
        level: of the intervals.
    """
    shown = FlippedAgent(agent, flip)
    before = fly(agent, world)
    cases = {
        "agent": (fly(shown, world), "flipped in what the agent sees"),
        "world": (fly(agent, flipped_world), "flipped in the world"),
        "both": (fly(shown, flipped_world), "flipped in both"),
    }
    out: Mapping[str, Estimate] = {
        name: _effect(after - before, user, level, f"{metric}, {attribute} {how}, same noise, scope: simulator")
        for name, (after, how) in cases.items()
    }
    return CounterfactualFlip(**out)


def _effect(difference: Floats, user: Ints, level: float, method: str) -> Estimate:
    _, index = np.unique(user, return_inverse=True)
    of_user = np.bincount(index, difference) / np.bincount(index)
    n = len(of_user)
    if not of_user.any():
        return Estimate(0.0, 0.0, 0.0, level, n, f"{method}; exactly 0 for every user")
    if n < 2:
        return Estimate.withhold(method, f"users: {n}, needs 2", n=n, level=level)
    return _mean_interval(float(of_user.mean()), float(of_user.std(ddof=1)), n, level, f"{method}, user t")


def intersection(attributes: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """[U] declared intersection of attributes: "F x 18-24"; unknown where any part is."""
    joined = np.array([" x ".join(parts) for parts in zip(*attributes, strict=True)])
    unknown = np.any([values == UNKNOWN for values in attributes], axis=0)
    return np.where(unknown, UNKNOWN, joined)


# ---------------------------------------------------------------------------------------------------- decomposition


@dataclass(frozen=True, slots=True)
class Decomposition:
    """E[Y | second value] - E[Y | first value] in its parts: total = direct - indirect - spurious.

    Attributes:
        total: total variation: the difference of the two groups' means.
        direct: what the attribute itself does to the first group, all else as it is for them. None where unnamed.
        indirect: by way of the mediators. None where unnamed.
        spurious: by way of the confounders. None where unnamed.
    """

    total: Estimate
    direct: Estimate | None = None
    indirect: Estimate | None = None
    spurious: Estimate | None = None


def decompose(
    y: Floats,
    second: NDArray[np.bool_],
    user: Ints,
    rng: np.random.Generator,
    *,
    confounders: Floats | None = None,
    mediators: Floats | None = None,
    folds: int = 3,
    resamples: int = 1000,
    level: float = 0.95,
) -> Decomposition:
    """Parts of a gap between two groups under the standard fairness model (Plecko, Bareinboim 2024).

    Cross-fitted doubly robust means with linear and logistic nuisance models, user bootstrap of their sums. It is true
    under its graph only: attribute -> mediators -> outcome, confounders of the attribute and both. Which columns are
    confounders and which mediators has to be named; without it only the total is given.

    Args:
        y: [n] outcome.
        second: [n] True for rows of the second value x1, False for the first x0.
        user: [n] the cluster.
        rng: deals folds and draws the bootstrap.
        confounders: [n, dz] columns that precede the attribute's effect; None where unnamed.
        mediators: [n, dw] columns by way of which it acts; None where unnamed.
        folds: of users.
        resamples: of the bootstrap.
        level: of the intervals.
    """
    index, n_users = cluster_index(user, len(y))
    one, zero = second.astype(np.float64), (~second).astype(np.float64)
    means = {"x1": (one * y, one), "x0": (zero * y, zero)}
    if confounders is not None and mediators is not None:
        fold = user_folds(index, n_users, len(y), folds, rng)
        both = np.column_stack([confounders, mediators])
        means["direct"] = (_first_group_under_second(y, second, both, fold), zero)
        means["spurious"] = (_first_group_under_second(y, second, confounders, fold), zero)
    sums = {key: (user_sums(a, index, n_users), user_sums(b, index, n_users)) for key, (a, b) in means.items()}

    def part(name: str, plus: str, minus: str) -> Estimate:
        ratios = Ratios(np.stack([sums[plus][0], -sums[minus][0]]), np.stack([sums[plus][1], sums[minus][1]]))
        low, high = percentile_interval(ratios.resample(rng, resamples), level)
        value = ratios.value
        method = f"{name}, cross-fitted doubly robust, user bootstrap of {resamples}"
        return Estimate(value, min(low, value), max(high, value), level, n_users, method)

    total = part("total variation", "x1", "x0")
    if "direct" not in sums:
        return Decomposition(total)
    return Decomposition(
        total,
        part("direct effect", "direct", "x0"),
        part("indirect effect (second to first)", "direct", "spurious"),
        part("spurious effect (second to first)", "spurious", "x1"),
    )


def _first_group_under_second(y: Floats, second: NDArray[np.bool_], x: Floats, fold: Ints) -> Floats:
    """[n] doubly robust terms whose sum over the first group's size is E over its x of E(y | second, x)."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = np.empty(len(y))
    for k in np.unique(fold):
        fit, rows = fold != k, fold == k
        outcome = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(x[fit & second], y[fit & second])
        chance = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[fit], second[fit])
        mean = outcome.predict(x[rows])
        p = np.clip(chance.predict_proba(x[rows])[:, 1], 0.01, 0.99)
        out[rows] = np.where(second[rows], (1 - p) / p * (y[rows] - mean), mean)
    return out
