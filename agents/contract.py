"""What every agent must keep: the shape and content of its slates. Serves the product, our tests and a user's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, AgentError, Observation

__all__ = ["AgentError", "check_agent", "check_probabilities", "check_slate"]


def not_an_array(method: str, what: str) -> str:
    """What is said of an answer that is no array of numbers."""
    return f"{method} returned {what}, which has not the shape of an array of numbers"


def check_slate(slate: Any, observation: Observation) -> NDArray[np.int64]:
    """The slate as [n, K] int64, once it is known to be valid.

    A place may be left empty (-1) only where fewer than K items are candidates.

    Raises:
        AgentError: the slate is not whole numbers of shape [n, K], names an item that does not exist or is not among
            the candidates, or shows an item twice.
    """
    n, slate_size = len(observation), observation.slate_size
    try:
        given = np.asarray(slate)
    except ValueError as error:
        raise AgentError(f"act returned rows of different lengths; the shape must be [{n}, {slate_size}]") from error
    if given.shape != (n, slate_size):
        raise AgentError(f"act returned shape {list(given.shape)}; the shape must be [n, K] = [{n}, {slate_size}]")
    if not np.issubdtype(given.dtype, np.integer):
        raise AgentError(f"act returned values of type {given.dtype}; return item indices as integers")
    items = given.astype(np.int64)
    empty = items < 0
    if empty.any():
        room = n if observation.candidates is None else observation.candidates.sum(axis=1)
        missing = empty.sum(axis=1)
        wrong = (items < -1).any(axis=1) | (missing > np.maximum(0, slate_size - room))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise AgentError(f"act returned item {items[row].min()} for user {row}; items are numbered from 0")
    if observation.candidates is not None:
        n_items = observation.candidates.shape[1]
        if n and items.max() >= n_items:
            raise AgentError(f"act returned item {items.max()}; the catalogue has {n_items} items, numbered from 0")
        allowed = observation.candidates[np.arange(n)[:, None], np.maximum(items, 0)] | empty
        if not allowed.all():
            row, place = (int(x[0]) for x in np.nonzero(~allowed))
            raise AgentError(
                f"act returned item {items[row, place]} for user {row}, which is not among the candidates; "
                f"{int((~allowed).any(axis=1).sum())} of {n} users were given such an item"
            )
    ordered = np.sort(items, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, place = (int(x[0]) for x in np.nonzero(twice))
        raise AgentError(f"act returned item {ordered[row, place]} twice for user {row}; show an item once in a slate")
    return items


def check_probabilities(probabilities: Any, observation: Observation, n_items: int) -> NDArray[np.float64]:
    """The chances of the first position as [n, I] float64, once they are known to be valid.

    Raises:
        AgentError: wrong shape, a value outside [0, 1], a row that does not sum to one, or weight outside candidates.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.shape != (len(observation), n_items):
        raise AgentError(
            f"action_probabilities returned shape {list(given.shape)}; "
            f"the shape must be [n, I] = [{len(observation)}, {n_items}]"
        )
    if not ((given >= 0) & (given <= 1 + 1e-6)).all():
        raise AgentError("action_probabilities returned a value outside [0, 1]")
    off = np.abs(given.sum(axis=1) - 1)
    if (off > 1e-4).any():
        row = int(np.argmax(off))
        raise AgentError(f"action_probabilities of user {row} sum to {given[row].sum():.6g}; each row must sum to one")
    if observation.candidates is not None and given[~observation.candidates].any():
        raise AgentError("action_probabilities gives weight to an item that is not among the candidates")
    return given


def check_agent(agent: Agent, observation: Observation, n_items: int) -> None:
    """Check what can be checked of a (fitted) agent from outside; returns nothing if all is well.

    Slates are valid; the same generator state gives the same slates, so `act` keeps no state and draws from nothing
    else; each user is served alone (the rows of a half batch are served as in the whole one, for agents that do not
    draw); `action_probabilities`, where there is one, is valid and gives the item that was shown first some weight.

    Args:
        agent: the agent; `fit` has been called if it has one.
        observation: at least two users, with candidates.
        n_items: size of the catalogue.

    Raises:
        AgentError: with one line that says what is wrong.
    """
    if not callable(getattr(agent, "act", None)):
        raise AgentError(f"{type(agent).__name__} has no method act(observation, rng)")
    first = check_slate(agent.act(observation, np.random.default_rng(0)), observation)
    again = check_slate(agent.act(observation, np.random.default_rng(0)), observation)
    if not np.array_equal(first, again):
        raise AgentError(
            "act gave two different slates for one observation and one generator state; draw from rng only"
        )
    other = check_slate(agent.act(observation, np.random.default_rng(1)), observation)
    if np.array_equal(first, other):
        half = rows_of(observation, np.arange(len(observation) // 2))
        if not np.array_equal(agent.act(half, np.random.default_rng(0)), first[: len(half)]):
            raise AgentError("act serves a user differently when other users are in the batch")
    if hasattr(agent, "action_probabilities"):
        chance = check_probabilities(agent.action_probabilities(observation), observation, n_items)
        shown = first[:, 0] >= 0
        if not chance[np.flatnonzero(shown), first[shown, 0]].all():
            raise AgentError("action_probabilities gives no weight to an item that act showed first")


def rows_of(observation: Observation, rows: NDArray[np.int64] | slice) -> Observation:
    """The same observation for some of its users only."""

    def cut(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[rows]

    return replace(
        observation,
        user_features=observation.user_features[rows],
        history_items=observation.history_items[rows],
        history_feedback=observation.history_feedback[rows],
        context=observation.context[rows],
        candidates=cut(observation.candidates),
        step=observation.step[rows],
        appeal=cut(observation.appeal),
    )


def joined(observations: Sequence[Observation]) -> Observation:
    """Users of several observations in one, without candidates, appeals and context."""
    first = observations[0]
    return replace(
        first,
        user_features=np.concatenate([one.user_features for one in observations]),
        history_items=np.concatenate([one.history_items for one in observations]),
        history_feedback=np.concatenate([one.history_feedback for one in observations]),
        context=np.zeros((sum(len(one) for one in observations), 0), np.float32),
        candidates=None,
        step=np.concatenate([one.step for one in observations]),
        appeal=None,
    )
