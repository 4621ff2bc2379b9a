"""The ablation: all combinations on the same unseen rows, with intervals; pair encoders beside what they teach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluators import ablation
from evaluators.ablation import fit_variant, scored_rows, tabulate, variants
from simulator.errors import InputError
from simulator.log import HELD_OUT, WORLD_A, Catalogue, InteractionLog, split_users
from simulator.preference import PreferenceSettings
from simulator.preference.settings import PairSettings
from tests.simulator.tiny_bert import tiny_bert

BASE = PreferenceSettings(
    members=1, dims=(4,), epochs=3, adaptation="frozen", max_tokens=16,
    pairs=PairSettings(rows=24, passes=1, tuning_rows=16, distilled=16, max_tokens=32, titles=2),
)  # fmt: skip


def small_log(text: str = "film") -> InteractionLog:
    rng = np.random.default_rng(2)
    n_users, n_items, rows = 90, 20, 12
    user = np.repeat(np.arange(n_users), rows)
    item = np.concatenate([rng.choice(n_items, rows, replace=False) for _ in range(n_users)])
    quality = rng.normal(0, 1.5, n_items)
    liked = (rng.random(len(user)) < 1 / (1 + np.exp(-quality[item]))).astype(np.float32)
    catalogue = Catalogue(
        tuple(f"i{k}" for k in range(n_items)), tuple(f"{text} {k}" for k in range(n_items)),
        np.zeros((n_items, 0), np.float32), (), tuple(f"u{k}" for k in range(n_users)),
        np.zeros((n_users, 0), np.float32), (),
    )  # fmt: skip
    return InteractionLog(user, item, np.tile(np.arange(rows, dtype=float), n_users), liked, catalogue, "small")


def test_combinations_are_all_there_and_references_once() -> None:
    found = variants(BASE, {"architecture": ["matrix_factorisation", "two_tower"], "adaptation": ["frozen", "lora"]})
    assert list(found) == ["bias", "matrix_factorisation", "two_tower, frozen", "two_tower, lora"]
    assert found["two_tower, lora"].adaptation == "lora"
    assert variants(BASE, {"tuning.rank": [2, 4]})["4"].tuning.rank == 4


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ({}, "ablation: the scenario varies nothing"),
        ({"architectur": ["bias"]}, "ablation.architectur: is not a key of preference"),
        ({"architecture": ["bert"]}, "ablation.architecture: "),
    ],
)
def test_what_cannot_be_varied_is_one_line(vary: dict[str, list[str]], says: str) -> None:
    with pytest.raises(InputError) as caught:
        variants(BASE, vary)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_every_variant_is_scored_on_the_same_unseen_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(ablation, "MOST_ROWS", 120)
    log, root = small_log(), np.random.SeedSequence(4)
    split = split_users(log, root)
    users = np.concatenate([split.users(WORLD_A, tuning=False), split.users(HELD_OUT)])
    rows = scored_rows(log, split, users, np.random.default_rng(0))
    assert 120 <= len(rows) < 140
    assert split.late[rows].all()
    chosen = variants(BASE, {"architecture": ["two_tower", "prompt"]})
    fitted = {
        name: fit_variant(
            log, split, WORLD_A, one, root, rows, cache=None, folder=Path(), progress=lambda done, words: None
        )
        for name, one in chosen.items()
    }
    table = tabulate("small", log, rows, fitted, root)
    assert [row.variant for row in table.rows] == [
        "bias", "two_tower", "prompt, its own scores", "prompt, vectors it taught",
    ]  # fmt: skip
    assert table.rows[0].gain.value == 0
    assert all(row.log_loss.low < row.log_loss.value < row.log_loss.high for row in table.rows)
    assert table.rows[2].parameters > table.rows[1].parameters  # the encoder's readout beside the vectors
    text = table.as_text()
    assert text.count("\n") == 6
    assert "that no variant saw" in text
    assert len(table.to_json()["rows"]) == 4


@pytest.mark.parametrize("adaptation", ["frozen", "full"])
def test_a_prompt_is_decoded_by_words_that_no_text_holds(adaptation: str, tmp_path: Path) -> None:
    """Training all of an encoder cuts its embeddings to the pieces of the texts; the two words' are of the whole."""
    pytest.importorskip("torch")
    from simulator.encoders.text import load_encoder
    from simulator.preference._pair_encoder import PairEncoder
    from simulator.preference.problem import build_problem
    from simulator.preference.references import fit_bias

    log, folder = small_log("quiet"), tiny_bert(tmp_path / "tiny")
    problem = build_problem(log, split_users(log, np.random.SeedSequence(4)), WORLD_A)
    settings = BASE.model_copy(
        update={
            "architecture": "prompt",
            "adaptation": adaptation,
            "pairs": BASE.pairs.model_copy(update={"words": ("love", "account")}),
        }
    )
    offset = fit_bias(problem, np.random.default_rng(0)).member
    pair = PairEncoder(problem, log.catalogue, offset, str(folder), settings, np.random.default_rng(0))
    tokenizer, model = load_encoder(str(folder))
    places = tokenizer.convert_tokens_to_ids(["love", "account"])
    embedding = model.get_input_embeddings().weight.detach().numpy()[places]
    along = pair.readout.direction.detach().numpy() / 0.1
    apart = embedding[0] - embedding[1]
    assert along == pytest.approx(apart / np.linalg.norm(apart), abs=1e-5)
