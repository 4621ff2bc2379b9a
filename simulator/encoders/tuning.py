"""The training loop of a text encoder: which texts, what is learned of them, and every disturbance it must bear.

Preference tuning, text classification, pretraining and the own encoder are this one loop with another objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.encoders.adaptation import adapt
from simulator.encoders.augmentation import Augmenter
from simulator.encoders.settings import Adaptation, RobustnessSettings, TuningSettings
from simulator.encoders.text import mean_pool, pad, tokenize

READ_BATCH = 128
LENGTH_JITTER = 4.0
"""Tokens by which two texts of one training batch may differ beyond their order."""
PLAIN = RobustnessSettings()

Objective = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Last hidden states [b, T, p] and mask [b, T] to the loss and the logits ([m], or [m, C] by class) that it is of."""


class TunableEncoder:
    """An encoder in training and the texts that it is trained on.

    With a cut, the hidden states below it are computed once for each text. Without one, the embedding table is cut
    down to the word pieces that the texts hold, or each step would move millions of idle weights. The encoder computes
    on the device of the settings; what goes in and what comes out lies in the computer's own memory.

    Args:
        texts: the distinct texts.
        tokenizer: the encoder's tokenizer.
        model: the encoder; it is taken apart, and comes back from `plain`.
        name: its name, for errors.
        adaptation: what is trained.
        tuning: how.
        steps: steps that training will take.
        max_tokens: word pieces kept of a text.
        augmenter: rewords training texts; None leaves them as they are.
        dropout: dropout while training; None leaves the encoder's own.

    Raises:
        InputError: the encoder cannot be adapted so.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Any,
        model: Any,
        name: str,
        adaptation: Adaptation,
        tuning: TuningSettings,
        steps: int,
        *,
        max_tokens: int = 64,
        augmenter: Augmenter | None = None,
        dropout: float | None = None,
    ) -> None:
        self.texts, self.max_tokens, self.augmenter = list(texts), max_tokens, augmenter
        self.device = torch.device(tuning.device)
        self.mixed = tuning.precision == "mixed" and (self.device.type != "cpu" or computes_bfloat16())
        self._tokenizer = tokenizer
        self._pad = tokenizer.pad_token_id or 0
        self.ids = tokenize(self.texts, tokenizer, max_tokens)
        self.length = np.array([len(row) for row in self.ids])
        self.start = np.concatenate([[0], np.cumsum(self.length)])
        self._whole_table: torch.nn.Embedding | None = None
        self._compact = np.arange(0)
        if adaptation == "full":
            self._keep_only_pieces_of([*self.texts, *(augmenter.words() if augmenter else [])], model)
        if dropout is not None:
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = dropout
        self.adapted = adapt(model.to(self.device), name, adaptation, tuning, steps)
        if tuning.compile:
            for layer in self.adapted.trained.children() if self.adapted.below is not None else [self.adapted.trained]:
                layer.compile(dynamic=True)
        self._below = self._read_below() if self.adapted.below is not None else None

    @property
    def trained_parameters(self) -> int:
        """Number of the encoder's weights in training."""
        return sum(weight.numel() for weight in self.adapted.parameters())

    def inputs(self, part: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states at the cut, or word embeddings, [b, T, p] of these texts, and their mask [b, T]."""
        if self._below is None:
            return self.inputs_of([self.ids[k] for k in part])
        length = self.length[part]
        column = np.arange(length.max())
        there = column < length[:, None]
        place = np.where(there, self.start[part][:, None] + column, self.start[part][:, None])
        return self._below[torch.from_numpy(place)], torch.from_numpy(there.astype(np.float32))

    def inputs_of(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of rows of token ids."""
        tokens, mask = pad(ids, self._pad)
        there = mask.to(torch.float32)
        if self.adapted.below is not None:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                return self._below_cut(tokens, mask).float().cpu(), there
        return self._embedded(tokens), there

    def run(self, source: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states [b, T, p] in float32."""
        source, mask = source.to(self.device), mask.to(self.device)
        if not self.mixed:
            return self.adapted.run(source, mask).cpu()
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.adapted.run(source, mask).float().cpu()

    @property
    def embedding(self) -> Any:
        """The layer that looks word embeddings up."""
        return self.adapted.embed if self.adapted.below is None else self.adapted.below.get_input_embeddings()

    def last_hidden(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states [b, T, p] of token ids [b, T], differentiable from the word embeddings up."""
        there = mask.to(torch.float32)
        source = self._embedded(tokens) if self.adapted.below is None else self._below_cut(tokens, mask)
        return self.run(source, there)

    def _below_cut(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states at the cut, on the encoder's device."""
        return self.adapted.below(
            input_ids=tokens.to(self.device), attention_mask=mask.to(self.device)
        ).last_hidden_state  # type: ignore[no-any-return]

    def _embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """Word embeddings, in the computer's own memory."""
        known = tokens if self._whole_table is None else torch.from_numpy(self._compact)[tokens]
        return self.adapted.embed(known.to(self.device)).cpu()

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """Copies of the weights in training."""
        return tuple(weight.detach().cpu().numpy().copy() for weight in self.adapted.parameters())

    def take(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Put weights of an encoder that was adapted in the same way in the place of these."""
        with torch.no_grad():
            for mine, other in zip(self.adapted.parameters(), weights, strict=True):
                mine.copy_(torch.tensor(other))
        self.adapted.trained.eval()

    def reworded(self, part: NDArray[np.int64], share: float, rng: np.random.Generator) -> list[list[int]]:
        """Token ids of these texts, a share of them reworded."""
        assert self.augmenter is not None
        chosen = rng.random(len(part)) < share
        texts = [self.augmenter.reword(self.texts[k], rng) for k in part[chosen]]
        new = iter(tokenize(texts, self._tokenizer, self.max_tokens) if texts else [])
        return [next(new) if change else self.ids[k] for k, change in zip(part, chosen, strict=True)]

    def read(self, part: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """[n, p] unit-length vectors of all texts, or of these, as the encoder gives them now."""
        part = np.arange(len(self.texts)) if part is None else part
        self.adapted.trained.eval()
        order = np.argsort(self.length[part], kind="stable")
        out: NDArray[np.float32] | None = None
        with torch.inference_mode():
            for low in range(0, len(order), READ_BATCH):
                here = order[low : low + READ_BATCH]
                source, mask = self.inputs(part[here])
                vectors = mean_pool(self.run(source, mask), mask).numpy()
                if out is None:
                    out = np.zeros((len(part), vectors.shape[1]), np.float32)
                out[here] = vectors
        assert out is not None
        return out

    def plain(self) -> Any:
        """The transformers model with what was learned in it, its embedding table whole again."""
        assert self.adapted.plain is not None
        model = self.adapted.plain().to("cpu")
        if self._whole_table is not None:
            learned = model.get_input_embeddings().weight.detach()
            kept = np.flatnonzero(self._kept)
            with torch.no_grad():
                self._whole_table.weight[torch.from_numpy(kept)] = learned[torch.from_numpy(self._compact[kept])]
            model.set_input_embeddings(self._whole_table)
            self._whole_table = None
        return model.eval()

    def _keep_only_pieces_of(self, texts: Sequence[str], model: Any) -> None:
        whole = model.get_input_embeddings()
        special = {*self._tokenizer.all_special_ids, self._pad}
        used = special.union(*tokenize(texts, self._tokenizer, self.max_tokens), *self.ids)
        kept = np.array(sorted(k for k in used if 0 <= k < whole.num_embeddings))
        unknown = self._tokenizer.unk_token_id
        compact = np.full(whole.num_embeddings, np.searchsorted(kept, self._pad if unknown is None else unknown))
        compact[kept] = np.arange(len(kept))
        self._kept = np.zeros(whole.num_embeddings, bool)
        self._kept[kept] = True
        self._compact, self._whole_table = compact, whole
        rows = whole.weight.detach()[torch.from_numpy(kept)].clone()
        model.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows, freeze=False))

    def _read_below(self) -> torch.Tensor:
        """[tokens, p] hidden states below the cut of all texts, one after another."""
        out = torch.empty((int(self.start[-1]), int(self.adapted.below.config.hidden_size)))
        order = sorted(range(len(self.ids)), key=lambda k: (len(self.ids[k]), k))
        for low in range(0, len(order), READ_BATCH):
            part = order[low : low + READ_BATCH]
            hidden, _ = self.inputs_of([self.ids[k] for k in part])
            for row, k in enumerate(part):
                out[self.start[k] : self.start[k + 1]] = hidden[row, : len(self.ids[k])]
        return out


class EncoderTraining:
    """Optimiser, schedule and disturbances of an encoder in training.

    Args:
        encoder: the encoder and its texts.
        tuning: rates, schedule, accumulation, averaging.
        batches: batches of a pass.
        epochs: passes.
        robustness: rewording, adversarial moves, R-Drop.
        heads: further weights that learn beside it, at `tuning.heads_learning_rate`.
    """

    def __init__(
        self,
        encoder: TunableEncoder,
        tuning: TuningSettings,
        batches: int,
        epochs: int,
        robustness: RobustnessSettings = PLAIN,
        heads: torch.nn.Module | None = None,
    ) -> None:
        self.encoder, self.tuning, self.robustness, self._heads = encoder, tuning, robustness, heads
        groups = list(encoder.adapted.groups)
        if heads is not None:
            groups.append({"params": list(heads.parameters()), "lr": tuning.heads_learning_rate})
        self._weights = [
            *encoder.adapted.trained.parameters(), *([] if heads is None else heads.parameters())
        ]  # fmt: skip
        self._weights = [weight for weight in self._weights if weight.requires_grad]
        self.optimiser: torch.optim.Optimizer
        if tuning.optimiser == "adamw":
            self.optimiser = torch.optim.AdamW(groups, weight_decay=tuning.weight_decay)
        else:
            self.optimiser = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=tuning.weight_decay)
        total = planned_steps(tuning, batches, epochs)
        warm = max(1, round(tuning.warm_up * total))

        def share_of_rate(k: int) -> float:
            left = max(0.0, (total - k) / max(1, total - warm))
            falling = {"linear": left, "cosine": 0.5 - 0.5 * np.cos(np.pi * min(left, 1.0)), "constant": 1.0}
            return float(min((k + 1) / warm, falling[tuning.schedule]))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, share_of_rate)
        self._batches, self._pending, self._any, self._step = 0, 0, False, 0
        self._mean = [weight.detach().clone() for weight in self._weights] if tuning.averaging else []

    def step(self, part: NDArray[np.int64], objective: Objective, rng: np.random.Generator) -> float:
        """Learn from one batch of texts; the loss on them as they are."""
        if self.encoder.augmenter is None:
            source, mask = self.encoder.inputs(part)
        else:
            source, mask = self.encoder.inputs_of(self.encoder.reworded(part, self.robustness.augmented, rng))
        return self._learn(source, mask, objective)

    def step_on(self, ids: Sequence[Sequence[int]], objective: Objective) -> float:
        """Learn from one batch of token ids."""
        return self._learn(*self.encoder.inputs_of(ids), objective)

    def skip(self) -> None:
        """Let a batch pass without learning: the schedule goes on."""
        self._count()

    def end_pass(self) -> None:
        """Move the weights by what is still added up."""
        if self._pending:
            self._move()

    def train_mode(self) -> None:
        """Dropout on."""
        self.encoder.adapted.trained.train()
        if self._heads is not None:
            self._heads.train()

    def state(self) -> list[torch.Tensor]:
        """Copies of the weights in training; their running mean where there is one."""
        return [weight.detach().clone() for weight in self._mean or self._weights]

    def restore(self, state: list[torch.Tensor]) -> None:
        """Put such copies in the place of the weights."""
        with torch.no_grad():
            for weight, value in zip(self._weights, state, strict=True):
                weight.copy_(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running mean of the weights in place of the weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for mean, weight in zip(self._mean, self._weights, strict=False):
                now = weight.clone()
                weight.copy_(mean)
                mean.copy_(now)

    def _learn(self, source: torch.Tensor, mask: torch.Tensor, objective: Objective) -> float:
        robust = self.robustness
        attacked = robust.adversarial != "none"
        if attacked:
            source = source if source.requires_grad else source.detach().requires_grad_()
            source.retain_grad()
        loss, logits = objective(self.encoder.run(source, mask), mask)
        total = loss
        if robust.r_drop > 0:
            second, again = objective(self.encoder.run(source, mask), mask)
            total = (loss + second) / 2 + robust.r_drop * divergence(logits, again)
        if self.encoder.adapted.penalty is not None:
            total = total + self.encoder.adapted.penalty()
        (total / self.tuning.accumulate).backward()
        if attacked:
            self._bear_attack(source, mask, objective)
        self._any = True
        self._count()
        return float(loss.detach())

    def _bear_attack(self, source: torch.Tensor, mask: torch.Tensor, objective: Objective) -> None:
        """Learn from the texts moved against the gradient: FGM (Miyato et al., 2017) or PGD (Madry et al., 2018)."""
        robust, gradient = self.robustness, source.grad
        assert gradient is not None
        still = source.detach()
        token = (still.norm(dim=2) * mask).sum(1) / mask.sum(1).clamp(min=1)
        radius = (robust.radius * token)[:, None, None]  # [b, 1, 1]
        if robust.adversarial == "fgm":
            moved = radius * _direction(gradient)
        else:
            moved = torch.zeros_like(still)
            for k in range(robust.pgd_steps):
                moved = moved + radius * (1.5 / robust.pgd_steps) * _direction(gradient)
                length = moved.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-12)
                moved = moved * torch.clamp(radius / length, max=1.0)
                if k + 1 < robust.pgd_steps:
                    here = (still + moved).requires_grad_()
                    loss, _ = objective(self.encoder.run(here, mask), mask)
                    (gradient,) = torch.autograd.grad(loss, here)
        loss, _ = objective(self.encoder.run(still + moved, mask), mask)
        (loss / self.tuning.accumulate).backward()

    def _count(self) -> None:
        self._pending += 1
        if self._pending == self.tuning.accumulate:
            self._move()

    def _move(self) -> None:
        self._pending = 0
        if self._any:
            torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self.optimiser.step()  # moves nothing that has no gradient
        if self._any:
            if self.encoder.adapted.after_step is not None:
                self.encoder.adapted.after_step(self._step)
            self._step += 1
            if self._mean:
                keep = min(self.tuning.averaging, self._step / (self._step + 9))
                with torch.no_grad():
                    for mean, weight in zip(self._mean, self._weights, strict=True):
                        mean.lerp_(weight, 1 - keep)
        self.optimiser.zero_grad(set_to_none=True)
        self._any = False
        self.schedule.step()


def planned_steps(tuning: TuningSettings, batches: int, epochs: int) -> int:
    """Moves of the weights in that many passes."""
    return max(1, epochs * -(-batches // tuning.accumulate))


def batches_of_like_length(
    length: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Batches of texts of like length, who is with whom drawn anew each pass: a third less padding to compute on."""
    order = np.argsort(length + rng.uniform(0, LENGTH_JITTER, len(length)))
    batches = [np.sort(order[low : low + size]) for low in range(0, len(order), size)]
    for number in rng.permutation(len(batches)):
        yield batches[number]


def divergence(logits: torch.Tensor, again: torch.Tensor) -> torch.Tensor:
    """Mean symmetric Kullback-Leibler divergence of two predictions: of outcomes [m], or of classes [m, C]."""
    if logits.ndim == 1:
        gap = logits - again
        return 0.5 * ((torch.sigmoid(logits) - torch.sigmoid(again)) * gap).mean()
    one, other = functional.log_softmax(logits, 1), functional.log_softmax(again, 1)
    return 0.5 * ((one.exp() - other.exp()) * (one - other)).sum(1).mean()


def _direction(gradient: torch.Tensor) -> torch.Tensor:
    length = gradient.flatten(1).norm(dim=1)[:, None, None]
    return gradient / length.clamp(min=1e-12)


@contextmanager
def one_thread(seed: int, device: str = "cpu") -> Iterator[None]:
    """One torch thread and seeded generators of its own for dropout, here and on the device; put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[] if device == "cpu" else [torch.device(device).index or 0]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself; elsewhere autocast only costs time."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


class PeakMemory:
    """Memory that a stage takes: the greatest resident size of the process since this was made, less that at the time.

    Linux lets a process forget its peak; elsewhere only a peak above all earlier ones is seen.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._start = _resident("VmRSS")

    def megabytes(self) -> float:
        """MB taken at most."""
        return max(0.0, round((_resident("VmHWM") - self._start) / 2**20, 1))


def _resident(field: str) -> int:
    """Bytes of a field of the process's status."""
    import resource

    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition(f"{field}:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
