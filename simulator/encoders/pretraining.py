"""Pretraining of an encoder on a log's own texts: guess hidden words, or bring texts that belong together close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.encoders.settings import PretrainingSettings, TuningSettings
from simulator.encoders.text import mean_pool
from simulator.encoders.tuning import (
    EncoderTraining,
    Objective,
    TunableEncoder,
    batches_of_like_length,
    planned_steps,
)
from simulator.errors import InputError

TO_MASK, TO_OTHER = 0.8, 0.1
"""Of the hidden tokens: the share shown as the mask, and as another token (BERT's own; the rest stay as they are)."""

Positives = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]
"""Texts [b], by number, to a text [b] that belongs to each; itself where none does."""


def pretrain(
    tokenizer: Any,
    model: Any,
    name: str,
    texts: Sequence[str],
    settings: PretrainingSettings,
    rng: np.random.Generator,
    *,
    positives: Positives | None,
    max_tokens: int,
    tuning: TuningSettings | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[Any, list[float]]:
    """The encoder pretrained on texts, and its mean loss in each pass; torch's own generator draws the dropout.

    Args:
        tokenizer: the encoder's tokenizer.
        model: the encoder; it is taken apart.
        name: its name, for errors.
        texts: the distinct texts.
        settings: passes, rates.
        rng: draws batches, masks and positives.
        positives: texts that belong together, for the contrastive way; None guesses hidden words.
        max_tokens: word pieces kept of a text.
        tuning: optimiser, weight decay, precision; the defaults where left out.
        progress: told the fraction done and a few words.

    Raises:
        InputError: the tokenizer has no mask token, or the encoder's layers cannot be found.
    """
    if positives is None and tokenizer.mask_token_id is None:
        raise InputError(
            f"preference.pretraining: 'masked_language' needs a mask token, which the tokenizer of '{name}' lacks; use "
            "contrastive or none"
        )
    batches = -(-len(texts) // settings.batch_items)
    how = (tuning or TuningSettings()).model_copy(
        update={
            "epochs": settings.epochs, "batch_items": settings.batch_items, "learning_rate": settings.learning_rate,
            "heads_learning_rate": settings.learning_rate, "layer_decay": 1.0, "top_layers": settings.layers or 1,
            "accumulate": 1, "averaging": 0.0,
        }
    )  # fmt: skip
    encoder = TunableEncoder(
        texts, tokenizer, model, name, "top_layers" if settings.layers else "full", how,
        planned_steps(how, batches, settings.epochs), max_tokens=max_tokens,
    )  # fmt: skip
    head = None if positives is not None else WordHead(encoder, tokenizer, settings)
    training = EncoderTraining(encoder, how, batches, settings.epochs, heads=head)
    losses = []
    for epoch in range(settings.epochs):
        training.train_mode()
        total = 0.0
        for part in batches_of_like_length(encoder.length, settings.batch_items, rng):
            if head is not None:
                hidden, objective = head.hide(part, rng)
                total += training.step_on(hidden, objective) * len(part)
            elif len(part) > 1:
                assert positives is not None
                both = np.concatenate([part, positives(part, rng)])
                total += training.step(both, _contrast(len(part), settings.temperature), rng) * len(part)
        training.end_pass()
        losses.append(total / len(texts))
        if progress is not None:
            progress((epoch + 1) / settings.epochs, f"pretraining, pass {epoch + 1}, loss {losses[-1]:.3f}")
    return encoder.plain(), losses


class WordHead(torch.nn.Module):
    """Guesses hidden tokens from the last hidden states (Devlin et al., 2019), over the pieces that the texts hold.

    The guess is the inner product with the token's own embedding, as in BERT.
    """

    def __init__(self, encoder: TunableEncoder, tokenizer: Any, settings: PretrainingSettings) -> None:
        super().__init__()
        special = set(tokenizer.all_special_ids)
        used = np.array(sorted({piece for row in encoder.ids for piece in row} - special))
        self._encoder, self._used, self._special = [encoder], used, special  # in a list: not a part of this module
        self._mask, self._share = int(tokenizer.mask_token_id), settings.masked
        table = encoder.inputs_of([used.tolist()])[0].detach() if encoder.adapted.below is None else None
        width = table.shape[2] if table is not None else int(encoder.adapted.below.config.hidden_size)
        self.dense = torch.nn.Linear(width, width)
        torch.nn.init.normal_(self.dense.weight, std=0.02)
        torch.nn.init.zeros_(self.dense.bias)
        self.norm = torch.nn.LayerNorm(width)
        self.bias = torch.nn.Parameter(torch.zeros(len(used)))

    def hide(self, part: NDArray[np.int64], rng: np.random.Generator) -> tuple[list[list[int]], Objective]:
        """Token ids of these texts with some hidden, and the objective of guessing them."""
        encoder = self._encoder[0]
        shown, rows, columns, answers = [], [], [], []
        for row, k in enumerate(part):
            ids = list(encoder.ids[k])
            may = [column for column, piece in enumerate(ids) if piece not in self._special]
            if may:
                count = max(1, round(self._share * len(may)))
                for column in rng.choice(may, count, replace=False):
                    rows.append(row)
                    columns.append(int(column))
                    answers.append(int(np.searchsorted(self._used, ids[column])))
                    draw = rng.random()
                    if draw < TO_MASK:
                        ids[column] = self._mask
                    elif draw < TO_MASK + TO_OTHER:
                        ids[column] = int(self._used[rng.integers(len(self._used))])
            shown.append(ids)
        answer = torch.tensor(answers, dtype=torch.long)

        def objective(last: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            states = last[rows, columns]
            logits = self.norm(functional.gelu(self.dense(states))) @ self._table().T + self.bias
            return functional.cross_entropy(logits, answer), logits

        return shown, objective

    def _table(self) -> torch.Tensor:
        encoder = self._encoder[0]
        if encoder.adapted.below is not None:
            weight: torch.Tensor = encoder.adapted.below.get_input_embeddings().weight
            return weight[torch.from_numpy(self._used)]
        return encoder.inputs_of([self._used.tolist()])[0][0]


def _contrast(count: int, temperature: float) -> Objective:
    """Each of the first texts must find its own among the second (InfoNCE; SimCSE, Gao et al., 2021)."""

    def objective(last: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = mean_pool(last, mask)
        logits = vectors[:count] @ vectors[count:].T / temperature
        return functional.cross_entropy(logits, torch.arange(count)), logits

    return objective


def liked_together(
    start: NDArray[np.int64], text: NDArray[np.int64], liked: NDArray[np.bool_], n_texts: int
) -> Positives:
    """Draws, for a text, another that users who liked the one liked too, in proportion to how often they did.

    Texts that nobody liked with another stand for themselves: two dropout masks of one text are SimCSE's own positive.

    Args:
        start: [n + 1] first row of each user.
        text: [m] number of each row's text, -1 for none.
        liked: [m] whether the outcome was positive.
        n_texts: number of texts.
    """
    from scipy import sparse

    user = np.repeat(np.arange(len(start) - 1), np.diff(start))
    use = liked & (text >= 0)
    count = np.bincount(user[use], minlength=len(start) - 1)
    # A user of many rows would else choose most pairs: each user shares one vote per text among the pairs.
    vote = 1 / np.sqrt(np.maximum(count[user[use]] - 1, 1))
    met = sparse.csr_matrix((vote, (user[use], text[use])), shape=(len(start) - 1, n_texts))
    together = (met.T @ met).tocsr()
    popularity = np.maximum(np.bincount(text[use], minlength=n_texts), 1)

    def draw(part: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        out = part.copy()
        for row, k in enumerate(part):
            low, high = together.indptr[k], together.indptr[k + 1]
            other, weight = together.indices[low:high], together.data[low:high]
            keep = other != k
            other, weight = other[keep], weight[keep] / np.sqrt(popularity[other[keep]])
            if len(other):
                out[row] = rng.choice(other, p=weight / weight.sum())
        return out

    return draw
