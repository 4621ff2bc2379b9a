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
    REWARD_KINDS,
    Assumption,
    SimulatorSettings,
    assumptions_of,
    replace_parameter,
    value_of,
)
from simulator.behaviour.calibrating import SlateBehaviour
from simulator.behaviour.fitting import fit_behaviour, fit_heads, fitted_table, shifted
from simulator.behaviour.friends import Friends, friends_in_log, friends_of
from simulator.behaviour.heads import Head
from simulator.behaviour.own import OwnBehaviour
from simulator.errors import InputError, did_you_mean
from simulator.log import Histories, InteractionLog, Split
from simulator.streams import stream

_FORMAT = 4


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
        seen: everything in each user's logged history.
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

    def as_strangers(self, who: NDArray[np.bool_]) -> Starts:
        """The same users, those of `who` [U] without a history that anybody could see; their taste stays what it is."""
        kept = ~np.repeat(who, np.diff(self.seen.start))
        counts = np.where(who, 0, np.diff(self.seen.start))
        seen = Histories(np.append(0, np.cumsum(counts)), self.seen.item[kept], self.seen.primary[kept])
        return replace(
            self,
            history_items=np.where(who[:, None], -1, self.history_items),
            history_feedback=np.where(who[:, None], np.float32(0), self.history_feedback),
            user_features=np.where(who[:, None], np.float32(0), self.user_features),
            seen=seen,
        )


@dataclass(frozen=True)
class World:
    """What users would do: appeal, behaviour, and the real users from whom sessions start.

    Attributes:
        name: for the report.
        item_vectors: [I, d] float32; item_bias: [I] float32. Fitted; never shown to an agent.
        item_categories: [I, C] float32, 1 where the item has the category; C may be 0.
        examination: model of examination, "position", "cascade" or "user_browsing".
        slate_size: K; horizon: slates in a session at most; history_length: H.
        assumptions: every parameter of the behaviour model, fitted or assumed.
        starts: users.
        feature_names: [f] names of `starts.user_features`.
        appeal_shift: logits added to every appeal (0, except in a corrected flight).
        fitted_shift: logits by which `item_bias` stands above the preference model's, declared so that a check can hold
            the two against each other: the model's rates are of places that were not all examined, for example.
        choice: "independent", "logit" or "nested".
        reward: what a step's reward is, a key of `simulator.behaviour.REWARDS`.
        heads: behaviours after a click.
        delay: slates after which feedback is observed; delayed_reward: whether the reward comes as late.
        entry: [I] int32 slate of a session from which the item may be shown; entry_session: [I] the session likewise.
            None where all may be shown from the start.
        friends: what friends liked; None without friends' influence.
        item_clicks: [I] clicks in the log, where popularity feeds back; else None.
        returns: whether users come back after a session, or all their sessions start from the log.
        shown_again: whether a session may show what stands in the user's logged history.
        own: a user's own behaviour in place of the kernel's.
        notes: what was fitted and what could not be, for the report.
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
    fitted_shift: float = 0.0
    choice: str = "independent"
    reward: str = "clicks"
    heads: tuple[Head, ...] = ()
    delay: int = 0
    delayed_reward: bool = True
    entry: NDArray[np.int32] | None = None
    entry_session: NDArray[np.int32] | None = None
    friends: Friends | None = None
    item_clicks: NDArray[np.float64] | None = None
    returns: bool = False
    shown_again: bool = False
    own: OwnBehaviour | None = None
    notes: tuple[str, ...] = ()

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
        folder: Path | None = None,
        friends: NDArray[np.int64] | None = None,
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
            folder: where the files that `simulator.behaviour` and `simulator.friends.pairs` name are looked for.
            friends: [m, 2] users of the log who are friends of each other; None: as the settings say. Not read
                where their strength is 0.

        Raises:
            InputError: no users, a policy feature that the catalogue does not have, or a behaviour that the log cannot
                teach.
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
        logits = _Logits(preference, log, split)
        if not settings.friends.strength:
            friends = None
        elif friends is None:
            friends = _pairs_of(settings, log, folder)
        fitted = fit_behaviour(
            log, split, users, settings, logits, usual_rate=rate, rng=np.random.default_rng(_PLACEBO_SEED)
        )
        if fitted.usual_rate is not None:  # the log's share of clicks is of places that were not all looked at
            rate, rate_se = fitted.usual_rate, rate_se * fitted.usual_rate / rate
        shift, notes = fitted.shift, fitted.notes
        further: tuple[Assumption, ...] = ()
        level = 0.0
        if friends is not None and settings.friends.fit:
            try:
                influence = friends_in_log(log, split, int(split.role[users[0]]), friends, logits)
                further, notes = influence.assumptions(), (*notes, f"friends: {influence.why}")
                if influence.identified:
                    shift += influence.level
                    level = influence.level / influence.strength
            except ValueError as error:
                notes = (*notes, f"friends: assumed; {error}")
        heads = fit_heads(log, split, int(split.role[users[0]]), settings, logits)
        heads = tuple(shifted(head, shift) for head in heads)
        rows = (*fitted.assumptions, *further, *(a for head in heads for a in head.assumptions()))
        arrivals = settings.arrivals
        late = _drawn(np.arange(catalogue.n_items), arrivals.items, "items")
        strangers = _drawn(np.asarray(users, np.int64), arrivals.users, "users")
        early = split.rows(log, users, late=False)
        return cls(
            name=name,
            item_vectors=np.ascontiguousarray(preference.item_vectors, np.float32),
            item_bias=np.ascontiguousarray(preference.item_bias + np.float32(shift), np.float32),
            item_categories=np.ascontiguousarray(catalogue.item_categories, np.float32),
            examination=settings.examination.model,
            slate_size=settings.slate_size,
            horizon=settings.horizon,
            history_length=settings.history_length,
            assumptions=assumptions_of(settings, rate, rate_se, rows),
            starts=starts.as_strangers(strangers) if strangers.any() else starts,
            feature_names=tuple(chosen),
            fitted_shift=float(shift),
            choice=settings.choice.model,
            reward=settings.reward,
            heads=heads,
            delay=settings.delay.steps,
            delayed_reward=settings.delay.reward,
            entry=np.where(late, arrivals.step, 0).astype(np.int32) if late.any() and arrivals.step else None,
            entry_session=np.where(late, arrivals.session, 0).astype(np.int32)
            if late.any() and arrivals.session
            else None,
            friends=replace(friends_of(log, users, early, friends), level=level) if friends is not None else None,
            item_clicks=np.asarray(np.bincount(log.item, log.primary, catalogue.n_items), np.float64)
            if settings.popularity.strength
            else None,
            returns=settings.returning is not None,
            shown_again=settings.shown_again,
            own=None
            if settings.behaviour is None
            else OwnBehaviour.find(settings.behaviour, settings.behaviour_params, folder),
            notes=notes,
        )

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return len(self.item_bias)

    @cached_property
    def barred(self) -> Histories:
        """What may not be shown to each of the starts: the logged history, or nothing where it may be shown again."""
        if not self.shown_again:
            return self.starts.seen
        return Histories(np.zeros(len(self.starts) + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def value(self, part: str, parameter: str) -> float:
        """Value of one behaviour parameter."""
        return value_of(self.assumptions, part, parameter)

    def with_parameter(self, part: str, parameter: str, value: float) -> World:
        """The same world with one behaviour parameter changed; users meet the same luck in both.

        With the strength of friends' influence moves the level of all items that was fitted beside it.

        Raises:
            InputError: there is no such parameter, or the value is outside its limits.
        """
        assumptions = replace_parameter(self.assumptions, part, parameter, value)
        if self.friends is None or not self.friends.level or (part, parameter) != ("friends", "strength"):
            return replace(self, assumptions=assumptions)
        shift = self.friends.level * (value - self.value(part, parameter))
        return replace(
            self,
            assumptions=assumptions,
            item_bias=self.item_bias + np.float32(shift),
            fitted_shift=self.fitted_shift + shift,
            heads=tuple(shifted(head, shift) for head in self.heads),
        )

    def without_leaving(self) -> World:
        """The same world in which nobody leaves before the horizon; users meet the same luck, and click alike."""
        world = self.with_parameter("leave", "base_rate", 1e-9)
        for parameter in ("satisfaction", "repetition", "step"):
            world = world.with_parameter("leave", parameter, 0.0)
        return world

    def with_appeal_shift(self, shift: float) -> World:
        """The same world with `shift` logits added to every appeal, on top of the present shift."""
        return replace(self, appeal_shift=self.appeal_shift + float(shift))

    def examination_table(self, slate_size: int) -> NDArray[np.float32]:
        """[K, K + 1] examination of place k: column 0 while nothing was clicked above, j + 1 where place j was last.

        In a cascade the probability of going on to k.
        """
        decay, continuation = self.value("examination", "decay"), self.value("examination", "continuation")
        return fitted_table(self.examination, self.assumptions, decay, continuation, slate_size)

    def slate_behaviour(self, slate_size: int) -> SlateBehaviour:
        """How users look at a slate of this size and choose from it."""
        return SlateBehaviour(
            self.examination,
            self.examination_table(slate_size),
            self.value("examination", "continuation"),
            self.choice,
            self.value("choice", "no_choice"),
            self.value("choice", "dissimilarity"),
        )

    def looks_at_all(self, slate_size: int) -> bool:
        """Whether users look at every place of such a slate, so that it does not matter where an item stands."""
        return self.slate_behaviour(slate_size).looks_at_all

    def expected_clicks(self, slate_size: int) -> float:
        """Clicks on a slate of items with the log's usual rate: what satisfaction 0.5 stands for."""
        return self.slate_behaviour(slate_size).usual_clicks(self.value("leave", "usual_rate"))

    @property
    def bare(self) -> bool:
        """Whether every part is off that the kernel leaves out unless it is asked for."""
        return (
            self.examination != "user_browsing"
            and self.choice == "independent"
            and not self.heads
            and self.value("boredom", "depth") == 0
            and self.friends is None
        )

    def popularity_bias(self, clicks: NDArray[np.floating]) -> NDArray[np.float32]:
        """[I] logits that items gain by popularity: strength * log of clicks + 1 over its average."""
        strength = self.value("popularity", "strength")
        counts = np.asarray(clicks, np.float64) + 1
        return (strength * np.log(counts / counts.mean())).astype(np.float32)

    def friends_lift(self, row: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, A] logits that items gain for start users `row` [n] because a friend liked them."""
        if self.friends is None:
            return np.zeros(item.shape, np.float32)
        return np.asarray(self.value("friends", "strength") * self.friends.liked(row, item), np.float32)

    @property
    def reward_head(self) -> int | None:
        """Which head the reward sums; None for clicks."""
        kind = REWARD_KINDS[self.reward]
        kinds: list[str] = [head.kind for head in self.heads]
        return None if kind is None else kinds.index(kind)

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
            "fitted_shift": self.fitted_shift,
            "choice": self.choice,
            "reward": self.reward,
            "heads": [asdict(head) for head in self.heads],
            "delay": self.delay,
            "delayed_reward": self.delayed_reward,
            "returns": self.returns,
            "shown_again": self.shown_again,
            "friends_level": 0.0 if self.friends is None else self.friends.level,
            "own": None if self.own is None else asdict(self.own),
            "notes": list(self.notes),
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        starts = {name: getattr(self.starts, name) for name in Starts.__slots__ if name != "seen"}
        seen = {f"seen_{name}": getattr(self.starts.seen, name) for name in ("start", "item", "primary")}
        items = {name: getattr(self, name) for name in ("item_vectors", "item_bias", "item_categories")}
        optional = {
            "entry": self.entry,
            "entry_session": self.entry_session,
            "item_clicks": self.item_clicks,
            "friends_start": None if self.friends is None else self.friends.start,
            "friends_item": None if self.friends is None else self.friends.item,
        }
        return {**items, **starts, **seen, **{name: a for name, a in optional.items() if a is not None}}

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that decides what users do; the name is left out."""
        header = self._header()
        del header["name"], header["notes"]
        if self.own is not None:
            header["own"] = self.own.identity()
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
        names, notes = tuple(header.pop("feature_names")), tuple(header.pop("notes"))
        heads = tuple(Head(**{**head, "levels": tuple(head["levels"]), "values": tuple(head["values"])})
                      for head in header.pop("heads"))  # fmt: skip
        own, level = header.pop("own"), header.pop("friends_level")
        friends = (
            Friends(arrays.pop("friends_start"), arrays.pop("friends_item"), level)
            if "friends_start" in arrays
            else None
        )
        return cls(
            **header,
            **arrays,
            assumptions=assumptions,
            starts=starts,
            feature_names=names,
            heads=heads,
            friends=friends,
            own=None if own is None else OwnBehaviour(**own),
            notes=notes,
        )


_PLACEBO_SEED = 20_260
"""Seed of the permutations that a fitted effect of slates on leaving is held against; the same for every world."""


def _drawn(number: NDArray[np.int64], share: float, what: str) -> NDArray[np.bool_]:
    """[n] a share of numbered things, each by its own number: the same in every world and for any subset."""
    chance = stream(np.random.SeedSequence(0), "arrivals", what).random(int(number.max(initial=0)) + 1)
    return np.asarray(chance[number] < share)


class _Logits:
    """Logit of the primary behaviour in rows of the log, by the preference model after each user's early rows."""

    def __init__(self, preference: Preference, log: InteractionLog, split: Split) -> None:
        self._preference, self._log, self._split = preference, log, split

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        log, preference = self._log, self._preference
        users, of_row = np.unique(log.user[rows], return_inverse=True)
        histories = self._split.histories(log, users)
        states = preference.user_states(histories, log.catalogue.user_features[users].astype(np.float32))
        item = log.item[rows]
        taste = np.einsum("nd,nd->n", states.vector[of_row], preference.item_vectors[item])
        return np.asarray(taste + states.bias[of_row] + preference.item_bias[item], np.float64)


def _pairs_of(settings: SimulatorSettings, log: InteractionLog, folder: Path | None) -> NDArray[np.int64]:
    """Friendships from the settings' file, else the log's own."""
    if settings.friends.pairs is None:
        if log.friends is None:
            raise InputError(
                f"simulator.friends.pairs: '{log.source}' does not say who is whose friend; name a file of pairs"
            )
        return log.friends
    from simulator.datasets.pairs import read_pairs  # pyarrow is slow to import, and most worlds need none

    return read_pairs((folder or Path()) / settings.friends.pairs, log.catalogue, "simulator.friends.pairs")


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
