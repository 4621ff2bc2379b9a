"""Known truths 30, 31 and 33 (EVALUATION, section 8); 32 (a flip that no one reads) is in tests/evaluators."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.fairness import by_group, decompose, gap_interval
from evaluators.fairness.groups import Shared

Floats = NDArray[np.float64]


def rates(rng: np.random.Generator, groups: int, users: int, *, gap: float = 0.0) -> Floats:
    """[K, m] click rates over 20 rounds of users whose own rates are Beta with mean .1; the last group's is higher."""
    mean = np.full(groups, 0.1)
    mean[-1] += gap
    own = rng.beta(2 * mean[:, None] / 0.2, 2 * (1 - mean[:, None]) / 0.2, (groups, users))
    return rng.binomial(20, own) / 20


def interval(value: Floats) -> tuple[float, float]:
    found = gap_interval(value.mean(1), value.std(1, ddof=1), np.full(len(value), float(value.shape[1])))
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def bootstrap_of_the_range(rng: np.random.Generator, value: Floats, resamples: int = 200) -> tuple[float, float]:
    """Sabotage: percentile bootstrap of max - min."""
    m = value.shape[1]
    weight = rng.multinomial(m, np.full(m, 1 / m), size=(resamples, len(value))) / m
    means = np.einsum("rkm,km->rk", weight, value)
    low, high = np.quantile(np.ptp(means, axis=1), [0.025, 0.975])
    return float(low), float(high)


def coverage(groups: int, users: int, replications: int, *, gap: float = 0.0) -> float:
    covered = []
    for seed in range(replications):
        low, high = interval(rates(np.random.default_rng(seed), groups, users, gap=gap))
        covered.append(low <= gap <= high)
    return float(np.mean(covered))


@pytest.mark.parametrize("groups", [2, 5])
def test_30_groups_without_a_gap_are_not_given_one(groups: int) -> None:
    """R = 300 at a true .95: the bound fails for 1 choice of seeds in 1,000. Bootstrap of max - min covers 0 never."""
    assert coverage(groups, 30, 300) >= 0.91
    rng = np.random.default_rng(1)
    lows = [bootstrap_of_the_range(rng, rates(rng, groups, 30))[0] for _ in range(20)]
    assert np.mean(np.array(lows) <= 0) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("users", [30, 100])
@pytest.mark.parametrize("groups", range(2, 11))
def test_30_groups_without_a_gap_are_not_given_one_at_full_size(groups: int, users: int) -> None:
    """R = 600."""
    assert coverage(groups, users, 600) >= 0.92


@pytest.mark.parametrize("groups", [2, 5])
def test_31_a_true_gap_is_covered(groups: int) -> None:
    """R = 300; measured .94 to .995."""
    assert coverage(groups, 60, 300, gap=0.05) >= 0.92


def flown(rng: np.random.Generator, users: int, *, worlds: int = 5, seeds: int = 3) -> Floats:
    """[T, M, 2, users] values of two groups without a gap; each world and training favours one of them a little."""
    sign = np.array([0.5, -0.5])[:, None]
    of_user = 0.3 + 0.15 * rng.standard_normal((2, users))
    of_world, of_seed = 0.03 * rng.standard_normal((1, worlds)), 0.03 * rng.standard_normal((seeds, 1))
    noise = 0.1 * rng.standard_normal((seeds, worlds, 2, users))
    return of_user + sign * (of_world + of_seed)[..., None, None] + noise


def gap_cover(replications: int, users: int, *, averaged: bool) -> float:
    covered = []
    for seed in range(replications):
        values = flown(np.random.default_rng(seed), users)
        of_user = values.mean(axis=(0, 1))
        shared = None if averaged else Shared(np.moveaxis(values.mean(axis=3), 2, 0), trains=True)
        n = np.full(2, float(users))
        covered.append(gap_interval(of_user.mean(1), of_user.std(1, ddof=1), n, shared=shared).low <= 0)
    return float(np.mean(covered))


def test_30_a_gap_that_worlds_and_trainings_make_by_chance_is_not_reported() -> None:
    """R = 400 at a true .95 or more; with worlds and trainings averaged away (the sabotage) users alone decide."""
    assert gap_cover(400, 300, averaged=False) >= 0.92
    assert gap_cover(400, 300, averaged=True) < 0.85


def test_31_a_group_of_twelve_is_withheld_and_the_gap_still_covers(rng: np.random.Generator) -> None:
    covered = []
    for _ in range(30):
        large = rates(rng, 2, 80, gap=0.05)
        small = rng.uniform(0.5, 1.0, 12)  # sabotage: with the minimum size off, twelve users make a gap of .6
        value = np.r_[large.ravel(), small]
        group = np.array(["a"] * 80 + ["b"] * 80 + ["c"] * 12)
        table = by_group(value, group, metric="click_rate", attribute="group", events=value)
        assert {g.name for g in table.groups if g.estimate.value is None} == {"c"}
        covered.append(table.gap.low <= 0.05 <= table.gap.high)
    assert np.mean(covered) >= 0.8


def linear_model(rng: np.random.Generator, n: int) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
    """Attribute x, confounder z, mediator w, outcome y; second against first: direct .1, indirect .05, spurious .02."""
    z = rng.standard_normal(n)
    shift = 0.5  # z is shifted by the same cause as x
    second = rng.random(n) < 0.5
    z = z + shift * second
    w = 0.5 * second + 0.3 * z + rng.standard_normal(n)
    direct, of_w = 0.1, 0.1
    # spurious: z differs by .5 between the groups and moves y by c in all, .03 of it by way of w.
    of_z = 0.02 / shift - of_w * 0.3
    y = direct * second + of_w * w + of_z * z + 0.3 * rng.standard_normal(n)
    return y, second, z[:, None], w[:, None]


def decomposition(replications: int, n: int = 1500) -> dict[str, float]:
    covered: dict[str, list[bool]] = {}
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        y, second, z, w = linear_model(rng, n)
        found = decompose(y, second, np.arange(n), rng, confounders=z, mediators=w, resamples=200)
        total = found.direct.value - found.indirect.value - found.spurious.value
        assert abs(total - found.total.value) < 1e-9
        # The indirect and spurious effects are of second to first, hence the signs.
        truth = {"direct": 0.1, "indirect": -0.05, "spurious": -0.02, "total": 0.17}
        for name, value in truth.items():
            estimate = getattr(found, name)
            covered.setdefault(name, []).append(estimate.low <= value <= estimate.high)
        if seed >= 10:
            continue
        wrong = decompose(y, second, np.arange(n), rng, confounders=np.column_stack([z, w]), mediators=w, resamples=50)
        covered.setdefault("indirect, w as z", []).append(wrong.indirect.low <= -0.05 <= wrong.indirect.high)
    return {name: float(np.mean(values)) for name, values in covered.items()}


def test_33_the_parts_of_a_gap_are_covered_and_add_up() -> None:
    """R = 25 at a true .95; the mediator conditioned on as a confounder hides the indirect effect."""
    found = decomposition(25)
    for name in ("direct", "indirect", "spurious", "total"):
        assert found[name] >= 0.76, name
    assert found["indirect, w as z"] < 0.5


@pytest.mark.slow
def test_33_the_parts_of_a_gap_are_covered_at_full_size() -> None:
    """R = 400."""
    found = decomposition(400)
    for name in ("direct", "indirect", "spurious", "total"):
        assert 0.92 <= found[name] <= 0.98, name


def experiment(rng: np.random.Generator, n: int) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
    """A coin deals the attribute: direct .15, .2 by way of a yes/no mediator; what six covariates explain is chance."""
    x = rng.standard_normal((n, 6))
    second = rng.random(n) < 0.5
    w = rng.random(n) < np.where(second, 0.6, 0.2)
    y = rng.random(n) < np.clip(0.1 + 0.15 * second + 0.5 * w + 0.05 * x[:, 0], 0, 1)
    return y.astype(float), second, x, w[:, None].astype(float)


def test_33_limits_of_a_part_hold_the_error_of_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an experiment nobody's spurious part is far from 0, so that the models make up much of its error."""
    widths = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y, second, x, w = experiment(rng, 400)
        found = decompose(y, second, np.arange(400), rng, confounders=x, mediators=w, resamples=200)
        assert "times as wide" not in found.total.method
        widths.append(found.spurious.high - found.spurious.low)
    monkeypatch.setattr("evaluators.fairness.decomposition.REFITTED_ROWS", 399)
    held = decompose(y, second, np.arange(400), rng, confounders=x, mediators=w, resamples=50)
    assert "models held fixed (over 399 rows)" in held.spurious.method
    assert "held fixed" not in held.total.method
    spread = 0.0208  # standard deviation of the estimate over 300 logs
    assert 1.0 < np.mean(widths) / (2 * 1.96 * spread) < 1.4


@pytest.mark.slow
def test_33_the_parts_of_an_experiment_are_covered_at_full_size() -> None:
    """R = 300 at 400 users: .96, .95, .99 (1.25 times too wide) and .95; with the models held fixed .92, .93, .93."""
    truth = {"direct": 0.15, "indirect": -0.2, "spurious": 0.0, "total": 0.35}
    covered: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        y, second, x, w = experiment(rng, 400)
        found = decompose(y, second, np.arange(400), rng, confounders=x, mediators=w, resamples=200)
        for name, value in truth.items():
            covered[name].append(getattr(found, name).low <= value <= getattr(found, name).high)
    for name, hits in covered.items():
        assert 0.92 <= np.mean(hits) <= 0.995, name
