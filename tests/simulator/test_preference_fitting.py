"""Fitting: a known truth is found, other users do not leak in, equal seeds give equal bits, and any log will do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.datasets import DataSettings, load_dataset
from simulator.encoders import resolve_encoder
from simulator.errors import InputError
from simulator.log import HELD_OUT, JUDGE, WORLD_A, Catalogue, InteractionLog, Split, split_users
from simulator.preference import (
    PreferenceModel,
    PreferenceSettings,
    TextTower,
    TuningSettings,
    fine_tune,
    fit_preference,
    references,
)
from simulator.preference.problem import build_problem
from simulator.preference.references import fit_matrix_factorisation
from tests.simulator.small_world import small_log

N_USERS, N_ITEMS, ROWS = 600, 60, 30
QUICK = PreferenceSettings(members=1, dims=(8,), epochs=25, patience=5, vector_penalty=10)
GENRES = ("a quiet love story", "war and battle", "funny animals for children", "murder and detectives")


def made_log(*, features: int = 1) -> tuple[InteractionLog, np.ndarray]:
    """A log of known probabilities: item quality, user mood, a taste for each genre, and an effect of one feature."""
    rng = np.random.default_rng(5)
    genre = rng.integers(0, len(GENRES), N_ITEMS)
    quality, mood = rng.normal(0, 1, N_ITEMS), rng.normal(0, 0.7, N_USERS)
    taste = rng.normal(0, 1.5, (N_USERS, len(GENRES)))
    seen = rng.normal(size=(N_USERS, features)).astype(np.float32)
    user = np.repeat(np.arange(N_USERS), ROWS)
    item = np.concatenate([rng.choice(N_ITEMS, ROWS, replace=False) for _ in range(N_USERS)])
    logit = quality[item] + mood[user] + taste[user, genre[item]] + 0.8 * seen.sum(1)[user]
    p = 1 / (1 + np.exp(-logit))
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(N_ITEMS)), tuple(f"film {k}: {GENRES[g]}" for k, g in enumerate(genre)),
        np.zeros((N_ITEMS, 0), np.float32), (), tuple(f"u{k}" for k in range(N_USERS)), seen,
        tuple(f"f{k}" for k in range(features)),
    )  # fmt: skip
    liked = (rng.random(len(user)) < p).astype(np.float32)
    return InteractionLog(user, item, np.tile(np.arange(ROWS, dtype=float), N_USERS), liked, catalogue, "made"), p


@pytest.fixture(scope="module")
def root() -> np.random.SeedSequence:
    return np.random.SeedSequence(7)


@pytest.fixture(scope="module")
def made() -> tuple[InteractionLog, np.ndarray]:
    return made_log()


@pytest.fixture(scope="module")
def split(made: tuple[InteractionLog, np.ndarray], root: np.random.SeedSequence) -> Split:
    return split_users(made[0], root)


@pytest.fixture(scope="module")
def tower(made: tuple[InteractionLog, np.ndarray], split: Split, root: np.random.SeedSequence) -> TextTower:
    return fine_tune(made[0], split, WORLD_A, QUICK.model_copy(update={"adaptation": "frozen"}), root)


@pytest.fixture(scope="module")
def fitted(
    made: tuple[InteractionLog, np.ndarray], split: Split, tower: TextTower, root: np.random.SeedSequence
) -> dict[str, PreferenceModel]:
    return {
        name: fit_preference(made[0], split, WORLD_A, tower, QUICK, root, architecture=name)
        for name in ("two_tower", "matrix_factorisation", "bias")
    }


def loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def same(a: PreferenceModel, b: PreferenceModel) -> bool:
    return np.array_equal(a.item_vectors, b.item_vectors) and np.array_equal(a.item_bias, b.item_bias)


def test_on_a_log_of_known_probabilities_each_model_finds_what_its_form_can(
    made: tuple[InteractionLog, np.ndarray], split: Split, fitted: dict[str, PreferenceModel]
) -> None:
    """Held-out users. The truth loses .46, the base rate .69; taste by genre is beyond a bias model."""
    log, p = made
    rows = split.rows(log, split.users(HELD_OUT), late=True)
    y = log.primary[rows]
    found = {name: loss(model.predict(log, split, rows), y) for name, model in fitted.items()}
    truth, base = loss(p[rows], y), loss(np.full(len(rows), y.mean()), y)
    assert truth + 0.01 < found["two_tower"] < found["bias"] - 0.02
    assert found["two_tower"] < found["matrix_factorisation"] < found["bias"] - 0.01 < base - 0.04
    predicted = fitted["two_tower"].predict(log, split, rows)
    assert y.sum() / predicted.sum() == pytest.approx(1, abs=0.08)


def test_hidden_rows_take_no_part_in_the_state_that_predicts_them(
    made: tuple[InteractionLog, np.ndarray], split: Split, root: np.random.SeedSequence
) -> None:
    """Coin flips cannot be foretold: nothing below ln 2 = .693. A user's state that saw its targets would reach .67."""
    import torch

    from simulator.encoders.tuning import one_thread
    from simulator.preference import _two_tower as towers
    from simulator.preference.problem import build_problem

    log = made[0]
    flips = np.random.default_rng(1).integers(0, 2, len(log)).astype(np.float32)
    problem = build_problem(replace(log, primary=flips), split, WORLD_A)
    with one_thread(1):
        trained = towers.train(
            problem, torch.zeros(N_ITEMS, 0), QUICK, np.random.default_rng(2), dim=4, learning_rate=1e-4, epochs=3,
            patience=None,
        )  # fmt: skip
    assert min(trained.training) > 0.69


def test_public_features_help_users_without_history(
    made: tuple[InteractionLog, np.ndarray], fitted: dict[str, PreferenceModel]
) -> None:
    """The true effect is .8; ridge and calibration shrink it a little."""
    assert 0.4 < fitted["two_tower"].members[0].feature_weights[0] < 1.0


def test_rows_of_other_users_and_late_rows_change_nothing(
    made: tuple[InteractionLog, np.ndarray], split: Split, tower: TextTower, root: np.random.SeedSequence
) -> None:
    """Turn over every outcome that the model must not see; the model stays the same to the last bit."""
    log = made[0]
    fitting, tuning = split.users(WORLD_A, tuning=False), split.users(WORLD_A, tuning=True)
    may_see = (np.isin(log.user, fitting) & ~split.late) | np.isin(log.user, tuning)
    turned = replace(log, primary=np.where(may_see, log.primary, 1 - log.primary).astype(np.float32))
    few = QUICK.model_copy(update={"epochs": 3})
    for name in ("two_tower", "bias"):
        one = fit_preference(log, split, WORLD_A, tower, few, root, architecture=name)
        other = fit_preference(turned, split, WORLD_A, tower, few, root, architecture=name)
        assert same(one, other)
    assert not same(fit_preference(turned, split, JUDGE, tower, few, root), one)


def test_equal_seeds_give_equal_bits_and_bootstrap_refits_differ(
    made: tuple[InteractionLog, np.ndarray], split: Split, tower: TextTower, root: np.random.SeedSequence
) -> None:
    few = QUICK.model_copy(update={"epochs": 3, "members": 2, "refit_members": 1})
    one, again = (fit_preference(made[0], split, JUDGE, tower, few, root) for _ in range(2))
    assert same(one, again)
    assert not same(one, fit_preference(made[0], split, JUDGE, tower, few, np.random.SeedSequence(8)))
    refits = [fit_preference(made[0], split, JUDGE, tower, few, root, bootstrap=b) for b in (1, 2, 1)]
    assert same(refits[0], refits[2])
    assert not same(refits[0], refits[1])
    assert len(one.members) == 2
    assert len(refits[0].members) == 1
    assert set(refits[0].fitted_users) < set(one.fitted_users)
    assert set(refits[0].fitted_users) != set(refits[1].fitted_users)


def test_the_fitted_rows_are_those_of_the_roles_fitting_users(
    made: tuple[InteractionLog, np.ndarray], split: Split, fitted: dict[str, PreferenceModel]
) -> None:
    model = fitted["bias"]
    fitting, tuning = split.users(WORLD_A, tuning=False), split.users(WORLD_A, tuning=True)
    assert np.array_equal(model.fitted_users, fitting)
    assert np.array_equal(model.tuning_users, tuning)
    early, late = (len(split.rows(made[0], fitting, late=late)) for late in (False, True))
    assert len(model.seen) == early + len(split.rows(made[0], tuning, late=True)) + len(
        split.rows(made[0], tuning, late=False)
    )
    assert late > 0


def test_a_log_without_text_features_or_time_is_fitted_from_its_ids(root: np.random.SeedSequence) -> None:
    log, _ = made_log(features=0)
    log = replace(log, time=np.full(len(log), np.nan), catalogue=replace(log.catalogue, item_text=("",) * N_ITEMS))
    split = split_users(log, root)
    tower = fine_tune(log, split, WORLD_A, QUICK, root)
    assert tower.chosen == "ids only"
    model = fit_preference(log, split, WORLD_A, tower, QUICK, root)
    rows = split.rows(log, split.users(HELD_OUT), late=True)
    y = log.primary[rows]
    assert loss(model.predict(log, split, rows), y) < loss(np.full(len(rows), y.mean()), y) - 0.02


def test_a_log_of_a_dozen_users_can_be_fitted(root: np.random.SeedSequence) -> None:
    log, _ = made_log()
    few = log.user < 12
    catalogue = replace(
        log.catalogue, user_ids=log.catalogue.user_ids[:12], user_features=log.catalogue.user_features[:12]
    )
    log = replace(
        log, user=log.user[few], item=log.item[few], time=log.time[few], primary=log.primary[few], catalogue=catalogue
    )
    split = split_users(log, root)
    for name in ("two_tower", "matrix_factorisation", "bias"):
        tower = TextTower(np.zeros((N_ITEMS, 0), np.float32), "ids only")
        model = fit_preference(log, split, WORLD_A, tower, QUICK, root, architecture=name)
        rows = split.rows(log, split.users(HELD_OUT), late=True)
        assert np.isfinite(model.predict(log, split, rows)).all()


def test_a_large_log_is_fitted_on_all_rows_with_strengths_chosen_on_some(
    made: tuple[InteractionLog, np.ndarray],
    split: Split,
    root: np.random.SeedSequence,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 'large' put at a third of this log's rows, the loss stays within .01 of the fit that chose on all rows."""
    log, _ = made
    whole = build_problem(log, split, WORLD_A)
    plain = fit_matrix_factorisation(whole, 4, np.random.default_rng(1))
    monkeypatch.setattr(references, "LARGE", len(whole.histories.item) // 3)
    monkeypatch.setattr(references, "ROWS_AT_ONCE", 1_000)
    few = references._for_choosing(whole, np.random.default_rng(1))
    assert 0 < len(few.histories.item) <= len(whole.histories.item) // 3
    assert np.array_equal(log.item[few.rows], few.histories.item)
    assert np.array_equal(log.item[few.target_rows], few.target_item)
    assert np.array_equal(log.user[few.target_rows], few.tuning_users[few.target_user])
    found = fit_matrix_factorisation(whole, 4, np.random.default_rng(1))
    assert found.loss < plain.loss + 0.01
    assert np.count_nonzero(found.member.item_vectors.any(axis=1)) == np.count_nonzero(plain.member.item_vectors.any(1))


def test_an_unknown_architecture_names_the_nearest(
    made: tuple[InteractionLog, np.ndarray], split: Split, tower: TextTower, root: np.random.SeedSequence
) -> None:
    with pytest.raises(InputError, match="did you mean 'two_tower'"):
        fit_preference(made[0], split, WORLD_A, tower, QUICK, root, architecture="two_towers")


def test_progress_rises_to_one(
    made: tuple[InteractionLog, np.ndarray], split: Split, tower: TextTower, root: np.random.SeedSequence
) -> None:
    told: list[float] = []
    few = QUICK.model_copy(update={"epochs": 3, "members": 2})
    fit_preference(made[0], split, WORLD_A, tower, few, root, progress=lambda done, words: told.append(done))
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize("learning_rate", [3e-4, 0.3])
def test_fine_tuning_keeps_the_better_side(
    made: tuple[InteractionLog, np.ndarray],
    split: Split,
    tower: TextTower,
    root: np.random.SeedSequence,
    learning_rate: float,
) -> None:
    """Heads that have only begun, so both sides get better; a rate of .3 ruins the encoder and the control wins."""
    tuning = TuningSettings(epochs=2, top_layers=1, learning_rate=learning_rate)
    tuned = fine_tune(made[0], split, WORLD_A, QUICK.model_copy(update={"epochs": 1, "tuning": tuning}), root)
    control, encoder = (min(row[side] for row in tuned.curve) for side in ("control", "fine-tuned"))
    assert control != encoder
    assert tuned.chosen == ("fine-tuned" if encoder < control else "pretrained")
    assert np.array_equal(tuned.vectors, tower.vectors) == (tuned.chosen == "pretrained")
    assert tuned.gain is not None
    assert len(tuned.gain.difference) == len(split.users(WORLD_A, tuning=True))
    assert np.linalg.norm(tuned.vectors, axis=1) == pytest.approx(1, abs=1e-4)
    if learning_rate > 0.1:
        assert tuned.chosen == "pretrained"


def test_fine_tuning_sees_its_own_users_only(
    made: tuple[InteractionLog, np.ndarray], split: Split, root: np.random.SeedSequence
) -> None:
    settings = QUICK.model_copy(update={"epochs": 1, "tuning": TuningSettings(epochs=1, top_layers=1)})
    other = split.role[made[0].user] != WORLD_A
    turned = replace(made[0], primary=np.where(other, 1 - made[0].primary, made[0].primary).astype(np.float32))
    one, again = (fine_tune(log, split, WORLD_A, settings, root) for log in (made[0], turned))
    assert one.curve == again.curve
    assert one.curve[1]["control"] != one.curve[1]["fine-tuned"]
    assert np.array_equal(one.vectors, again.vectors)


@pytest.mark.parametrize(("kind", "can"), [("bert", True), ("distilbert", True), ("mpnet", False)])
def test_any_bert_in_a_folder_can_be_tuned_and_another_says_so(
    made: tuple[InteractionLog, np.ndarray],
    split: Split,
    root: np.random.SeedSequence,
    tmp_path: Path,
    kind: str,
    can: bool,
) -> None:
    """Tiny encoders with random weights; MPNet hands a position bias from layer to layer and cannot be cut so."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_encoder("minilm", Path()))
    size = {"vocab_size": tokenizer.vocab_size + 8, "max_position_embeddings": 80}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32, **size)
    else:
        kinds = {"bert": transformers.BertConfig, "mpnet": transformers.MPNetConfig}
        config = kinds[kind](
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=0.5,
            **size,
        )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    settings = QUICK.model_copy(
        update={"encoder": "tiny", "epochs": 1, "tuning": TuningSettings(epochs=1, top_layers=2, learning_rate=1e-3)}
    )
    if can:
        tower = fine_tune(made[0], split, WORLD_A, settings, root, folder=tmp_path)
        assert tower.vectors.shape == (N_ITEMS, 16)
        assert tower.curve[1]["control"] != tower.curve[1]["fine-tuned"]
    else:
        with pytest.raises(InputError, match="'top_layers' cannot cut 'tiny'"):
            fine_tune(made[0], split, WORLD_A, settings, root, folder=tmp_path)


def rare_is_poor_log() -> tuple[InteractionLog, np.ndarray, np.ndarray]:
    """Items met by a few users up to hundreds, liked the more the more they are met; else users and items are alike."""
    rng = np.random.default_rng(11)
    n_users, n_items, rows = 500, 500, 25
    weight = np.exp(-0.012 * np.arange(n_items))
    noise = rng.gumbel(size=(n_users, n_items)) + np.log(weight)
    item = np.argsort(-noise, axis=1)[:, :rows]
    item = rng.permuted(item, axis=1).ravel()
    appeal = 0.6 * np.log(weight) + 1.8 + rng.normal(0, 0.5, n_items)
    p = 1 / (1 + np.exp(-appeal[item]))
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(n_items)), ("",) * n_items, np.zeros((n_items, 0), np.float32), (),
        tuple(f"u{k}" for k in range(n_users)), np.zeros((n_users, 0), np.float32), (),
    )  # fmt: skip
    user, time = np.repeat(np.arange(n_users), rows), np.tile(np.arange(rows, dtype=float), n_users)
    return InteractionLog(user, item, time, (rng.random(len(p)) < p).astype(np.float32), catalogue, "made"), p, weight


@pytest.mark.parametrize("architecture", ["two_tower", "matrix_factorisation", "bias"])
def test_rarely_met_items_that_are_liked_less_are_predicted_so(root: np.random.SeedSequence, architecture: str) -> None:
    """The rarest fifth of held-out rows: with a common prior mean the predictions are a sixth too high."""
    log, p, weight = rare_is_poor_log()
    split = split_users(log, root)
    tower = TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
    settings = PreferenceSettings(members=1, dims=(4,), factors=4)
    model = fit_preference(log, split, JUDGE, tower, settings, root, architecture=architecture)
    rows = split.rows(log, split.users(HELD_OUT), late=True)
    order = np.argsort(weight[log.item[rows]], kind="stable")
    rare = rows[order[: len(rows) // 5]]
    assert p[rare].sum() / model.predict(log, split, rare).sum() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("architecture", ["two_tower", "bias"])
def test_an_item_that_nobody_met_is_no_rare_item(root: np.random.SeedSequence, architecture: str) -> None:
    """Met by the judge's users alone, an item is rare to world A and starts below the rest; met by nobody, not."""
    log, _, _ = rare_is_poor_log()
    catalogue, n_items = log.catalogue, log.catalogue.n_items
    items = replace(
        catalogue, item_ids=(*catalogue.item_ids, "new", "rare"), item_text=("",) * (n_items + 2),
        item_categories=np.zeros((n_items + 2, 0), np.float32),
    )  # fmt: skip
    split = split_users(log, root)
    first = np.flatnonzero(log.user == split.users(JUDGE)[0])[0]
    item = log.item.copy()
    item[first] = n_items + 1
    log = replace(log, item=item, catalogue=items)
    assert not split.late[first]
    tower = TextTower(np.zeros((n_items + 2, 0), np.float32), "ids only")
    settings = PreferenceSettings(members=1, dims=(4,))
    model = fit_preference(log, split, WORLD_A, tower, settings, root, architecture=architecture)
    fitted = build_problem(log, split, WORLD_A).histories.item
    assert not np.isin([n_items, n_items + 1], fitted).any()
    usual = model.item_bias[fitted].mean()
    assert model.item_bias[n_items] == pytest.approx(usual, abs=0.25)
    assert model.item_bias[n_items + 1] < usual - 1


def lower_limit(difference: np.ndarray, user: np.ndarray) -> float:
    """Lower end of the 95 % interval of a mean over rows, users being the units."""
    total, rows = np.bincount(user, difference), np.bincount(user)
    value, n = total.sum() / rows.sum(), len(rows)
    return float(value - 1.98 * np.sqrt(n / (n - 1) * np.sum((total - value * rows) ** 2)) / rows.sum())


@pytest.mark.slow
def test_on_movielens_the_text_model_beats_both_references_on_unseen_rows(root: np.random.SeedSequence) -> None:
    """World A on the frozen encoder: gains over biases and factors, on future rows and on held-out users."""
    log = load_dataset(DataSettings(source="ml-100k"), Path())
    split = split_users(log, root)
    settings = PreferenceSettings(adaptation="frozen", members=2)
    tower = fine_tune(log, split, WORLD_A, settings, root)
    text, factors, bias = (
        fit_preference(log, split, WORLD_A, tower, settings, root, architecture=name)
        for name in ("two_tower", "matrix_factorisation", "bias")
    )
    for users, at_least in ((split.users(WORLD_A, tuning=False), -0.003), (split.users(HELD_OUT), 0.0)):
        rows = split.rows(log, users, late=True)
        y, user = log.primary[rows], np.unique(log.user[rows], return_inverse=True)[1]
        losses = []
        for model in (text, factors, bias):
            p = model.predict(log, split, rows)
            losses.append(-(y * np.log(p) + (1 - y) * np.log(1 - p)))
            assert 0.9 < y.sum() / p.sum() < 1.1
        assert lower_limit(losses[2] - losses[0], user) > at_least
        assert lower_limit(losses[1] - losses[0], user) > 0


def test_with_hardly_an_outcome_among_the_tuning_users_the_strengths_are_chosen_on_the_fitting_users() -> None:
    """Nobody and nothing differs and 2 % of the rows are liked, none of the tuning users': they choose anything."""
    rng = np.random.default_rng(4)
    log = small_log(rng, users=300, items=130)
    log = replace(log, primary=(rng.random(len(log)) < 0.02).astype(np.float32))
    problem = build_problem(log, split_users(log, np.random.SeedSequence(2)), WORLD_A)
    problem = replace(problem, target=np.zeros_like(problem.target))
    folds = references._choosing(problem, np.random.default_rng(0))
    assert sum(len(fold.tuning) for fold in folds) == len(problem.histories)
    for fold in folds:
        assert np.array_equal(log.item[fold.rows], fold.histories.item)
        assert np.array_equal(log.item[fold.target_rows], fold.target_item)
        assert not np.isin(log.user[fold.target_rows], log.user[fold.rows]).any()
        assert len(np.unique(log.user[fold.target_rows])) == len(np.unique(fold.target_user))
    found = references.fit_bias(problem, np.random.default_rng(0))
    assert min(found.chosen["user_ridge"], found.chosen["item_ridge"]) >= 8
    assert np.ptp(found.member.item_offset - problem.popularity * found.chosen["popularity"]) < 0.5
