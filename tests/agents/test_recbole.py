"""RecBole's agents: our scores are RecBole's own, and a folded-in user is near the trained one.

Sabotaged once, each seen red: items numbered by RecBole instead of by the catalogue, disliked items counted as liked,
the fold-in's step taken with the wrong sign.
"""

from __future__ import annotations

import pickle
import sys
import threading
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from agents.base import AgentError, Observation
from agents.contract import check_slate
from agents.loading import resolve_kind
from agents.recbole import ByMatrix, ByNeighbours, FoldIn, RecBole, likes_of
from agents.recbole_training import (
    AT_ONCE,
    ENCODERS,
    READS,
    RecBoleSettings,
    contained,
    published,
    recbole_model,
    train_passes,
)
from agents.settings import AgentSettings
from simulator.errors import InputError
from simulator.log import InteractionLog, histories_of
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


def after_all_rows(world: World, log: InteractionLog, users: NDArray[np.int64]) -> Observation:
    """These users with their whole log as history."""
    items, feedback = histories_of(log, users, keep=np.ones(len(log), bool)).last(60)
    blank = observed(world, len(users))
    return replace(blank, history_items=items, history_feedback=feedback, candidates=None)


def full_sort(fitted: Any, users: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n, m] RecBole's own scores of these users for the items it knows, in the order of `fitted.known`."""
    import torch
    from recbole.data.interaction import Interaction

    asked = Interaction({"user_id": torch.as_tensor([fitted.users[int(user)] for user in users])})
    with torch.no_grad():
        scores = np.asarray(fitted.model.full_sort_predict(asked)).reshape(len(users), -1)
    return scores[:, fitted.known_rows].astype(np.float64)


@pytest.mark.parametrize("model", ["EASE", "ItemKNN"])
def test_item_models_score_as_recboles_own_full_sort(model: str, world_and_log: tuple[World, InteractionLog]) -> None:
    world, log = world_and_log
    settings = RecBoleSettings(model=model)
    agent = RecBole(settings)
    agent.fit(training_in(world, log))
    users = np.arange(0, 60, 3)
    ours = agent.scores(after_all_rows(world, log, users))
    with recbole_model(log, settings, 5) as fitted:
        train_passes(fitted, settings.epochs)
        theirs = full_sort(fitted, users)
        known = fitted.known
    assert len(known) > 0.9 * ITEMS
    np.testing.assert_allclose(ours[:, known], theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    assert theirs.std(axis=0).max() > 1e-3
    unknown = np.setdiff1d(np.arange(ITEMS), known)
    assert (ours[:, unknown] < theirs.min()).all()


def test_a_folded_in_user_is_ranked_as_bpr_ranks_the_user_it_was_taught(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    settings = RecBoleSettings(model="BPR", epochs=120, options={"train_batch_size": 256})
    agent = RecBole(settings)
    agent.fit(training_in(world, log))
    users = np.arange(60)
    ours = agent.scores(after_all_rows(world, log, users))
    with recbole_model(log, settings, 5) as fitted:
        train_passes(fitted, settings.epochs)
        theirs, known = full_sort(fitted, users), fitted.known
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours[:, known], theirs, strict=True)]
    others = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours[:, known], np.roll(theirs, 1, axis=0), strict=True)]
    assert np.mean(alike) > 0.75
    assert np.mean(alike) > np.mean(others) + 0.5


def test_a_fold_in_climbs_bprs_objective(rng: np.random.Generator) -> None:
    items, known = 0.3 * rng.standard_normal((40, 5)), np.arange(40)
    trained = rng.standard_normal((200, 5)) + 0.5
    fold = FoldIn.of(trained, items, known, 40)
    taste = trained[:20]
    chance = 1 / (1 + np.exp(-(taste @ items.T)))
    liked = (rng.random(chance.shape) < chance).astype(np.float32)
    observation = Observation(
        user_features=np.zeros((20, 0), np.float32),
        history_items=np.tile(known, (20, 1)),
        history_feedback=liked,
        context=np.zeros((20, 0), np.float32),
        candidates=None,
        step=np.zeros(20, np.int64),
        slate_size=3,
    )
    found = fold.user_vectors(likes_of(observation, 40)).astype(np.float64)
    precision = np.linalg.inv(np.cov(trained.T))

    def objective(user: NDArray[np.float64]) -> NDArray[np.float64]:
        margin = (user @ items.T)[:, :, None] - (user @ items.T)[:, None, :]
        won = -np.logaddexp(0, -margin).mean(axis=2)
        away = user - trained.mean(axis=0)
        return (won * liked).sum(axis=1) - 0.5 * np.einsum("ni,ij,nj->n", away, precision, away)

    start = np.repeat(trained.mean(axis=0)[None], 20, axis=0)
    assert (objective(found) > objective(start)).all()
    # One step is most of the way: going on along it, or stopping halfway, is worse for most.
    assert (objective(found) > objective(start + 0.3 * (found - start))).mean() > 0.8
    assert (objective(found) > objective(start + 2.0 * (found - start))).mean() > 0.8


def test_bpr_learns_pass_by_pass_as_in_one_go_and_keeps_to_its_budget(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    rows = int(log.primary.sum())
    points: list[int] = []
    training = replace(
        training_in(world, log, budget=round(10.2 * rows)), report=lambda steps, value: points.append(steps)
    )
    settings = RecBoleSettings(model="BPR", options={"train_batch_size": 256})
    agent = RecBole(settings)
    agent.fit(training)
    assert points[0] == 0
    assert points[-1] == 10 * rows
    assert len(points) == 9
    with recbole_model(log, settings, training.seed) as fitted:
        train_passes(fitted, 10)
        whole = fitted.model.item_embedding.weight.detach().numpy()[fitted.known_rows]
        known = fitted.known
    assert isinstance(agent._served, FoldIn)
    np.testing.assert_array_equal(agent._served.items[known], whole)


def test_a_setting_that_recbole_refuses_is_one_line(world_and_log: tuple[World, InteractionLog]) -> None:
    agent = RecBole(RecBoleSettings(model="BPR", options={"train_neg_sample_args": {"distribution": "no such"}}))
    with pytest.raises(AgentError, match="RecBole cannot train BPR") as caught:
        agent.fit(training_in(*world_and_log))
    assert "\n" not in str(caught.value)


def params_of(model: str, **params: Any) -> RecBoleSettings:
    found = resolve_kind(AgentSettings(name="one", kind=f"recbole:{model}", params=params), Path()).params
    assert isinstance(found, RecBoleSettings)
    assert RecBoleSettings.model_validate(found.model_dump()) == found  # as a run's completed scenario is read again
    return found


def test_options_win_over_what_differs_from_recboles_defaults_here(
    world_and_log: tuple[World, InteractionLog],
) -> None:
    world, log = world_and_log
    found = {}
    for reg in (None, 1.0):
        agent = RecBole(params_of("ease", options={} if reg is None else {"reg_weight": reg}))
        agent.fit(training_in(world, log))
        found[reg] = agent.scores(observed(world))
    direct = RecBole(params_of("EASE", reg=1.0))
    direct.fit(training_in(world, log))
    np.testing.assert_array_equal(found[1.0], direct.scores(observed(world)))
    assert np.abs(found[1.0] - found[None]).max() > 0.1


def test_passes_and_sizes_may_be_given_by_recboles_own_names(world_and_log: tuple[World, InteractionLog]) -> None:
    world, log = world_and_log
    points: list[int] = []
    training = replace(training_in(world, log), report=lambda steps, value: points.append(steps))
    agent = RecBole(params_of("BPR", options={"epochs": 2, "embedding_size": 5}))
    agent.fit(training)
    assert points[-1] == 2 * int(log.primary.sum())
    assert isinstance(agent._served, FoldIn)
    assert agent._served.items.shape[1] == 5
    with recbole_model(log, params_of("MacridVAE", options={"embedding_size": 8}), 1) as fitted:
        assert fitted.model.embedding_size == 8  # of an encoder no parameter of ours, whose default must not win


@pytest.mark.parametrize(
    ("model", "params", "expected"),
    [
        ("BPR", {"options": {"embeding_size": 2}}, "params.options: .*'embeding_size'.*did you mean 'embedding_size'"),
        ("BPR", {"options": {"no_such_key": 5}}, "'no_such_key' is no setting of RecBole's BPR; leave it out"),
        ("MultiVAE", {"options": {"embedding_size": 8}}, "'embedding_size' is no setting of RecBole's MultiVAE"),
        ("EASE", {"reg": 2.0, "options": {"reg_weight": 1.0}}, "'reg_weight' is params.reg, which is another"),
        ("BPR", {"options": {"epochs": -1}}, r"params\.epochs: -1 cannot be used"),
        ("BPR", {"reg": 0.1}, r"params\.reg: 0.1 cannot be used; it is no setting of RecBole's BPR"),
        ("SASRec", {"embedding_size": 8}, r"params\.embedding_size: 8 cannot be used"),
        ("GRU4Rec", {"options": {"eval_args": {}}}, "'eval_args' would change nothing"),
        ("BPR", {"options": {"user_inter_num_interval": "[12,inf)"}}, "'user_inter_num_interval' filters rows"),
        ("GRU4Rec", {"options": {"USER_ID_FIELD": "u"}}, "'USER_ID_FIELD' is set by this program"),
    ],
)
def test_an_option_that_would_be_dropped_is_refused_in_one_line(
    model: str, params: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        params_of(model, **params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [name for name, family in published().items() if family in READS])
def test_every_setting_that_recbole_has_a_default_for_is_an_option(model: str) -> None:
    import recbole

    path = Path(recbole.__file__).parent / "properties" / "model" / f"{model}.yaml"
    for name, value in (yaml.safe_load(path.read_text()) or {}).items() if path.is_file() else ():
        settings = params_of(model, options={name: value})
        assert settings.options == {name: value} or name in ("embedding_size", "reg_weight", "learning_rate", "epochs")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("EASE", r"computes all pairs of the \d+ items that were liked, and 400 pairs are the most, which is 20 items"),
        ("ADMMSLIM", "all pairs of the"),
        ("NeuMF", "knows users by number alone, and the scores of 60 users for 120 items"),
        ("AsymKNN", "knows users by number alone"),
    ],
)
def test_tables_that_would_be_too_large_are_refused_before_anything_is_built(
    model: str, expected: str, world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.recbole.MOST_PAIRS", 400)
    monkeypatch.setattr("agents.recbole.MOST_CELLS", 400)
    monkeypatch.setattr("agents.recbole.recbole_model", None)
    with pytest.raises(AgentError, match=expected) as caught:
        RecBole(RecBoleSettings(model=model)).fit(training_in(*world_and_log))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["Pop", "ItemKNN"])
def test_a_model_whose_table_is_small_is_served_where_a_large_one_would_be_refused(
    model: str, world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.recbole.MOST_PAIRS", 400)
    monkeypatch.setattr("agents.recbole.MOST_CELLS", 400)
    agent = RecBole(RecBoleSettings(model=model, options={"k": 5} if model == "ItemKNN" else {}))
    agent.fit(training_in(*world_and_log))
    if model == "ItemKNN":
        assert isinstance(agent._served, ByMatrix)
        assert isinstance(agent._served.similarity, csr_matrix)
        assert agent._served.similarity.nnz <= 5 * ITEMS
    else:
        likes = np.bincount(world_and_log[1].item, weights=world_and_log[1].primary, minlength=ITEMS)
        score = agent.scores(observed(world_and_log[0]))[0, agent._known]
        np.testing.assert_allclose(score, likes[agent._known] / likes.max(), rtol=1e-6)


def own_evaluation(fitted: Any, asked: Any) -> NDArray[np.float64]:
    """[n, m] what RecBole's own trainer computes when it evaluates over all items, in the order of `fitted.known`."""
    import torch

    trainer = fitted.trainer
    trainer.item_tensor, trainer.tot_item_num = fitted.dataset.get_item_feature(), fitted.dataset.item_num
    with torch.no_grad():
        scores = trainer._full_sort_batch_eval((asked, None, None, None))[1]
    return np.asarray(scores)[:, fitted.known_rows].astype(np.float64)


def quick_or_slow(quick: tuple[str, ...], slow: tuple[str, ...]) -> list[Any]:
    return [*quick, *(pytest.param(model, marks=pytest.mark.slow) for model in slow)]


@pytest.mark.parametrize(
    "model",
    quick_or_slow(
        ("Pop", "MultiVAE", "NeuMF", "DeepFM", "CFKG"),
        (
            "MultiDAE",
            "FM",
            "WideDeep",
            "CKE",
            "SLIMElastic",
            "DMF",
            "NGCF",
            "SGL",
            "SimpleX",
            "RecVAE",
            "MacridVAE",
            "AsymKNN",
            "xDeepFM",
            "NFM",
            "RippleNet",
        ),
    ),
)
def test_users_with_the_likes_of_a_trained_one_get_its_scores_in_recboles_own_evaluation(
    model: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    from recbole.data.interaction import Interaction

    world, log = world_and_log
    settings = RecBoleSettings(model=model, epochs=3)
    agent = RecBole(settings)
    agent.fit(training_in(world, log))
    users = np.arange(0, 60, 3)
    ours = pickle.loads(pickle.dumps(agent)).scores(after_all_rows(world, log, users))
    with recbole_model(log, settings, 5) as fitted:
        train_passes(fitted, 1 if settings.deterministic else settings.epochs)
        numbers = torch.as_tensor([fitted.users[int(user)] for user in users])
        theirs, known = own_evaluation(fitted, fitted.dataset.join(Interaction({"user_id": numbers}))), fitted.known
    np.testing.assert_allclose(ours[:, known], theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    assert theirs.std(axis=1).min() > 0
    assert model == "Pop" or theirs.std(axis=0).max() > 1e-6
    new = observed(world)
    check_slate(agent.act(new, np.random.default_rng(0)), new)


@pytest.mark.parametrize(
    "model", quick_or_slow(("GRU4Rec",), ("SASRec", "BERT4Rec", "NARM", "STAMP", "FPMC", "SASRecF", "SASRecCPR"))
)
def test_sequential_models_read_the_likes_in_order_and_score_as_recboles_own_evaluation(
    model: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    world, log = world_and_log
    settings = RecBoleSettings(model=model, epochs=2)
    agent = RecBole(settings)
    agent.fit(training_in(world, log))
    users = np.arange(0, 60, 3)
    before = after_all_rows(world, log, users)
    feedback = before.history_feedback.copy()
    for row in feedback:
        row[np.flatnonzero(row)[-1]] = 0.0  # RecBole's rows end with the like before the one to be foretold
    ours = pickle.loads(pickle.dumps(agent)).scores(replace(before, history_feedback=feedback))
    with recbole_model(log, settings, 5) as fitted:
        train_passes(fitted, settings.epochs)
        rows = fitted.dataset.inter_feat
        numbers, length = np.asarray(rows["user_id"]), np.asarray(rows["item_length"])
        last = [int(np.where(numbers == fitted.users[int(user)], length, -1).argmax()) for user in users]
        theirs, known = own_evaluation(fitted, rows[torch.as_tensor(last)]), fitted.known
    np.testing.assert_allclose(ours[:, known], theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    assert (
        np.abs(agent.scores(before) - ours)[:, known].max() > 1e-3 * np.abs(theirs).max()
    )  # one more like, as a session adds it
    new = observed(world)
    nothing = replace(new, history_feedback=np.zeros_like(new.history_feedback))
    check_slate(agent.act(nothing, np.random.default_rng(0)), nothing)


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("SASRec", {}, (20, 128)),
        ("GRU4Rec", {"MAX_ITEM_LIST_LENGTH": 7}, (7, 128)),
        ("SASRec", {"train_batch_size": 64}, (20, 64)),
        ("GRU4Rec", {"MAX_ITEM_LIST_LENGTH": 50, "train_batch_size": 2048}, (50, 2048)),
    ],
)
def test_sequential_models_read_twenty_likes_in_small_batches_unless_options_say_otherwise(
    model: str, options: dict[str, int], expected: tuple[int, int], world_and_log: tuple[World, InteractionLog]
) -> None:
    places, batch = expected
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    with recbole_model(world_and_log[1], params_of(model, options=options), 1) as fitted:
        assert fitted.dataset.inter_feat["item_id_list"].shape[1] == fitted.model.max_seq_length == places
        fitted.trainer.optimizer.register_step_post_hook(count)
        train_passes(fitted, 1)
        assert steps == -(-fitted.n_rows // batch)


def test_a_user_is_served_as_the_trained_ones_with_most_alike_likes() -> None:
    likes = csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32))
    table = np.array([[4, 0, 0, 0], [0, 8, 0, 0], [0, 0, 2, 0]], np.float32)
    history = np.array([[0, 1], [0, 2], [-1, -1]])
    blank = observed(taught_world()[0], 3)
    asked = replace(blank, history_items=history, history_feedback=(history >= 0).astype(np.float32), candidates=None)
    served = ByNeighbours(likes, table).scores(asked)
    np.testing.assert_allclose(served[0], table[0])
    first, second = 1 / 2, 1 / np.sqrt(2)  # cosines of {0, 2} with {0, 1} and with {2}
    np.testing.assert_allclose(served[1], (first * table[0] + second * table[1]) / (first + second), rtol=1e-6)
    np.testing.assert_allclose(served[2], table.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("model", ["CFKG", "DeepFM"])
def test_a_model_that_reads_categories_is_refused_where_the_log_has_none(
    model: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    world, log = world_and_log
    bare = replace(log, catalogue=replace(log.catalogue, item_categories=np.zeros_like(log.catalogue.item_categories)))
    with pytest.raises(AgentError, match=f"{model} reads the categories of items"):
        RecBole(RecBoleSettings(model=model)).fit(training_in(world, bare))


@pytest.mark.parametrize("model", quick_or_slow(("BPR",), ("LightGCN",)))
def test_the_vectors_that_users_are_folded_in_among_give_recboles_own_full_sort(
    model: str, world_and_log: tuple[World, InteractionLog]
) -> None:
    world, log = world_and_log
    settings = RecBoleSettings(model=model, epochs=3)
    agent = RecBole(settings)
    agent.fit(training_in(world, log))
    users = np.arange(0, 60, 3)
    with recbole_model(log, settings, 5) as fitted:
        train_passes(fitted, settings.epochs)
        theirs, known = full_sort(fitted, users), fitted.known
        numbers = [fitted.users[int(user)] for user in users]
        with torch.no_grad():
            vectors = fitted.model.forward()[0] if model == "LightGCN" else fitted.model.user_embedding.weight
            own = vectors[numbers].numpy()
    assert isinstance(agent._served, FoldIn)
    ours = own @ agent._served.items[known].T
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    assert theirs.std(axis=0).max() > 0
    new = observed(world)
    scores = agent.scores(new)
    assert np.isfinite(scores).all()
    assert scores[:, known].std(axis=0).max() > 0
    check_slate(agent.act(new, np.random.default_rng(0)), new)


@pytest.mark.parametrize("model", published())
def test_every_model_of_recbole_is_found_in_any_case_or_refused_in_one_line(model: str) -> None:
    kind = AgentSettings(name="one", kind=f"recbole:{model.lower()}")
    if published()[model] == "exlib_recommender":
        with pytest.raises(InputError, match=r"params\.model: .*boosted trees") as caught:
            resolve_kind(kind, Path())
        assert "\n" not in str(caught.value)
    else:
        params = resolve_kind(kind, Path()).params
        assert isinstance(params, RecBoleSettings)
        assert params.model == model


def test_importing_sequential_models_slows_nobody_down(world_and_log: tuple[World, InteractionLog]) -> None:
    """RecBole's SINE turns autograd's search for anomalies on when it is imported, for the whole process."""
    with contained():
        import_module("recbole.model.sequential_recommender.sine")
        torch.autograd.set_detect_anomaly(True)  # another test may have imported it before
        with recbole_model(world_and_log[1], RecBoleSettings(model="SASRec"), 1):
            assert not torch.is_anomaly_enabled()
        torch.autograd.set_detect_anomaly(True)
    assert not torch.is_anomaly_enabled()


@pytest.mark.slow
def test_what_is_known_of_recboles_models_without_importing_them_is_what_their_classes_say() -> None:
    from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
    from recbole.utils import ModelType, get_model

    with contained():
        classes = {name: get_model(name) for name in published()}
    for family in READS:
        exported = vars(import_module(f"recbole.model.{family}")).values()
        models = {one.__name__ for one in exported if isinstance(one, type) and issubclass(one, AbstractRecommender)}
        assert {name for name in models if published().get(name) != family} == set()
        assert len(models) >= 10
        own = {one.type for name, one in classes.items() if published()[name] == family}
        assert own <= {ModelType[family.partition("_")[0].upper()], ModelType.TRADITIONAL}
    assert {name for name, one in classes.items() if one.type == ModelType.TRADITIONAL} == {*AT_ONCE, "Random"}
    assert {name for name, one in classes.items() if issubclass(one, AutoEncoderMixin)} == {*ENCODERS, "CDAE"}
    trees = {name for name, one in classes.items() if one.type == ModelType.DECISIONTREE}
    assert trees == {name for name, family in published().items() if family not in READS}


@pytest.mark.parametrize(
    ("model", "without", "said"),
    [
        ("KGAT", "dgl", "ModuleNotFoundError: .*dgl"),
        pytest.param("NCL", "faiss", "ModuleNotFoundError: .*faiss", marks=pytest.mark.slow),
        ("GRU4RecKG", "", r"feature file .*\.ent"),
    ],
)
def test_a_model_that_lacks_what_it_reads_is_one_line(
    model: str, without: str, said: str, world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    if without:
        monkeypatch.setitem(sys.modules, without, None)
    with pytest.raises(AgentError, match=f"RecBole cannot train {model}: .*{said}") as caught:
        RecBole(RecBoleSettings(model=model, epochs=1)).fit(training_in(*world_and_log))
    assert "\n" not in str(caught.value)


def test_recbole_trains_without_a_thread_of_its_own_in_whatever_folder_is_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its TensorBoard wrote by a relative path every two minutes, and a training in another folder then failed."""
    before = set(threading.enumerate())
    with recbole_model(taught_world()[1], RecBoleSettings(model="BPR", epochs=1), seed=1) as fitted:
        assert set(threading.enumerate()) <= before
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(tmp_path)
            train_passes(fitted, 1)
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []
