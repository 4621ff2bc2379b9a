"""A fitted preference model: numpy arrays alone, so that it can be pickled, moved between processes and kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulator.errors import InputError, SeenRowsError
from simulator.log import Histories, InteractionLog, Split
from simulator.preference.map_head import newton_map

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class UserStates:
    """State of n users.

    Attributes:
        vector: [n, d] float32, of the width of the model's item vectors.
        bias: [n] float32.
    """

    vector: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ItemMap:
    """How an item's vector and offset follow from its features e: e W and <w, e>, beside what its id alone tells.

    Attributes:
        vector: [p, d] float32, W.
        offset: [p] float32, w.
        popularity: effect of the item's popularity on its offset.
        intercept: of every item.
    """

    vector: NDArray[np.float32]
    offset: NDArray[np.float32]
    popularity: float
    intercept: float


@dataclass(frozen=True, slots=True)
class Member:
    """One trained model before averaging and calibration.

    Attributes:
        item_vectors: [I, d] float32.
        item_offset: [I] float32, global intercept included.
        feature_weights: [f] float32 effect of the public user features on the user's bias.
        precision: [d + 1] float32 prior precisions of a user's bias and vector.
        newton_steps: steps of the fold-in, as many as it was trained through.
        item_map: what the features of an item do; None where the model reads none.
    """

    item_vectors: NDArray[np.float32]
    item_offset: NDArray[np.float32]
    feature_weights: NDArray[np.float32]
    precision: NDArray[np.float32]
    newton_steps: int = 2
    item_map: ItemMap | None = None

    def fold_in(self, histories: Histories, user_features: NDArray[np.float32]) -> NDArray[np.float32]:
        """MAP state of each user, [n, d + 1]: bias (features included), then vector."""
        known = (user_features @ self.feature_weights).astype(np.float32)  # [n]
        user = np.repeat(np.arange(len(histories)), np.diff(histories.start))
        theta = newton_map(
            histories.start,
            histories.item,
            histories.primary,
            self.item_vectors,
            self.item_offset[histories.item] + known[user],
            self.precision,
            steps=self.newton_steps,
        )
        theta[:, 0] += known
        return theta


@dataclass(frozen=True, slots=True)
class PreferenceModel:
    """P(primary behaviour | user, item, examined), the logit bilinear in a user and an item vector.

    logit(u, i) = <user vector, item_vectors[i]> + user bias + item_bias[i], averaging and calibration folded in.

    Attributes:
        architecture: "two_tower", "matrix_factorisation" or "bias".
        item_vectors: [I, d] float32, the members' vectors side by side (one column of zeros for a bias model).
        item_bias: [I] float32.
        members: what a user is folded in with.
        slope, intercept: of the calibration on the tuning users, already inside the arrays above.
        item_shift: [I] float32, what the calibration adds to an item for its popularity, already inside `item_bias`.
        fitted_users: users whose early rows were fitted, sorted log indices.
        tuning_users: users whose rows stopped the training and calibrated it.
        seen: sorted uint64 hashes of (user, item, time) of every row that was fitted, tuned or calibrated on.
        measures: figures of the fit, JSON-ready (tuning log-loss, epochs, seconds, ...).
    """

    architecture: str
    item_vectors: NDArray[np.float32]
    item_bias: NDArray[np.float32]
    members: tuple[Member, ...]
    slope: float
    intercept: float
    item_shift: NDArray[np.float32]
    fitted_users: NDArray[np.int64]
    tuning_users: NDArray[np.int64]
    seen: NDArray[np.uint64]
    measures: dict[str, Any]

    @classmethod
    def assemble(
        cls,
        architecture: str,
        members: tuple[Member, ...],
        *,
        slope: float,
        intercept: float,
        item_shift: NDArray[np.float32] | None = None,
        fitted_users: NDArray[np.int64],
        tuning_users: NDArray[np.int64],
        seen: NDArray[np.uint64],
        measures: dict[str, Any],
    ) -> PreferenceModel:
        """Average the members in the logit and fold the calibration in; the mean is one inner product.

        `item_shift` left out: the calibration knows no popularity.
        """
        shift = np.zeros(len(members[0].item_offset), np.float32) if item_shift is None else item_shift
        scale = slope / len(members)
        vectors = np.concatenate([m.item_vectors for m in members], axis=1) * np.float32(scale)
        if vectors.shape[1] == 0:  # the kernel and the agents want at least one dimension
            vectors = np.zeros((len(vectors), 1), np.float32)
        bias = scale * np.sum([m.item_offset.astype(np.float64) for m in members], axis=0) + intercept + shift
        return cls(
            architecture,
            np.ascontiguousarray(vectors, np.float32),
            bias.astype(np.float32),
            members,
            float(slope),
            float(intercept),
            shift,
            np.sort(fitted_users),
            np.sort(tuning_users),
            np.unique(seen),
            measures,
        )

    def user_states(self, histories: Histories, user_features: NDArray[np.float32]) -> UserStates:
        """Fold users in from their histories (closed form, all users at once).

        Args:
            histories: of n users; a user without history gets the mean user's state.
            user_features: [n, f] public features, as in the catalogue that was fitted.

        Raises:
            InputError: the features are not as many as were fitted, or not one row a user.
        """
        wanted = (len(histories), len(self.members[0].feature_weights))
        if user_features.shape != wanted:
            raise InputError(
                f"user_features: shape {user_features.shape} does not fit {wanted[0]} users with {wanted[1]} features; "
                "give the features that the model was fitted with"
            )
        scale = self.slope / len(self.members)
        states = [m.fold_in(histories, user_features) for m in self.members]
        bias = scale * np.sum([s[:, 0].astype(np.float64) for s in states], axis=0)
        vector = np.zeros((len(histories), self.item_vectors.shape[1]), np.float32)
        column = 0
        for state in states:
            width = state.shape[1] - 1
            vector[:, column : column + width] = state[:, 1:]
            column += width
        return UserStates(vector, bias.astype(np.float32))

    def logits(self, states: UserStates, who: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
        """[m] calibrated logit of row `who` of the states with each item."""
        out = np.empty(len(who), np.float64)
        for first in range(0, len(who), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            inner = np.einsum("kd,kd->k", states.vector[who[part]], self.item_vectors[item[part]])
            out[part] = inner.astype(np.float64) + states.bias[who[part]] + self.item_bias[item[part]]
        return out

    def predict(self, log: InteractionLog, split: Split, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of the primary behaviour for late rows, each user's early rows being the history.

        Args:
            log: the log.
            split: tells early rows (history) from late ones.
            rows: [m] row numbers of the log.

        Raises:
            SeenRowsError: a row was fitted, tuned or calibrated on, or is part of the history itself.
        """
        rows = np.asarray(rows, np.int64)
        self.require_unseen(log, rows)
        if not split.late[rows].all():
            raise SeenRowsError(
                f"rows: row {rows[~split.late[rows]][0]} is part of its user's history; score late rows only"
            )
        users, who = np.unique(log.user[rows], return_inverse=True)
        states = self.user_states(split.histories(log, users), log.catalogue.user_features[users])
        return np.asarray(expit(self.logits(states, who, log.item[rows])))

    def predict_pairs(
        self, log: InteractionLog, split: Split, user: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Probability of the primary behaviour for m pairs outside the log, each user's early rows being the history.

        Args:
            log: the log.
            split: tells early rows (history) from late ones.
            user: [m] users in the log's numbering.
            item: [m] items; none may stand in its user's history.

        Raises:
            SeenRowsError: a pair is part of its user's history.
        """
        key = user * log.catalogue.n_items + item
        known = np.isin(key, log.user[~split.late] * log.catalogue.n_items + log.item[~split.late])
        if known.any():
            raise SeenRowsError(
                f"rows: user '{log.catalogue.user_ids[user[known][0]]}' met item "
                f"'{log.catalogue.item_ids[item[known][0]]}' before; score pairs that no history holds"
            )
        users, who = np.unique(user, return_inverse=True)
        states = self.user_states(split.histories(log, users), log.catalogue.user_features[users])
        return np.asarray(expit(self.logits(states, who, item)))

    def require_unseen(self, log: InteractionLog, rows: NDArray[np.int64]) -> None:
        """Raise unless none of the rows was fitted, tuned or calibrated on.

        Raises:
            SeenRowsError: one was.
        """
        known = np.isin(row_hashes(log)[rows], self.seen)
        if known.any():
            row = rows[known][0]
            raise SeenRowsError(
                f"rows: row {row} (user '{log.catalogue.user_ids[log.user[row]]}', item "
                f"'{log.catalogue.item_ids[log.item[row]]}') is one of {int(known.sum())} that this model was fitted "
                "or tuned on; score late rows of fitting users (tuning=False) or held-out users"
            )

    @property
    def parameters(self) -> int:
        """Number of weights that the fit chose."""
        count = 0
        for one in self.members:
            count += one.item_vectors.size + one.item_offset.size + one.feature_weights.size + 1
            if one.item_map is not None:
                count += one.item_map.vector.size + one.item_map.offset.size + 2
        return count

    def summary(self) -> dict[str, Any]:
        """JSON-ready description: architecture, sizes, calibration and the measures of the fit."""
        return {
            "architecture": self.architecture,
            "members": len(self.members),
            "dims": [m.item_vectors.shape[1] for m in self.members],
            "users_fitted": len(self.fitted_users),
            "users_tuning": len(self.tuning_users),
            "calibration": {"slope": self.slope, "intercept": self.intercept},
            **self.measures,
        }


def _id_hashes(ids: tuple[str, ...]) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, np.uint64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_hashes(log: InteractionLog) -> NDArray[np.uint64]:
    """[n] hash of (user id, item id, time) of each row; the k-th repeat of the same three counts as a row of its own.

    The user's own ids are hashed, not their indices, so that a row is known again in another reading of the log.
    """
    time = np.where(np.isnan(log.time), 0.0, log.time + 0.0).view(np.uint64)
    mixed = _mix(_id_hashes(log.catalogue.user_ids)[log.user])
    mixed = _mix(mixed + _id_hashes(log.catalogue.item_ids)[log.item])
    mixed = _mix(mixed + _mix(time))
    order = np.argsort(mixed, kind="stable")
    same = np.concatenate([[False], mixed[order][1:] == mixed[order][:-1]])
    if same.any():
        run_start = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        repeat = np.empty(len(order), np.uint64)
        repeat[order] = (np.arange(len(order)) - run_start).astype(np.uint64)
        mixed = np.where(repeat > 0, _mix(mixed + repeat), mixed)
    return mixed
