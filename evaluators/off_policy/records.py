"""Logged feedback with propensities: bandit rounds, slates, trajectories. A record that exists is valid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.intervals import cluster_index
from simulator.errors import LogError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_ROWS = 1 << 17
"""Rows of matrices that are read at once."""
CHUNK_CELLS = 1_250_000
"""Cells of a matrix that are read at once: 10 MB."""
COLUMN_ROWS = 1 << 20
"""Rows of columns that are worked on at once."""


def floats_of(name: str, values: Any, shape: tuple[int, ...] | None = None) -> Floats:
    """A column as numbers, of the shape given; LogError with the column's name where it is not that."""
    try:
        out = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LogError(f"{name}: holds a value that is no number; give numbers only") from error
    if shape is not None and out.shape != shape:
        raise LogError(f"{name}: shape {out.shape} must be {shape}; give one entry for each")
    return out


def indices_of(name: str, values: Any, shape: tuple[int, ...] | None = None) -> Ints:
    """A column as whole numbers from 0 on, of the shape given; LogError with the column's name where it is not that."""
    raw = np.asarray(values)
    if raw.dtype.kind not in "iub":
        numbers = floats_of(name, raw)
        if not np.all(np.isfinite(numbers)) or np.any(numbers != np.floor(numbers)):
            raise LogError(f"{name}: holds a value that is no whole number; number them 0, 1, 2, ...")
        raw = numbers
    out = np.ascontiguousarray(raw, dtype=np.int64)
    if shape is not None and out.shape != shape:
        raise LogError(f"{name}: shape {out.shape} must be {shape}; give one entry for each")
    if out.size and out.min() < 0:
        raise LogError(f"{name}: {out.min()} is below 0; number them 0, 1, 2, ...")
    return out


def _finite(name: str, values: Floats) -> None:
    if not np.isfinite(values.sum()):  # one pass without a mask; only a bad array pays for the search
        bad = np.flatnonzero(~np.isfinite(values.reshape(-1)))
        if bad.size:
            raise LogError(f"{name}: {values.reshape(-1)[bad[0]]} at entry {bad[0]} ({bad.size} such); drop these rows")


def _propensity(name: str, values: Floats) -> None:
    if not (values.size and values.min() > 0 and values.max() <= 1):  # NaN compares false, so it is caught too
        flat = values.reshape(-1)
        bad = np.flatnonzero(~((flat > 0) & (flat <= 1)))
        if bad.size:
            raise LogError(
                f"{name}[{bad[0]}]: {flat[bad[0]]:g} is outside (0, 1] ({bad.size} such rows); drop these rounds, "
                f"or leave {name} out to have it estimated"
            )


def checked_users(user: Any, n: int, name: str = "user") -> tuple[NDArray[Any] | None, Ints | None, int]:
    """Users [n] of n units, their numbers 0..G-1 (None where every unit is its own cluster) and G.

    `name` is that of the column, for messages: slates are told apart as users are.

    Raises:
        LogError: not one user for each unit, or a user that is missing: such units would count as one person's.
    """
    if user is None:
        return None, *cluster_index(None, n)
    users = np.asarray(user)
    if users.shape != (n,):
        raise LogError(f"{name}: shape {users.shape} must be {(n,)}; give one for each round")
    if users.dtype.kind in "fcmMO":
        import pandas as pd  # slow to import, and most users are numbers

        missing = pd.isna(users)  # among them pandas' own NA, which is equal to nothing and no bool
        if missing.any():
            raise LogError(
                f"{name}: missing at entry {int(missing.argmax())} ({int(missing.sum())} such); "
                "name these, or drop their rows"
            )
    if users.dtype.hasobject and len({isinstance(one, str) for one in users}) > 1:
        raise LogError(f"{name}: holds both numbers and text; write them in one way")
    return users, *cluster_index(users, n)


def check_policy(name: str, policy: Any, shape: tuple[int, ...], mask: NDArray[np.bool_] | None = None) -> Floats:
    """Probabilities [..., A] of a policy, checked in chunks: rows sum to 1, none is negative or outside the mask."""
    out = np.asarray(policy)
    if out.dtype != np.float64:
        out = floats_of(name, policy)
    if out.shape != shape:
        raise LogError(f"{name}: shape {out.shape} must be {shape}; one row for each round, one column for each action")
    rows = out.reshape(-1, shape[-1])
    inside = None if mask is None else mask.reshape(-1, shape[-1])
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        check_policy_rows(name, rows[part], start, None if inside is None else inside[part])
    return out


def check_policy_rows(name: str, rows: Floats, start: int, inside: NDArray[np.bool_] | None) -> None:
    """Rows [c, A] of a policy, the first of them row `start`: probabilities that sum to 1, none outside the mask."""
    total = rows @ np.ones(rows.shape[1])
    if not (rows.min() >= 0 and np.all(np.abs(total - 1) <= 1e-6)):
        bad = np.flatnonzero(~(np.abs(total - 1) <= 1e-6) | ~(rows.min(axis=1) >= 0))
        i = int(bad[0])
        raise LogError(
            f"{name}[{start + i}]: sums to {total[i]:.6g}, smallest entry {rows[i].min():.3g}; "
            "each row must be probabilities that sum to 1"
        )
    if inside is not None and np.any(rows[~inside] > 0):
        raise LogError(f"{name}: gives probability to an action outside `mask`; set it to 0 and renormalise")


@dataclass(frozen=True, slots=True)
class Rounds:
    """n logged rounds of one logging policy over A actions.

    Attributes:
        action: [n] index of the action shown, in [0, A). A may be a per-round candidate set: then column a of every
            [n, A] array is candidate a of that round.
        reward: [n] observed reward, in the unit that the scenario names (clicks, seconds, ...).
        pscore: [n] propensity pi_b(action | context, position) of the logging policy, in (0, 1]; None: estimated.
        user: [n] the cluster; None: rows are assumed independent, and the estimates say so.
        position: [n] slot in which the action was shown; None: one slot.
        context: [n, d] what the logging policy saw.
        pi_b: [n, A] all propensities of the logging policy; pscore may then be left out.
        mask: [n, A] bool, which actions were available.
        action_features: [A, f], or [n, A, f] where candidates differ by round.
        action_embed: [n, e] category of the action in each embedding dimension (for `mips`).
        p_e_a: [A, C, e] probability of each category given the action (for `mips`); None: estimated.

    Raises:
        LogError: lengths differ, a propensity lies outside (0, 1], a reward is not finite, ...
    """

    action: Ints
    reward: Floats
    pscore: Floats | None = None
    user: NDArray[Any] | None = None
    position: Ints | None = None
    context: Floats | None = None
    pi_b: Floats | None = None
    mask: NDArray[np.bool_] | None = None
    action_features: Floats | None = None
    action_embed: Ints | None = None
    p_e_a: Floats | None = None
    cluster: Ints | None = field(init=False, default=None)
    n_users: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the record is frozen: this is the one place that fills it
        put(self, "action", indices_of("action", self.action))
        n = len(self.action)
        if self.action.ndim != 1 or n == 0:
            raise LogError(
                f"action: shape {self.action.shape} must be [n] with n above 0; give one action for each round"
            )
        put(self, "reward", floats_of("reward", self.reward, (n,)))
        _finite("reward", self.reward)
        if self.position is not None:
            put(self, "position", indices_of("position", self.position, (n,)))
        if self.context is not None:
            context = floats_of("context", self.context)
            context = context[:, None] if context.ndim == 1 else context
            if context.ndim != 2 or len(context) != n:
                raise LogError(f"context: shape {context.shape} must be [{n}, d]; give one row for each round")
            _finite("context", context)
            put(self, "context", context)
        if self.mask is not None:
            put(self, "mask", np.asarray(self.mask, dtype=bool))
            if self.mask.ndim != 2 or len(self.mask) != n:
                raise LogError(f"mask: shape {self.mask.shape} must be [{n}, A]; give one row for each round")
        if self.pi_b is not None:
            pi_b = np.asarray(self.pi_b)
            if pi_b.ndim != 2:
                raise LogError(f"pi_b: shape {pi_b.shape} must be [{n}, A]; one column for each action")
            put(self, "pi_b", check_policy("pi_b", pi_b, (n, pi_b.shape[-1]), self.mask))
            if self.action.max() >= self.pi_b.shape[1]:
                raise LogError(
                    f"action: {self.action.max()} has no column among the {self.pi_b.shape[1]} of pi_b; add it"
                )
            taken = self.pi_b[np.arange(n), self.action]
            if self.pscore is None:
                put(self, "pscore", taken)
        if self.pscore is not None:
            put(self, "pscore", floats_of("pscore", self.pscore, (n,)))
            _propensity("pscore", self.pscore)
        pscore = self.pscore
        if self.pi_b is not None and pscore is not None and np.any(np.abs(taken - pscore) > 1e-6):
            i = int(np.flatnonzero(np.abs(taken - pscore) > 1e-6)[0])
            raise LogError(
                f"pscore[{i}]: {pscore[i]:g} is not the {taken[i]:g} that pi_b gives the logged action; mend one"
            )
        if self.mask is not None and not np.all(np.take_along_axis(self.mask, self.action[:, None], axis=1)):
            raise LogError("action: an action was logged that `mask` says was not available; mend the mask")
        if self.action_features is not None:
            put(self, "action_features", floats_of("action_features", self.action_features))
            _finite("action_features", self.action_features)
        if self.action_embed is not None:
            embed = indices_of("action_embed", self.action_embed)
            put(self, "action_embed", embed[:, None] if embed.ndim == 1 else embed)
            if self.action_embed.ndim != 2 or len(self.action_embed) != n:
                raise LogError(
                    f"action_embed: shape {self.action_embed.shape} must be [{n}, e]; one row for each round"
                )
        if self.p_e_a is not None:
            p_e_a = floats_of("p_e_a", self.p_e_a)
            if p_e_a.ndim != 3:
                raise LogError(f"p_e_a: shape {p_e_a.shape} must be [A, C, e]; one row for each action")
            check_policy("p_e_a", np.swapaxes(p_e_a, 1, 2), (len(p_e_a), p_e_a.shape[2], p_e_a.shape[1]))
            put(self, "p_e_a", p_e_a)
        user, cluster, n_users = checked_users(self.user, n)
        put(self, "user", user)
        put(self, "cluster", cluster)
        put(self, "n_users", n_users)

    def __len__(self) -> int:
        return len(self.action)


def _per_slate(name: str, values: Any, slate: Ints, slot: Ints, shape: tuple[int, int], fill: float = 0.0) -> Floats:
    flat = floats_of(name, values, (len(slate),))
    out = np.full(shape, fill)
    out[slate, slot] = flat
    return out


def _of_slates(name: str, columns: dict[str, Any], n: int, dims: int) -> Floats | None:
    """[n, ...] one array for each slate, numbered as `slate_id` sorts them; a single one stands for all."""
    if name not in columns:
        return None
    values = floats_of(name, columns[name])
    if values.ndim == dims - 1:
        values = values[None]
    if values.ndim != dims or len(values) not in (1, n):
        raise LogError(f"{name}: shape {values.shape} must begin with {n} slates, or be one array for all of them")
    return np.broadcast_to(values, (n, *values.shape[1:]))


@dataclass(frozen=True, slots=True)
class Slates:
    """N logged slates of L slots, as matrices; `Slates.from_rows` builds them from one row for each slot.

    Attributes:
        action: [N, L] item in each slot.
        reward: [N, L] reward of each slot; a whole-slate reward stands in the first slot.
        pscore: [N] propensity of the whole slate under the logging policy.
        pscore_item_position: [N, L] P(a_l at slot l); pscore_cascade: [N, L] P(a_1..a_l).
        pi_e, pi_e_item_position, pi_e_cascade: the same under the evaluation policy.
        q_hat: [N, L, A] value from slot l on, given the logged prefix (for `cascade_dr`).
        pi_e_action_dist: [N, L, A] conditional of the evaluation policy given the logged prefix.
        user: [N] cluster; None: slates are assumed independent.
        context: [N, d] for the tree of `aips`.
        gamma_matrix: [N, L*A, L*A] E_pi_b[1_a 1_a'] and target_marginal [N, L*A] E_pi_e[1_a], for `pi` where the
            logging policy does not factorise over slots; slot-action (l, a) is entry l*A + a. In a log's columns one
            array may stand for all slates.
        n_unique_action: A.
    """

    action: Ints
    reward: Floats
    pscore: Floats | None
    pscore_item_position: Floats | None
    pscore_cascade: Floats | None
    pi_e: Floats | None
    pi_e_item_position: Floats | None
    pi_e_cascade: Floats | None
    q_hat: Floats | None = None
    pi_e_action_dist: Floats | None = None
    user: NDArray[Any] | None = None
    context: Floats | None = None
    gamma_matrix: Floats | None = None
    target_marginal: Floats | None = None
    n_unique_action: int | None = None
    cluster: Ints | None = field(init=False, default=None)
    n_users: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "action", indices_of("action", self.action))
        if self.action.ndim != 2 or not self.action.size:
            raise LogError(f"action: shape {self.action.shape} must be [slates, slots]; give at least one slate")
        n, slots = self.action.shape
        put(self, "reward", floats_of("reward", self.reward, (n, slots)))
        _finite("reward", self.reward)
        for name, shape, strict in (
            ("pscore", (n,), True),
            ("pscore_item_position", (n, slots), True),
            ("pscore_cascade", (n, slots), True),
            ("pi_e", (n,), False),
            ("pi_e_item_position", (n, slots), False),
            ("pi_e_cascade", (n, slots), False),
        ):
            values = getattr(self, name)
            if values is None:
                continue
            values = floats_of(name, values, shape)
            put(self, name, values)
            if strict:
                _propensity(name, values)
            elif not (values.min() >= 0 and values.max() <= 1 + 1e-9):
                raise LogError(f"{name}: a value is outside [0, 1]; give probabilities of the evaluation policy")
        for name, joint in (("pscore_cascade", "pscore"), ("pi_e_cascade", "pi_e")):
            cascade, whole = getattr(self, name), getattr(self, joint)
            if cascade is None:
                continue
            if np.any(np.diff(cascade, axis=1) > 1e-9):
                i = int(np.flatnonzero((np.diff(cascade, axis=1) > 1e-9).any(axis=1))[0])
                raise LogError(f"{name}[slate {i}]: grows from one slot to the next; P(a_1..a_l) can only fall with l")
            if whole is not None and np.any(np.abs(cascade[:, -1] - whole) > 1e-9 + 1e-6 * whole):
                i = int(np.argmax(np.abs(cascade[:, -1] - whole)))
                raise LogError(
                    f"{name}[slate {i}]: last slot {cascade[i, -1]:g} is not the whole slate's {whole[i]:g}; mend one"
                )
        if self.context is not None:
            context = floats_of("context", self.context)
            put(self, "context", context[:, None] if context.ndim == 1 else context)
            if self.context.ndim != 2 or len(self.context) != n:
                raise LogError(f"context: shape {self.context.shape} must be [{n}, d]; give one row for each slate")
            _finite("context", self.context)
        if self.q_hat is not None:
            put(self, "q_hat", floats_of("q_hat", self.q_hat))
            _finite("q_hat", self.q_hat)
        if self.target_marginal is not None and self.gamma_matrix is not None:
            size = self.target_marginal.shape[-1]
            if size % slots or self.action.max() >= size // slots or self.gamma_matrix.shape != (n, size, size):
                raise LogError(
                    f"gamma_matrix: shape {self.gamma_matrix.shape} must be {(n, size, size)} with {slots} x actions "
                    f"rows, as target_marginal {self.target_marginal.shape}; mend one"
                )
            total = self.target_marginal.reshape(n, slots, -1).sum(axis=2)
            if not np.all(np.abs(total - 1) <= 1e-6):
                raise LogError("target_marginal: the chances of a slot do not sum to 1; mend them")
        user, cluster, n_users = checked_users(self.user, n)
        put(self, "user", user)
        put(self, "cluster", cluster)
        put(self, "n_users", n_users)

    def __len__(self) -> int:
        return len(self.action)

    @classmethod
    def from_rows(cls, columns: dict[str, Any]) -> Slates:
        """From one row for each slot, with the column names of Open Bandit Pipeline."""
        for name in ("slate_id", "position", "action", "reward"):
            if name not in columns:
                raise LogError(f"{name}: the column is missing; slates need slate_id, position, action, reward")
        ids = np.asarray(columns["slate_id"])
        _, slate, _ = checked_users(ids, ids.size, "slate_id")
        if slate is None or not ids.size:
            raise LogError("slate_id: holds no row; slates need one row for each slot")
        slot = indices_of("position", columns["position"], slate.shape)
        slots = int(columns["len_list"]) if "len_list" in columns else int(slot.max()) + 1
        n = int(slate.max()) + 1
        if len(slate) != n * slots or slot.max() >= slots or len(np.unique(slate * slots + slot)) != len(slate):
            raise LogError(f"position: each slate must hold the slots 0..{slots - 1} once; complete or drop the others")
        shape = (n, slots)
        order = np.empty(n * slots, dtype=np.int64)
        order[slate * slots + slot] = np.arange(n * slots)
        first = order[::slots]

        def matrix(name: str) -> Floats | None:
            return _per_slate(name, columns[name], slate, slot, shape) if name in columns else None

        def of_slate(name: str, values: NDArray[Any]) -> NDArray[Any]:
            folded = values[order].reshape(n, slots)
            other = folded != folded[:, :1]
            if folded.dtype.kind == "f":  # of propensities the last digits are the writer's arithmetic
                other &= ~np.isclose(folded, folded[:, :1], rtol=1e-6, atol=0.0)
            differs = np.flatnonzero(other.any(axis=1))
            if differs.size:
                a, b = folded[differs[0], 0], folded[differs[0]][other[differs[0]]][0]
                raise LogError(f"{name}: {a} and {b} in one slate ({differs.size} such slates); a slate has one")
            return folded[:, 0]

        def whole(name: str) -> Floats | None:
            return None if name not in columns else of_slate(name, floats_of(name, columns[name], slate.shape))

        user = columns.get("user")
        if user is not None and len(np.asarray(user)) == len(slate):
            checked_users(user, len(slate))
            user = of_slate("user", np.asarray(user))
        context = floats_of("context", columns["context"]) if "context" in columns else None
        if context is not None and len(context) == len(slate):
            context = context[first]

        actions = int(columns["n_unique_action"]) if "n_unique_action" in columns else None

        def cube(name: str) -> Floats | None:
            if name not in columns:
                return None
            flat = floats_of(name, columns[name])
            if flat.size % (n * slots):
                raise LogError(
                    f"{name}: {flat.size} entries are not slates x slots x actions; give {n * slots} x actions"
                )
            return flat.reshape(n * slots, -1)[order].reshape(n, slots, -1)

        action = np.empty(shape, dtype=np.int64)
        action[slate, slot] = indices_of("action", columns["action"], slate.shape)
        return cls(
            action=action,
            reward=matrix("reward"),  # type: ignore[arg-type]
            pscore=whole("pscore"),
            pscore_item_position=matrix("pscore_item_position"),
            pscore_cascade=matrix("pscore_cascade"),
            pi_e=whole("evaluation_policy_pscore"),
            pi_e_item_position=matrix("evaluation_policy_pscore_item_position"),
            pi_e_cascade=matrix("evaluation_policy_pscore_cascade"),
            q_hat=cube("q_hat"),
            pi_e_action_dist=cube("evaluation_policy_action_dist"),
            user=user,
            context=context,
            gamma_matrix=_of_slates("gamma_matrix", columns, n, 3),
            target_marginal=_of_slates("target_marginal", columns, n, 2),
            n_unique_action=actions,
        )


@dataclass(frozen=True, slots=True)
class Trajectories:
    """N logged trajectories of T steps; shorter ones are padded after `done` with reward 0 and ratio 1.

    Attributes:
        action: [N, T]; reward: [N, T]; pscore: [N, T] propensity of each logged action, in (0, 1].
        pi_e: [N, T, A] evaluation policy at each step.
        done: [N, T] bool, True at the step that ended the trajectory (and after it).
        q_hat: [N, T, A] value predictions of the evaluation policy; initial_value: [N] E_pi_e Q(s_0, .).
        state_marginal: [N, T] d_e,t(s) / d_b,t(s); state_action_marginal: [N, T] d_e,t(s,a) / d_b,t(s,a).
        state: [N, T] discrete states or [N, T, d] features (for fitted-Q evaluation and estimated marginal weights).
        user: [N] cluster; None: trajectories are assumed independent.
    """

    action: Ints
    reward: Floats
    pscore: Floats
    pi_e: Floats
    done: NDArray[np.bool_] | None = None
    q_hat: Floats | None = None
    initial_value: Floats | None = None
    state_marginal: Floats | None = None
    state_action_marginal: Floats | None = None
    state: NDArray[Any] | None = None
    user: NDArray[Any] | None = None
    alive: NDArray[np.bool_] = field(init=False)
    cluster: Ints | None = field(init=False, default=None)
    n_users: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "action", indices_of("action", self.action))
        if self.action.ndim != 2 or not self.action.size:
            raise LogError(
                f"action: shape {self.action.shape} must be [trajectories, steps]; give at least one trajectory"
            )
        n, steps = self.action.shape
        done = np.zeros((n, steps), dtype=bool) if self.done is None else np.asarray(self.done, dtype=bool)
        if done.shape != (n, steps):
            raise LogError(f"done: shape {done.shape} must be {(n, steps)}; give one entry for each step")
        put(self, "done", done)
        before = np.concatenate([np.zeros((n, 1), dtype=bool), np.logical_or.accumulate(done, axis=1)[:, :-1]], axis=1)
        put(self, "alive", ~before)  # the step that ends a trajectory still counts
        put(self, "reward", np.where(self.alive, floats_of("reward", self.reward, (n, steps)), 0.0))
        _finite("reward", self.reward)
        put(self, "pscore", np.where(self.alive, floats_of("pscore", self.pscore, (n, steps)), 1.0))
        _propensity("pscore", self.pscore)
        pi_e = np.asarray(self.pi_e)
        put(self, "pi_e", check_policy("evaluation_policy_action_dist", pi_e, (n, steps, pi_e.shape[-1])))
        if self.action.max() >= pi_e.shape[-1]:
            raise LogError(f"action: {self.action.max()} has no column in evaluation_policy_action_dist; add it")
        for name, shape in (
            ("q_hat", pi_e.shape),
            ("initial_value", (n,)),
            ("state_marginal", (n, steps)),
            ("state_action_marginal", (n, steps)),
        ):
            values = getattr(self, name)
            if values is not None:
                put(self, name, floats_of(name, values, shape))
                _finite(name, getattr(self, name))
        if self.state is not None and np.asarray(self.state).shape[:2] != (n, steps):
            raise LogError(
                f"state: shape {np.asarray(self.state).shape} must begin with {(n, steps)}; one state a step"
            )
        user, cluster, n_users = checked_users(self.user, n)
        put(self, "user", user)
        put(self, "cluster", cluster)
        put(self, "n_users", n_users)

    def __len__(self) -> int:
        return len(self.action)

    @classmethod
    def from_rows(cls, columns: dict[str, Any]) -> Trajectories:
        """From flattened steps (N * step_per_trajectory rows in order), with the names of SCOPE-RL."""
        for name in ("step_per_trajectory", "action", "reward", "pscore", "evaluation_policy_action_dist"):
            if name not in columns:
                raise LogError(f"{name}: the column is missing; trajectories need it")
        steps = int(np.asarray(columns["step_per_trajectory"]).reshape(-1)[0])
        rows = len(np.asarray(columns["action"]))
        if steps < 1 or rows % steps:
            raise LogError(
                f"step_per_trajectory: {rows} rows are not whole trajectories of {steps} steps; pad after done"
            )
        n = rows // steps

        def folded(*names: str) -> Any:
            for name in names:
                if name in columns:
                    values = np.asarray(columns[name])
                    return values.reshape(n, steps, *values.shape[1:])
            return None

        initial = columns.get("initial_state_value_prediction")
        user = columns.get("user")
        if user is not None and len(np.asarray(user)) == rows:
            user = np.asarray(user)[::steps]
        return cls(
            action=folded("action"),
            reward=folded("reward"),
            pscore=folded("pscore"),
            pi_e=folded("evaluation_policy_action_dist"),
            done=folded("done"),
            q_hat=folded("state_action_value_prediction", "q_hat"),
            initial_value=None if initial is None else np.asarray(initial, dtype=np.float64).reshape(-1),
            state_marginal=folded("state_marginal_importance_weight"),
            state_action_marginal=folded("state_action_marginal_importance_weight"),
            state=folded("state"),
            user=user,
        )
