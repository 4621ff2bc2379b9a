"""What a dataset can consist of: an interaction log, and parts that are none. Every part may be absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import LogError

if TYPE_CHECKING:
    from simulator.datasets.build import Tables


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """n texts of one class each: utterances and intents, or titles and topics.

    Attributes:
        text: [n] as published.
        label: [n] index into `classes`.
        classes: [C] names of the classes.

    Raises:
        LogError: lengths differ, or a label is no index of a class.
    """

    text: tuple[str, ...]
    label: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _same_lengths("texts", text=self.text, label=self.label)
        _indices("label", self.label, len(self.classes))

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class Judgements:
    """Q queries, D documents and m graded judgements of pairs of them.

    Attributes:
        query_text: [Q] queries.
        document_ids: [D] the publisher's ids.
        documents: column name -> [D] text ("" where empty): title, text, brand, ...
        query: [m] index of the query judged.
        document: [m] index of the document judged.
        grade: [m] relevance, 0 = irrelevant, greater is better.
        grade_names: grade -> what the publisher calls it.
    """

    query_text: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: Mapping[str, tuple[str, ...]]
    query: NDArray[np.int64]
    document: NDArray[np.int64]
    grade: NDArray[np.int64]
    grade_names: Mapping[int, str]

    def __post_init__(self) -> None:
        _same_lengths("judgements", query=self.query, document=self.document, grade=self.grade)
        _same_lengths("documents", document_ids=self.document_ids, **self.documents)
        _indices("query", self.query, len(self.query_text))
        _indices("document", self.document, len(self.document_ids))

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True)
class LoggedRounds:
    """n logged rounds of one policy over A actions, named as in Open Bandit Pipeline.

    `evaluators.off_policy.Rounds(**rounds.columns())` and `windtunnel ope` (after `numpy.savez(path,
    **rounds.columns())`) take them as they are.

    Attributes:
        action: [n] index of the action shown, in [0, n_actions).
        reward: [n] observed reward.
        pscore: [n] true propensity of the logging policy, in (0, 1].
        position: [n] slot of the action, from 0.
        context: [n, d] what the logging policy saw.
        action_features: [A, f] what is known of the actions.
        time: [n] seconds since 1970.
        n_actions: number of actions A.
        n_positions: number of slots.
    """

    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    pscore: NDArray[np.float64]
    position: NDArray[np.int64]
    context: NDArray[np.float64]
    action_features: NDArray[np.float64]
    time: NDArray[np.float64]
    n_actions: int
    n_positions: int

    def __post_init__(self) -> None:
        _same_lengths(
            "rounds", action=self.action, reward=self.reward, pscore=self.pscore, position=self.position,
            context=self.context, time=self.time,
        )  # fmt: skip
        _indices("action", self.action, self.n_actions)
        _indices("position", self.position, self.n_positions)
        bad = np.flatnonzero(~((self.pscore > 0) & (self.pscore <= 1)))
        if bad.size:
            raise LogError(
                f"pscore[{bad[0]}]: {self.pscore[bad[0]]:g} is outside (0, 1] ({bad.size} such); drop these rounds"
            )

    def __len__(self) -> int:
        return len(self.action)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays that off-policy evaluation reads, by their names there."""
        names = ("action", "reward", "pscore", "position", "context", "action_features")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Impressions:
    """m impressions: what was offered to whom, what of it was clicked, and what the user had clicked before.

    Attributes:
        user: [m] index into `user_ids`.
        time: [m] seconds since 1970, in the publisher's clock.
        start: [m + 1] candidates of impression k are `start[k]:start[k + 1]`.
        item: [k] index into `item_ids` of each candidate.
        clicked: [k] whether it was clicked.
        history_start: [m + 1] history of impression k is `history_start[k]:history_start[k + 1]`.
        history: [h] index into `item_ids`, oldest first.
        user_ids: the publisher's user ids.
        item_ids: the publisher's item ids.
    """

    user: NDArray[np.int64]
    time: NDArray[np.float64]
    start: NDArray[np.int64]
    item: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    history_start: NDArray[np.int64]
    history: NDArray[np.int64]
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        _same_lengths(
            "impressions", user=self.user, time=self.time, start=self.start[1:], history=self.history_start[1:]
        )
        _same_lengths("candidates", item=self.item, clicked=self.clicked)
        for name, values, size in (
            ("user", self.user, len(self.user_ids)),
            ("item", self.item, len(self.item_ids)),
            ("history", self.history, len(self.item_ids)),
        ):
            _indices(name, values, size)

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Treatments:
    """n units of an experiment: which arm each was given at random, what was known before and what came out.

    Attributes:
        arm: [n] index into `arms`.
        arms: names of the arms.
        propensity: [n] probability with which each was given its arm.
        covariates: column name -> [n] values known before the treatment, numbers or text.
        outcomes: column name -> [n] values after it.
    """

    arm: NDArray[np.int64]
    arms: tuple[str, ...]
    propensity: NDArray[np.float64]
    covariates: Mapping[str, NDArray[Any]]
    outcomes: Mapping[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        _same_lengths("units", arm=self.arm, propensity=self.propensity, **self.covariates, **self.outcomes)
        _indices("arm", self.arm, len(self.arms))

    def __len__(self) -> int:
        return len(self.arm)


@dataclass(frozen=True, slots=True)
class Tags:
    """m assignments of words to items by users.

    Attributes:
        user: [m] the publisher's user id.
        item: [m] the publisher's item id.
        tag: [m] index into `words`.
        time: [m] seconds since 1970, NaN where the published date cannot be true.
        words: the tags.
    """

    user: NDArray[np.str_]
    item: NDArray[np.str_]
    tag: NDArray[np.int64]
    time: NDArray[np.float64]
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        _same_lengths("tags", user=self.user, item=self.item, tag=self.tag, time=self.time)
        _indices("tag", self.tag, len(self.words))

    def __len__(self) -> int:
        return len(self.tag)


@dataclass(frozen=True, slots=True)
class MediaFiles:
    """Pictures or clips inside a published zip, one an item, read one by one.

    Attributes:
        item_ids: [n] item that each belongs to.
        names: [n] name of each file inside the zip.
        label: [n] index into `classes`.
        classes: names of the classes (genre, kind of garment).
        read: gives the bytes of a file by its name.
    """

    item_ids: tuple[str, ...]
    names: tuple[str, ...]
    label: NDArray[np.int64]
    classes: tuple[str, ...]
    read: Callable[[str], bytes]

    def __post_init__(self) -> None:
        _same_lengths("media", item_ids=self.item_ids, names=self.names, label=self.label)
        _indices("label", self.label, len(self.classes))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published dataset, read as it stands: what it has is there, what it lacks is None or empty.

    Attributes:
        name: as in `windtunnel list datasets`.
        limits: what it cannot tell, one line each; they go on the data card.
        tables: the interaction log with what is known of items and users; `load_dataset` makes the log of it.
        texts: split -> labelled texts.
        judgements: queries, documents and grades.
        rounds: logging policy -> logged rounds with true propensities.
        logs: logging policy -> the same as an interaction log of users who look alike.
        impressions: offers with what was clicked.
        treatments: a randomised experiment.
        media: pictures or clips.
        item_features: name -> (item ids [m], features [m, f]) of items, where a file brings them.
        tags: words that users gave to items.
        friends: [m, 2] the publisher's ids of users who are friends; each pair stands both ways round.
    """

    name: str
    limits: tuple[str, ...] = ()
    tables: Tables | None = None
    texts: Mapping[str, LabelledTexts] = field(default_factory=dict)
    judgements: Judgements | None = None
    rounds: Mapping[str, LoggedRounds] = field(default_factory=dict)
    logs: Mapping[str, Tables] = field(default_factory=dict)
    impressions: Impressions | None = None
    treatments: Treatments | None = None
    media: MediaFiles | None = None
    item_features: Mapping[str, tuple[tuple[str, ...], NDArray[np.float32]]] = field(default_factory=dict)
    tags: Tags | None = None
    friends: NDArray[np.str_] | None = None


def _same_lengths(what: str, **columns: Any) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise LogError(f"{what}: columns differ in length ({found}); give each row one value in each")


def _indices(name: str, values: NDArray[np.int64], size: int) -> None:
    bad = np.flatnonzero((values < 0) | (values >= size))
    if bad.size:
        raise LogError(
            f"{name}[{bad[0]}]: {values[bad[0]]} is outside [0, {size}) ({bad.size} such rows); give an index"
        )
