"""The kernel against plain Python, draw by draw; the same bits in any batch; click rates that are what sigma says."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator import kernel
from simulator import users as users_module
from simulator.behaviour import Assumption
from simulator.behaviour.heads import Head
from simulator.top_items import ItemScorer, pack_mask
from simulator.users import SimulatedUsers
from simulator.world import Friends, World
from tests.simulator.plain_users import PlainUser
from tests.simulator.plain_users import sigma as exact_sigma
from tests.simulator.small_world import small_world


def unround(x: float) -> float:
    """No whole number: single and double precision part where boredom lies on the threshold to the last bit."""
    return x + 0.0137


behaviours = st.fixed_dictionaries(
    {
        "slate_size": st.integers(1, 21),
        "horizon": st.integers(1, 12),
        "history_length": st.integers(1, 30),
        "examination": st.fixed_dictionaries(
            {
                "model": st.sampled_from(["position", "cascade", "user_browsing"]),
                "decay": st.floats(0.3, 1.0),
                "continuation": st.floats(0.0, 1.0),
            }
        ),
        "choice": st.fixed_dictionaries(
            {
                "model": st.sampled_from(["independent", "independent", "logit", "nested"]),
                "no_choice": st.floats(-2, 2),
                "dissimilarity": st.floats(0.2, 1),
            }
        ),
        "boredom": st.fixed_dictionaries(
            {
                "depth": st.sampled_from([0.0, 2.5]),
                "threshold": st.floats(0.2, 2).map(unround),
                "memory": st.floats(0, 1),
            }
        ),
        "satiation": st.fixed_dictionaries({"strength": st.floats(0, 3), "memory": st.floats(0, 1)}),
        "drift": st.fixed_dictionaries({"rate": st.one_of(st.just(0.0), st.floats(0, 1))}),
        "leave": st.fixed_dictionaries(
            {
                "base_rate": st.floats(0.01, 0.6),
                "satisfaction": st.floats(0, 5),
                "repetition": st.floats(0, 2),
                "step": st.floats(-0.3, 0.3),
                "memory": st.floats(0, 1),
            }
        ),
    }
)


HEADS = (
    Head("like", "l", -0.2, 0.7, 0.1, 0.1),
    Head("purchase", "p", -2.0, 0.5, 0.1, 0.1),
    Head("dwell", "d", 3.0, 0.2, 0.1, 0.1, levels=tuple(np.linspace(-2, 2, 256))),
    Head("rating", "r", 0.0, 0.9, 0.0, 0.1, levels=(-1.0, 0.5), values=(3.0, 4.0, 5.0)),
)


def with_parts(world: World, reward: str, rng: np.random.Generator) -> World:
    """The world with behaviours after the click and with friends who like a tenth of the catalogue."""
    liked = [np.flatnonzero(rng.random(world.n_items) < 0.1) for _ in range(len(world.starts))]
    friends = Friends(np.append(0, np.cumsum([len(row) for row in liked])), np.concatenate(liked))
    strength = Assumption("friends", "strength", 0.8, "assumed")
    return replace(world, heads=HEADS, reward=reward, friends=friends, assumptions=(*world.assumptions, strength))


@settings(max_examples=25, derandomize=True)
@given(
    behaviour=behaviours,
    categories=st.integers(0, 20),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    shift=st.floats(-1, 1),
    parts=st.sampled_from([None, None, "clicks", "likes", "dwell", "purchases", "ratings"]),
)
def test_the_kernel_does_what_plain_python_does_draw_by_draw(
    behaviour: dict[str, object], categories: int, width: int, seed: int, shift: float, parts: str | None
) -> None:
    """Slates hold strangers (-3, I + 5), repetitions and items of the user's history, as agents may return them."""
    world = small_world(1, users=12, items=70, width=width, categories=categories, **behaviour)
    world = world.with_appeal_shift(shift)
    if parts is not None:
        world = with_parts(world, parts, np.random.default_rng(seed % 997))
    n = kernel.BLOCK + 7  # more than a block, with real users in several lanes
    rows = np.arange(n) % len(world.starts)
    session = np.arange(n) // len(world.starts)
    users = SimulatedUsers(world, n, seed=seed)
    users.start(rows, session)
    followed = [
        *range(20),
        *range(kernel.BLOCK - 10, n),
    ]  # plain Python is slow: the others are company
    plain = {u: PlainUser(world, int(rows[u]), seed, int(session[u])) for u in followed}
    rng = np.random.default_rng(seed % 1000)
    trusted = np.ones(n, bool)  # False once a draw was so near its limit that float32 may decide otherwise
    while not users.outcome.done.all():
        slate = rng.integers(-3, world.n_items + 6, (n, world.slate_size))
        was_done = users.outcome.done.copy()
        outcome = users.step(slate)
        observed, appeal = users.observe(), users.appeal()
        for u, user in plain.items():
            if was_done[u]:
                assert not outcome.clicks[u].any()
                assert outcome.reward[u] == 0
                assert (outcome.shown[u] == -1).all()
                assert not outcome.after[u].any()
                continue
            expected = user.step(slate[u].tolist())
            trusted[u] &= expected.margin > 2e-5
            if not trusted[u]:
                user.done = bool(outcome.done[u])
                continue
            assert outcome.shown[u].tolist() == expected.shown
            assert outcome.clicks[u].tolist() == expected.clicks
            assert np.allclose(outcome.after[u], expected.after, rtol=1e-4)
            assert outcome.reward[u] == pytest.approx(expected.reward, rel=1e-4)
            assert (outcome.left[u], outcome.done[u]) == (expected.left, expected.done)
            newest = user.history[-world.history_length :]
            assert list(zip(observed.history_items[u], observed.history_feedback[u], strict=True)) == newest
            assert observed.step[u] == user.step_number
            assert np.allclose(appeal[u], user.appeal(), atol=2e-4)
    assert trusted[followed].mean() > 0.5


def test_sigma_is_the_logistic_function_to_float32() -> None:
    z = np.linspace(-30, 30, 601).astype(np.float32)
    found = np.array([kernel.sigma(x) for x in z])
    assert np.allclose(found, [exact_sigma(float(x)) for x in z], rtol=5e-7, atol=0)
    assert kernel.sigma(np.float32(-1e9)) >= 0
    assert kernel.sigma(np.float32(1e9)) == 1


def flight(world: World, rows: NDArray[np.int64], seed: int, slates: NDArray[np.int64]) -> NDArray[np.uint8]:
    """[T, n, 3 + 2 K] everything that came out of T steps, slates [T, U, K] indexed by start row."""
    users = SimulatedUsers(world, len(rows), seed=seed)
    users.start(rows)
    out = []
    for slate in slates:
        o = users.step(np.ascontiguousarray(slate[rows]))
        appeal = users.appeal()[:, :7].copy().view(np.uint8)
        out.append(np.hstack([o.clicks, o.shown.view(np.uint8), o.left[:, None], o.done[:, None], appeal]))
    return np.array(out)


@settings(max_examples=12, derandomize=True)
@given(
    items=st.integers(30, 300),
    horizon=st.integers(1, 12),
    slate_size=st.integers(1, 21),
    history=st.integers(1, 30),
    cascade=st.booleans(),
    known_masks=st.booleans(),
    far=st.booleans(),
    seed=st.integers(0, 999),
)
@example(items=90, horizon=3, slate_size=40, history=5, cascade=False, known_masks=True, far=False, seed=1)
def test_lists_of_what_was_shown_and_masks_of_the_catalogue_are_the_same_world(
    items: int, horizon: int, slate_size: int, history: int, cascade: bool, known_masks: bool, far: bool, seed: int
) -> None:
    """Large catalogues have lists. Slates repeat items within, across steps, out of the history, and hold strangers.

    Far: a catalogue in which items agree in the sixteen bits of their numbers that a list holds.
    """
    behaviour = {"examination": {"model": "cascade"}} if cascade else {}
    world = small_world(
        seed, users=20, items=items, slate_size=slate_size, horizon=horizon, history_length=history, **behaviour
    )
    few = items
    if far:
        items += 1 << 16
        tail = items - few
        world = replace(
            world,
            item_vectors=np.pad(world.item_vectors, ((0, tail), (0, 0))),
            item_bias=np.pad(world.item_bias, (0, tail)),
            item_categories=np.pad(world.item_categories, ((0, tail), (0, 0))),
        )
    n = kernel.BLOCK + 9
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users_module, "_MASK_WORDS", 1 << 20)
        patch.setattr(users_module, "_ALL_MASK_WORDS", 1 << 30)
        masks = SimulatedUsers(world, n, seed=seed)
        patch.setattr(users_module, "_MASK_WORDS", 0)
        patch.setattr(users_module, "_KNOWN_WORDS", 1 << 23 if known_masks else 0)
        lists = SimulatedUsers(world, n, seed=seed)
    assert masks._seen.shape[1] > 0 == lists._seen.shape[1]
    dense = np.zeros((n, items), bool)
    for session in range(2):  # the second begins over what the first left behind
        rows = rng.integers(0, 20, n)
        masks.start(rows, session)
        lists.start(rows, session)
        seen = world.starts.seen
        dense[:] = False
        for lane, row in enumerate(rows):
            dense[lane, seen.item[seen.start[row] : seen.start[row + 1]]] = True
        for _ in range(horizon):
            slate = rng.integers(-2, few + 3, (n, slate_size))
            if far:
                slate += rng.integers(0, 2, slate.shape) << 16
            slate[:, -1] = slate[:, 0]
            active = ~masks.outcome.done.copy()
            one, other = masks.step(slate), lists.step(slate)
            for name in ("shown", "clicks", "reward", "left", "done"):
                assert np.array_equal(getattr(one, name), getattr(other, name)), name
            for lane in np.flatnonzero(active):
                inside = slate[lane][(slate[lane] >= 0) & (slate[lane] < items)]
                fresh = [i for place, i in enumerate(inside) if not dense[lane, i] and i not in inside[:place]]
                assert one.shown[lane][one.shown[lane] >= 0].tolist() == fresh
                dense[lane, inside] = True
            assert np.array_equal(masks.candidates(), ~dense)
            assert np.array_equal(lists.candidates(), ~dense)


def test_what_a_lane_holds_does_not_grow_with_a_large_catalogue() -> None:
    """A mask of 400,000 items would be 50,000 bytes; the items that 10 slates of 5 can show are 200."""
    world = small_world(7, users=12, items=60, slate_size=5, horizon=10, history_length=20)
    many = 400_000
    large = replace(
        world,
        item_vectors=np.zeros((many, world.item_vectors.shape[1]), np.float32),
        item_bias=np.zeros(many, np.float32),
        item_categories=np.zeros((many, 3), np.float32),
    )
    users = SimulatedUsers(large, 8, seed=1)
    assert users.bytes_a_lane < 1_500
    users.start(np.arange(8))
    slate = np.arange(many - 40, many).reshape(8, 5)
    assert (users.step(slate).shown == slate).all()
    slate[:, 4] = 7
    again = users.step(slate).shown
    assert (again[~users.outcome.done, :4] == -1).all()
    assert users.blocked().shape == (8, many // 64 + 1)


def test_batch_size_order_and_threads_change_no_bit() -> None:
    world = small_world(2, users=150, horizon=8)
    rng = np.random.default_rng(0)
    slates = rng.integers(0, world.n_items, (8, 150, 10))
    whole = flight(world, np.arange(150), 5, slates)
    order = rng.permutation(150)
    assert np.array_equal(flight(world, order, 5, slates), whole[:, order])
    parts = [np.arange(a, min(a + 37, 150)) for a in range(0, 150, 37)]
    assert np.array_equal(np.concatenate([flight(world, p, 5, slates) for p in parts], axis=1), whole)
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(lambda p: flight(world, p, 5, slates), parts))
    assert np.array_equal(np.concatenate(threads, axis=1), whole)
    assert not np.array_equal(flight(world, np.arange(150), 6, slates), whole)


def test_luck_belongs_to_the_real_user_not_to_the_row() -> None:
    """The same two users, listed in another world's starts in another place, meet the same luck."""
    world = small_world(3, users=30)
    swapped = np.array([1, 0, *range(2, 30)])
    starts = world.starts
    moved = {name: getattr(starts, name)[swapped] for name in starts.__slots__ if name != "seen"}
    ragged = [starts.seen.item[starts.seen.start[u] : starts.seen.start[u + 1]] for u in swapped]
    lengths = [len(r) for r in ragged]
    seen = replace(starts.seen, start=np.concatenate([[0], np.cumsum(lengths)]), item=np.concatenate(ragged))
    other = replace(world, starts=replace(starts, **moved, seen=seen))
    slates = np.random.default_rng(1).integers(0, world.n_items, (5, 30, 10))
    assert np.array_equal(
        flight(other, np.array([1, 0]), 9, slates[:, swapped]), flight(world, np.array([0, 1]), 9, slates)
    )


def test_another_session_is_other_luck() -> None:
    world = small_world(4)
    slates = np.random.default_rng(1).integers(0, world.n_items, (40, 10))
    clicks = []
    for session in (0, 1):
        users = SimulatedUsers(world, 40, seed=3)
        users.start(np.arange(40), session)
        clicks.append(users.step(slates).clicks.copy())
    assert (clicks[0] != clicks[1]).mean() > 0.05


def flat_world(p: float, **settings: object) -> World:
    """Every item appeals with probability p to everybody, whatever was shown before; nobody leaves."""
    world = small_world(5, users=400, items=400, categories=0, satiation={"strength": 0}, drift={"rate": 0}, **settings)
    world = world.with_parameter("leave", "base_rate", 1e-9).with_parameter("leave", "satisfaction", 0)
    starts = replace(world.starts, vector=np.zeros_like(world.starts.vector), bias=np.zeros_like(world.starts.bias))
    bias = np.full_like(world.item_bias, np.log(p / (1 - p)))
    return replace(world, starts=starts, item_bias=bias)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 0.95])
def test_any_click_rate_can_be_expressed(p: float) -> None:
    """A second sigmoid (KuaiSim) would give sigma(p) >= .5. |z| <= 4: a false alarm in 6 of 100,000 seeds."""
    world = flat_world(p, examination={"decay": 1.0})
    users = SimulatedUsers(world, 400, seed=11)
    users.start(np.arange(400))
    rng = np.random.default_rng(0)
    clicks = shown = 0
    for _ in range(20):
        o = users.step(rng.integers(0, 400, (400, 10)))
        clicks += int(o.clicks.sum())
        shown += int((o.shown >= 0).sum())
    assert shown > 50_000
    assert abs(clicks - p * shown) <= 4 * np.sqrt(p * (1 - p) * shown)


def test_positions_are_examined_as_often_as_declared() -> None:
    """With p = .5 the click rate at position k is .5 * decay^k."""
    world = flat_world(0.5, examination={"decay": 0.8})
    clicks, shown = np.zeros(10), np.zeros(10)
    users = SimulatedUsers(world, 400, seed=12)
    users.start(np.arange(400))
    rng = np.random.default_rng(0)
    for _ in range(20):
        o = users.step(rng.integers(0, 400, (400, 10)))
        clicks += o.clicks.sum(axis=0)
        shown += (o.shown >= 0).sum(axis=0)
    p = 0.5 * 0.8 ** np.arange(10)
    assert (np.abs(clicks - p * shown) <= 4.5 * np.sqrt(p * (1 - p) * shown)).all()


def test_a_cascade_without_continuation_stops_at_the_first_click() -> None:
    world = flat_world(0.5, examination={"model": "cascade", "decay": 1.0, "continuation": 0.0})
    users = SimulatedUsers(world, 400, seed=13)
    users.start(np.arange(400))
    first = users.step(np.random.default_rng(0).permuted(np.tile(np.arange(400), (400, 1)), axis=1)[:, :10]).clicks
    assert first.sum(axis=1).max() == 1
    assert abs(first.any(axis=1).mean() - (1 - 0.5**10)) < 0.05


def test_top_k_is_the_sorted_scores_without_what_is_blocked() -> None:
    rng = np.random.default_rng(0)
    for n, items, width, k in ((1, 5, 3, 7), (9, 131, 20, 7), (70, 2_100, 33, 10)):
        vectors = rng.standard_normal((items, width)).astype(np.float32)
        bias = rng.standard_normal(items).astype(np.float32)
        users = rng.standard_normal((n, width)).astype(np.float32)
        mask = rng.random((n, items)) < 0.3
        scores = (users.astype(np.float64) @ vectors.T.astype(np.float64) + bias).astype(np.float32)
        scorer = ItemScorer(vectors, bias)
        assert np.allclose(scorer.scores(users), scores, atol=1e-4)
        found = scorer.top_k(users, k, blocked=pack_mask(mask))
        for u in range(n):
            allowed = np.flatnonzero(~mask[u])
            best = allowed[np.argsort(-scores[u, allowed], kind="stable")][:k]
            assert found[u, : len(best)].tolist() == best.tolist()
            assert (found[u, len(best) :] == -1).all()
        alone = np.array([scorer.top_k(users[u : u + 1], k, blocked=pack_mask(mask[u : u + 1]))[0] for u in range(n)])
        assert np.array_equal(alone, found)


def test_equal_scores_go_to_the_smaller_number() -> None:
    scorer = ItemScorer(np.zeros((100, 4), np.float32))
    assert scorer.top_k(np.ones((3, 4), np.float32), 5).tolist() == [[0, 1, 2, 3, 4]] * 3


def _sixteenth(rng: np.random.Generator, n_items: int) -> NDArray[np.float32]:
    """The best items are all in one lane, so that hardly any are below the limit that the lanes give."""
    return (rng.permutation(n_items) + n_items * (np.arange(n_items) % 16 == 3)).astype(np.float32)


@pytest.mark.parametrize(
    "bias_of",
    [
        pytest.param(lambda rng, n: rng.permutation(n), id="all different"),
        pytest.param(lambda rng, n: np.arange(n), id="better and better"),
        pytest.param(lambda rng, n: rng.integers(0, n // 3 + 1, n), id="some equal"),
        pytest.param(lambda rng, n: rng.integers(0, 3, n), id="most equal"),
        pytest.param(_sixteenth, id="all in one lane"),
        pytest.param(lambda rng, n: np.where(rng.random(n) < 0.3, np.nan, rng.permutation(n)), id="some NaN"),
        pytest.param(lambda rng, n: np.where(np.arange(n) >= n - 12, np.nan, rng.permutation(n)), id="the last NaN"),
        pytest.param(lambda rng, n: np.where(rng.random(n) < 0.5, np.inf, rng.permutation(n)), id="some infinite"),
    ],
)
@pytest.mark.parametrize("n_items", [9, 40, 1_000, 2_049, 5_000])
@pytest.mark.parametrize("k", [1, 10, 16, 17, 40])
def test_the_best_items_are_found_however_the_scores_lie(bias_of: Any, n_items: int, k: int) -> None:
    rng = np.random.default_rng(n_items + k)
    bias = np.asarray(bias_of(rng, n_items), np.float32)
    mask = rng.random((6, n_items)) < np.array([0.0, 0.05, 0.5, 0.9, 0.999, 1.0])[:, None]
    scorer = ItemScorer(np.zeros((n_items, 1), np.float32), bias)
    for again in range(2):  # the scratch is used once more
        found = scorer.top_k(np.ones((6, 1), np.float32), k, blocked=pack_mask(mask))
        for u in range(6):
            allowed = np.flatnonzero(~mask[u] & ~np.isnan(bias))
            best = allowed[np.argsort(-bias[allowed], kind="stable")][:k]
            assert found[u].tolist() == [*best, *[-1] * (k - len(best))], (u, again)


def test_users_that_were_pickled_or_copied_say_who_is_done_as_they_go_on() -> None:
    users = SimulatedUsers(small_world(3, horizon=2), 40, seed=3)
    users.start(np.arange(40))
    slate = np.tile(np.arange(10), (40, 1))
    users.step(slate)
    others = [pickle.loads(pickle.dumps(users)), deepcopy(users)]
    expected = users.step(slate + 10)
    assert expected.done.all()  # the horizon
    for other in others:
        found = other.step(slate + 10)
        assert np.array_equal(found.done, expected.done)
        assert np.array_equal(found.left, expected.left)
        assert np.array_equal(found.clicks, expected.clicks)
