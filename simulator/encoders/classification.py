"""Classes of texts (intents, categories): a head on the frozen encoder, and the encoder fine-tuned from there.

The frozen side is the control: its head is chosen and trained to its optimum on the validation texts, and fine-tuning
starts from that very head, so that what differs is the encoder alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch.nn import functional

from simulator.encoders.augmentation import build_augmenter
from simulator.encoders.settings import TEXT_CLASSES, Adaptation, HeadSettings, RobustnessSettings, TuningSettings
from simulator.encoders.text import encode_texts, load_encoder, mean_pool
from simulator.encoders.tuning import (
    EncoderTraining,
    PeakMemory,
    TunableEncoder,
    batches_of_like_length,
    one_thread,
    planned_steps,
)


@dataclass(frozen=True, slots=True)
class TextTask:
    """Texts, and the classes of those that may be learned from.

    Attributes:
        texts: [n] all texts, also those whose classes are to be told; none is empty.
        train: [m] numbers of the training texts.
        train_label: [m] their classes, in [0, C).
        validation: [v] numbers of the texts that stop training and choose.
        validation_label: [v] their classes.
        classes: C.
    """

    texts: tuple[str, ...]
    train: NDArray[np.int64]
    train_label: NDArray[np.int64]
    validation: NDArray[np.int64]
    validation_label: NDArray[np.int64]
    classes: int


@dataclass(frozen=True, slots=True)
class TextFit:
    """What one side makes of all texts.

    Attributes:
        log_probability: [n, C] calibrated by one temperature on the validation texts.
        vectors: [n, p] unit-length vectors of the encoder.
        states: [n, h] what the head's last linear map reads.
        losses: calibrated validation log-loss after each pass; for the tuned side the first is the start.
        temperature: what the logits were divided by.
        chosen: the head's settings that the validation texts chose.
        trained_parameters: the encoder's weights that were trained.
        seconds: processor seconds.
        peak_memory: MB taken at most.
    """

    log_probability: NDArray[np.float64]
    vectors: NDArray[np.float32]
    states: NDArray[np.float32]
    losses: tuple[float, ...]
    temperature: float
    chosen: dict[str, float]
    trained_parameters: int
    seconds: float
    peak_memory: float

    def validation_loss(self, task: TextTask) -> float:
        """Calibrated log-loss a validation text."""
        return float(-self.log_probability[task.validation, task.validation_label].mean())


class Head(torch.nn.Module):
    """Text vectors, standardised, through a hidden layer or none to logits of the classes."""

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, vectors: torch.Tensor, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        width = vectors.shape[1]
        self.register_buffer("centre", vectors.mean(0))
        self.register_buffer("scale", vectors.std(0).clamp(min=1e-4))
        self.hidden = torch.nn.Linear(width, hidden) if hidden else torch.nn.Identity()
        self.drop = torch.nn.Dropout(dropout)
        self.out = torch.nn.Linear(hidden or width, classes)
        torch.nn.init.zeros_(self.out.bias)
        torch.nn.init.normal_(self.out.weight, std=0.01)

    def states(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, h] what the last linear map reads."""
        known: torch.Tensor = self.hidden((vectors - self.centre) / self.scale)
        return functional.gelu(known) if isinstance(self.hidden, torch.nn.Linear) else known

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, C] logits."""
        logits: torch.Tensor = self.out(self.drop(self.states(vectors)))
        return logits


def fit_frozen(
    task: TextTask,
    encoder: str,
    settings: HeadSettings,
    rng: np.random.Generator,
    *,
    cache: Path | None = None,
    max_tokens: int = 64,
) -> tuple[TextFit, Head]:
    """The best head on the frozen encoder by the validation log-loss, and what it makes of all texts.

    Args:
        task: the texts.
        encoder: folder of the encoder.
        settings: heads to try.
        rng: draws starting weights, batches and dropout.
        cache: folder for the encoder's vectors, or None.
        max_tokens: word pieces kept of a text.

    Raises:
        InputError: the encoder cannot be loaded.
    """
    began, peak = time.process_time(), PeakMemory()
    vectors = encode_texts(task.texts, encoder, cache=cache, max_tokens=max_tokens)
    found: tuple[float, Head, list[float], dict[str, float]] | None = None
    with one_thread(int(rng.integers(2**62))):
        x = torch.from_numpy(vectors)
        for hidden, dropout, decay in product(settings.hidden, settings.dropout, settings.weight_decay):
            head, losses = _train_head(task, x, settings, hidden, dropout, decay, rng)
            if found is None or min(losses) < found[0]:
                chosen = {"hidden": hidden, "dropout": dropout, "weight_decay": decay}
                chosen["epochs"] = 1 + int(np.argmin(losses))
                found = min(losses), head, losses, chosen
    assert found is not None
    _, head, losses, chosen = found
    fit = _fit_of(task, vectors, head, losses, chosen, 0, time.process_time() - began, peak.megabytes())
    return fit, head


def _train_head(
    task: TextTask,
    vectors: torch.Tensor,
    settings: HeadSettings,
    hidden: int,
    dropout: float,
    weight_decay: float,
    rng: np.random.Generator,
) -> tuple[Head, list[float]]:
    """A head at its best pass, weights averaged over the steps, and the validation log-loss after each pass."""
    x, y = vectors[torch.from_numpy(task.train)], torch.from_numpy(task.train_label)
    seen, answer = vectors[torch.from_numpy(task.validation)], torch.from_numpy(task.validation_label)
    head = Head(x, task.classes, hidden, dropout)
    mean = torch.optim.swa_utils.AveragedModel(
        head, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.averaging)
    )
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=weight_decay)
    losses: list[float] = []
    best = {name: value.clone() for name, value in head.state_dict().items()}
    for _ in range(settings.epochs):
        head.train()
        for part in np.array_split(rng.permutation(len(x)), -(-len(x) // settings.batch_texts)):
            rows = torch.from_numpy(part)
            optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimiser.step()
            mean.update_parameters(head)
        mean.eval()
        with torch.no_grad():
            losses.append(_calibrated(mean(seen).double(), answer)[0])
        if losses[-1] == min(losses):
            best = {name: value.clone() for name, value in mean.module.state_dict().items()}
        if len(losses) - 1 - int(np.argmin(losses)) >= settings.patience:
            break
    head.load_state_dict(best)
    return head.eval(), losses


def fit_tuned(
    task: TextTask,
    encoder: str,
    start: Head,
    rng: np.random.Generator,
    *,
    adaptation: Adaptation = "full",
    tuning: TuningSettings = TEXT_CLASSES,
    robustness: RobustnessSettings | None = None,
    max_tokens: int = 64,
    folder: Path = Path(),
    progress: Callable[[float, str], None] | None = None,
) -> TextFit:
    """The encoder fine-tuned together with the frozen side's head, at its best pass by the validation log-loss.

    Args:
        task: the texts.
        encoder: folder of the encoder.
        start: the head of the frozen side; it is left as it is.
        rng: draws batches, dropout and rewordings.
        adaptation: what is trained of the encoder.
        tuning: how; left out, the recipe that paid on intents and topics.
        robustness: what training must bear.
        max_tokens: word pieces kept of a text.
        folder: where relative paths of `robustness` start.
        progress: told the fraction done and a few words.

    Raises:
        InputError: the encoder cannot be loaded or adapted so.
    """
    robustness = robustness or RobustnessSettings()
    began, peak = time.process_time(), PeakMemory()
    label = np.full(len(task.texts), -1)
    label[task.train] = task.train_label
    answer = torch.from_numpy(task.validation_label)
    batches = -(-len(task.train) // tuning.batch_items)
    with one_thread(int(rng.integers(2**62)), tuning.device):
        tokenizer, model = load_encoder(encoder)
        augmenter = build_augmenter(robustness, [task.texts[k] for k in task.train], tokenizer, model, folder)
        tunable = TunableEncoder(
            task.texts, tokenizer, model, Path(encoder).name, adaptation, tuning,
            planned_steps(tuning, batches, tuning.epochs),
            max_tokens=max_tokens, augmenter=augmenter, dropout=robustness.dropout,
        )  # fmt: skip
        head = Head(torch.zeros(2, start.centre.shape[0]), task.classes, _hidden_of(start), start.drop.p)
        head.load_state_dict(start.state_dict())
        training = EncoderTraining(tunable, tuning, batches, tuning.epochs, robustness, head)

        def validate() -> float:
            head.eval()
            with training.averaged(), torch.no_grad():
                logits = head(torch.from_numpy(tunable.read(task.validation)))
            return _calibrated(logits.double(), answer)[0]

        losses, best = [validate()], training.state()
        for epoch in range(1, tuning.epochs + 1):
            training.train_mode()
            for rows in batches_of_like_length(tunable.length[task.train], tuning.batch_items, rng):
                part = task.train[rows]
                target = torch.from_numpy(label[part])

                def objective(
                    last: torch.Tensor, mask: torch.Tensor, target: torch.Tensor = target
                ) -> tuple[torch.Tensor, torch.Tensor]:
                    logits = head(mean_pool(last, mask))
                    return functional.cross_entropy(logits, target), logits

                training.step(part, objective, rng)
            training.end_pass()
            losses.append(validate())
            if losses[-1] == min(losses):
                best = training.state()
            if progress is not None:
                progress(epoch / tuning.epochs, f"pass {epoch}, validation log-loss {losses[-1]:.4f}")
            if tuning.patience is not None and epoch - int(np.argmin(losses)) >= tuning.patience:
                break
        training.restore(best)
        vectors = tunable.read()
        chosen = {"epochs": float(np.argmin(losses))}
        return _fit_of(
            task, vectors, head.eval(), losses, chosen, tunable.trained_parameters, time.process_time() - began,
            peak.megabytes(),
        )  # fmt: skip


def _hidden_of(head: Head) -> int:
    return head.hidden.out_features if isinstance(head.hidden, torch.nn.Linear) else 0


def _fit_of(
    task: TextTask,
    vectors: NDArray[np.float32],
    head: Head,
    losses: list[float],
    chosen: dict[str, float],
    trained_parameters: int,
    seconds: float,
    peak_memory: float,
) -> TextFit:
    with torch.no_grad():
        states = head.states(torch.from_numpy(vectors))
        logits = head.out(states).double()
    _, temperature = _calibrated(logits[torch.from_numpy(task.validation)], torch.from_numpy(task.validation_label))
    return TextFit(
        functional.log_softmax(logits / temperature, 1).numpy(), vectors, states.numpy(), tuple(losses), temperature,
        chosen, trained_parameters, round(seconds, 1), peak_memory,
    )  # fmt: skip


def _calibrated(logits: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    """Log-loss of the logits divided by their best temperature, and that temperature (Guo et al., 2017).

    Passes are compared by it, because what is kept is calibrated: a tuned encoder grows overconfident before it grows
    worse.
    """

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits / np.exp(log_temperature), label))

    found = minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded")
    return float(found.fun), float(np.exp(found.x))
