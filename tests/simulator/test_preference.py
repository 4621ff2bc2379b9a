"""The preference model: the user head is the MAP state, averaging and calibration fold in, seen rows are refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from simulator.errors import InputError, SeenRowsError
from simulator.log import Catalogue, Histories, InteractionLog, Split
from simulator.preference import Member, PreferenceModel, map_head, row_hashes
from simulator.preference.calibration import Rehearsed, calibrate
from simulator.preference.fitting import crossed_difference

N_ITEMS, DIM = 12, 3


def histories(lengths: list[int], rng: np.random.Generator) -> Histories:
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    item = rng.integers(0, N_ITEMS, start[-1])
    return Histories(start, item, rng.integers(0, 2, start[-1]).astype(np.float32))


def member(rng: np.random.Generator, dim: int = DIM, features: int = 0) -> Member:
    return Member(
        rng.normal(size=(N_ITEMS, dim)).astype(np.float32),
        rng.normal(size=N_ITEMS).astype(np.float32),
        rng.normal(size=features).astype(np.float32),
        np.concatenate([[2.0], np.ones(dim)]).astype(np.float32),
    )


def model(
    members: tuple[Member, ...], slope: float = 1.0, intercept: float = 0.0, seen: object = ()
) -> PreferenceModel:
    nobody = np.zeros(0, np.int64)
    return PreferenceModel.assemble(
        "two_tower", members, slope=slope, intercept=intercept, fitted_users=nobody, tuning_users=nobody,
        seen=np.array(seen, np.uint64), measures={},
    )  # fmt: skip


def log_of(user: list[int], item: list[int], time: list[float], liked: list[int], ids: str = "u") -> InteractionLog:
    n_users = max(user) + 1
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), ("",) * N_ITEMS, np.zeros((N_ITEMS, 0), np.float32), (),
        tuple(f"{ids}{k}" for k in range(n_users)), np.zeros((n_users, 0), np.float32), (),
    )  # fmt: skip
    return InteractionLog(
        np.array(user), np.array(item), np.array(time, float), np.array(liked, np.float32), catalogue, "made"
    )


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_the_user_head_finds_the_optimum_that_a_general_optimiser_finds(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = histories(lengths, rng)
    vectors, offset = (
        rng.normal(size=(N_ITEMS, DIM)).astype(np.float32),
        rng.normal(size=past.start[-1]).astype(np.float32),
    )
    precision = np.array([0.7, 1, 1, 2], np.float32)
    theta = map_head.newton_map(past.start, past.item, past.primary, vectors, offset, precision, steps=12)
    for u in range(len(lengths)):
        rows = slice(past.start[u], past.start[u + 1])
        design = np.column_stack([np.ones(lengths[u]), vectors[past.item[rows]]])

        def minus_log_posterior(t: np.ndarray, design: np.ndarray = design, rows: slice = rows) -> float:
            z = offset[rows] + design @ t
            return float(np.sum(np.logaddexp(0, z) - past.primary[rows] * z) + 0.5 * np.sum(precision * t**2))

        best = minimize(minus_log_posterior, np.zeros(DIM + 1), method="BFGS", options={"gtol": 1e-7})
        assert theta[u] == pytest.approx(best.x, abs=2e-3)
        if lengths[u] == 0:
            assert not theta[u].any()


def test_a_user_who_says_the_reverse_of_a_sure_offset_does_not_overshoot() -> None:
    """100 dislikes of items that everybody likes: two plain Newton steps end near 0, the optimum is below -6."""
    past = Histories(np.array([0, 100, 103]), np.zeros(103, np.int64), np.zeros(103, np.float32))
    vectors, offset = np.zeros((1, 0), np.float32), np.full(103, 5, np.float32)
    theta = map_head.newton_map(past.start, past.item, past.primary, vectors, offset, np.array([1], np.float32))
    grid = np.linspace(-12, 2, 14_001)
    best = grid[np.argmin(100 * np.logaddexp(0, 5 + grid) + 0.5 * grid**2)]
    assert theta[0, 0] == pytest.approx(best, abs=0.05)


def test_a_users_state_does_not_depend_on_who_is_folded_in_beside_them(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = histories([5, 0, 40, 1, 17, 3], rng)
    whole = member(rng).fold_in(past, np.zeros((6, 0), np.float32))
    monkeypatch.setattr(map_head, "CELLS", 20)
    rng = np.random.default_rng(20261125)
    past = histories([5, 0, 40, 1, 17, 3], rng)
    assert member(rng).fold_in(past, np.zeros((6, 0), np.float32)) == pytest.approx(whole, abs=1e-5)


def test_training_and_folding_in_use_the_same_head(rng: np.random.Generator) -> None:
    """The torch twin that is differentiated through gives the numpy states."""
    torch = pytest.importorskip("torch")
    from simulator.preference._two_tower import map_head as torch_head

    past, some = histories([4, 7, 0, 2], rng), member(rng)
    offset = some.item_offset[past.item]
    theta = map_head.newton_map(past.start, past.item, past.primary, some.item_vectors, offset, some.precision)
    longest = 7
    kept = np.arange(longest) < np.diff(past.start)[:, None]
    row = np.where(kept, past.start[:-1, None] + np.arange(longest), 0)
    design = np.concatenate([np.ones((4, longest, 1)), some.item_vectors[past.item[row]]], axis=2).astype(np.float32)
    arrays = (design, offset[row], past.primary[row], kept.astype(np.float32), some.precision)
    assert torch_head(*(torch.from_numpy(a) for a in arrays)).numpy() == pytest.approx(theta, abs=1e-4)


def test_the_model_is_the_calibrated_mean_of_its_members(rng: np.random.Generator) -> None:
    past, features = histories([4, 9, 0], rng), rng.normal(size=(3, 2)).astype(np.float32)
    members = (member(rng, 3, 2), member(rng, 5, 2))
    whole = model(members, slope=0.8, intercept=-0.3)
    states = whole.user_states(past, features)
    logit = states.vector @ whole.item_vectors.T + states.bias[:, None] + whole.item_bias
    each = []
    for one in members:
        theta = one.fold_in(past, features)
        each.append(theta[:, 1:] @ one.item_vectors.T + theta[:, :1] + one.item_offset)
    assert logit == pytest.approx(0.8 * np.mean(each, axis=0) - 0.3, abs=1e-4)
    who, item = np.array([2, 0]), np.array([1, 7])
    assert whole.logits(states, who, item) == pytest.approx(logit[who, item], abs=1e-5)


def test_public_features_move_a_user_without_history_by_their_weights(rng: np.random.Generator) -> None:
    one = member(rng, features=2)
    theta = one.fold_in(histories([0, 0], rng), np.array([[0, 0], [1, 2]], np.float32))
    assert theta[1, 0] - theta[0, 0] == pytest.approx(float(one.feature_weights @ [1, 2]), abs=1e-6)


def test_other_features_than_were_fitted_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="user_features: shape"):
        model((member(rng, features=2),)).user_states(histories([1], rng), np.zeros((1, 3), np.float32))


def test_a_bias_model_has_one_empty_dimension_for_the_kernel(rng: np.random.Generator) -> None:
    whole = model((member(rng, dim=0),))
    states = whole.user_states(histories([3], rng), np.zeros((1, 0), np.float32))
    assert whole.item_vectors.shape == (N_ITEMS, 1)
    assert states.vector.shape == (1, 1)
    assert not whole.item_vectors.any()


def test_a_model_is_numpy_alone_when_it_is_moved(rng: np.random.Generator) -> None:
    stored = pickle.dumps(model((member(rng),)))
    assert b"torch" not in stored
    assert np.array_equal(
        pickle.loads(stored).item_vectors, model((member(np.random.default_rng(20261125)),)).item_vectors
    )


LOG = log_of([0, 0, 0, 1, 1, 1], [3, 4, 5, 3, 4, 5], [1, 2, 3, 1, 2, 3], [1, 0, 1, 0, 1, 0])
SPLIT = Split(np.array([0, 2], np.int8), np.zeros(2, bool), np.array([False, True, True, False, True, True]))


def test_predict_takes_early_rows_as_history_and_scores_late_ones(rng: np.random.Generator) -> None:
    whole = model((member(rng),), intercept=0.2)
    p = whole.predict(LOG, SPLIT, np.array([4, 1]))
    states = whole.user_states(SPLIT.histories(LOG, np.array([0, 1])), np.zeros((2, 0), np.float32))
    logit = np.array([states.vector[u] @ whole.item_vectors[4] + states.bias[u] + whole.item_bias[4] for u in (1, 0)])
    assert p == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_pairs_outside_the_log_are_predicted_from_the_same_history_and_pairs_of_the_history_refused(
    rng: np.random.Generator,
) -> None:
    whole = model((member(rng),), intercept=0.2)
    rows = np.array([4, 1])
    assert np.array_equal(
        whole.predict_pairs(LOG, SPLIT, LOG.user[rows], LOG.item[rows]), whole.predict(LOG, SPLIT, rows)
    )
    with pytest.raises(SeenRowsError, match="met item"):
        whole.predict_pairs(LOG, SPLIT, np.array([0, 1]), np.array([5, 3]))


def test_scoring_a_row_that_was_fitted_or_is_history_raises(rng: np.random.Generator) -> None:
    whole = model((member(rng),), seen=row_hashes(LOG)[[1]])
    with pytest.raises(SeenRowsError, match="row 1 "):
        whole.predict(LOG, SPLIT, np.array([1, 2]))
    with pytest.raises(SeenRowsError, match="part of its user's history"):
        whole.predict(LOG, SPLIT, np.array([0]))
    assert whole.predict(LOG, SPLIT, np.array([2, 4])).shape == (2,)


def test_a_seen_row_is_known_again_in_another_reading_of_the_log() -> None:
    """Without the first user and with the items in another order all indices differ; the ids are what counts."""
    whole = log_of([0, 1, 1, 2], [2, 3, 4, 3], [5, 1, 2, 1], [1, 1, 0, 1])
    names = replace(whole.catalogue, item_ids=whole.catalogue.item_ids[::-1], user_ids=("u1", "u2"))
    part = replace(
        whole, user=whole.user[1:] - 1, item=N_ITEMS - 1 - whole.item[1:], time=whole.time[1:],
        primary=whole.primary[1:], catalogue=names,
    )  # fmt: skip
    assert np.array_equal(row_hashes(part), row_hashes(whole)[1:])


def test_rows_differ_by_user_item_time_and_repeat() -> None:
    log = log_of([0, 0, 0, 0, 1], [3, 3, 3, 4, 3], [1, 1, 2, 1, 1], [1, 0, 1, 0, 1])
    assert len(set(row_hashes(log).tolist())) == 5
    without_time = log_of([0, 0, 0, 0, 1], [3, 3, 3, 4, 3], [np.nan] * 5, [1, 0, 1, 0, 1])
    assert len(set(row_hashes(without_time).tolist())) == 5


def calibration_log(rng: np.random.Generator, n_users: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth: logit .5 z - .7, and a mood of standard deviation 1 for each user that the model does not know."""
    user = np.repeat(np.arange(n_users), rows)
    z = rng.normal(size=len(user))
    p = 1 / (1 + np.exp(-(0.5 * z - 0.7 + rng.normal(size=n_users)[user])))
    return z, (rng.random(len(user)) < p).astype(np.float32), user


def test_calibration_on_many_users_recovers_what_a_model_got_wrong(rng: np.random.Generator) -> None:
    """8,000 users leave standard errors near .01; the mood flattens .5 and -.7 to .43 and -.6."""
    found = calibrate(*calibration_log(rng, 8_000, 20))
    assert found.slope == pytest.approx(0.43, abs=0.08)
    assert found.intercept == pytest.approx(-0.6, abs=0.08)


def test_calibration_counts_users_and_not_rows(rng: np.random.Generator) -> None:
    """30 users, whatever the number of their rows, say little about the intercept; rows as units would say -.6."""
    found = calibrate(*calibration_log(rng, 30, 400))
    assert -0.2 < found.intercept < 0
    z, outcome, user = calibration_log(rng, 2, 400)
    assert abs(calibrate(z, outcome, user).intercept) < 0.05


def test_calibration_on_a_handful_of_rows_stays_with_the_model() -> None:
    found = calibrate(np.array([3.0, -3.0, 2.0]), np.array([0, 1, 0], np.float32), np.array([0, 0, 1]))
    assert found.slope == pytest.approx(1, abs=0.02)
    assert found.intercept == pytest.approx(0, abs=0.02)


def test_rows_without_an_event_say_nothing_of_the_level(rng: np.random.Generator) -> None:
    """Their likelihood is best at minus infinity and looks certain there: predictions of .005 would become 1e-6."""
    z = rng.normal(-5, 0.3, 400)
    popularity = np.zeros(400, np.float32)
    nothing = np.zeros(400, np.float32)
    user = np.repeat(np.arange(40), 10)
    rehearsed = Rehearsed(z, nothing, user, popularity)
    assert abs(calibrate(z, nothing, user, popularity=popularity, rehearsed=rehearsed).intercept) < 0.05
    assert abs(calibrate(z, nothing, user % 8).intercept) < 0.05
    events = (rng.random(400) < 0.3).astype(np.float32)
    alone = calibrate(z + 4, events, user, popularity=popularity)
    assert calibrate(z + 4, events, user, popularity=popularity, rehearsed=rehearsed) == alone


def rehearsed_log(rng: np.random.Generator, n_users: int, rows: int = 20, **what: float) -> Rehearsed:
    """Later rows whose true logit is z - .3 + .2 popularity."""
    user = np.repeat(np.arange(n_users), rows)
    z, popularity = rng.normal(size=(2, len(user)))
    outcome = (rng.random(len(z)) < 1 / (1 + np.exp(-(z - 0.3 + 0.2 * popularity)))).astype(np.float32)
    return Rehearsed(z, outcome, user, popularity.astype(np.float32), **what)


def test_what_the_fitting_users_later_rows_lack_is_what_a_few_tuning_users_cannot_tell(
    rng: np.random.Generator,
) -> None:
    """340 fitting users know the level to .03; 38 tuning users without it stay near 0 (and their own luck)."""
    z, outcome, user = calibration_log(rng, 10, 20)
    popularity = rng.normal(size=len(z)).astype(np.float32)
    rehearsed = rehearsed_log(rng, 2_000)
    alone = calibrate(z, outcome, user, popularity=popularity)
    both = calibrate(z, outcome, user, popularity=popularity, rehearsed=rehearsed)
    assert (both.intercept, both.popularity) == pytest.approx((-0.3, 0.2), abs=0.07)
    assert abs(alone.intercept) < 0.1
    # The slope of a weaker model on fewer rows says little of the model's own.
    assert abs(both.slope - alone.slope) < 0.01
    farther = calibrate(z, outcome, user, popularity=popularity, rehearsed=replace(rehearsed, farther=1.25))
    assert farther.intercept == pytest.approx(1.25 * both.intercept, abs=0.02)


def test_a_rehearsal_is_shrunk_by_how_little_its_users_say(rng: np.random.Generator) -> None:
    z, outcome, user = calibration_log(rng, 10, 20)
    popularity = rng.normal(size=len(z)).astype(np.float32)
    found = [
        abs(calibrate(z, outcome, user, popularity=popularity, rehearsed=rehearsed_log(rng, n, 4)).intercept)
        for n in (5, 2_000)
    ]
    assert found[0] < 0.15 < 0.22 < found[1]


def test_what_rows_of_rare_items_lack_is_read_off_many_tuning_users_and_not_off_a_few(
    rng: np.random.Generator,
) -> None:
    n_users, rows = 4_000, 20
    user = np.repeat(np.arange(n_users), rows)
    z, popularity = rng.normal(size=(2, len(user)))
    popularity = popularity.astype(np.float32)
    outcome = (rng.random(len(z)) < 1 / (1 + np.exp(-(z - 0.2 + 0.3 * popularity)))).astype(np.float32)
    found = calibrate(z, outcome, user, popularity=popularity)
    assert (found.slope, found.popularity) == pytest.approx((1, 0.3), abs=0.03)
    few = user < 3
    assert abs(calibrate(z[few], outcome[few], user[few], popularity=popularity[few]).popularity) < 0.08


def test_the_calibration_of_popularity_stands_in_the_item_biases(rng: np.random.Generator) -> None:
    plain = model((member(rng), member(rng)))
    shift = rng.normal(size=N_ITEMS).astype(np.float32)
    moved = PreferenceModel.assemble(
        "two_tower", plain.members, slope=plain.slope, intercept=plain.intercept, item_shift=shift,
        fitted_users=plain.fitted_users, tuning_users=plain.tuning_users, seen=plain.seen, measures={},
    )  # fmt: skip
    assert moved.item_bias == pytest.approx(plain.item_bias + shift, abs=1e-6)
    assert np.array_equal(moved.item_vectors, plain.item_vectors)


def test_fine_tunings_gain_is_scored_on_users_who_did_not_choose_the_pass() -> None:
    """Pure noise: choosing and scoring on the same users would report what the longer search found by luck."""
    control = np.array([[1.0, 5.0, 1.0, 5.0], [4.0, 2.0, 4.0, 2.0]])
    tuned = np.array([[2.0, 6.0, 2.0, 6.0], [9.0, 1.0, 9.0, 1.0]])
    # Users 0 and 2 are scored at the pass that is best for 1 and 3 (the second on both sides), and the reverse.
    assert crossed_difference(control, tuned).tolist() == [4 - 9, 5 - 6, 4 - 9, 5 - 6]
