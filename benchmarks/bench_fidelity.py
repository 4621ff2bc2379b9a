"""How often does each fidelity check pass a right model, and refuse a wrong one? Prints one row a check.

A right model must pass in 93 % of the samples that are large enough to tell: half-width below half the band's
half-width, or, for one-sided rules, the true value at least two half-widths inside. `--seeds 2000` is the full size.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evaluators.estimate import Estimate
from evaluators.fidelity import (
    DRAWS,
    Check,
    FlownClicks,
    GradedRows,
    MeasuredValues,
    ScoredRows,
    SessionTable,
    ShownSlates,
    SlateFlight,
    answers_classifier,
    calibration_error,
    calibration_in_the_large,
    calibration_slope,
    discrimination,
    flown_click_checks,
    graded_predictions,
    leaving_of,
    popularity_strata,
    ranking_agreement,
    responsiveness_of,
    session_checks,
    skill,
    top_of_list,
    top_rows,
    two_sample_classifier,
    unbiased_test,
)
from evaluators.fidelity.flown_clicks import FLIGHTS
from evaluators.flights import Flight, Flights, gather
from evaluators.known import Simulated, known_check, value_elsewhere
from evaluators.picks import PickedRows, picks_from_rows
from evaluators.settings import KnownValue
from evaluators.truth import Truth
from simulator.behaviour import Assumption

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rng = np.random.Generator


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
UNKNOWN, ITEMS = 0.6, 200
_EXPOSURE = np.round(2000 / (5.0 + np.arange(ITEMS)))
_GRID = np.linspace(-9, 9, 4001)
_MARGINAL = sigmoid(_GRID[:, None] + UNKNOWN * _NODES) @ _WEIGHTS
"""P(y = 1) given what is known, the user's own level (normal, sd `UNKNOWN`) averaged out."""


_MORE, _MORE_W = np.polynomial.hermite_e.hermegauss(21)
_COARSE = sigmoid(_GRID[:, None] + math.hypot(1.0, UNKNOWN) * _MORE) @ (_MORE_W / _MORE_W.sum())
"""The same for a model that knows the item alone."""


@dataclass(frozen=True)
class Pool:
    """Many users with what a model knows of their rows; a sample takes some of them and draws their answers anew.

    Attributes:
        start: [users + 1] rows of each user. p: [rows] truth given the user's own level; p_known: without it.
        p_bias: given the item alone. exposure: of the row's item.
    """

    start: NDArray[np.int64]
    p: Floats
    p_known: Floats
    p_bias: Floats
    exposure: Floats


@cache
def pool(rows: int, users: int = 60_000, base: float = -1.2) -> Pool:
    """Users of unequal activity (geometric, mean `rows`)."""
    rng = np.random.default_rng(rows)
    count = rng.geometric(1 / rows, users)
    start = np.concatenate([[0], np.cumsum(count)])
    item = rng.choice(ITEMS, start[-1], p=_EXPOSURE / _EXPOSURE.sum())
    of_item = base + 0.3 * np.log(_EXPOSURE / _EXPOSURE.mean())
    known = of_item[item] + rng.standard_normal(start[-1])
    level = np.repeat(UNKNOWN * rng.standard_normal(users), count)
    p_known, p_bias = np.interp(known, _GRID, _MARGINAL), np.interp(of_item, _GRID, _COARSE)[item]
    return Pool(start, sigmoid(known + level), p_known, p_bias, _EXPOSURE[item])


def rows_of_a_right_model(rng: Rng, users: int, rows: int, *, known_user: bool = False) -> ScoredRows:
    """Rows of some users of the pool; the model does not know a user's own level unless `known_user`."""
    of = pool(rows)
    chosen = rng.choice(len(of.start) - 1, users, replace=False)
    count = of.start[chosen + 1] - of.start[chosen]
    user = np.repeat(np.arange(users), count)
    take = np.arange(len(user)) + np.repeat(of.start[chosen] - (np.cumsum(count) - count), count)
    p = of.p[take]
    y = (rng.random(len(user)) < p).astype(float)
    return ScoredRows(p if known_user else of.p_known[take], y, user, of.exposure[take], of.p_bias[take])


def logit(p: Floats) -> Floats:
    return np.log(p) - np.log1p(-p)


@dataclass(frozen=True)
class Case:
    """One check at one sample size.

    Attributes:
        name: of the check.
        sample: what a sample holds, for the table.
        right: a check of a right model.
        wrong: the same of a wrong one. fault: what is wrong with it.
        size: (check, mean value over the seeds) -> half-width over the largest that counts.
    """

    name: str
    sample: str
    right: Callable[[Rng], Check]
    wrong: Callable[[Rng], Check]
    fault: str
    size: Callable[[Check, float], float]


def within(low: float, high: float) -> Callable[[Check, float], float]:
    """Two-sided band: half-width over half of the band's half-width."""
    return lambda check, _: (check.estimate.high - check.estimate.low) / 2 / ((high - low) / 4)


def above(limit: float) -> Callable[[Check, float], float]:
    """For lower > limit: two half-widths over the distance of the true value (the mean over the seeds)."""
    return lambda check, truth: 2 * (check.estimate.value - check.estimate.low) / (truth - limit)


def below(limit: float, truth: float) -> Callable[[Check, float], float]:
    """For upper <= limit: two half-widths over the distance of the true value."""
    return lambda check, _: 2 * (check.estimate.high - max(check.estimate.value, truth)) / (limit - truth)


def under(limit: float) -> Callable[[Check, float], float]:
    """For upper < limit: two half-widths over the distance of the true value (the mean over the seeds)."""
    return lambda check, truth: 2 * (check.estimate.high - check.estimate.value) / (limit - truth)


def above_own_threshold(check: Check, truth: float) -> float:
    """For lower > the check's own floor, which stands in its threshold."""
    return above(float(check.threshold.split()[2]))(check, truth)


def widest_stratum(check: Check, _: float) -> float:
    """On the log scale, where the band [1/1.25, 1.25] is symmetric."""
    rows = [row for row in check.estimate.diagnostics["strata"] if "low" in row]
    return max(math.log(row["high"] / max(row["low"], 1e-9)) for row in rows) / math.log(1.25)


def rows_case(
    name: str,
    users: int,
    rows: int,
    check: Callable[[ScoredRows, Rng], Check],
    break_: Callable[[ScoredRows], ScoredRows],
    fault: str,
    size: Callable[[Check, float], float],
) -> Case:
    """A check of predictions."""

    def right(rng: Rng) -> Check:
        return check(rows_of_a_right_model(rng, users, rows), rng)

    def wrong(rng: Rng) -> Check:
        return check(break_(rows_of_a_right_model(rng, users, rows)), rng)

    return Case(name, f"{users} users, {rows} rows each", right, wrong, fault, size)


def scaled(factor: float, shift: float = 0.0) -> Callable[[ScoredRows], ScoredRows]:
    return lambda r: replace(r, p=sigmoid(factor * logit(r.p) + shift))


def flattered_top(r: ScoredRows) -> ScoredRows:
    return replace(r, p=np.where(top_rows(r.p, r.user), sigmoid(logit(r.p) + 1), r.p))


def rare_twice(r: ScoredRows) -> ScoredRows:
    rare = r.item_exposure <= np.quantile(r.item_exposure, 0.2)
    return replace(r, p=np.where(rare, np.minimum(0.95, 1.8 * r.p), r.p))


def backwards(r: ScoredRows) -> ScoredRows:
    return replace(r, p=1 - r.p)


def swapped(r: ScoredRows) -> ScoredRows:
    assert r.p_bias is not None
    return replace(r, p=r.p_bias, p_bias=r.p)


def lengths(rng: Rng, user: Ints, by: float) -> Floats:
    """Geometric lengths at each user's own hazard, `by` times as long."""
    hazard = sigmoid(-2.0 + 0.5 * rng.standard_normal(user.max() + 1))[user]
    return np.ceil(by * rng.geometric(hazard))


def gaps(rng: Rng, user: Ints, by: float) -> Floats:
    """Lognormal days about each user's own median, `by` times as long, cut at thirty."""
    median = 2.0 * np.exp(0.5 * rng.standard_normal(user.max() + 1))[user]
    return np.minimum(by * median * np.exp(rng.standard_normal(len(user))), 30.0)


def diversities(rng: Rng, user: Ints, by: float) -> Floats:
    """Share of pairs of four clicks that differ in category, five of each user's own shares; `by` of it is left."""
    share = rng.dirichlet(np.ones(5), user.max() + 1)[user]
    kind = (rng.random((len(user), 4))[..., None] > np.cumsum(share, axis=1)[:, None]).sum(axis=2)
    first, second = np.triu_indices(4, 1)
    return by * (kind[:, first] != kind[:, second]).mean(axis=1)


def answers(rng: Rng, user: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[n, 16] which rows of sessions of four to sixteen rows are there, and which are clicked, by each user's taste."""
    there = np.arange(16) < rng.integers(4, 17, len(user))[:, None]
    chance = sigmoid(-1.0 + 0.5 * rng.standard_normal(user.max() + 1))[user]
    return there, there & (rng.random(there.shape) < chance[:, None])


def clicks_of(rng: Rng, user: Ints, by: float) -> Floats:
    """Clicks of such sessions, `by` times as many."""
    return by * answers(rng, user)[1].sum(axis=1)


def waits(rng: Rng, user: Ints, by: float) -> Floats:
    """Their longest run without a click, `by` times as long."""
    there, clicked = answers(rng, user)
    run = longest = np.zeros(len(user))
    for k in range(there.shape[1]):
        run = np.where(there[:, k] & ~clicked[:, k], run + 1, 0)
        longest = np.maximum(longest, run)
    return by * longest


def sessions_case(what: str, users: int, draw: Callable[[Rng, Ints, float], Floats], factor: float, about: str) -> Case:
    """Sessions of one kind on both sides against sessions that are `factor` of it."""

    def table(rng: Rng, by: float = 1.0) -> SessionTable:
        user = np.repeat(np.arange(users), 3)
        return SessionTable(user, {what: draw(rng, user, by)})

    def check(rng: Rng, by: float) -> Check:
        return session_checks(table(rng), table(rng, by), rng, permutations=100)[0]

    return Case(
        f"sessions: {what}",
        f"{users} users, 3 sessions each",
        lambda rng: check(rng, 1.0),
        lambda rng: check(rng, factor),
        about,
        below(0.15, 0.0),
    )


def session_classifier(rng: Rng, wrong: float, users: int = 120) -> Check:
    user = np.repeat(np.arange(users), 3)

    def table(by: float) -> Floats:
        taste = rng.standard_normal(users)[user]
        length = rng.geometric(sigmoid(-2.2 + 0.4 * taste))
        return np.column_stack([length, rng.binomial(length, sigmoid(-1 + 0.5 * taste + by))]).astype(float)

    return two_sample_classifier(table(0.0), user, table(wrong), user, rng)


def responds(rng: Rng, effect: float, users: int = 300) -> Check:
    """Clicks under best and worst slates, common noise: the difference is the effect, its spread the users' taste."""
    who, luck = np.arange(users), rng.poisson(6.0, users).astype(float)
    best = luck + effect * rng.gamma(4, 0.5, users)
    flights = [SlateFlight(who, clicks, np.full(users, 10.0)) for clicks in (best, luck, best)]
    return responsiveness_of(flights[0], flights[1], flights[2], None)[0]


FITTED = Assumption("leave", "satisfaction", 2.5, "fitted", 0.1)


def stays(rng: Rng, effect: float, users: int = 300) -> Check:
    """The same of slates a session, where the leave effect is fitted."""
    who, luck = np.arange(users), rng.poisson(6.0, users).astype(float)
    flights = [SlateFlight(who, luck, length) for length in (luck + effect * rng.gamma(4, 0.5, users), luck, luck)]
    return responsiveness_of(flights[0], flights[1], flights[2], FITTED)[1]


def leaves(rng: Rng, effect: float, users: int = 300, steps: int = 12) -> Check:
    """Users of their own patience; a slate's appeal moves the logit of leaving after it by -effect."""
    appeal = np.where(rng.random((users, steps)) < 0.5, 0.5, 0.2) + 0.05 * rng.standard_normal((users, steps))
    clicks = rng.binomial(5, np.clip(appeal, 0.01, 0.99))
    before = np.cumsum(clicks, axis=1) - clicks
    patience = 0.4 * rng.standard_normal((users, 1))
    left = rng.random((users, steps)) < sigmoid(-1.8 + patience - effect * (appeal - 0.35) + 0.05 * np.arange(steps))
    shown = np.cumsum(left, axis=1) - left == 0
    user, step = np.nonzero(shown)
    at = (user, step)
    return leaving_of(ShownSlates(user, appeal[at], step, before[at].astype(float), left[at].astype(float)), FITTED)


def flown(rng: Rng, which: int, users: int, shift: float = 0.0, decay: float = 0.85) -> Check:
    """Six places examined by .85^k, whose clicks the world's users make too; the arguments make the world wrong."""
    rows = rows_of_a_right_model(rng, users, 30)
    place = rng.integers(0, 6, len(rows))
    observed = rows.y * (rng.random(len(rows)) < 0.85**place)
    chance = sigmoid(logit(rows.p) + shift) * decay**place
    expected = rng.binomial(FLIGHTS, chance) / FLIGHTS
    return flown_click_checks(FlownClicks(observed, expected, rows.user, place))[which]


def flown_rare(rng: Rng, which: int, slates: int, by: float = 1.0, decay: float = 0.85) -> Check:
    """Six places of slates of as many users, of which one place in a hundred is clicked; the same faults."""
    user, place = np.repeat(np.arange(slates), 6), np.tile(np.arange(6), slates)
    taste = 0.0144 * np.exp(0.5 * rng.standard_normal(len(user)) - 0.125)
    observed = (rng.random(len(user)) < taste * 0.85**place).astype(float)
    expected = rng.binomial(FLIGHTS, by * taste * decay**place) / FLIGHTS
    return flown_click_checks(FlownClicks(observed, expected, user, place))[which]


def graded(rng: Rng, which: int, users: int, *, level: float = 0.0, spread: float = 1.0, slope: float = 0.5) -> Check:
    """Log-normal seconds by what is known of a row, and by the user's own level; the arguments make it wrong."""
    user = np.repeat(np.arange(users), rng.geometric(1 / 8, users))
    known = rng.standard_normal(len(user))
    y = np.exp(2 + 0.5 * known + 0.2 * rng.standard_normal(users)[user] + 0.7 * rng.standard_normal(len(user)))
    noise = spread * math.hypot(0.2, 0.7) * rng.standard_normal((DRAWS, len(user)))
    return graded_predictions("seconds", GradedRows(np.exp(2 + level + slope * known + noise), y, user), rng)[which]


def elsewhere(rng: Rng, shift: float, users: int = 270) -> Check:
    """What another policy earned under a model that does not know its users' own levels."""
    rows = rows_of_a_right_model(rng, users, 20)
    return value_elsewhere("b", sigmoid(logit(rows.p) + shift), rows.y, rows.user, "other log")


def in_truth(rng: Rng, which: int, means: Floats, users: int) -> Check:
    """Policies of these means in two judge worlds whose truth is 5 + k for policy k; users have levels and luck."""
    level = rng.standard_normal(users)

    def flights(of: Floats, worlds: tuple[int, ...]) -> Flights:
        one = np.ones(users)
        return gather(
            [
                Flight(f"p{k}", 0, world, 1, 0, np.arange(users),
                       {"reward": mean * (1 + 0.1 * level + 0.35 * rng.standard_normal(users))}, {}, one, one)
                for k, mean in enumerate(of) for world in worlds
            ],
            ("reward",),
        )  # fmt: skip

    truth = Truth(flights(5.0 + np.arange(len(means)), (0,)), flights(means, (1, 2)), ())
    return truth.checks(lambda name, metric: (), rng)[which]


def picked(rng: Rng, shift: float, users: int = 600) -> Check:
    r = rows_of_a_right_model(rng, users, 30)
    mine = (r.p > np.quantile(r.p, 0.8)) & (rng.random(len(r)) < 0.5)
    p = sigmoid(logit(r.p) + shift)
    rows = PickedRows(p[mine], r.y[mine], r.user[mine], 1 / r.item_exposure[mine])
    return picks_from_rows(rows).check


def against_known(rng: Rng, ratio: float) -> Check:
    se = 0.0025
    value, known = ratio * 0.11 + se * rng.standard_normal(), 0.11 + se * rng.standard_normal()
    half = 1.96 * se
    told = Simulated(Estimate(value, value - half, value + half, 0.95, 500, "judge worlds"))
    return known_check(
        KnownValue(policy="a", metric="click_rate", value=known, low=known - half, high=known + half), told
    )


def in_order(rng: Rng, reverse: int) -> Check:
    truth = 0.1 + 0.01 * np.arange(6)
    simulated = truth[::reverse, None] + 0.12 * rng.standard_normal((6, 400))
    measured = truth + 0.002 * rng.standard_normal(6)
    return ranking_agreement(
        simulated, MeasuredValues(measured, measured - 0.004, measured + 0.004), rng, resamples=300
    )


CASES = (
    rows_case("calibration in the large", 550, 30, lambda r, _: calibration_in_the_large(r), scaled(1, 0.4),
              "logits + 0.4", within(0.9, 1.1)),
    rows_case("slope", 170, 20, lambda r, _: calibration_slope(r), scaled(1.6), "logits x 1.6", within(0.8, 1.25)),
    rows_case("calibration error", 320, 30, lambda r, g: calibration_error(r, g, resamples=400), scaled(1.6),
              "logits x 1.6", lambda c, t: below(float(c.threshold.split()[-1]), 0.0)(c, t)),
    rows_case("skill over base rate", 30, 20, lambda r, _: skill(r)[0], backwards, "p for 1 - p", above(0.0)),
    rows_case("skill over bias model", 30, 20, lambda r, _: skill(r)[1], swapped, "model and reference swapped",
              above(-0.005)),
    rows_case("skill over base rate (Brier)", 30, 20, lambda r, _: skill(r, loss="Brier")[0], backwards,
              "p for 1 - p", above(0.0)),
    rows_case("skill over bias model (Brier)", 30, 20, lambda r, _: skill(r, loss="Brier")[1], swapped,
              "model and reference swapped", above(-0.005)),
    rows_case("discrimination", 20, 15, lambda r, _: discrimination(r), backwards, "p for 1 - p", above(0.5)),
    rows_case("top of the list", 190, 30, lambda r, _: top_of_list(r), flattered_top, "best tenth + 1 logit",
              within(0.85, 1.15)),
    rows_case("popularity strata", 550, 30, lambda r, _: popularity_strata(r), rare_twice, "rare items x 1.8",
              widest_stratum),
    rows_case("unbiased test: O/E", 270, 20, lambda r, _: unbiased_test(r)[0], scaled(1, 0.6), "logits + 0.6",
              within(0.85, 1.15)),
    rows_case("unbiased test: skill", 30, 20, lambda r, _: unbiased_test(r)[1], backwards, "p for 1 - p", above(0.0)),
    Case("two-sample classifier, blocks", "45 users, 30 rows each",
         lambda rng: answers_classifier(rows_of_a_right_model(rng, 45, 30, known_user=True), rng),
         lambda rng: answers_classifier(scaled(1, 1.0)(rows_of_a_right_model(rng, 45, 30, known_user=True)), rng),
         "logits + 1", below(0.6, 0.5)),
    Case("two-sample classifier, sessions", "120 users, 3 sessions each", lambda rng: session_classifier(rng, 0.0),
         lambda rng: session_classifier(rng, 1.0), "click logits + 1", below(0.6, 0.5)),
    sessions_case("clicks", 250, clicks_of, 1.5, "1.5 times as many"),
    sessions_case("longest wait", 120, waits, 1.5, "1.5 times as long"),
    sessions_case("length", 350, lengths, 1.5, "1.5 times as long"),
    sessions_case("gap", 500, gaps, 2.0, "2 times as long"),
    sessions_case("diversity", 60, diversities, 0.4, "two fifths as diverse"),
    Case("responsiveness", "300 users", lambda rng: responds(rng, 0.182), lambda rng: responds(rng, 0.0),
         "slates change nothing", above_own_threshold),
    Case("responsiveness: session length", "300 users", lambda rng: stays(rng, 0.19), lambda rng: stays(rng, 0.0),
         "slates change nothing", above_own_threshold),
    Case("responsiveness: leaving, given step and clicks", "300 users, 12 slates at most",
         lambda rng: leaves(rng, 3.0), lambda rng: leaves(rng, -3.0), "better slates drive users away", under(0.0)),
    Case("flown clicks", "350 users, 30 places each", lambda rng: flown(rng, 0, 350),
         lambda rng: flown(rng, 0, 350, 0.8), "logits + 0.8", within(0.85, 1.15)),
    Case("flown clicks by place", "550 users, 30 places each", lambda rng: flown(rng, 1, 550),
         lambda rng: flown(rng, 1, 550, -0.5, 1.0), "all places looked at, logits - 0.5", widest_stratum),
    Case("flown clicks, one place in a hundred clicked", "20,000 slates of 6",
         lambda rng: flown_rare(rng, 0, 20_000), lambda rng: flown_rare(rng, 0, 20_000, 1.6),
         "1.6 times as many clicks", within(0.85, 1.15)),
    Case("flown clicks by place, one place in a hundred clicked", "60,000 slates of 6",
         lambda rng: flown_rare(rng, 1, 60_000), lambda rng: flown_rare(rng, 1, 60_000, 0.68, 1.0),
         "all places looked at, .68 times as many clicks", widest_stratum),
    Case("graded behaviour: calibration in the large", "350 users, 8 values each", lambda rng: graded(rng, 0, 350),
         lambda rng: graded(rng, 0, 350, level=0.3), "values x 1.35", within(0.9, 1.1)),
    Case("graded behaviour: spread", "80 users, 8 values each", lambda rng: graded(rng, 1, 80),
         lambda rng: graded(rng, 1, 80, spread=0.5), "spread halved", within(0.72, 0.88)),
    Case("graded behaviour: skill over own distribution", "60 users, 8 values each", lambda rng: graded(rng, 2, 60),
         lambda rng: graded(rng, 2, 60, slope=-0.5), "slope turned round", above(0.0)),
    Case("other policy's value", "270 users, 20 rows each", lambda rng: elsewhere(rng, 0.0),
         lambda rng: elsewhere(rng, 0.8), "logits + 0.8", within(0.85, 1.15)),
    Case("truth", "200 users", lambda rng: in_truth(rng, 0, np.array([5.0]), 200),
         lambda rng: in_truth(rng, 0, np.array([7.0]), 200), "simulated 1.4 times too high", within(0.85, 1.15)),
    Case("ranking agreement, truth", "5 policies, 200 users", lambda rng: in_truth(rng, -1, 5.0 + np.arange(5), 200),
         lambda rng: in_truth(rng, -1, 9.0 - np.arange(5), 200), "order turned round", above(0.0)),
    Case("picks", "600 users, 30 rows each", lambda rng: picked(rng, 0.0), lambda rng: picked(rng, 0.8),
         "logits + 0.8", within(0.85, 1.15)),
    Case("known value", "both sides +-4.5 %", lambda rng: against_known(rng, 1.0), lambda rng: against_known(rng, 1.4),
         "simulated 1.4 times too high", within(0.85, 1.15)),
    Case("ranking agreement", "6 policies, 400 users", lambda rng: in_order(rng, 1), lambda rng: in_order(rng, -1),
         "order turned round", above(0.0)),
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What the seeds said of one case.

    Attributes:
        size: median of half-width over the largest that counts.
        told: seeds at which the sample was large enough.
        passed: share of those at which the right model passed.
        refused: share of the seeds at which the wrong model did not pass; failed: at which it failed outright.
    """

    case: Case
    size: float
    told: int
    passed: float
    refused: float
    failed: float


def measure(case: Case, seeds: Iterable[int], wrong_seeds: Iterable[int]) -> Result:
    """Make the check once a seed."""
    found = [case.right(np.random.default_rng([seed, 1])) for seed in seeds]
    truth = float(np.mean([check.estimate.value for check in found]))
    size = np.array([case.size(check, truth) for check in found])
    told = size <= 1
    passed = np.array([bool(check.passed) for check in found])
    wrong = [case.wrong(np.random.default_rng([seed, 2])) for seed in wrong_seeds]
    return Result(
        case,
        float(np.median(size)),
        int(told.sum()),
        float(passed[told].mean()) if told.any() else math.nan,
        float(np.mean([not check.passed for check in wrong])),
        float(np.mean([check.verdict == "fail" for check in wrong])),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    head = "half-width / largest | seeds that tell | right passes | wrong model | refused | failed"
    print(f"| check | sample | {head} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if options.only not in case.name:
            continue
        r = measure(case, range(options.seeds), range(max(20, options.seeds // 10)))
        print(
            f"| {case.name} | {case.sample} | {r.size:.2f} | {r.told:,} of {options.seeds:,} | {r.passed:.3f} | "
            f"{case.fault} | {r.refused:.2f} | {r.failed:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
