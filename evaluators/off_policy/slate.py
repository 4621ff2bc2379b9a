"""Slate estimators over N slates of L slots; each user model is an assumption that the estimate carries as a label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluators.off_policy.names import ESTIMATORS
from evaluators.off_policy.records import CHUNK_CELLS, Slates
from evaluators.off_policy.terms import Terms, slices
from simulator.errors import LogError

Floats = NDArray[np.float64]

MAX_PI_SIZE = 2000


class MissingColumns(LogError):
    """A slate or trajectory log lacks what one estimator needs; the others go on without it."""


def _ratio(slates: Slates, e: str, b: str) -> Floats:
    top, bottom = getattr(slates, e), getattr(slates, b)
    if top is None or bottom is None:
        twin = "evaluation_policy_" + b
        raise MissingColumns(f"{b if bottom is None else twin}: not in the log; add the column")
    return top / bottom


def joint_weight(slates: Slates) -> Floats:
    """[N] ratio of the whole slate's probabilities."""
    return _ratio(slates, "pi_e", "pscore")


def item_weight(slates: Slates) -> Floats:
    """[N, L] ratio of the marginals of each slot."""
    return _ratio(slates, "pi_e_item_position", "pscore_item_position")


def cascade_weight(slates: Slates) -> Floats:
    """[N, L] ratio of the probabilities of the slots down to l."""
    return _ratio(slates, "pi_e_cascade", "pscore_cascade")


def factorises(slates: Slates) -> bool:
    """Whether both policies choose the slots independently: the joint is the product of the marginals."""
    for joint, item in (("pscore", "pscore_item_position"), ("pi_e", "pi_e_item_position")):
        whole, parts = getattr(slates, joint), getattr(slates, item)
        if whole is None or parts is None or not np.allclose(whole, parts.prod(axis=1), rtol=1e-6, atol=1e-12):
            return False
    return True


def slot_set_weight(slates: Slates, sets: NDArray[np.bool_]) -> Floats:
    """[N, L] ratio of the marginals of the slots sets[l] (bool [L, L]) that influence slot l.

    The marginal of {l}, {1..l} and all slots stands in the log; that of any other set is known only where both
    policies choose slots independently.
    """
    slots = slates.action.shape[1]
    w = np.empty(slates.action.shape)
    for l in range(slots):
        chosen = np.flatnonzero(sets[l])
        if not sets[l, l]:
            raise LogError(f"slot set {l}: must hold slot {l} itself; its own action always influences it")
        if len(chosen) == slots:
            w[:, l] = joint_weight(slates)
        elif len(chosen) == 1:
            w[:, l] = item_weight(slates)[:, l]
        elif np.array_equal(chosen, np.arange(chosen[-1] + 1)):
            w[:, l] = cascade_weight(slates)[:, chosen[-1]]
        elif factorises(slates):
            w[:, l] = item_weight(slates)[:, chosen].prod(axis=1)
        else:
            raise MissingColumns(
                f"slot set {l}: the marginal of slots {chosen.tolist()} is not in the log and the policies do not "
                "choose slots independently; use {l}, {0..l} or all slots"
            )
    return w


def independent_sets(slots: int) -> NDArray[np.bool_]:
    """c(l) = {l}."""
    return np.eye(slots, dtype=bool)


def cascade_sets(slots: int) -> NDArray[np.bool_]:
    """c(l) = {1..l}."""
    return np.tri(slots, dtype=bool)


def all_sets(slots: int) -> NDArray[np.bool_]:
    """c(l) = every slot."""
    return np.ones((slots, slots), dtype=bool)


def slot_terms(w: Floats, r: Floats, *, self_normalised: bool, assumes: str, own: bool = True) -> Terms:
    """Sum over slots of w_l r_l, each slot divided by its mean weight where self-normalised."""
    weighted = (w * r).sum(axis=1)
    if self_normalised:
        slots = range(w.shape[1])
        return Terms(
            family="ratio",
            numerators=tuple(np.ascontiguousarray(w[:, l] * r[:, l]) for l in slots),
            denominators=tuple(np.ascontiguousarray(w[:, l]) for l in slots),
            weighted=weighted,
            weight=w,
            own=own,
            assumes=assumes,
        )
    return Terms(
        family="ratio",
        numerators=(weighted,),
        denominators=(None,),
        weighted=weighted,
        weight=w,
        own=own,
        assumes=assumes,
    )


def cascade_dr(slates: Slates, *, self_normalised: bool = False) -> Terms:
    """Cascade-DR (Kiyohara et al. 2022): sum_l w_{1:l} (r_l - Q_l(a_l)) + w_{1:l-1} E_pi_e[Q_l(.) | prefix]."""
    if slates.q_hat is None or slates.pi_e_action_dist is None:
        raise MissingColumns("q_hat: cascade_dr needs q_hat and evaluation_policy_action_dist in the log; add them")
    w = cascade_weight(slates)
    n, slots = w.shape
    before = np.concatenate([np.ones((n, 1)), w[:, :-1]], axis=1)
    q = np.take_along_axis(slates.q_hat, slates.action[:, :, None], axis=2)[:, :, 0]
    expected = np.einsum("nla,nla->nl", slates.pi_e_action_dist, slates.q_hat)
    residual = w * (slates.reward - q)
    weighted = (w * slates.reward).sum(axis=1)
    assumes = ESTIMATORS["cascade_dr"].assumption
    if self_normalised:
        tops = [np.ascontiguousarray(residual[:, l]) for l in range(slots)]
        tops += [np.ascontiguousarray(before[:, l] * expected[:, l]) for l in range(slots)]
        bottoms = [np.ascontiguousarray(w[:, l]) for l in range(slots)]
        bottoms += [np.ascontiguousarray(before[:, l]) for l in range(slots)]
        return Terms(
            family="ratio",
            numerators=tuple(tops),
            denominators=tuple(bottoms),
            weighted=weighted,
            weight=w,
            own=True,
            assumes=assumes,
        )
    return Terms(
        family="ratio",
        numerators=((residual + before * expected).sum(axis=1),),
        denominators=(None,),
        weighted=weighted,
        weight=w,
        assumes=assumes,
    )


def pseudo_inverse_weight(slates: Slates) -> Floats:
    """[N] weight q_e' Gamma^+ 1_a of the pseudo-inverse estimator (Swaminathan et al. 2017).

    Where the logging policy factorises over slots this is 1 - L + sum_l w_l. Otherwise E_pi_b[1_a 1_a'] has to be
    given: a log of single slates does not hold it.
    """
    n, slots = slates.action.shape
    whole, parts = slates.pscore, slates.pscore_item_position
    if whole is not None and parts is not None and np.allclose(whole, parts.prod(axis=1), rtol=1e-6, atol=1e-12):
        return 1 - slots + item_weight(slates).sum(axis=1)
    if slates.gamma_matrix is None or slates.target_marginal is None:
        raise MissingColumns(
            "gamma_matrix: the logging policy does not choose slots independently, so pi needs E_pi_b[1_a 1_a'] and "
            "target_marginal; add them"
        )
    size = slates.target_marginal.shape[1]
    if size > MAX_PI_SIZE:
        raise MissingColumns(
            f"gamma_matrix: {size} slot-actions are more than {MAX_PI_SIZE}; pi is refused, use rips or sips"
        )
    actions = size // slots
    indicator = np.zeros((n, size))
    np.put_along_axis(indicator, slates.action + np.arange(slots) * actions, 1.0, axis=1)
    gamma = slates.gamma_matrix
    if gamma.strides[0] == 0:  # one matrix for all slates: inverted once
        inverse = np.linalg.pinv(gamma[0], hermitian=True)
        return np.asarray(((slates.target_marginal @ inverse) * indicator).sum(axis=1))
    w = np.empty(n)
    for part in slices(n, max(1, CHUNK_CELLS // size**2)):
        inverse = np.linalg.pinv(gamma[part], hermitian=True)
        w[part] = np.einsum("ni,nij,nj->n", slates.target_marginal[part], inverse, indicator[part], optimize=True)
    return w


def pi_terms(slates: Slates, *, self_normalised: bool = False) -> Terms:
    """Slate reward times the pseudo-inverse weight."""
    w = pseudo_inverse_weight(slates)
    total = slates.reward.sum(axis=1)
    weighted = w * total
    return Terms(
        family="ratio",
        numerators=(weighted,),
        denominators=(w if self_normalised else None,),
        weighted=weighted,
        weight=w,
        assumes=ESTIMATORS["pi"].assumption,
    )


def adaptive_weights(
    slates: Slates, tune: NDArray[np.bool_], *, depth: int = 2, min_leaf: int = 100
) -> tuple[Floats, list[str]]:
    """[N, L] weights of adaptive IPS (Kiyohara et al. 2023): the sets of slots are chosen in each leaf of a tree on x.

    Candidates: each slot alone, the slots above it, all slots, and (where policies choose slots independently) windows
    of neighbours. In a leaf the candidate with the smallest estimated squared bias (against all slots, less the
    variance of that difference) plus variance wins; a leaf is split at the median of the feature that lowers the sum.

    Args:
        slates: the log.
        tune: [N] bool, the slates whose rewards choose; the weights are for all slates.
        depth: levels of the tree; 0 without context.
        min_leaf: slates of `tune` in a leaf at least.

    Returns:
        The weights, and the names of the sets chosen.
    """
    slots = slates.action.shape[1]
    sets = {"independent": independent_sets(slots), "cascade": cascade_sets(slots), "all": all_sets(slots)}
    if factorises(slates) and slots > 2:
        position = np.arange(slots)
        sets["neighbours"] = np.abs(position[:, None] - position[None]) <= 1
        sets["one above"] = sets["neighbours"] & cascade_sets(slots)
    weights = {name: slot_set_weight(slates, c) for name, c in sets.items()}
    values = {name: (w * slates.reward).sum(axis=1) for name, w in weights.items()}

    def best(rows: NDArray[np.int64]) -> tuple[float, str]:
        scores = {}
        for name, value in values.items():
            difference = value[rows] - values["all"][rows]
            bias = max(float(difference.mean()) ** 2 - float(difference.var()) / len(rows), 0.0)
            scores[name] = bias + float(value[rows].var()) / len(rows)
        name = min(scores, key=lambda key: scores[key])
        return scores[name], name

    out = np.empty(slates.action.shape)
    chosen: set[str] = set()

    def grow(rows: NDArray[np.int64], level: int) -> None:
        tuning = rows[tune[rows]]
        score, name = best(tuning) if len(tuning) else (0.0, "all")
        if slates.context is not None and level > 0:
            found = None
            for feature in range(slates.context.shape[1]):
                x = slates.context[:, feature]
                cut = float(np.median(x[tuning]))
                left, right = tuning[x[tuning] <= cut], tuning[x[tuning] > cut]
                if min(len(left), len(right)) < min_leaf:
                    continue
                # leaf scores are squared errors of leaf means; the whole's error weighs them by squared share
                share = len(left) / len(tuning)
                split = share**2 * best(left)[0] + (1 - share) ** 2 * best(right)[0]
                if split < score and (found is None or split < found[0]):
                    found = (split, x, cut)
            if found is not None:
                _, x, cut = found
                grow(rows[x[rows] <= cut], level - 1)
                grow(rows[x[rows] > cut], level - 1)
                return
        chosen.add(name)
        out[rows] = weights[name][rows]

    grow(np.arange(len(slates)), depth)
    return out, sorted(chosen)


def slate_terms(base: str, slates: Slates) -> Terms:
    """Terms of a named slate estimator other than `aips`."""
    normalised = base.startswith("sn_")
    kind = base.removeprefix("sn_")
    if kind == "cascade_dr":
        return cascade_dr(slates, self_normalised=normalised)
    if kind == "pi":
        return pi_terms(slates, self_normalised=normalised)
    if kind == "sips":
        w = np.repeat(joint_weight(slates)[:, None], slates.action.shape[1], axis=1)
    elif kind == "iips":
        w = item_weight(slates)
    else:
        w = cascade_weight(slates)
    assumes = "" if kind == "sips" else ESTIMATORS[kind].assumption
    return slot_terms(w, slates.reward, self_normalised=normalised, assumes=assumes)
