"""The Q-network over BERT: vectors from text and log alone, a duelling network, and no transformer once it learns.

Sabotaged once, each seen red: items not centred in either twin, the catalogue's own vectors in place of the fitted,
every user's second half kept from fitting.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.base import AgentError
from agents.bert_items import everyone_teaches, item_vectors
from agents.bert_q import BertQ, BertQSettings
from agents.deep_rl import StateScale
from agents.features import fit_features
from agents.loading import AgentSettings, resolve_kind, train
from simulator.errors import InputError
from simulator.log import WORLD_A, InteractionLog
from simulator.world import World
from tests.agents.taught_world import observed, taught_world, training_in

WORDS = ("war", "love", "space", "horse", "crime", "music")


@pytest.fixture(scope="module")
def told() -> tuple[World, InteractionLog]:
    """The taught world, whose texts tell the strongest of an item's hidden directions."""
    world, log = taught_world()
    strongest = np.abs(world.item_vectors[:, :6]).argmax(axis=1)
    text = tuple(
        f"a film of {WORDS[k]}" if world.item_vectors[i, k] > 0 else f"a book without {WORDS[k]}"
        for i, k in enumerate(strongest)
    )
    catalogue = replace(log.catalogue, item_text=text, content=None)
    return world, replace(log, catalogue=catalogue)


def test_all_users_with_rows_teach_and_a_tenth_of_them_tunes(told: tuple[World, InteractionLog]) -> None:
    kept = told[1].user < 50  # the log names ten users who have no rows
    log = replace(told[1], **{name: getattr(told[1], name)[kept] for name in ("user", "item", "time", "primary")})
    split = everyone_teaches(log, np.random.SeedSequence(1))
    assert split.users(WORLD_A).tolist() == list(range(50))
    assert split.tuning.sum() == 5
    for user in range(50):
        late = split.late[log.user == user]
        half = len(late) // 2 + len(late) % 2
        assert not late[:half].any()
        assert (late[half:] == split.tuning[user]).all()


@pytest.mark.slow
def test_no_rehearsal_is_paid_for(told: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "simulator.preference.fitting.rehearse", lambda *given, **more: pytest.fail("a fit was rehearsed")
    )
    assert item_vectors(told[1], BertQSettings(adaptation="frozen"), 5).shape[0] == told[1].catalogue.n_items


@pytest.mark.slow
def test_vectors_come_from_the_text_and_are_fitted_to_the_rows(told: tuple[World, InteractionLog]) -> None:
    """Items of one text differ by their rows alone, and change with the rows; the world is not asked."""
    log = told[1]
    settings = BertQSettings(adaptation="frozen")
    vectors = item_vectors(log, settings, 5)
    assert vectors.shape[0] == log.catalogue.n_items
    shuffled = np.random.default_rng(0).permutation(log.primary)
    assert np.abs(vectors - item_vectors(replace(log, primary=shuffled), settings, 5)).max() > 1e-3
    unlike = vectors - vectors.mean(axis=0)
    texts = np.array(log.catalogue.item_text)
    same = texts[:, None] == texts[None, :]
    np.fill_diagonal(same, False)
    unit = unlike / np.linalg.norm(unlike, axis=1, keepdims=True)
    likeness = unit @ unit.T
    others = ~same & ~np.eye(len(texts), dtype=bool)
    assert likeness[same].mean() > likeness[others].mean() + 0.5


def test_the_transformer_is_not_run_once_the_vectors_are_made(
    told: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    import agents.bert_items as module

    vectors = np.random.default_rng(0).standard_normal((told[1].catalogue.n_items, 8)).astype(np.float32)
    monkeypatch.setattr(module, "item_vectors", lambda log, settings, seed: vectors)
    monkeypatch.setattr("simulator.encoders.text.load_encoder", lambda path: pytest.fail("an encoder was loaded"))
    settings = AgentSettings.model_validate({"name": "one", "kind": "bert_q"})
    agent = train(settings, training_in(*told, budget=128), Path()).agent
    assert isinstance(agent, BertQ)
    assert agent.q is not None
    spread = agent.q.features.content.astype(np.float64)
    explained = spread @ np.linalg.lstsq(spread, vectors - vectors.mean(axis=0), rcond=None)[0]
    assert explained == pytest.approx(vectors - vectors.mean(axis=0), abs=1e-3)
    assert agent.act(observed(told[0]), np.random.default_rng(0)).shape == (24, told[0].slate_size)


def test_in_a_duelling_network_items_add_nothing_on_average() -> None:
    where = taught_world(horizon=3)
    import torch

    from agents.item_networks import ItemHeads

    training = training_in(*where)
    features = fit_features(training)
    scale = StateScale.of(features, training)
    torch.manual_seed(1)
    network = ItemHeads(features, scale, hidden_size=8, embedding_size=4, centred=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    start = observed(where[0])
    state = features.users(start).state()
    with torch.no_grad():
        made = network(torch.as_tensor(np.concatenate([state, np.zeros((len(state), 1), np.float32)], axis=1)))
    scores = network.as_arrays(features, scale).scores(start)
    assert scores == pytest.approx(made.mean().numpy(), rel=1e-3, abs=1e-3)
    assert scores.mean(axis=1) == pytest.approx(made.value[:, 0, 0].numpy(), rel=1e-3, abs=1e-3)
    assert scores.std(axis=1).min() > 0.1


def test_an_encoder_that_is_not_there_is_said_of_the_agent_before_anything_is_fitted(tmp_path: Path) -> None:
    entry = {"name": "one", "kind": "bert_q", "params": {"encoder": "./nowhere"}}
    with pytest.raises(
        InputError, match=r"agents\[1\].params.encoder: './nowhere' is neither a known name nor a folder"
    ):
        resolve_kind(AgentSettings.model_validate(entry), tmp_path, where="agents[1]")
    entry["params"] = {"encoder": "minilm"}
    params = resolve_kind(AgentSettings.model_validate(entry), tmp_path).params
    assert isinstance(params, BertQSettings)
    assert params.encoder == "minilm"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cql", "iql", "behaviour_cloning", "decision_transformer"])
def test_who_learns_from_the_log_alone_may_know_items_by_the_same_bert(
    kind: str, told: tuple[World, InteractionLog]
) -> None:
    """Conservative deep Q-learning over BERT: items are the fine-tuned vectors, and other texts are another agent."""
    world, log = told

    def scores(log: InteractionLog) -> np.ndarray:
        entry = {"name": "one", "kind": kind, "params": {"encoder": "minilm", "adaptation": "frozen"}}
        training = training_in(world, log, budget=512)
        agent = train(AgentSettings.model_validate(entry), training, Path()).agent
        return np.asarray(agent.scores(observed(world)))  # type: ignore[attr-defined]

    turned = replace(log, catalogue=replace(log.catalogue, item_text=log.catalogue.item_text[::-1]))
    assert np.abs(scores(log) - scores(turned)).max() > 1e-3
    blank = replace(log, catalogue=replace(log.catalogue, item_text=("",) * log.catalogue.n_items))
    with pytest.raises(AgentError, match=r"encoder: the items have no text; name data\.item_text"):
        scores(blank)
