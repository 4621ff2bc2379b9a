"""Hybrid LinUCB: what is shared by all items, and beside it a small model of each item's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agents.bandits import LinUCB, LinUCBSettings, quadratic, widths_of
from agents.base import Training
from agents.features import ITEM_NAMES, PAIR_NAMES, USER_NAMES, UserBlocks

F32 = NDArray[np.float32]
Floats = NDArray[np.float64]

SHARED, OWN = len(ITEM_NAMES) + len(PAIR_NAMES) + 1, 1 + len(USER_NAMES)
"""Shared features: of item, pair and place. An item's own: one, and those of the user."""


class HybridLinUCBSettings(LinUCBSettings):
    """Parameters of hybrid LinUCB."""

    own_reg: float = Field(default=20.0, gt=0, description="ridge penalty of each item's own coefficients, in clicks")


class HybridLinUCB(LinUCB):
    """Hybrid LinUCB (Li, Chu, Langford and Schapire, 2010, algorithm 2), all users of a step in one update.

    The click is <z, beta> + <x, theta_item>: z are features of item, pair and place, shared, x those of the user, for
    which every item has coefficients of its own, so that it learns whom an item suits although no content says so.
    """

    settings: HybridLinUCBSettings

    def fit(self, training: Training) -> None:
        """Learn online for `budget` user-steps (default 50,000)."""
        n_items = training.catalogue.n_items
        self._square: Floats = np.tile(np.eye(OWN) * self.settings.own_reg, (n_items, 1, 1))  # [I, x, x] A_a
        self._inverse: Floats = np.tile(np.eye(OWN) / self.settings.own_reg, (n_items, 1, 1))  # [I, x, x] 1 / A_a
        self._cross: Floats = np.zeros((n_items, OWN, SHARED))  # [I, x, z] B_a, sums of x z'
        self._clicked: Floats = np.zeros((n_items, OWN))  # [I, x] b_a, sums of click x
        self._own = np.zeros((n_items, OWN), np.float32)  # [I, x] theta_a
        self._information: Floats = np.eye(SHARED) * self.settings.reg  # [z, z] A_0
        self._evidence: Floats = np.zeros(SHARED)  # [z] b_0
        self._shared = np.zeros(SHARED, np.float32)  # [z] beta
        super().fit(training)

    def learn(self, design: Floats, items: NDArray[np.int64], clicks: F32) -> None:
        """Take in the clicks of a step: what the touched items told of the shared part is taken out and put back."""
        n_item, n_pair = design.shape[1] - 2 - len(PAIR_NAMES) - len(USER_NAMES), len(PAIR_NAMES)
        z = np.concatenate(
            [design[:, 1 : 1 + len(ITEM_NAMES)], design[:, 1 + n_item : 1 + n_item + n_pair], design[:, -1:]], axis=1
        )
        x = np.concatenate([design[:, :1], design[:, 1 + n_item + n_pair : -1]], axis=1)
        touched, place = np.unique(items, return_inverse=True)
        self._tell(touched, 1.0)
        self._information += z.T @ z
        self._evidence += z.T @ clicks
        for sums, rows in (
            (self._square, x[:, :, None] * x[:, None, :]),
            (self._cross, x[:, :, None] * z[:, None, :]),
            (self._clicked, x * clicks[:, None]),
        ):
            added = np.zeros((len(touched), *rows.shape[1:]))
            np.add.at(added, place, rows)
            sums[touched] += added
        self._inverse[touched] = np.linalg.inv(self._square[touched])
        self._tell(touched, -1.0)
        beta = np.linalg.solve(self._information, self._evidence)
        self._shared = beta.astype(np.float32)
        self._own = np.einsum("ixy,iy->ix", self._inverse, self._clicked - self._cross @ beta).astype(np.float32)

    def mean(self, users: UserBlocks, theta: NDArray[np.floating] | None = None) -> F32:
        """[n, I] expected click at the top of a slate."""
        assert self._features is not None
        of_item, of_pair = self._shared[: len(ITEM_NAMES)], self._shared[len(ITEM_NAMES) : -1]
        item = self._features.item_features()[:, : len(ITEM_NAMES)]
        return self.pair_scores(users, of_pair[None]) + item @ of_item + self._x(users) @ self._own.T

    def _tell(self, items: NDArray[np.int64], sign: float) -> None:
        """Add to the shared information what these items' own coefficients do not explain away; -1 takes it out."""
        told = np.einsum("ixz,ixy->izy", self._cross[items], self._inverse[items])
        self._information += sign * np.einsum("izx,ixy->zy", told, self._cross[items])
        self._evidence += sign * np.einsum("izx,ix->z", told, self._clicked[items])

    def _x(self, users: UserBlocks) -> F32:
        """[n, x] features of the users that items have coefficients for."""
        features = users.user_features()
        return np.concatenate([np.ones((len(features), 1), np.float32), features], axis=1)

    def widths(self, users: UserBlocks) -> Callable[[slice], F32]:
        """Function of some of n users: [m, I] standard error of `mean` (the four terms of the paper)."""
        assert self._features is not None
        spread: Floats = np.linalg.inv(self._information).astype(np.float64, copy=False)
        known = np.einsum("ixy,iyz->ixz", self._inverse, self._cross)  # [I, x, z] (1 / A_a) B_a
        through = known @ spread  # [I, x, z]
        own = self._inverse + np.einsum("ixz,iyz->ixy", through, known)  # [I, x, x]
        x = self._x(users)
        item = self._features.item_features()[:, : len(ITEM_NAMES)]
        a, p = item.shape[1], len(PAIR_NAMES)  # z is (item part, pair part, place); the place's is 0 at the top
        ones = np.ones((len(x), 1))
        return widths_of(
            self._features,
            users,
            rest=(
                np.hstack([(x[:, :, None] * x[:, None, :]).reshape(len(x), -1), x, ones]),
                np.hstack(
                    [
                        own.reshape(len(own), -1),
                        -2 * np.einsum("ixz,iz->ix", through[:, :, :a], item),
                        quadratic(item, spread[:a, :a]),
                    ]
                ),
            ),
            linear=[
                (
                    np.hstack([x, ones]),
                    np.hstack([-2 * through[:, :, j], 2 * item @ spread[:a, j, None]]),
                )
                for j in range(a, a + p)
            ],
            spread=spread[a : a + p, a : a + p],
        )
