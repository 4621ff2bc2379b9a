"""Numbered known-truth tests 9 to 11: slates whose every slate is enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.off_policy import Slates
from evaluators.off_policy.slate import (
    all_sets,
    cascade_dr,
    cascade_sets,
    cascade_weight,
    independent_sets,
    item_weight,
    joint_weight,
    pi_terms,
    pseudo_inverse_weight,
    slate_terms,
    slot_set_weight,
)

Floats = NDArray[np.float64]
SLATES = np.array(list(itertools.product(range(3), repeat=3)))  # L = A = 3: all 27, repeats allowed


def everything(reward: Floats, *, factored: bool, q_hat: Floats | None = None) -> tuple[Slates, Floats, Floats]:
    """All 27 slates as one 'log' with their probabilities under pi_b; (slates, probability under pi_b, under pi_e)."""
    draw = np.random.default_rng(3)
    joint = []
    for _ in range(2):
        if factored:
            slot = draw.dirichlet(np.full(3, 2.0), 3)
            joint.append(slot[np.arange(3), SLATES].prod(axis=1))
        else:
            joint.append(draw.dirichlet(np.full(27, 2.0)))

    def marginals(p: Floats) -> tuple[Floats, Floats]:
        item = np.stack([[p[SLATES[:, l] == s[l]].sum() for l in range(3)] for s in SLATES])
        cascade = np.stack(
            [[p[(SLATES[:, : l + 1] == s[: l + 1]).all(axis=1)].sum() for l in range(3)] for s in SLATES]
        )
        return item, cascade

    (item_b, cascade_b), (item_e, cascade_e) = marginals(joint[0]), marginals(joint[1])
    conditional = np.empty((27, 3, 3))
    for i, s in enumerate(SLATES):
        for l in range(3):
            prefix = (SLATES[:, :l] == s[:l]).all(axis=1)
            conditional[i, l] = [joint[1][prefix & (SLATES[:, l] == a)].sum() for a in range(3)]
            conditional[i, l] /= conditional[i, l].sum()
    indicator = np.zeros((27, 9))
    np.put_along_axis(indicator, SLATES + np.arange(3) * 3, 1.0, axis=1)
    slates = Slates(
        SLATES,
        reward,
        joint[0],
        item_b,
        cascade_b,
        joint[1],
        item_e,
        cascade_e,
        q_hat=q_hat,
        pi_e_action_dist=conditional,
        gamma_matrix=np.tile(indicator.T @ (joint[0][:, None] * indicator), (27, 1, 1)),
        target_marginal=np.tile(joint[1] @ indicator, (27, 1)),
    )
    return slates, joint[0], joint[1]


def rewards(kind: str) -> Floats:
    """[27, 3] expected reward of each slot under a user model."""
    base = np.array([[0.2, 0.5, 0.3], [0.4, 0.1, 0.6], [0.3, 0.2, 0.5]])[np.arange(3), SLATES]
    if kind == "independent":
        return base
    above = np.c_[np.zeros(27), (SLATES[:, 1] == SLATES[:, 0]), (SLATES[:, 2] == SLATES[:, 1])]
    if kind == "cascade":
        return base * (1 - 0.6 * above)
    below = np.c_[(SLATES[:, 1] == SLATES[:, 0]), (SLATES[:, 2] == SLATES[:, 1]), np.zeros(27)]
    return base * (1 - 0.6 * above) * (1 - 0.5 * below)


ASSUMES = {"sips": "all", "iips": "independent", "rips": "cascade", "cascade_dr": "cascade", "pi": "independent"}
ORDER = ["independent", "cascade", "all"]


@pytest.mark.parametrize("users", ORDER)
@pytest.mark.parametrize("name", ASSUMES)
def test_09_an_estimator_is_unbiased_exactly_where_its_user_model_holds(name: str, users: str) -> None:
    """Bias by enumeration: 0 to 1e-10 where the assumption holds and clearly not 0 where it does not."""
    reward = rewards(users)
    slates, pi_b, pi_e = everything(reward, factored=False, q_hat=np.random.default_rng(1).normal(size=(27, 3, 3)))
    if name == "cascade_dr":  # Q of a slot is one number for each prefix, or it is no Q of the cascade
        q = np.tile(np.random.default_rng(1).normal(size=(3, 3)), (27, 1, 1))
        slates, pi_b, pi_e = everything(reward, factored=False, q_hat=q)
    truth = float(pi_e @ reward.sum(axis=1))
    bias = float(pi_b @ slate_terms(name, slates).numerators[0]) - truth
    if ORDER.index(users) <= ORDER.index(ASSUMES[name]):
        assert abs(bias) < 1e-10
    else:
        assert abs(bias) > 1e-3


@pytest.mark.parametrize(
    ("users", "sets"), [("independent", independent_sets), ("cascade", cascade_sets), ("all", all_sets)]
)
def test_09_adaptive_weights_of_the_right_sets_are_unbiased(users: str, sets: object) -> None:
    reward = rewards(users)
    slates, pi_b, pi_e = everything(reward, factored=False)
    w = slot_set_weight(slates, sets(3))  # type: ignore[operator]
    assert float(pi_b @ (w * reward).sum(axis=1)) == pytest.approx(float(pi_e @ reward.sum(axis=1)), abs=1e-10)


def test_10_the_pseudo_inverse_of_a_factored_policy_has_a_closed_form() -> None:
    slates, _, _ = everything(rewards("all"), factored=True)
    closed = 1 - 3 + item_weight(slates).sum(axis=1)
    np.testing.assert_allclose(pseudo_inverse_weight(slates), closed, atol=1e-12)
    assert slates.target_marginal is not None
    assert slates.gamma_matrix is not None
    indicator = np.zeros((27, 9))
    np.put_along_axis(indicator, SLATES + np.arange(3) * 3, 1.0, axis=1)
    general = np.einsum(
        "ni,nij,nj->n", slates.target_marginal, np.linalg.pinv(slates.gamma_matrix, hermitian=True), indicator
    )
    np.testing.assert_allclose(general, closed, atol=1e-9)
    np.testing.assert_allclose(pi_terms(slates).numerators[0], closed * slates.reward.sum(axis=1), atol=1e-12)


@pytest.mark.parametrize("factored", [True, False])
def test_11_adaptive_weights_are_those_of_the_three_user_models(factored: bool) -> None:
    slates, _, _ = everything(rewards("all"), factored=factored)
    np.testing.assert_allclose(slot_set_weight(slates, independent_sets(3)), item_weight(slates), atol=1e-12)
    np.testing.assert_allclose(slot_set_weight(slates, cascade_sets(3)), cascade_weight(slates), atol=1e-12)
    np.testing.assert_allclose(
        slot_set_weight(slates, all_sets(3)), np.tile(joint_weight(slates)[:, None], 3), atol=1e-12
    )
    if factored:
        middle = np.array([[1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=bool)
        expected = item_weight(slates)
        np.testing.assert_allclose(slot_set_weight(slates, middle)[:, 0], expected[:, 0] * expected[:, 2], atol=1e-12)


def test_cascade_dr_with_the_true_slot_values_keeps_no_noise_of_the_logged_action() -> None:
    """Rewards that equal Q leave only w_{1:l-1} E_pi_e[Q_l]: the logged action of slot l drops out."""
    table = np.array([[0.2, 0.5, 0.3], [0.4, 0.1, 0.6], [0.3, 0.2, 0.5]])
    slates, _, pi_e = everything(rewards("independent"), factored=True, q_hat=np.tile(table, (27, 1, 1)))
    item = np.stack([[pi_e[SLATES[:, l] == a].sum() for a in range(3)] for l in range(3)])
    before = np.c_[np.ones(27), cascade_weight(slates)[:, :-1]]
    expected = (before * (item * table).sum(axis=1)).sum(axis=1)
    np.testing.assert_allclose(cascade_dr(slates).numerators[0], expected, atol=1e-12)
