"""Friends' influence: recovered where it is there, not identified where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.behaviour.friends import FriendsFit, fit_friends


def fitted(seed: int, strength: float) -> FriendsFit:
    """80 users of 25 rows, of which three tenths have an item that a friend liked; placebos are the same at random."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(80), 25)
    offset = rng.normal(-1, 1, len(user))
    liked = rng.random(len(user)) < 0.3
    own = 0.4 * rng.standard_normal(80)[user]
    y = (rng.random(len(user)) < 1 / (1 + np.exp(-(offset - 0.3 * strength + own + strength * liked)))).astype(float)
    return fit_friends(y, offset, liked, user, rng.random((20, len(user))) < 0.3, rng)


def test_an_influence_is_found_with_its_level_and_the_loss_of_users_left_out_falls() -> None:
    found = [fitted(seed, 1.0) for seed in range(30)]
    error = [(fit.strength - 1.0) / fit.se for fit in found]
    assert np.mean(np.abs(error) < 2) >= 0.85
    assert abs(np.mean([fit.strength for fit in found]) - 1.0) < 0.1  # levels of users that are not known flatten it
    assert np.mean([fit.level for fit in found]) == pytest.approx(-0.3, abs=0.1)
    assert np.mean([fit.identified for fit in found]) >= 0.95
    assert found[0].assumptions()[0].source == "fitted"
    assert "log-loss of users left out falls by" in found[0].why


def test_no_influence_is_seldom_identified_and_then_nothing_is_taken_from_the_fit() -> None:
    found = [fitted(seed, 0.0) for seed in range(60)]
    assert np.mean([fit.identified for fit in found]) <= 0.05
    assert found[0].assumptions() == ()
    assert found[0].why.startswith("assumed; not identified")


def test_what_strangers_say_as_well_is_no_influence() -> None:
    """What everybody likes is liked by friends and strangers: the placebos see it too."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(80), 25)
    popular = rng.random(len(user)) < 0.3
    y = (rng.random(len(user)) < 1 / (1 + np.exp(1 - popular))).astype(float)
    noisy = popular[None] ^ (rng.random((101, len(user))) < 0.1)
    found = fit_friends(y, np.full(len(user), -0.8), noisy[0], user, noisy[1:], rng)
    assert found.z > 1.96
    assert found.gain > 1.96 * found.gain_se
    assert not found.identified


def test_too_few_rows_of_either_kind_are_no_fit() -> None:
    rng = np.random.default_rng(0)
    y, user = (rng.random(200) < 0.5).astype(float), np.repeat(np.arange(20), 10)
    with pytest.raises(ValueError, match="49 of 200 rows have an item that a friend liked; 50 of each kind"):
        fit_friends(y, np.zeros(200), np.arange(200) < 49, user, np.zeros((0, 200), bool), rng)
