"""Open Bandit, campaign women, small version (Saito et al., 2020): two logging policies, true propensities."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.datasets.build import LOGGED_POLICY, UNIFORM, Tables
from simulator.datasets.parts import Dataset, LoggedRounds
from simulator.datasets.tables import table_of

POLICIES = ("random", "bts")
N_ITEMS, N_POSITIONS = 46, 3
LIMITS = (
    "about 46 clicks a policy: the difference between the two policies is within its error; pool or bootstrap",
    "no user ids: rounds count as independent; as a log, users of the same four published features count as one",
)
_USER = tuple(f"user_feature_{k}" for k in range(4))


def read_obd_women(folder: Path) -> Dataset:
    """Rounds of the policies `random` and `bts`: 10,000 each, 46 items, 3 positions.

    The context is one-hot user features, the same columns for both policies, then the 46 affinities. Item features
    are hashed with another salt for each policy, so that only their grouping of items can be compared: they are
    numbered by first appearance in the order of the items.
    """
    import pandas as pd

    frames = {policy: pd.read_csv(folder / policy / "women.csv.gz", index_col=0) for policy in POLICIES}
    levels = {name: sorted(set().union(*(set(frame[name]) for frame in frames.values()))) for name in _USER}
    rounds = {
        policy: LoggedRounds(
            action=frame["item_id"].to_numpy(np.int64),
            reward=frame["click"].to_numpy(np.float64),
            pscore=frame["propensity_score"].to_numpy(np.float64),
            position=frame["position"].to_numpy(np.int64) - 1,  # published from 1
            context=_context(frame, levels),
            action_features=_item_features(pd.read_csv(folder / policy / "item_context.csv", index_col=0)),
            time=pd.to_datetime(frame["timestamp"]).to_numpy("datetime64[us]").astype(np.int64) / 1e6,
            n_actions=N_ITEMS,
            n_positions=N_POSITIONS,
        )
        for policy, frame in frames.items()
    }
    logs = {policy: _as_log(folder / policy / "women.csv.gz", frames[policy], rounds[policy]) for policy in POLICIES}
    return Dataset("obd-women", limits=LIMITS, rounds=rounds, logs=logs)


def _as_log(path: Path, frame: Any, rounds: LoggedRounds) -> Tables:
    """One policy's rounds as an interaction log: users who look alike are one, every round is a visit of its own."""
    look = frame[list(_USER)].agg("|".join, axis=1)
    user = look.map(lambda text: hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
    kinds = rounds.action_features[:, 1:] > 0
    return Tables(
        log=table_of(
            path, user_id=user, item_id=rounds.action.astype(str), click=rounds.reward, position=rounds.position,
            propensity=rounds.pscore, timestamp=rounds.time, session=np.arange(len(rounds)),
        ),
        items=table_of(
            path, item_id=np.arange(N_ITEMS).astype(str),
            kind=[" ".join(f"kind{k}" for k in np.flatnonzero(row)) for row in kinds],
        ),
        exposure=UNIFORM if np.ptp(rounds.pscore) == 0 else LOGGED_POLICY,
    )  # fmt: skip


def _context(frame: Any, levels: dict[str, list[str]]) -> NDArray[np.float64]:
    blocks = [frame[name].to_numpy()[:, None] == np.array(levels[name], object)[None, :] for name in _USER]
    affinity = frame[[f"user-item_affinity_{k}" for k in range(N_ITEMS)]].to_numpy(np.float64)
    return np.concatenate([*blocks, affinity], axis=1).astype(np.float64)


def _item_features(items: Any) -> NDArray[np.float64]:
    """[46, 1 + f]: the one published number, then the hashed features one-hot."""
    import pandas as pd

    items = items.sort_values("item_id")
    blocks = [items["item_feature_0"].to_numpy(np.float64)[:, None]]
    for name in ("item_feature_1", "item_feature_2", "item_feature_3"):
        codes, found = pd.factorize(items[name])
        blocks.append(np.eye(len(found))[codes])
    return np.concatenate(blocks, axis=1)
