"""The encoder's training loop: each adaptation moves its own weights alone, each disturbance is what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from simulator.encoders.adaptation import adapt
from simulator.encoders.settings import RobustnessSettings, TuningSettings
from simulator.encoders.text import encode_with, load_encoder, mean_pool
from simulator.encoders.tuning import (
    EncoderTraining,
    PeakMemory,
    TunableEncoder,
    batches_of_like_length,
    divergence,
    one_thread,
    planned_steps,
)
from simulator.errors import InputError
from tests.simulator.tiny_bert import tiny_bert

TEXTS = [
    f"film {k % 10}: {words}" for k in range(10) for words in ("love story", "war battle", "lost card", "my money")
]
LABEL = torch.arange(len(TEXTS)) % 4
QUICK = TuningSettings(epochs=6, batch_items=8, learning_rate=1e-2, heads_learning_rate=1e-2, top_layers=1, warm_up=0.0)
PEFT = ("lora", "adalora", "prefix")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with one_thread(4):
        yield


def tunable(
    folder: Path, adaptation: Any = "top_layers", tuning: TuningSettings = QUICK, **kwargs: Any
) -> TunableEncoder:
    steps = planned_steps(tuning, -(-len(TEXTS) // tuning.batch_items), tuning.epochs)
    return TunableEncoder(TEXTS, *load_encoder(str(folder)), "tiny", adaptation, tuning, steps, **kwargs)


def by_class(part: np.ndarray, head: torch.nn.Module) -> Any:
    def objective(last: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = head(mean_pool(last, mask))
        return functional.cross_entropy(logits, LABEL[torch.from_numpy(part)]), logits

    return objective


def learn(
    encoder: TunableEncoder, tuning: TuningSettings = QUICK, robustness: RobustnessSettings | None = None
) -> list[float]:
    """Mean loss of each pass with a fixed head: only the encoder can lower it."""
    head = torch.nn.Linear(32, 4)
    head.requires_grad_(requires_grad=False)
    with torch.no_grad():
        head.weight.mul_(10)
    batches = -(-len(TEXTS) // tuning.batch_items)
    training = EncoderTraining(encoder, tuning, batches, tuning.epochs, robustness or RobustnessSettings())
    rng, losses = np.random.default_rng(1), []
    for _ in range(tuning.epochs):
        training.train_mode()
        total = [
            training.step(part, by_class(part, head), rng)
            for part in batches_of_like_length(encoder.length, tuning.batch_items, rng)
        ]
        training.end_pass()
        losses.append(float(np.mean(total)))
    return losses


@pytest.mark.parametrize("adaptation", ["top_layers", "full", "adapter", *PEFT])
def test_each_adaptation_lowers_the_loss_by_its_own_weights_alone(folder: Path, adaptation: str) -> None:
    encoder = tunable(folder, adaptation)
    learned = {id(weight) for weight in encoder.adapted.parameters()}
    models = [encoder.adapted.trained, *([encoder.adapted.below] if encoder.adapted.below is not None else [])]
    named = {name: weight for model in models for name, weight in model.named_parameters()}
    before = {name: weight.detach().clone() for name, weight in named.items()}
    losses = learn(encoder)
    assert losses[-1] < losses[0] - 0.02
    moved = {name for name, weight in named.items() if not torch.equal(weight, before[name])}
    assert moved
    assert all(id(named[name]) in learned for name in moved)
    # Biases of attention keys cancel in the softmax and AdaLoRA masks weights: not every one must move, but most do.
    assert len(moved) > 0.6 * len(learned)
    words = {"lora": "lora_", "adalora": "lora_", "prefix": "prompt_encoder", "adapter": ("down", "up")}.get(adaptation)
    if words:
        assert all(any(word in name for word in ((words,) if isinstance(words, str) else words)) for name in moved)


def test_the_numbers_of_trained_weights_are_those_of_the_papers(folder: Path) -> None:
    """Width 32, feed-forward 64, 2 layers: a layer has 8,544 weights; 6 maps of rank 2 a layer in LoRA."""
    count = {name: tunable(folder, name, QUICK.model_copy(update={"rank": 2, "adapter_width": 4, "prefix_tokens": 3}))
             .trained_parameters for name in ("top_layers", "lora", "prefix", "adapter")}  # fmt: skip
    assert count["top_layers"] == 8544
    assert count["lora"] == 2 * 2 * (4 * (32 + 32) + 2 * (32 + 64))
    assert count["prefix"] == 3 * 2 * 2 * 32
    assert count["adapter"] == 2 * 2 * (2 * 32 * 4 + 4 + 32)


@pytest.mark.parametrize("adaptation", ["top_layers", "full", "adapter", "lora", "adalora"])
def test_an_adapted_encoder_starts_as_the_encoder(folder: Path, adaptation: str) -> None:
    plain = encode_with(*load_encoder(str(folder)), TEXTS, 64)
    assert tunable(folder, adaptation).read() == pytest.approx(plain, abs=2e-5)


@pytest.mark.parametrize("adaptation", ["top_layers", "full", "lora"])
def test_what_was_learned_comes_back_as_a_plain_model(folder: Path, adaptation: str) -> None:
    encoder = tunable(folder, adaptation)
    learn(encoder, QUICK.model_copy(update={"epochs": 1}))
    learned = encoder.read()
    tokenizer, first = load_encoder(str(folder))
    model = encoder.plain()
    assert encode_with(tokenizer, model, TEXTS, 64) == pytest.approx(learned, abs=2e-5)
    unmet = tokenizer.convert_tokens_to_ids("detectives")  # in no text: its word vector is the pretrained one
    same = [one.get_input_embeddings().weight[unmet].detach().numpy() for one in (model, first)]
    assert np.array_equal(*same)


def test_a_prefix_that_would_be_dropped_in_silence_is_refused(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "distil", "distilbert")
    with pytest.raises(InputError, match="'prefix' does not fit 'tiny'"):
        tunable(tmp_path / "distil", "prefix")


def test_lower_layers_learn_slower_by_the_decay(folder: Path) -> None:
    tuning = QUICK.model_copy(update={"layer_decay": 0.5})
    groups = adapt(load_encoder(str(folder))[1], "tiny", "full", tuning, 1).groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-2, 5e-3, 2.5e-3])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("linear", [0.5, 1, 1, 2 / 3]), ("constant", [0.5, 1, 1, 1]), ("cosine", [0.5, 1, 1, 0.75])],
)
def test_the_rate_rises_in_the_warm_up_and_falls_as_the_schedule_says(
    folder: Path, schedule: str, rates: list[float]
) -> None:
    """Five steps, two of warm-up."""
    training = EncoderTraining(tunable(folder), QUICK.model_copy(update={"schedule": schedule, "warm_up": 0.4}), 5, 1)
    found = []
    for _ in rates:
        found.append(training.optimiser.param_groups[0]["lr"] / 1e-2)
        training.skip()
    assert found == pytest.approx(rates)


def test_gradients_added_up_over_two_batches_move_the_weights_as_one_batch_of_both(folder: Path) -> None:
    """Plain gradient descent without dropout: halves in turn, or both at once."""
    made = []
    for accumulate, parts in ((2, [np.arange(0, 8), np.arange(8, 16)]), (1, [np.arange(16)])):
        tuning = QUICK.model_copy(update={"accumulate": accumulate, "optimiser": "sgd", "schedule": "constant"})
        encoder = tunable(folder, "top_layers", tuning, dropout=0.0)
        training = EncoderTraining(encoder, tuning, len(parts), 1)
        with one_thread(9):
            head = torch.nn.Linear(32, 4)
        for part in parts:
            training.step(part, by_class(part, head), np.random.default_rng(0))
        training.end_pass()
        made.append(encoder.read())
    assert made[0] == pytest.approx(made[1], abs=1e-5)
    assert np.abs(made[0] - tunable(folder).read()).max() > 1e-4


def test_averaged_weights_lie_between_the_first_and_the_last_and_are_put_back(folder: Path) -> None:
    tuning = QUICK.model_copy(update={"averaging": 0.9, "schedule": "constant"})
    encoder = tunable(folder, "top_layers", tuning)
    weight = encoder.adapted.parameters()[0]
    first = weight.detach().clone()
    training = EncoderTraining(encoder, tuning, 5, 1)
    head = torch.nn.Linear(32, 4)
    for k in range(5):
        part = np.arange(8 * k, 8 * k + 8)
        training.step(part, by_class(part, head), np.random.default_rng(0))
    last = weight.detach().clone()
    with training.averaged():
        mean = weight.detach().clone()
        assert torch.equal(training.state()[0], last)  # swapped: the running mean's place holds the last weights
    assert torch.equal(weight, last)
    assert 0 < (mean - first).norm() < (last - first).norm()
    training.restore(training.state())
    assert torch.equal(weight, mean)


@pytest.mark.parametrize("kind", ["fgm", "pgd"])
def test_an_adversarial_move_raises_the_loss_more_than_a_random_one_of_its_length(folder: Path, kind: Any) -> None:
    robust = RobustnessSettings(adversarial=kind, radius=0.5)
    encoder = tunable(folder, dropout=0.0)
    training = EncoderTraining(encoder, QUICK, 1, 1, robust)
    part, head, seen = np.arange(8), torch.nn.Linear(32, 4), []
    with torch.no_grad():
        head.weight.mul_(10)
    whole = encoder.run

    def watched(source: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(source.detach().clone())
        return whole(source, mask)

    encoder.run = watched  # type: ignore[method-assign]
    training.step(part, by_class(part, head), np.random.default_rng(0))
    source, mask = seen[0], encoder.inputs(part)[1]
    move = seen[-1] - source
    length = move.flatten(1).norm(dim=1)
    token = (source.norm(dim=2) * mask).sum(1) / mask.sum(1)
    assert (length <= 0.5 * token * 1.001).all()
    assert len(seen) == (2 if kind == "fgm" else 1 + robust.pgd_steps)
    random = torch.randn_like(move)
    random = random * (length / random.flatten(1).norm(dim=1))[:, None, None]
    fresh = tunable(folder, dropout=0.0)
    fresh.adapted.trained.eval()
    with torch.no_grad():
        losses = [
            float(by_class(part, head)(fresh.run(source + change, mask), mask)[0]) for change in (move, random, -move)
        ]
    assert losses[0] > losses[1] > losses[2]


def test_the_divergence_is_the_symmetric_kullback_leibler_one() -> None:
    one, other = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, -0.5]])
    p, q = torch.softmax(one, 1), torch.softmax(other, 1)
    by_hand = 0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum())
    assert float(divergence(one, other)) == pytest.approx(float(by_hand), rel=1e-5)
    a, b = torch.tensor([0.7]), torch.tensor([-0.2])
    classes = [torch.stack([x, torch.zeros(1)], 1) for x in (a, b)]  # an outcome is two classes
    assert float(divergence(a, b)) == pytest.approx(float(divergence(*classes)), rel=1e-5)
    assert float(divergence(one, one)) == 0


def test_r_drop_brings_two_dropout_passes_together(folder: Path) -> None:
    gaps = []
    for weight in (0.0, 5.0):
        encoder = tunable(folder, dropout=0.4)
        with one_thread(2):
            learn(encoder, QUICK.model_copy(update={"epochs": 12}), RobustnessSettings(r_drop=weight))
            encoder.adapted.trained.train()
            source, mask = encoder.inputs(np.arange(len(TEXTS)))
            vectors = [mean_pool(encoder.run(source, mask), mask) for _ in range(8)]
        gaps.append(float(torch.stack(vectors).std(0).mean().detach()))
    assert gaps[1] < 0.97 * gaps[0]


def test_dropout_is_set_only_where_it_is_asked_for(folder: Path) -> None:
    for asked, found in ((None, 0.1), (0.3, 0.3)):
        dropouts = {m.p for m in tunable(folder, dropout=asked).adapted.trained.modules() if hasattr(m, "p")}
        assert dropouts == {found}


def test_reduced_precision_learns_too_where_the_processor_has_it(folder: Path) -> None:
    tuning = QUICK.model_copy(update={"precision": "mixed"})
    encoder = tunable(folder, "full", tuning)
    losses = learn(encoder, tuning)
    assert losses[-1] < losses[0] - 0.02
    assert encoder.read().dtype == np.float32


def test_a_stage_that_takes_memory_says_how_much() -> None:
    peak = PeakMemory()
    held = np.ones(60 * 2**20 // 8)
    del held
    assert 50 < peak.megabytes() < 120
