"""Continuous actions: the blurred policy's value is known by quadrature, and every interval holds it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.off_policy import ContinuousRounds, estimate_continuous
from evaluators.off_policy.continuous import Blur, blur
from simulator.errors import InputError, LogError
from simulator.streams import stream

Floats = NDArray[np.float64]
ROOT = np.random.SeedSequence(31)


def click(x: Floats, a: Floats) -> Floats:
    """Chance of a reward; best where the action is .3 + .4 x."""
    return 0.1 + 0.6 * np.exp(-8 * (a - 0.3 - 0.4 * x) ** 2)


def priced(rng: np.random.Generator, n: int) -> tuple[ContinuousRounds, Floats, Floats]:
    """Actions in [0, 1], uniform half of the time, else low ones where x is high; the policy's action; the contexts."""
    x = rng.random(n)
    skewed = np.where(rng.random(n) < x, 1 - np.sqrt(rng.random(n)), np.sqrt(rng.random(n)))
    a = np.where(rng.random(n) < 0.5, rng.random(n), skewed)
    density = 0.5 + 0.5 * (x * (2 - 2 * a) + (1 - x) * 2 * a)
    reward = (rng.random(n) < click(x, a)).astype(float)
    log = ContinuousRounds(a, reward, density, (0.0, 1.0), user=np.arange(n) // 4, context=x)
    return log, 0.1 + 0.5 * x, x


def value_of(policy: Blur, x: Floats) -> float:
    """Mean over the contexts, by quadrature (checked against a fine grid below)."""
    nodes, weight = policy.nodes()
    return float((weight * click(x[:, None], nodes)).sum(axis=1).mean())


def test_the_blurred_policy_integrates_to_one_also_at_the_ends_of_the_range() -> None:
    mid = (np.arange(20_000) + 0.5) / 20_000
    for centre in (0.0, 0.03, 0.5, 1.0):
        policy = Blur(np.full(20_000, centre), 0.2, 0.0, 1.0)
        assert policy.density(mid).mean() == pytest.approx(1.0, abs=1e-4)
        nodes, weight = policy.nodes()
        assert (weight[0] * nodes[0] ** 2).sum() == pytest.approx((policy.density(mid) * mid**2).mean(), abs=1e-4)


def test_intervals_cover_the_value_of_the_blurred_policy() -> None:
    """40 logs of 1,500 rounds (12 with a model): at least .8; ips without the logging density is off by 6 errors."""
    names = ("ips", "snips", "ips(clip=10)")
    covered: dict[str, list[bool]] = {name: [] for name in (*names, "dr", "sndr")}
    errors, wrong = [], []
    for k in range(40):
        log, action, x = priced(stream(ROOT, "cover", k), 1500)
        truth = value_of(blur(log, action, 0.2), x)
        asked = (*names, "dr", "sndr") if k < 12 else names
        found = estimate_continuous(log, action, bandwidth=0.2, estimators=asked, seed=k)
        for name, e in found.items():
            covered[name].append(e.low <= truth <= e.high)  # type: ignore[operator]
        flat = ContinuousRounds(log.action, log.reward, np.ones(1500), (0.0, 1.0), user=log.user)
        bad = estimate_continuous(flat, action, bandwidth=0.2, estimators=["ips"], force=True)["ips"]
        errors.append(found["ips"].value - truth)  # type: ignore[operator]
        wrong.append(bad.value - truth)  # type: ignore[operator]
        if k == 0:
            assert found["dr"].high - found["dr"].low < found["ips"].high - found["ips"].low  # type: ignore[operator]
            assert "blurred" in found["dr"].method
    assert all(np.mean(hits) >= 0.8 for hits in covered.values()), covered
    z, z_wrong = (np.mean(v) / (np.std(v) / np.sqrt(40)) for v in (errors, wrong))
    assert abs(z) <= 4
    assert abs(z_wrong) > 6


def test_a_narrower_kernel_is_nearer_to_the_policy_and_has_heavier_weights() -> None:
    log, action, x = priced(stream(ROOT, "narrow"), 4000)
    e = estimate_continuous(log, action, bandwidth=0.2, estimators=["snips"])["snips"]
    beside = e.diagnostics["bandwidths"]
    assert set(beside) == {"0.1", "0.2", "0.4"}
    widths = [beside[h]["high"] - beside[h]["low"] for h in ("0.1", "0.2", "0.4")]
    assert widths[0] > widths[1] > widths[2]
    own = float(click(x, action).mean())
    assert abs(value_of(blur(log, action, 0.1), x) - own) < abs(value_of(blur(log, action, 0.4), x) - own)
    tiny = estimate_continuous(log, action, bandwidth=0.002, estimators=["snips"])["snips"]
    assert "W" in (tiny.withheld or "")


def test_what_cannot_be_used_is_one_line() -> None:
    log, action, _ = priced(stream(ROOT, "bad"), 50)
    with pytest.raises(InputError, match="bandwidth"):
        estimate_continuous(log, action, bandwidth=0.0)
    with pytest.raises(LogError, match="pi_e: must be"):
        estimate_continuous(log, action + 5, bandwidth=0.2)
    with pytest.raises(LogError, match="density must be above 0"):
        ContinuousRounds(log.action, log.reward, 0 * log.pscore, (0.0, 1.0))
    with pytest.raises(LogError, match="reward: holds a value that is no number"):
        ContinuousRounds(log.action, np.full(len(log), "a"), log.pscore, (0.0, 1.0))
    with pytest.raises(LogError, match="context: shape"):
        ContinuousRounds(log.action, log.reward, log.pscore, (0.0, 1.0), context=np.full(len(log), np.nan))
    with pytest.raises(LogError, match="within the action_range"):
        ContinuousRounds(log.action, log.reward, log.pscore, (0.0, 0.1))
