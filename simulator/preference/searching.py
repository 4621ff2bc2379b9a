"""Queries beside a log's rows, as a joint fit of search and recommendation learns them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.preference.problem import Problem, Searches
from simulator.preference.settings import PreferenceSettings

FEWEST_QUERIES = 2


def queries_of(log: InteractionLog, settings: PreferenceSettings) -> tuple[str, ...]:
    """[Q] queries that a joint fit learns; none where none is asked for.

    Raises:
        InputError: a joint fit is asked for, and the log has no queries.
    """
    if settings.search is None:
        return ()
    found = 0 if log.searches is None else len(log.searches.text)
    if log.searches is None or found < FEWEST_QUERIES:
        raise InputError(
            f"preference.search: '{log.source}' has {found or 'no'} {'query' if found == 1 else 'queries'} whose items "
            "it knows; name a file of queries under data.queries, or leave search out"
        )
    return log.searches.text


def encoder_texts(log: InteractionLog, settings: PreferenceSettings) -> tuple[str, ...]:
    """Texts that an encoder of a log is made for: those of its items, then the queries of a joint fit.

    Whoever asks `encoder_for` for a log's encoder gives these, or an encoder made for texts is another one.

    Raises:
        InputError: a joint fit is asked for, and the log has no queries.
    """
    return (*log.catalogue.item_text, *queries_of(log, settings))


def with_searches(problem: Problem, log: InteractionLog, features: NDArray[np.float32]) -> Problem:
    """The problem with the log's queries beside its rows; grades of a query are scaled to a sum of 1.

    Args:
        problem: the rows.
        log: the log, with queries.
        features: [Q, p] standardised text features of the queries.
    """
    rows = log.searches
    assert rows is not None
    order = np.lexsort((rows.item, rows.query))
    query, item = rows.query[order], rows.item[order]
    n_queries = len(rows.text)
    searches = Searches(
        vectors=features,
        start=np.concatenate([[0], np.cumsum(np.bincount(query, minlength=n_queries))]),
        item=item,
        target=(rows.grade[order] / np.bincount(rows.query, rows.grade, n_queries)[query]).astype(np.float32),
    )
    return replace(problem, searches=searches)
