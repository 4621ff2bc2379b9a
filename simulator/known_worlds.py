"""Named test worlds: each isolates one difficulty, and what its users do is known exactly (SARDINE's idea).

`known_world("boredom")` gives the true world and a log that its users left; `data.source: world:boredom` is that log in
a scenario, whose run flies its agents in the true world too. Everything else is switched off in each, so that whoever
fails there fails at the one thing it is named for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import LogError, did_you_mean

if TYPE_CHECKING:
    from simulator.datasets.build import Tables
    from simulator.log import Catalogue
    from simulator.users import SimulatedUsers
    from simulator.world import World

KNOWN_WORLDS = {
    "position_bias": "places further down are seldom looked at, and the log showed poor items on top",
    "boredom": "a category that was clicked a few times bores for a while",
    "selection_bias": "users rate what they find by themselves mostly if they like it; the chance of it is known",
    "drift": "a taste grows for whatever is clicked first",
    "cold_start": "a quarter of the items are new, better than the rest and not in the log",
    "feedback_loop": "what was clicked is shown and liked more, so the log's favourites are luck",
    "tedium": "who is shown the same kinds again leaves, so the favourite earns now and costs what would have followed",
}
"""Name -> the difficulty that it isolates."""

WORLD_PREFIX = "world:"
"""What stands before the name where a scenario names the world's log."""

DATA_DEFAULTS: dict[str, Any] = {
    "positive": "click",
    "item_text": ["title"],
    "item_categories": ["category"],
    "columns": {"position": "position", "propensity": "propensity", "impression": "impression", "session": "session"},
}
"""Fields of `data:` for `source: world:NAME`."""

USERS, ITEMS, CATEGORIES = 240, 120, 6
SLATE, HORIZON, HISTORY = 6, 10, 120
_ROOT = 20_261
_OFF: dict[str, dict[str, Any]] = {
    "examination": {"decay": 1.0, "sweep": (), "fit": False},
    "satiation": {"strength": 0.0, "sweep": ()},
    "drift": {"rate": 0.0, "sweep": ()},
    "leave": {"base_rate": 0.02, "satisfaction": 0.0, "repetition": 0.0, "sweep": (), "base_rate_sweep": (),
              "repetition_sweep": (), "fit": False},
}  # fmt: skip
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """m places that were shown in the log.

    Attributes:
        user: [m]; item: [m]; click: [m] 0 or 1.
        impression: [m] number of the slate; session: [m] number of the session; position: [m] place from 0.
        time: [m] seconds.
        propensity: [m] chance that the item stood at its place, given what stood above it (position_bias: whatever
            stood above it; selection_bias: that the user rated the item, given whether it was liked).
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    click: NDArray[np.int64]
    impression: NDArray[np.int64]
    session: NDArray[np.int64]
    position: NDArray[np.int64]
    time: Floats
    propensity: Floats


@dataclass(frozen=True, slots=True)
class KnownWorld:
    """A world whose every parameter is known, and the log of its users.

    Attributes:
        name: of the world; about: the difficulty.
        world: what users truly do; its sessions start after the log, and agents see the log as history.
        rows: the log.
    """

    name: str
    about: str
    world: World
    rows: LoggedRows

    def appeal(self) -> Floats:
        """[U, I] true logit of a click on each item, were it examined at the start of a session."""
        world = self.world
        taste = world.starts.vector.astype(np.float64) @ world.item_vectors.astype(np.float64).T
        return np.asarray(taste + world.starts.bias[:, None] + world.item_bias)

    def beside(self, fitted: World, catalogue: Catalogue) -> World | None:
        """What the users of a fitted world truly do, where agents see of them what they see in the fitted one.

        Histories, features, slate size, horizon and what may be shown are the fitted world's, so that a flight in the
        one pairs with a flight in the other; tastes, items and behaviour are the true ones. None where the scenario
        asks for another task than the true world sets: another reward, delays, arrivals, visits that follow one
        another.

        Args:
            fitted: a world of users and items of this world's log.
            catalogue: of the log as it was read, which may lack some of them and has an order of its own.
        """
        world = self.world
        if any(np.any(getattr(fitted, name) != getattr(world, name)) for name in _TASK):
            return None
        item, user = (
            np.array([int(name[1:]) for name in ids], np.int64) for ids in (catalogue.item_ids, catalogue.user_ids)
        )
        user = user[fitted.starts.user]
        return replace(
            world,
            name="truth",
            item_vectors=world.item_vectors[item],
            item_bias=world.item_bias[item],
            item_categories=world.item_categories[item],
            item_clicks=None if world.item_clicks is None else world.item_clicks[item],
            slate_size=fitted.slate_size,
            horizon=fitted.horizon,
            history_length=fitted.history_length,
            starts=replace(fitted.starts, vector=world.starts.vector[user], bias=world.starts.bias[user]),
            feature_names=fitted.feature_names,
            shown_again=fitted.shown_again,
        )


_TASK = ("reward", "delay", "delayed_reward", "entry", "entry_session", "returns", "own")
"""What of a world says what is played and is no truth about users."""


def known_world(name: str) -> KnownWorld:
    """The named world with its log; the same for everybody.

    Raises:
        LogError: there is no world of that name.
    """
    if name not in _MAKERS:
        hint = did_you_mean(name, KNOWN_WORLDS) or f"; there are {', '.join(KNOWN_WORLDS)}"
        raise LogError(f"data.source: 'world:{name}' is not a known world{hint}")
    world, rows = _MAKERS[name](np.random.default_rng([_ROOT, list(KNOWN_WORLDS).index(name)]))
    return KnownWorld(name, KNOWN_WORLDS[name], _after(replace(world, name=name), rows), rows)


def known_tables(name: str) -> Tables:
    """The log of a known world as a file would hold it.

    Raises:
        LogError: there is no world of that name.
    """
    from pathlib import Path

    import pyarrow as pa

    from simulator.datasets.build import Tables
    from simulator.datasets.tables import Table

    known = known_world(name)
    rows, world = known.rows, known.world

    def table(part: str, columns: dict[str, Any]) -> Table:
        arrays = {column: pa.chunked_array([pa.array(values)]) for column, values in columns.items()}
        return Table(Path(f"world:{name}.{part}"), arrays, {}, 0, len(next(iter(arrays.values()))))

    log = {
        "user_id": [f"u{u}" for u in rows.user.tolist()],
        "item_id": [f"i{i}" for i in rows.item.tolist()],
        "timestamp": rows.time,
        "click": rows.click,
        "position": rows.position,
        "propensity": rows.propensity,
        "impression": rows.impression,
        "session": rows.session,
    }
    category = np.argmax(world.item_categories, axis=1)
    items = {
        "item_id": [f"i{i}" for i in range(ITEMS)],
        "title": [f"item {i} of category {c}" for i, c in enumerate(category.tolist())],
        "category": [f"c{c}" for c in category.tolist()],
    }
    return Tables(table("log", log), table("items", items))


# ------------------------------------------------------------------------------------------------------- the parts


def _world(taste: Floats, quality: Floats, **settings: Any) -> World:
    """World whose users have taste [U, C] for categories, whose items have quality [I], and all else off."""
    from simulator.behaviour import SimulatorSettings, assumptions_of
    from simulator.log import Histories
    from simulator.world import Starts, World

    parts: dict[str, Any] = {**_OFF, "slate_size": SLATE, "horizon": HORIZON, "history_length": HISTORY}
    for part, values in settings.items():
        parts[part] = {**parts.get(part, {}), **values}
    chosen = SimulatorSettings.model_validate(parts)
    category = np.arange(ITEMS) % CATEGORIES
    categories = np.eye(CATEGORIES, dtype=np.float32)[category]
    n = len(taste)
    starts = Starts(
        user=np.arange(n),
        vector=taste.astype(np.float32),
        bias=np.zeros(n, np.float32),
        history_items=np.full((n, HISTORY), -1),
        history_feedback=np.zeros((n, HISTORY), np.float32),
        user_features=np.zeros((n, 0), np.float32),
        seen=Histories(np.zeros(n + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)),
    )
    usual = float(np.mean(1 / (1 + np.exp(-(taste[:, category] + quality)))))
    return World(
        name="known",
        item_vectors=categories.copy(),
        item_bias=quality.astype(np.float32),
        item_categories=categories,
        examination=chosen.examination.model,
        slate_size=SLATE,
        horizon=HORIZON,
        history_length=HISTORY,
        assumptions=assumptions_of(chosen, usual, 0.0),
        starts=starts,
        item_clicks=np.zeros(ITEMS) if chosen.popularity.strength else None,
        returns=chosen.returning is not None,
    )


def _after(world: World, rows: LoggedRows) -> World:
    """The world with the log as its users' histories; what was in the log may be shown again."""
    history = np.full((len(world.starts), HISTORY), -1)
    feedback = np.zeros((len(world.starts), HISTORY), np.float32)
    order = np.lexsort((rows.position, rows.impression, rows.user))
    user, item, click = rows.user[order], rows.item[order], rows.click[order]
    place = np.arange(len(user)) - np.searchsorted(user, user, side="right") + HISTORY  # the newest in the last column
    kept = place >= 0
    history[user[kept], place[kept]] = item[kept]
    feedback[user[kept], place[kept]] = click[kept]
    return replace(world, starts=replace(world.starts, history_items=history, history_feedback=feedback))


Choose = Callable[["SimulatedUsers", np.random.Generator], tuple[NDArray[np.int64], Floats]]
"""Slates [n, K] for the users now, and the chance [n, K] that each item stood at its place."""


def _flown(world: World, choose: Choose, rng: np.random.Generator, *, session: int = 0) -> LoggedRows:
    """The log of one session of every user under a logging policy."""
    from simulator.users import SimulatedUsers

    users = SimulatedUsers(world, len(world.starts), seed=_ROOT)
    users.start(np.arange(users.n), session)
    parts: list[tuple[NDArray[Any], ...]] = []
    for step in range(world.horizon):
        here = ~users.outcome.done.copy()
        if not here.any():
            break
        slates, chance = choose(users, rng)
        outcome = users.step(slates)
        row, place = np.nonzero((outcome.shown >= 0) & here[:, None])
        impression = row * world.horizon + step + session * users.n * world.horizon
        parts.append(
            (
                row, outcome.shown[row, place].astype(np.int64), outcome.clicks[row, place].astype(np.int64),
                impression, row + session * users.n, place, session * 864_000.0 + 60.0 * step + place,
                chance[row, place],
            )
        )  # fmt: skip
    return LoggedRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _joined(parts: list[LoggedRows]) -> LoggedRows:
    return LoggedRows(*(np.concatenate([getattr(p, name) for p in parts]) for name in LoggedRows.__slots__))


def _uniformly(users: SimulatedUsers, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Any candidates in any order."""
    return _any_of(users.candidates(), rng)


def _any_of(there: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Any of the items that are there [n, I], in any order; none stands twice, so further down fewer are left."""
    slates = np.argsort(np.where(there, rng.random(there.shape), np.inf), axis=1)[:, :SLATE]
    return slates, 1.0 / (there.sum(axis=1, keepdims=True) - np.arange(SLATE))


def _by_order(score: Floats, mix: float) -> Choose:
    """Items of highest score at each place, but with chance `mix` any; each place by itself, so its chance is known."""

    def choose(users: SimulatedUsers, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        left = users.candidates().copy()
        slates, chance = np.zeros((users.n, SLATE), np.int64), np.zeros((users.n, SLATE))
        lane = np.arange(users.n)
        for k in range(SLATE):
            best = np.argmax(np.where(left, score, -np.inf), axis=1)
            anyone = np.argmax(np.where(left, rng.random(left.shape), -1), axis=1)
            slates[:, k] = np.where(rng.random(users.n) < mix, anyone, best)
            chance[:, k] = mix / left.sum(axis=1) + (1 - mix) * (slates[:, k] == best)
            left[lane, slates[:, k]] = False
        return slates, chance

    return choose


def _sorted_by(score: Floats, mix: float) -> Choose:
    """Any candidates, with chance `mix` in any order, else in that of the score: who stands on top is no accident."""

    def choose(users: SimulatedUsers, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        from scipy.special import comb

        slates, _ = _uniformly(users, rng)
        there = users.candidates()
        ordered = np.take_along_axis(slates, np.argsort(-score[slates], axis=1), axis=1)
        slates = np.where(rng.random((users.n, 1)) < mix, slates, ordered)
        n = there.sum(axis=1, keepdims=True)
        better = (there[:, None, :] & (score[None, None, :] > score[slates][..., None])).sum(axis=2)
        k = np.arange(SLATE)[None, :]
        placed = comb(better, k) * comb(n - 1 - better, SLATE - 1 - k) / comb(n, SLATE)
        return slates, mix / n + (1 - mix) * placed

    return choose


# ------------------------------------------------------------------------------------------------------ the worlds


def _position_bias(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    quality = rng.normal(-0.5, 1.0, ITEMS)
    world = _world(np.zeros((USERS, CATEGORIES)), quality, examination={"decay": 0.6})
    wrong = -quality + rng.normal(0, 1.0, ITEMS)  # whoever ranked the log preferred what users do not
    return world, _joined([_flown(world, _sorted_by(wrong, 0.3), rng, session=session) for session in range(2)])


def _boredom(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    taste = rng.normal(-1.0, 0.3, (USERS, CATEGORIES))
    taste[np.arange(USERS), rng.integers(0, CATEGORIES, USERS)] += 1.0
    boredom = {"depth": 3.0, "threshold": 1.5, "memory": 0.8, "sweep": ()}
    world = _world(taste, rng.normal(0, 0.3, ITEMS), boredom=boredom)
    return world, _flown(world, _uniformly, rng)


def _selection_bias(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    found = np.arange(ITEMS) // CATEGORIES % 2 == 0  # by users themselves; the others are put before everybody
    taste = rng.normal(-0.5, 1.0, (USERS, CATEGORIES))
    quality = rng.normal(0, 0.7, ITEMS) - 1.0 * found
    world = _world(taste, quality)
    liked = rng.random((USERS, ITEMS)) < 1 / (1 + np.exp(-(taste[:, np.arange(ITEMS) % CATEGORIES] + quality)))
    chance = np.where(found, np.where(liked, 0.6, 0.05), 0.2)
    user, item = np.nonzero(rng.random(chance.shape) < chance)
    number = np.arange(len(user))
    rows = LoggedRows(
        user, item, liked[user, item].astype(np.int64), number, user, np.zeros_like(user), number.astype(np.float64),
        chance[user, item],
    )  # fmt: skip
    return world, rows


def _drift(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    world = _world(rng.normal(-1.0, 0.2, (USERS, CATEGORIES)), rng.normal(0, 0.2, ITEMS), drift={"rate": 1.2})
    return world, _flown(world, _uniformly, rng)


def _cold_start(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    new = np.arange(ITEMS) >= ITEMS - ITEMS // 4
    quality = rng.normal(-0.8, 0.5, ITEMS) + 1.2 * new
    world = _world(rng.normal(0, 0.5, (USERS, CATEGORIES)), quality)

    def without_new(users: SimulatedUsers, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        return _any_of(users.candidates() & ~new, rng)

    return world, _flown(world, without_new, rng)


def _feedback_loop(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    world = _world(
        np.zeros((USERS, CATEGORIES)),
        rng.normal(-1.0, 0.5, ITEMS),
        popularity={"strength": 0.3, "sweep": ()},
        leave={"base_rate": 0.4},
    )
    assert world.item_clicks is not None
    counts = np.zeros(ITEMS)
    parts = []
    for session in range(6):
        gained = world.popularity_bias(counts) - world.popularity_bias(world.item_clicks)
        lifted = replace(world, item_bias=(world.item_bias + gained).astype(np.float32))
        rows = _flown(lifted, _by_order(counts + 0.01 * rng.random(ITEMS), 0.3), rng, session=session)
        counts = counts + np.bincount(rows.item, rows.click, ITEMS)
        parts.append(rows)
    return world, _joined(parts)


def _tedium(rng: np.random.Generator) -> tuple[World, LoggedRows]:
    order = rng.permuted(np.tile(np.arange(CATEGORIES), (USERS, 1)), axis=1)
    taste = np.full((USERS, CATEGORIES), -3.0)
    np.put_along_axis(taste, order[:, :4], np.array([[0.5, -0.7, -0.7, -0.7]]), axis=1)
    leave = {"base_rate": 0.001, "repetition": 18.0}
    world = _world(taste + rng.normal(0, 0.15, taste.shape), rng.normal(0, 0.3, ITEMS), leave=leave)
    # Slates enough that the log tells who likes what: what is hard is the future, not the taste.
    return world, _flown(replace(world, horizon=ITEMS // SLATE), _uniformly, rng)


_MAKERS: dict[str, Callable[[np.random.Generator], tuple[World, LoggedRows]]] = {
    "position_bias": _position_bias,
    "boredom": _boredom,
    "selection_bias": _selection_bias,
    "drift": _drift,
    "cold_start": _cold_start,
    "feedback_loop": _feedback_loop,
    "tedium": _tedium,
}
