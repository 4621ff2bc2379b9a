"""A world: everything that decides what simulated users would do, as frozen arrays."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.behaviour import (
    Assumption,
    SimulatorSettings,
    assumptions_of,
    examination_curve,
    expected_clicks,
    replace_parameter,
    value_of,
)
from simulator.errors import InputError, did_you_mean
from simulator.log import Histories, InteractionLog, Split

_FORMAT = 1


class States(Protocol):
    """What a preference model knows of n users: vector [n, d] and bias [n]."""

    @property
    def vector(self) -> NDArray[np.float32]:
        """[n, d] taste."""
        ...

    @property
    def bias(self) -> NDArray[np.float32]:
        """[n] logit of the user alone."""
        ...


class Preference(Protocol):
    """What a world needs of a preference model: the logit of the primary behaviour is <u, v_i> + b_u + b_i."""

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """[I, d]."""
        ...

    @property
    def item_bias(self) -> NDArray[np.float32]:
        """[I] logit of the item alone."""
        ...

    def user_states(self, histories: Histories, user_features: NDArray[np.float32], /) -> States:
        """State of each user after their history."""
        ...


@dataclass(frozen=True, slots=True)
class Starts:
    """U real users from whose state sessions start.

    Attributes:
        user: [U] index in the log's catalogue.
        vector: [U, d] float32 taste.
        bias: [U] float32.
        history_items: [U, H] int64 newest logged interactions, newest last, -1 pads on the left.
        history_feedback: [U, H] float32 their primary behaviour.
        user_features: [U, f] float32 what a policy may see of the user.
        seen: everything in each user's logged history: never a candidate.
    """

    user: NDArray[np.int64]
    vector: NDArray[np.float32]
    bias: NDArray[np.float32]
    history_items: NDArray[np.int64]
    history_feedback: NDArray[np.float32]
    user_features: NDArray[np.float32]
    seen: Histories

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class World:
    """What users would do: appeal, behaviour, and the real users from whom sessions start.

    Attributes:
        name: for the report.
        item_vectors: [I, d] float32; item_bias: [I] float32. Fitted; never shown to an agent.
        item_categories: [I, C] float32, 1 where the item has the category; C may be 0.
        examination: model of examination, "position" or "cascade".
        slate_size: K; horizon: slates in a session at most; history_length: H.
        assumptions: every parameter of the behaviour model, fitted or assumed.
        starts: users.
        feature_names: [f] names of `starts.user_features`.
        appeal_shift: logits added to every appeal (0, except in a corrected flight).
    """

    name: str
    item_vectors: NDArray[np.float32]
    item_bias: NDArray[np.float32]
    item_categories: NDArray[np.float32]
    examination: str
    slate_size: int
    horizon: int
    history_length: int
    assumptions: tuple[Assumption, ...]
    starts: Starts
    feature_names: tuple[str, ...] = ()
    appeal_shift: float = 0.0

    @classmethod
    def build(
        cls,
        preference: Preference,
        log: InteractionLog,
        split: Split,
        users: NDArray[np.int64],
        settings: SimulatorSettings,
        *,
        name: str,
        policy_features: Sequence[str] | None = None,
    ) -> World:
        """World of a fitted preference model, whose sessions start after the early rows of the given users.

        Args:
            preference: fitted on other rows than those that will score it.
            log: where histories and categories come from.
            split: which rows are early.
            users: [U] users in the log's numbering; each needs an early row.
            settings: behaviour, slate size, horizon.
            name: for the report.
            policy_features: names of the user features that agents see; None for all.

        Raises:
            InputError: no users, or a policy feature that the catalogue does not have.
        """
        if len(users) == 0:
            raise InputError("simulator: no users to start sessions from; give the world at least one")
        catalogue = log.catalogue
        names = list(catalogue.user_feature_names)
        chosen = names if policy_features is None else list(policy_features)
        for feature in chosen:
            if feature not in names:
                raise InputError(f"policy_features: '{feature}' is not a user feature{did_you_mean(feature, names)}")
        features = catalogue.user_features[users].astype(np.float32)
        seen = split.histories(log, users)
        states = preference.user_states(seen, features)
        items, feedback = seen.last(settings.history_length)
        starts = Starts(
            user=np.asarray(users, np.int64),
            vector=np.ascontiguousarray(states.vector, np.float32),
            bias=np.ascontiguousarray(states.bias, np.float32),
            history_items=items.astype(np.int64),
            history_feedback=feedback.astype(np.float32),
            user_features=np.ascontiguousarray(features[:, [names.index(f) for f in chosen]]),
            seen=seen,
        )
        rate, rate_se = _usual_rate(seen)
        return cls(
            name=name,
            item_vectors=np.ascontiguousarray(preference.item_vectors, np.float32),
            item_bias=np.ascontiguousarray(preference.item_bias, np.float32),
            item_categories=np.ascontiguousarray(catalogue.item_categories, np.float32),
            examination=settings.examination.model,
            slate_size=settings.slate_size,
            horizon=settings.horizon,
            history_length=settings.history_length,
            assumptions=assumptions_of(settings, rate, rate_se),
            starts=starts,
            feature_names=tuple(chosen),
        )

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return len(self.item_bias)

    def value(self, part: str, parameter: str) -> float:
        """Value of one behaviour parameter."""
        return value_of(self.assumptions, part, parameter)

    def with_parameter(self, part: str, parameter: str, value: float) -> World:
        """The same world with one behaviour parameter changed; users meet the same luck in both.

        Raises:
            InputError: there is no such parameter, or the value is outside its limits.
        """
        return replace(self, assumptions=replace_parameter(self.assumptions, part, parameter, value))

    def without_leaving(self) -> World:
        """The same world in which nobody leaves before the horizon; users meet the same luck, and click alike."""
        world = self.with_parameter("leave", "base_rate", 1e-9)
        for parameter in ("satisfaction", "repetition", "step"):
            world = world.with_parameter("leave", parameter, 0.0)
        return world

    def with_appeal_shift(self, shift: float) -> World:
        """The same world with `shift` logits added to every appeal, on top of the present shift."""
        return replace(self, appeal_shift=self.appeal_shift + float(shift))

    def examination_curve(self, slate_size: int) -> NDArray[np.float32]:
        """[K] probability of examining position k (position model), or of going on to it (cascade)."""
        return examination_curve(self.examination, self.value("examination", "decay"), slate_size)

    def expected_clicks(self, slate_size: int) -> float:
        """Clicks on a slate of items with the log's usual rate: what satisfaction 0.5 stands for."""
        decay, continuation = self.value("examination", "decay"), self.value("examination", "continuation")
        return expected_clicks(self.examination, decay, continuation, self.value("leave", "usual_rate"), slate_size)

    @cached_property
    def category_shares(self) -> NDArray[np.float32]:
        """[I, C] float32 categories of an item as shares that sum to 1 (all 0 for an item without any)."""
        total = self.item_categories.sum(axis=1, keepdims=True)
        return (self.item_categories / np.where(total > 0, total, 1)).astype(np.float32)

    def _header(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "name": self.name,
            "examination": self.examination,
            "slate_size": self.slate_size,
            "horizon": self.horizon,
            "history_length": self.history_length,
            "assumptions": [asdict(a) for a in self.assumptions],
            "feature_names": list(self.feature_names),
            "appeal_shift": self.appeal_shift,
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        starts = {name: getattr(self.starts, name) for name in Starts.__slots__ if name != "seen"}
        seen = {f"seen_{name}": getattr(self.starts.seen, name) for name in ("start", "item", "primary")}
        items = {name: getattr(self, name) for name in ("item_vectors", "item_bias", "item_categories")}
        return {**items, **starts, **seen}

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that decides what users do; the name is left out."""
        header = self._header()
        del header["name"]
        found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for name, array in self._arrays().items():
            found.update(f"{name} {array.dtype.str} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """Write the world to one `.npz` file; `path` is used as it is, whatever its ending."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, header=np.array(json.dumps(self._header())), **self._arrays())

    @classmethod
    def load(cls, path: Path) -> World:
        """Read a world that `save` wrote.

        Raises:
            InputError: the file is no world, or one of another format.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"world: '{path.name}' cannot be read as a world; build it again") from error
        if header.pop("format") != _FORMAT:
            raise InputError(f"world: '{path.name}' has another format than {_FORMAT}; build it again")
        assumptions = tuple(Assumption(**{**a, "sweep": tuple(a["sweep"])}) for a in header.pop("assumptions"))
        seen = Histories(*(arrays.pop(f"seen_{name}") for name in ("start", "item", "primary")))
        starts = Starts(**{name: arrays.pop(name) for name in Starts.__slots__ if name != "seen"}, seen=seen)
        names = tuple(header.pop("feature_names"))
        return cls(**header, **arrays, assumptions=assumptions, starts=starts, feature_names=names)


def _usual_rate(seen: Histories) -> tuple[float, float]:
    """Share of the primary behaviour among logged rows, and its standard error with the user as cluster."""
    rows = np.diff(seen.start)
    if rows.sum() == 0:
        raise InputError("simulator: none of the world's users has a history; give users with early rows")
    sums = np.add.reduceat(np.append(seen.primary, 0.0), seen.start[:-1]) * (rows > 0)
    rate = float(sums.sum() / rows.sum())
    n = len(rows)
    residual = (sums - rate * rows) / rows.mean()
    se = float(np.sqrt(np.sum(residual**2) / (n * max(n - 1, 1))))
    return min(max(rate, 1e-6), 1.0), se
