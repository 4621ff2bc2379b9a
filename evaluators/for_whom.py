"""What the report says of an agent beyond its means: by group of users, by item, by path, and as an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.causal.exposure_path import Flown, ItemClasses, exposure_paths, paths_from_a_log
from evaluators.causal.learners import linear_drivers
from evaluators.causal.methods import Assignment, methods_beside_the_truth, targeted
from evaluators.causal.served import served_effect
from evaluators.comparison import SeedPool
from evaluators.estimate import Estimate
from evaluators.evidence import GroupGaps
from evaluators.fairness import FEWEST_USERS, UNKNOWN, decompose, difference_by_group, gap_change, intersection
from evaluators.fairness.counterfactual import CASES, flip_effect
from evaluators.fairness.items import item_fairness, item_groups, merit_of
from evaluators.flights import Flights
from evaluators.metrics import METRICS
from evaluators.report import EffectMethod, EstimateModel, GroupRow, PathCheck, PriceRow, estimates
from evaluators.settings import EvaluateSettings
from simulator.streams import stream

if TYPE_CHECKING:
    from evaluators.judging import Judged
    from simulator.world import World

Floats = NDArray[np.float64]

MOST_DRIVERS = 5
WHERE_FLIPPED = {
    "agent": "what the agent sees",
    "world": "the world",
    "both": "what the agent sees and the world",
    "total": "both, and the logged history replayed under it",
}
SCORE = "like_share"
"""Feature by which users are dealt to the arms where methods are set beside the truth: campaigns reach the fond."""


@dataclass(frozen=True)
class Population:
    """Whom and what the agents of a run served.

    Attributes:
        features: [U, d] what is known of the judge users before they are served.
        feature_names: [d].
        groups: attribute -> [n_users of the log] group of each user, "" unknown.
        world: judge world B_1.
        likes: [I] likes in the train rows.
        categories: [I, C] of the items.
    """

    features: Floats
    feature_names: tuple[str, ...]
    groups: Mapping[str, NDArray[np.str_]]
    world: World
    likes: Floats
    categories: NDArray[np.floating]

    @cached_property
    def merit(self) -> Floats:
        """[U, I] relevance in B_1."""
        return merit_of(self.world)

    @cached_property
    def item_groups(self) -> NDArray[np.str_]:
        """[I] head or tail."""
        return item_groups(self.likes)

    @cached_property
    def classes(self) -> ItemClasses:
        """Items that may stand for one another."""
        return ItemClasses.of(self.likes, self.categories)

    @cached_property
    def staying_world(self) -> World:
        """B_1 where nobody leaves."""
        return self.world.without_leaving()


def crossed_groups(
    groups: Mapping[str, NDArray[np.str_]], crossed: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.str_]]:
    """The groups with declared intersections (name -> attributes) added."""
    return {**groups, **{name: intersection([groups[one] for one in names]) for name, names in crossed.items()}}


class ForWhom:
    """Sections of the agents of one run; what they share is computed once.

    Args:
        population: whom and what they served.
        judged: their flights.
        flights: their metrics.
        evaluate: the scenario's `evaluate:`.
        baseline: agent that the others are compared with, or None.
        gaps: tables by group.
        kinds: agent -> its kind, to find the agent that another one wraps.
        root: root of the scenario's streams.
    """

    def __init__(
        self,
        population: Population,
        judged: Mapping[str, Sequence[Judged]],
        flights: Flights,
        evaluate: EvaluateSettings,
        baseline: str | None,
        gaps: GroupGaps,
        kinds: Mapping[str, str],
        root: np.random.SeedSequence,
    ) -> None:
        self.population, self.judged, self.flights, self.evaluate = population, judged, flights, evaluate
        self.baseline, self.gaps, self.kinds, self.root = baseline, gaps, kinds, root
        self.attributes = evaluate.fairness.groupings

    def section(self, name: str) -> dict[str, Any]:
        """Fields of the agent's section."""
        fair, rows = self._groups(name)
        fair |= self._causes(name) | self._flips(name) | self._items(name)
        found: dict[str, Any] = {"fairness": estimates(fair), "groups": rows}
        against = self.baseline
        if against is not None and name != against and self.flights.why_not(self.metric, name, against) is None:
            found |= self._effect(name, against)
            found |= self._paths(name, against)
        inner = self._wrapped(name)
        if inner is not None:
            found["price"] = self._price(name, inner)
        return found

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.evaluate.metrics[0]

    def _per_user(self, metric: str, name: str) -> Floats:
        """[U] mean over training seeds and worlds."""
        return np.asarray(self.flights.values[metric][name].per_user.mean(axis=(0, 1)))

    # ------------------------------------------------------------------------------------------------- users

    def _groups(self, name: str) -> tuple[dict[str, Estimate], list[GroupRow]]:
        metric, flights = self.evaluate.fairness.metric, self.flights
        out: dict[str, Estimate] = {}
        rows: list[GroupRow] = []
        for attribute in self.attributes:
            if metric not in flights.values or flights.why_not(metric, name) is not None:
                why = f"fairness: {metric} has no value; name it in evaluate.metrics"
                out[f"gap({metric}, {attribute})"] = Estimate.withhold("gap between groups", why)
                continue
            found = self.gaps.table(flights, metric, attribute, name)
            out[f"gap({metric}, {attribute})"] = found.gap
            out[f"worst_group({metric}, {attribute})"] = found.worst
            moved = {}
            if self._compared(name, metric):
                assert self.baseline is not None
                moved = self._moved(name, self.baseline, metric, attribute)
                out[f"gap_change({metric}, {attribute})"] = gap_change(
                    self._per_user(metric, name),
                    self._per_user(metric, self.baseline),
                    self.gaps.groups[attribute][flights.user],
                    stream(self.root, "gap change", attribute, name),
                )
            rows += [
                GroupRow(
                    attribute=attribute,
                    group=group.name,
                    metric=metric,
                    estimate=EstimateModel.of(group.estimate),
                    difference=EstimateModel.of(moved[group.name]) if group.name in moved else None,
                )
                for group in found.groups
            ]
        return out, rows

    def _compared(self, name: str, metric: str) -> bool:
        return (
            self.baseline is not None and name != self.baseline and self.flights.why_not(metric, self.baseline) is None
        )

    def _moved(self, name: str, against: str, metric: str, attribute: str) -> dict[str, Estimate]:
        usable = self.flights.usable(metric)
        parts = difference_by_group(
            usable[name],
            usable[against],
            self.gaps.groups[attribute][self.flights.user],
            metric=metric,
            attribute=attribute,
            agents=max(1, len(self.flights.agents) - 1),
            pool=SeedPool.of(usable.values()),
        )
        return {part.group: part.estimate for part in parts}

    def _causes(self, name: str) -> dict[str, Estimate]:
        """Parts of the gap between two groups under the stated graph; the total alone where none is stated."""
        settings, flights = self.evaluate.fairness, self.flights
        metric = settings.metric
        out: dict[str, Estimate] = {}
        if metric not in flights.values or flights.why_not(metric, name) is not None or not settings.mediators:
            return out
        for attribute in settings.attributes:
            group = self.population.groups[attribute][flights.user]
            values = [str(v) for v in np.unique(group) if v != UNKNOWN]
            if len(values) != 2 or min(int((group == v).sum()) for v in values) < FEWEST_USERS:
                continue
            known = group != UNKNOWN
            found = decompose(
                self._per_user(metric, name)[known],
                group[known] == values[1],
                flights.user[known],
                stream(self.root, "decomposition", attribute, name),
                confounders=self._columns(settings.confounders)[known],
                mediators=self._columns(settings.mediators)[known],
            )
            z, w = ", ".join(settings.confounders) or "none", ", ".join(settings.mediators)
            graph = f"{attribute} {values[1]} - {values[0]}; graph: confounders {z}, mediators {w}; simulated"
            parts = {"total": found.total, "direct": found.direct, "indirect": found.indirect}
            parts["spurious"] = found.spurious
            for part, estimate in parts.items():
                if estimate is not None:
                    out[f"{part} of {attribute} on {metric}"] = estimate.note(graph)
        return out

    def _columns(self, names: Sequence[str]) -> Floats:
        """[U, k] of named features and, one-hot, attributes; one constant column where none are named."""
        parts: list[Floats] = [np.zeros((len(self.flights.user), 1))] if not names else []
        for name in names:
            if name in self.population.groups:
                group = self.population.groups[name][self.flights.user]
                parts.append((group[:, None] == np.unique(group)[None, 1:]).astype(np.float64))
            else:
                mine = [j for j, n in enumerate(self.population.feature_names) if n.partition("=")[0] == name]
                parts.append(self.population.features[:, mine])
        return np.concatenate(parts, axis=1)

    def _flips(self, name: str) -> dict[str, Estimate]:
        """Effect of flipping each attribute; exactly 0 where no one reads it."""
        metric, out = self.evaluate.fairness.metric, {}
        judged = self.judged[name][0]
        for attribute in self.evaluate.fairness.attributes:
            read = attribute in {n.partition("=")[0] for n in self.population.feature_names}
            if not read:
                n = len(self.flights.user)
                how = (
                    f"{metric}, {attribute} flipped: no feature of users carries it, so nothing reads it; total effect"
                )
                out[f"flip({metric}, {attribute})"] = Estimate(0.0, 0.0, 0.0, 0.95, n, how)
                continue
            before = judged.flights[0]
            for flipped in judged.flipped.get(attribute, ()):
                for case, after in zip(CASES, flipped.flights, strict=True):
                    moved = after.values[metric] - before.values[metric]
                    where = f"{metric}, {attribute} flipped in {WHERE_FLIPPED[case]}"
                    how = f"{where}, same noise, judge world 1, scope: simulator"
                    if len(flipped.values) == 2:
                        out[f"flip({metric}, {attribute}) in {case}"] = flip_effect(moved, before.user, how)
                        continue
                    for j, value in enumerate(flipped.values):
                        other = flipped.values[(j + flipped.by) % len(flipped.values)]
                        column = self.population.feature_names.index(f"{attribute}={value}")
                        who = self.population.features[:, column] > 0
                        out[f"flip({metric}, {attribute}: {value} to {other}) in {case}"] = (
                            flip_effect(moved[who], before.user[who], how)
                            if who.sum() >= FEWEST_USERS
                            else Estimate.withhold(
                                how, f"users: {int(who.sum())}, needs {FEWEST_USERS}", n=int(who.sum())
                            )
                        )
        return out

    # ------------------------------------------------------------------------------------------------- items

    def _items(self, name: str) -> dict[str, Estimate]:
        if name in self.flights.barred:
            return {}
        first = self.judged[name][0].first
        return dict(item_fairness(first, self.population.merit, self.population.item_groups, self.root))

    # ------------------------------------------------------------------------------------------------ effects

    @cached_property
    def _assignment(self) -> Assignment:
        names = self.population.feature_names
        score = self.population.features[:, names.index(SCORE) if SCORE in names else -1]
        return targeted(self.population.features, score, self.flights.user, self.root)

    def _effect(self, name: str, against: str) -> dict[str, Any]:
        metric = self.metric
        agent, baseline = self._per_user(metric, name), self._per_user(metric, against)
        user = self.flights.user
        effect = served_effect(
            agent,
            baseline,
            self.population.features,
            user,
            {attribute: values[user] for attribute, values in self.population.groups.items()},
            self.root,
            metric=metric,
        )
        methods = methods_beside_the_truth(
            agent, baseline, self.population.features, user, self._assignment, self.root, metric=metric
        )
        truth = float((agent - baseline).mean())
        place = np.unique(user, return_inverse=True)[1]
        driven = linear_drivers(self.population.features, agent - baseline, place, self.population.feature_names)
        most = sorted(driven, key=lambda feature: -abs(driven[feature].value or 0.0))[:MOST_DRIVERS]
        return {
            "causal": estimates(effect.estimated),
            "causal_exact": estimates(effect.exact),
            "drivers": estimates({feature: driven[feature] for feature in most}),
            "effect_methods": [
                EffectMethod(method=method, estimate=EstimateModel.of(found), exact=truth)
                for method, found in methods.items()
            ],
        }

    def _paths(self, name: str, against: str) -> dict[str, Any]:
        if METRICS[self.metric].of != "user" or len(self.flights.user) < 2 * FEWEST_USERS:
            return {}
        sides = []
        for side in (name, against):
            judged = self.judged[side][0]
            if judged.staying is None:
                return {}
            sides.append(Flown(judged.first.length, judged.staying))
        paths = exposure_paths(sides[0], sides[1], self.population.staying_world, self.population.classes, self.root)
        logged, exact = paths_from_a_log(sides[0], sides[1], self.population.features, self.root)
        return {
            "paths": estimates(dict(paths)),
            "path_check": PathCheck(estimate=EstimateModel.of(logged), exact=exact),
        }

    # ------------------------------------------------------------------------------------------------- price

    def _wrapped(self, name: str) -> str | None:
        """The agent that flies without this one's constraint, if it does."""
        prefix, _, inner = self.kinds.get(name, "").partition(":")
        if prefix != "rerank":
            return None
        return next((other for other in self.flights.agents if self.kinds[other] == inner), None)

    def _price(self, name: str, inner: str) -> list[PriceRow]:
        """What the constraint costs, of whom, and what items gain: the agent minus the one that it wraps."""
        cost = {
            metric: self.flights.difference(name, inner, metric).estimate
            for metric in self.evaluate.metrics
            if metric != "regret"
        }
        for attribute in self.attributes:
            if self.flights.why_not(self.metric, name, inner) is None:
                moved = self._moved(name, inner, self.metric, attribute)
                cost |= {f"{self.metric}, {attribute} = {group}": one for group, one in moved.items()}
        return [PriceRow(of=inner, what=what, estimate=EstimateModel.of(one)) for what, one in cost.items()]
