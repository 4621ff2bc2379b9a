"""Rankings read off a log that can be worked out by hand, and what each of them needs.

Sabotaged once, each seen red: the age not halved, segments mixed up, likes not told from rows, the newest likes taken
from the wrong end, the mean text not removed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.base import AgentError, Observation, Training
from agents.loading import AgentSettings, build_agent
from agents.rankings import newest_likes
from simulator.log import Catalogue, InteractionLog
from tests.agents.taught_world import taught_world, training_in

ITEMS = 5


def log_of(rows: list[tuple[int, int, float, int]], **changes: object) -> InteractionLog:
    """Rows of (user, item, time, liked); users 0 and 1 are young, 2 and 3 old."""
    user, item, time, liked = (np.array(column) for column in zip(*sorted(rows), strict=True))
    content = np.eye(ITEMS, 4, dtype=np.float32)
    content[2] = 0  # a text that says only what all say
    content[4] = [0.9, 0, 0, 0.6]
    catalogue = Catalogue(
        item_ids=tuple("abcde"), item_text=tuple("abcde"), item_categories=np.zeros((ITEMS, 0), np.float32),
        category_names=(), user_ids=tuple("wxyz"), user_feature_names=("old",), content=content + 1,
        user_features=np.array([[0.0], [0.0], [1.0], [1.0]], np.float32),
    )  # fmt: skip
    log = InteractionLog(
        user.astype(np.int64), item.astype(np.int64), time.astype(float), liked.astype(np.float32), catalogue, "hand"
    )
    return replace(log, **changes)  # type: ignore[arg-type]


ROWS = [
    (0, 0, 0.0, 1), (0, 1, 90.0, 1), (0, 2, 95.0, 0),
    (1, 0, 1.0, 1), (1, 1, 91.0, 1),
    (2, 0, 2.0, 1), (2, 3, 92.0, 1),
    (3, 3, 100.0, 1), (3, 2, 100.0, 0), (3, 4, 99.0, 0),
]  # fmt: skip


def fitted(kind: str, log: InteractionLog, **params: object) -> object:
    agent = build_agent(AgentSettings.model_validate({"name": "one", "kind": kind, "params": params}), None)  # type: ignore[arg-type]
    world, taught = taught_world()
    training: Training = replace(training_in(world, taught), log=log, catalogue=log.catalogue, slate_size=2)
    agent.fit(training)  # type: ignore[attr-defined]
    return agent


def observed(history: list[list[int]], feedback: list[list[int]], features: list[float]) -> Observation:
    n = len(history)
    return Observation(
        user_features=np.array(features, np.float32)[:, None], history_items=np.array(history, np.int64),
        history_feedback=np.array(feedback, np.float32), context=np.zeros((n, 0), np.float32),
        candidates=np.ones((n, ITEMS), bool), step=np.zeros(n, np.int64), slate_size=2,
    )  # fmt: skip


def slates(agent: object, seen: Observation) -> list[list[int]]:
    return agent.act(seen, np.random.default_rng(0)).tolist()  # type: ignore[attr-defined, no-any-return]


NOBODY = observed([[-1, -1, -1]], [[0, 0, 0]], [0.0])


def test_recent_prefers_the_newest_likes_to_the_most() -> None:
    log = log_of(ROWS)
    assert slates(fitted("popularity", log), NOBODY) == [[0, 1]]  # three likes, then two before the later item
    assert slates(fitted("recent", log, half_life=0.05), NOBODY) == [[3, 1]]
    with pytest.raises(AgentError, match="recent: the log has no times; use popularity"):
        fitted("recent", replace(log, time=np.full(len(log), np.nan)))


def test_each_segment_gets_what_its_own_liked() -> None:
    seen = observed([[-1], [-1]], [[0], [0]], [0.0, 1.0])
    assert slates(fitted("segment_popularity", log_of(ROWS), shrink=0.1), seen) == [[0, 1], [3, 0]]
    even = slates(fitted("segment_popularity", log_of(ROWS), segments=1), seen)
    assert even[0] == even[1]


def test_what_was_liked_together_is_shown_and_dislikes_do_not_count() -> None:
    agent = fitted("cooccurrence", log_of(ROWS), shrink=0.0)
    assert slates(agent, observed([[-1, 1]], [[0, 1]], [0.0]))[0][0] == 0  # two users liked 0 and 1
    assert slates(agent, observed([[-1, 3]], [[0, 1]], [0.0]))[0][0] == 0  # user 2 liked 0 and 3
    assert slates(agent, observed([[-1, 1]], [[0, 0]], [0.0])) == [[0, 1]]  # nothing liked: the popular ones


def test_the_nearest_texts_are_shown() -> None:
    agent = fitted("content", log_of(ROWS))
    assert slates(agent, observed([[3]], [[1]], [0.0]))[0] == [
        3,
        4,
    ]  # 4 shares what is 3's own; 2 is as near, but to every item
    log = log_of(ROWS)
    bare = replace(log, catalogue=replace(log.catalogue, content=None))
    with pytest.raises(AgentError, match="content: the items have no content vectors"):
        fitted("content", bare)


def test_the_logs_own_policy_shows_items_as_often_as_the_log_did() -> None:
    log = log_of(ROWS, self_selected=False)
    agent = fitted("logged", log)
    seen = observed([[-1]] * 4000, [[0]] * 4000, [0.0] * 4000)
    chances = agent.action_probabilities(seen)[0]  # type: ignore[attr-defined]
    assert chances == pytest.approx(np.bincount(log.item) / len(log), abs=1e-5)
    first = np.array(slates(agent, seen))[:, 0]
    assert np.bincount(first, minlength=ITEMS) / 4000 == pytest.approx(chances, abs=0.03)
    with pytest.raises(AgentError, match="logged: users chose what to rate"):
        fitted("logged", log_of(ROWS))


def test_the_newest_likes_weigh_alike_and_sum_to_one() -> None:
    seen = observed([[0, 1, 2, 3], [-1, -1, 4, 1]], [[1, 1, 0, 1], [0, 0, 0, 0]], [0.0, 0.0])
    assert newest_likes(seen, 2, ITEMS).toarray().tolist() == [[0, 0.5, 0, 0.5, 0], [0, 0, 0, 0, 0]]
