"""The data card: what a log holds, what it cannot tell, and what follows for the simulator. Counts only, no model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity.sessions import gaps_within_users, why_no_sessions
from evaluators.intervals import t_interval, t_quantile
from simulator.log import InteractionLog

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

LEAST_USERS = 20
"""Users on whom a comparison must rest; the t interval of fewer skewed users covers too little."""
LEAST_ITEMS = 10
"""Items on which each side of a comparison of items must rest."""
MOST_GROUPS = 20
"""Groups of one attribute that are shown by name."""
FIFTH = 0.2
_QUANTILES = (0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, median and greatest of n values."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Spread:
        """Of values, of which there is at least one."""
        return cls(*(float(value) for value in np.quantile(values, _QUANTILES)))


@dataclass(frozen=True, slots=True)
class Times:
    """When rows were logged.

    Attributes:
        first: day of the first row, ISO 8601; "" where the log counts in some unit of its own before 1990.
        last: day of the last row.
        days: length of the log in days of 86,400 s.
        gaps: seconds between a user's consecutive rows, or slates where the log has them.
        zero_gaps: share of those gaps that are 0 s.
        within_a_minute: share of those gaps that are below 60 s.
    """

    first: str
    last: str
    days: float
    gaps: Spread
    zero_gaps: float
    within_a_minute: float


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """One group of a sensitive attribute.

    Attributes:
        attribute: name of the column.
        group: its value; "unknown" where users have none.
        users: how many users.
        rows: how many rows they have.
        base_rate: share of their rows with the primary behaviour.
    """

    attribute: str
    group: str
    users: int
    rows: int
    base_rate: Estimate


@dataclass(frozen=True, slots=True)
class Question:
    """What one may want to know of users, and whether this log can tell.

    Attributes:
        about: what is asked.
        answer: "yes", "in part" or "no".
        why: on what it rests, or what is missing.
    """

    about: str
    answer: str
    why: str


@dataclass(frozen=True, slots=True)
class DataCard:
    """What a log of n rows holds and cannot tell.

    Attributes:
        rows: number of rows n.
        users: users U with rows.
        items: items I with rows.
        unseen_items: items of the catalogue without a row.
        density: share of the U x I pairs that have a row.
        rows_per_user: of users with rows.
        rows_per_item: of items with rows.
        base_rate: share of rows with the primary behaviour, users as clusters.
        behaviours: name -> spread of a further column, over the rows on which it was observed.
        exposure: who chose what was shown, in words.
        selection: evidence on whether rows are missing at random; each is 0 if they are.
        times: when rows were logged, or None.
        impressions: slates offered, where logged.
        sessions: visits, where logged.
        positions: greatest position, where logged.
        propensity: spread of the logging propensities, where logged.
        random_rows: rows of the part with items drawn uniformly at random.
        with_text: share of rows whose item has text.
        groups: groups of the sensitive attributes and their sizes.
        questions: what is identified.
        limits: what the publisher's files cannot tell beyond that.
        notes: what reading left out, merged or put in order.
    """

    rows: int
    users: int
    items: int
    unseen_items: int
    density: float
    rows_per_user: Spread
    rows_per_item: Spread
    base_rate: Estimate
    behaviours: dict[str, Spread]
    exposure: str
    selection: tuple[tuple[str, Estimate], ...]
    times: Times | None
    impressions: int | None
    sessions: int | None
    positions: int | None
    propensity: Spread | None
    random_rows: int
    with_text: float
    groups: tuple[GroupFacts, ...]
    questions: tuple[Question, ...]
    limits: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, estimates by their own keys."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("base_rate", "selection", "groups", "times", "behaviours", "propensity", "questions")
        }
        plain |= {name: asdict(getattr(self, name)) for name in ("rows_per_user", "rows_per_item")}
        return plain | {
            "base_rate": self.base_rate.to_json(),
            "behaviours": {name: asdict(spread) for name, spread in self.behaviours.items()},
            "selection": [{"name": name, "estimate": estimate.to_json()} for name, estimate in self.selection],
            "times": None if self.times is None else asdict(self.times),
            "propensity": None if self.propensity is None else asdict(self.propensity),
            "groups": [
                {
                    "attribute": one.attribute,
                    "group": one.group,
                    "users": one.users,
                    "rows": one.rows,
                    "base_rate": one.base_rate.to_json(),
                }
                for one in self.groups
            ],
            "questions": [asdict(question) for question in self.questions],
            "limits": list(self.limits),
            "notes": list(self.notes),
        }


def data_card(log: InteractionLog, *, level: float = 0.95) -> DataCard:
    """The card of a log: one pass of counts over its columns."""
    per_user = np.bincount(log.user, minlength=log.catalogue.n_users)
    per_item = np.bincount(log.item, minlength=log.catalogue.n_items)
    users, items = int((per_user > 0).sum()), int((per_item > 0).sum())
    has_text = np.array([bool(text) for text in log.catalogue.item_text], bool)
    return DataCard(
        rows=len(log),
        users=users,
        items=items,
        unseen_items=log.catalogue.n_items - items,
        density=len(log) / (users * items),
        rows_per_user=Spread.of(per_user[per_user > 0]),
        rows_per_item=Spread.of(per_item[per_item > 0]),
        base_rate=_rate(log, np.ones(len(log), bool), level),
        behaviours={
            name: Spread.of(observed)
            for name, values in log.behaviours.items()
            if len(observed := values[~np.isnan(values)])
        },
        exposure=_exposure_in_words(log),
        selection=_selection(log, per_user, per_item, level),
        times=_times(log),
        impressions=None if log.impression is None else int(log.impression.max()) + 1,
        sessions=None if log.session is None else int(log.session.max()) + 1,
        positions=None if log.position is None else int(log.position.max()),
        propensity=None if log.propensity is None else Spread.of(log.propensity),
        random_rows=0 if log.random is None else len(log.random),
        with_text=float(has_text[log.item].mean()),
        groups=tuple(_groups(log, per_user, level)),
        questions=_questions(log),
        limits=log.limits,
        notes=log.notes,
    )


# ------------------------------------------------------------------------------------------------- missing at random?


def difference_of_rates(
    primary: Floats, user: Ints, first: Mask, second: Mask, *, method: str, item: Ints | None = None,
    level: float = 0.95,
) -> Estimate:  # fmt: skip
    """Share of the first rows with the behaviour minus that of the second, with a cluster-robust t interval.

    Args:
        primary: [n] 1.0 where the behaviour occurred.
        user: [n] the cluster.
        first: [n] rows of the first share.
        second: [n] rows of the second; a row may be in neither.
        method: how the two were chosen, for the reader.
        item: [n] a second cluster, crossed with the first, where rows were chosen by their item: then a few good
            items that are popular by luck make a difference too (variances of both less that of rows: Cameron,
            Gelbach and Miller, 2011; degrees of freedom of the part with fewest items).
        level: coverage of the interval.
    """
    users = int((np.bincount(user[first | second]) > 0).sum()) if len(user) else 0
    if users < LEAST_USERS or not first.any() or not second.any():
        return Estimate.withhold(method, f"{users} users have such rows; at least {LEAST_USERS} are needed", n=users)
    rates = [float(primary[rows].mean()) for rows in (first, second)]
    score = first * (primary - rates[0]) / int(first.sum()) - second * (primary - rates[1]) / int(second.sum())  # [n]
    variance, units = _cluster_variance(score, user, first | second), users
    if item is not None:
        units = min(int((np.bincount(item[rows]) > 0).sum()) for rows in (first, second))
        if units < LEAST_ITEMS:
            return Estimate.withhold(method, f"{units} items in one part; at least {LEAST_ITEMS} are needed", n=users)
        by_item = _cluster_variance(score, item, first | second)
        variance = max(variance + by_item - float(score @ score), variance, by_item)
    value, half = rates[0] - rates[1], t_quantile(level, min(users, units) - 1) * math.sqrt(variance)
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0), level, users, method)


def _cluster_variance(score: Floats, cluster: Ints, rows: Mask) -> float:
    """Variance of a sum of row scores that are dependent within clusters: G / (G - 1) times the sum of squares."""
    sums = np.bincount(cluster, score)
    present = int((np.bincount(cluster[rows]) > 0).sum())
    return present / (present - 1) * float(sums @ sums)


def _selection(log: InteractionLog, per_user: Ints, per_item: Ints, level: float) -> tuple[tuple[str, Estimate], ...]:
    """Differences that are 0 where what was shown depends on nothing that liking depends on.

    Rows are cut by their item's or user's count; ties stay together, so that a part may be larger than a fifth.
    """
    primary = log.primary.astype(np.float64)
    found = []
    for name, counts, item, about in (
        ("popular against rare items", per_item, log.item, "items that are shown most and least"),
        ("active against other users", per_user, None, "users with most and with fewest rows"),
    ):
        clusters = "users" if item is None else "users and items"
        method = f"difference of base rates, rows of {about}, a fifth each; clusters: {clusters}"
        ranked = np.sort(counts[counts > 0])
        low, high = ranked[np.searchsorted(np.cumsum(ranked), [FIFTH * len(log), (1 - FIFTH) * len(log)])]
        if low == high:
            found.append((name, Estimate.withhold(method, f"counts lie at {int(low):,}: there is nothing to compare")))
        else:
            owner = log.user if item is None else item
            most, least = (counts >= high)[owner], (counts <= low)[owner]
            found.append(
                (name, difference_of_rates(primary, log.user, most, least, method=method, item=item, level=level))
            )
    if log.random is not None and len(log.random):
        both = np.concatenate([primary, log.random.primary.astype(np.float64)])
        first = np.arange(len(both)) < len(log)
        method = "difference of base rates, the log's rows against items drawn uniformly; clusters: users"
        owner = np.concatenate([log.user, log.random.user])
        found.append(
            ("chosen against random items", difference_of_rates(both, owner, first, ~first, method=method, level=level))
        )
    return tuple(found)


def _rate(log: InteractionLog, rows: Mask, level: float) -> Estimate:
    """Share of these rows with the primary behaviour, users as clusters."""
    method = "share of rows with the primary behaviour, users as clusters"
    user = log.user[rows]
    kept = np.flatnonzero(np.bincount(user, minlength=log.catalogue.n_users))
    if len(kept) < LEAST_USERS:
        return Estimate.withhold(method, f"{len(kept)} users; at least {LEAST_USERS} are needed", n=len(kept))
    primary = log.primary[rows].astype(np.float64)
    value = float(primary.mean())
    scores = np.bincount(user, primary - value, minlength=log.catalogue.n_users)[kept] / len(primary)
    low, high = t_interval(value, scores, level)
    return Estimate(value, max(low, 0.0), min(high, 1.0), level, len(kept), method)


def _groups(log: InteractionLog, per_user: Ints, level: float) -> Iterable[GroupFacts]:
    """Groups of each attribute, unknown first; beyond the largest `MOST_GROUPS` the others count as one."""
    for name, values in sorted(log.catalogue.user_attributes.items()):
        groups, number, sizes = np.unique(values, return_inverse=True, return_counts=True)
        named = np.sort(np.argsort(-sizes, kind="stable")[:MOST_GROUPS])
        parts = [(str(groups[at]) or "unknown", number == at) for at in named]
        if len(groups) > len(named):
            parts.append((f"{len(groups) - len(named)} smaller groups", ~np.isin(number, named)))
        for group, members in parts:
            yield GroupFacts(
                attribute=name,
                group=group,
                users=int(members.sum()),
                rows=int(per_user[members].sum()),
                base_rate=_rate(log, members[log.user], level),
            )


# ------------------------------------------------------------------------------------------------- times and exposure


def _times(log: InteractionLog) -> Times | None:
    if not log.has_time:
        return None
    gaps = gaps_within_users(log)
    first, last = float(log.time.min()), float(log.time.max())
    stamped = first > _YEAR_1990
    return Times(
        first=_day(first) if stamped else "",
        last=_day(last) if stamped else "",
        days=(last - first) / 86_400,
        gaps=Spread.of(gaps) if len(gaps) else Spread(0.0, 0.0, 0.0),
        zero_gaps=float((gaps == 0).mean()) if len(gaps) else 0.0,
        within_a_minute=float((gaps < 60).mean()) if len(gaps) else 0.0,
    )


_YEAR_1990 = 631_152_000.0


def _day(seconds: float) -> str:
    return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))


def _exposure_in_words(log: InteractionLog) -> str:
    said = {
        "self-selected": "users chose what to consume",
        "unlogged policy": "a policy that was not logged chose what was shown",
        "logged policy": "a logged policy chose what was shown",
        "uniformly random": "what was shown was drawn uniformly at random",
    }
    if log.exposure:
        return said.get(log.exposure, log.exposure)
    if log.self_selected:
        return "nobody says: taken as chosen by users"
    return "logged: positions or propensities are there"


def _questions(log: InteractionLog) -> tuple[Question, ...]:
    """What is identified by what is logged; the assumption that remains is named."""
    return (
        Question("liking, given that an item was consumed", *_given_consumption(log)),
        Question("liking of any item", *_of_any_item(log)),
        Question("what was offered", *_offered(log)),
        Question("examination by position", *_examination(log)),
        Question("order, drift and satiation", *_order(log)),
        Question("leaving and returning", *_leaving(log)),
        Question("value of another policy from the log's own rows", *_off_policy(log)),
    )


def _given_consumption(log: InteractionLog) -> tuple[str, str]:
    if log.self_selected:
        return "in part", "for the kind of items that get rows; what was passed over may be liked less"
    return "yes", "what was shown did not depend on unlogged taste"


def _of_any_item(log: InteractionLog) -> tuple[str, str]:
    if log.exposure == "uniformly random":
        return "yes", "items were drawn at random"
    if log.random is not None:
        return "yes", f"{len(log.random):,} rows with items drawn at random test it; the others are a choice"
    if log.propensity is not None:
        return "in part", "rows weighted by the inverse of their propensity, where those are right and above 0"
    return "no", "no rows with items drawn at random and no propensities: judge a policy on chosen items only"


def _offered(log: InteractionLog) -> tuple[str, str]:
    if log.impression is None:
        return "no", "no impressions are logged: what was seen and passed over is unknown"
    size = len(log) / (int(log.impression.max()) + 1)
    return "yes", f"{int(log.impression.max()) + 1:,} impressions of {size:.1f} items on average"


def _examination(log: InteractionLog) -> tuple[str, str]:
    if log.position is None:
        return "no", "no positions are logged: assumed and swept"
    if log.position.min() == log.position.max():
        return "no", f"every row has position {int(log.position[0])}: assumed and swept"
    if log.self_selected:
        return "in part", "positions are logged; better items may have stood higher up"
    return "yes", "positions are logged, given what the policy knew of the items"


def _order(log: InteractionLog) -> tuple[str, str]:
    unfitted = "drift, satiation and boredom are never fitted: those that are on are assumed and swept"
    if not log.has_time:
        return "no", f"no times are logged: the order within a user is drawn at random; {unfitted}"
    why = why_no_sessions(log)
    if why is not None and log.impression is None:
        within = why.removeprefix("not identifiable: ")
        return "in part", f"order between days; within one it is {within}; {unfitted}"
    return "in part", f"times tell the order, and might tell the rest; {unfitted}"


def _leaving(log: InteractionLog) -> tuple[str, str]:
    if log.session is not None:
        return "in part", "sessions are logged; what made a user leave is not randomised"
    if not log.has_time:
        return "no", "no times and no sessions are logged: assumed and swept"
    if log.impression is not None:
        owner = np.zeros(int(log.impression.max()) + 1, np.int64)
        owner[log.impression] = log.user  # an impression has one user
        again = np.bincount(owner)[np.unique(owner)] > 1
        return "in part", (
            f"sessions are cut at long gaps between slates, and {again.mean():.0%} of users have two slates; "
            "what made a user leave is not randomised"
        )
    why = why_no_sessions(log)
    if why is not None:
        return "no", f"{why.removeprefix('not identifiable: ')}: assumed and swept"
    return "in part", "sessions are cut at long gaps; what made a user leave is not randomised"


def _off_policy(log: InteractionLog) -> tuple[str, str]:
    if log.propensity is None:
        return "no", "no propensities are logged"
    if log.self_selected:
        return "in part", "the propensities are estimates of what users chose, not those of a logging policy"
    return "yes", "propensities are logged"
