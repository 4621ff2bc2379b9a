"""Fine-tuning of a BERT as the item text tower: the encoder's training loop with the preference model as its objective.

Only `simulator.preference.fitting` imports this module, inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.encoders.adaptation import cannot_cut
from simulator.encoders.augmentation import Augmenter
from simulator.encoders.pretraining import liked_together, pretrain
from simulator.encoders.text import encode_with, load_encoder, mean_pool
from simulator.encoders.tuning import (
    READ_BATCH,
    EncoderTraining,
    TunableEncoder,
    batches_of_like_length,
    planned_steps,
)
from simulator.log import Histories
from simulator.preference._objectives import SearchObjective
from simulator.preference._two_tower import Heads, draw_hidden
from simulator.preference.problem import Problem
from simulator.preference.settings import PreferenceSettings

SAME = 1e-3
"""Largest difference of a unit vector's entry at which the split encoder counts as the encoder."""


class TextInTraining:
    """The item text tower in training; what of the encoder learns, and how, is the settings'.

    Args:
        texts: [I] text of each item; items without text keep the zero vector.
        pretrained: [I, p] vectors of the encoder as it starts, to check a cut against.
        text: [I, p] the same, standardised as the heads were trained on them.
        side: [I, C] further features of the items, which stay as they are.
        tokenizer: the encoder's tokenizer.
        model: the encoder; it is taken apart.
        name: its name, for errors.
        problem: the rows to fit.
        settings: how to tune.
        queries, query_vectors: [Q] queries of a joint fit and their vectors [Q, p] by the encoder as it starts.
        augmenter: rewords training texts; None leaves them as they are.

    Raises:
        InputError: the encoder cannot be adapted in the way asked for.
    """

    def __init__(
        self,
        texts: Sequence[str],
        pretrained: NDArray[np.float32],
        text: NDArray[np.float32],
        side: NDArray[np.float32],
        tokenizer: Any,
        model: Any,
        name: str,
        problem: Problem,
        settings: PreferenceSettings,
        queries: Sequence[str],
        query_vectors: NDArray[np.float32],
        augmenter: Augmenter | None = None,
    ) -> None:
        self.problem, self.settings = problem, settings
        self._now, self._queries_now = pretrained, query_vectors
        distinct = sorted({text for text in texts if text.strip()})
        self.n_texts = len(distinct)  # of items; texts of queries alone follow
        distinct += sorted(set(queries) - set(distinct))
        number = {text: k for k, text in enumerate(distinct)}
        self.text_of_item = np.array([number.get(text, -1) for text in texts])  # [I]
        self.text_of_query = np.array([number[text] for text in queries], np.int64)  # [Q]
        has_text = self.text_of_item >= 0
        self.has_text = torch.from_numpy(has_text.astype(np.float32))[:, None]
        self.side = torch.from_numpy(side)
        # The trained vectors go through the very shift and scale that made `text` of the pretrained ones.
        self.centre = torch.from_numpy(pretrained[has_text].mean(0))
        spread = np.linalg.norm(pretrained[has_text] - pretrained[has_text].mean(0))
        self.scale = float(spread / np.linalg.norm(text[has_text]))

        assert settings.adaptation != "frozen"
        tuning = settings.tuning
        batches = -(-self.n_texts // tuning.batch_items)
        if problem.searches is not None:
            # As many queries a step as make, with the items judged for them, about as many texts as a step else has,
            # and never more than twice as many: items are drawn of a query with many.
            judged = np.minimum(np.diff(problem.searches.start), max(1, tuning.batch_items // 2 - 1))
            self.queries_a_step = max(2, int(tuning.batch_items / (1 + judged.mean())))
            self.items_a_query = max(1, 2 * tuning.batch_items // self.queries_a_step - 1)
            self.query_steps = -(-len(queries) // self.queries_a_step)
            self.query_centre = torch.from_numpy(query_vectors.mean(0))
            spread = np.linalg.norm(query_vectors - query_vectors.mean(0))
            self.query_scale = float(spread / np.linalg.norm(problem.searches.vectors))
            batches += self.query_steps
        steps = planned_steps(tuning, batches, tuning.epochs)
        self.encoder = TunableEncoder(
            distinct, tokenizer, model, name, settings.adaptation, tuning, steps,
            max_tokens=settings.max_tokens, augmenter=augmenter, dropout=settings.robustness.dropout,
        )  # fmt: skip
        if settings.adaptation == "top_layers":
            self._check_cut(pretrained, name)
        self.training = EncoderTraining(self.encoder, tuning, batches, tuning.epochs, settings.robustness)
        self._weights = self.encoder.weights()

    def train_pass(self, heads: Heads, features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Train the encoder for one pass over the texts, the heads held fixed; the items' new features [I, p + C].

        A pass hides part of every history, folds the users in from the rest, and then takes the hidden rows text by
        text: each distinct text is encoded once a pass, however many rows it has. Queries of a joint fit come first.
        """
        history = self.problem.histories
        hidden = draw_hidden(history.start, self.settings.hidden_share, rng)
        user = np.repeat(np.arange(len(history)), np.diff(history.start))
        kept = ~hidden
        start = np.concatenate([[0], np.cumsum(np.bincount(user[kept], minlength=len(history)))])
        member = heads.export(features)
        theta = member.fold_in(Histories(start, history.item[kept], history.primary[kept]), self.problem.features)

        n_texts = self.n_texts
        text_of_row = self.text_of_item[history.item]
        rows = np.flatnonzero(hidden & (text_of_row >= 0))
        rows = rows[np.argsort(text_of_row[rows], kind="stable")]
        first = np.searchsorted(text_of_row[rows], np.arange(n_texts + 1))
        batch_items = self.settings.tuning.batch_items
        rows_a_batch = max(1.0, len(rows) * batch_items / n_texts)
        width = len(self.centre)
        with torch.no_grad():
            by_features, by_features_offset = heads.by_features()
            known, known_offset = heads.by_id(torch.arange(self.problem.n_items), fitted=True)
            vector, bias = by_features[:width].clone(), by_features_offset[:width].clone()
            residual = known + self.side @ by_features[width:]
            item_bias = known_offset + self.side @ by_features_offset[width:]
        self.training.train_mode()
        self._learn_queries(heads, rng)
        for part in batches_of_like_length(self.encoder.length[: self.n_texts], batch_items, rng):
            here = np.concatenate([rows[first[k] : first[k + 1]] for k in part])
            if len(here) == 0:
                self.training.skip()
                continue
            local = torch.from_numpy(np.searchsorted(part, text_of_row[here]))
            item = torch.from_numpy(history.item[here])
            state = torch.from_numpy(theta[user[here]])
            outcome = torch.from_numpy(history.primary[here])
            weight = None if self.problem.weight is None else torch.from_numpy(self.problem.weight[here])

            def objective(
                last: torch.Tensor,
                mask: torch.Tensor,
                local: torch.Tensor = local,
                item: torch.Tensor = item,
                state: torch.Tensor = state,
                outcome: torch.Tensor = outcome,
                weight: torch.Tensor | None = weight,
            ) -> tuple[torch.Tensor, torch.Tensor]:
                encoded = (mean_pool(last, mask) - self.centre) / self.scale  # [b, p]
                item_vectors = (encoded @ vector)[local] + residual[item]
                logit = (encoded @ bias)[local] + item_bias[item] + state[:, 0] + (state[:, 1:] * item_vectors).sum(1)
                loss = functional.binary_cross_entropy_with_logits(logit, outcome, weight, reduction="sum")
                return loss / rows_a_batch, logit

            self.training.step(part, objective, rng)
        self.training.end_pass()
        with self.training.averaged():
            read, self._weights = self.encoder.read(), self.encoder.weights()
        self._now, self._queries_now = self._of_items(read), read[self.text_of_query]
        text = (torch.from_numpy(self._now) - self.centre) / self.scale * self.has_text
        return torch.cat([text, self.side], dim=1)

    def vectors(self) -> NDArray[np.float32]:
        """[I, p] unit-length vectors of the items after the last pass."""
        return self._now

    def queries(self) -> NDArray[np.float32]:
        """[Q, p] unit-length vectors of the queries after the last pass."""
        return self._queries_now

    def query_features(self) -> NDArray[np.float32]:
        """[Q, p] the same, through the shift and scale of their features."""
        return ((torch.from_numpy(self._queries_now) - self.query_centre) / self.query_scale).numpy()

    def _learn_queries(self, heads: Heads, rng: np.random.Generator) -> None:
        """Train the encoder for one pass over the queries of a joint fit, the search tower held fixed."""
        if self.problem.searches is None or heads.search is None or self.settings.search is None:
            return
        # From a stream of its own, so that users and masks are drawn as without queries.
        search = SearchObjective(self.problem.searches, self.queries_a_step, rng.spawn(1)[0], self.items_a_query)
        width = len(self.centre)
        with torch.no_grad():
            of_query, of_text = heads.search.of_query.clone(), heads.search.of_features[:width].clone()
            rest = heads.search.of_item + self.side @ heads.search.of_features[width:]
        weight = self.settings.search.weight
        for _ in range(self.query_steps):
            queries, items = search.draw()
            described = self.text_of_item[items] >= 0
            part = np.unique(np.concatenate([self.text_of_query[queries], self.text_of_item[items[described]]]))
            query = torch.from_numpy(np.searchsorted(part, self.text_of_query[queries]))
            item = torch.from_numpy(np.where(described, np.searchsorted(part, self.text_of_item[items]), 0))
            there = torch.from_numpy(described.astype(np.float32))[:, None]
            known = rest[torch.from_numpy(items)]

            def objective(
                last: torch.Tensor,
                mask: torch.Tensor,
                queries: NDArray[np.int64] = queries,
                items: NDArray[np.int64] = items,
                query: torch.Tensor = query,
                item: torch.Tensor = item,
                there: torch.Tensor = there,
                known: torch.Tensor = known,
            ) -> tuple[torch.Tensor, torch.Tensor]:
                encoded = mean_pool(last, mask)
                asked = (encoded[query] - self.query_centre) / self.query_scale @ of_query
                answers = (encoded[item] - self.centre) / self.scale * there @ of_text + known
                score = search.scores(queries, items, asked, answers)
                return weight * search.loss(queries, items, score), score

            self.training.step(part, objective, rng)

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """The encoder's weights in training that gave these vectors."""
        return self._weights

    def _of_items(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([vectors, np.zeros((1, vectors.shape[1]), np.float32)])[self.text_of_item]

    def _check_cut(self, pretrained: NDArray[np.float32], name: str) -> None:
        some = np.arange(min(READ_BATCH, self.n_texts))
        item = np.array([np.flatnonzero(self.text_of_item == k)[0] for k in some])
        tolerance = SAME if not self.encoder.mixed else 0.05
        if not np.abs(self.encoder.read(some) - pretrained[item]).max() < tolerance:
            raise cannot_cut(name)


def pretrain_on_log(
    texts: Sequence[str],
    queries: Sequence[str],
    encoder: str,
    problem: Problem,
    settings: PreferenceSettings,
    rng: np.random.Generator,
    progress: Callable[[float, str], None],
) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """The encoder pretrained on the items' texts, and its vectors of them [I, p] and of the queries [Q, p].

    Outcomes are read by the contrastive way only, and only those of the fitting users.

    Raises:
        InputError: the encoder cannot be pretrained so.
    """
    tokenizer, model = load_encoder(encoder)
    distinct = sorted({text for text in texts if text.strip()})
    number = {text: k for k, text in enumerate(distinct)}
    text_of_item = np.array([number.get(text, -1) for text in texts])
    history = problem.histories
    positives = None
    if settings.pretraining == "contrastive":
        positives = liked_together(
            history.start, text_of_item[history.item], history.primary > 0.5, len(distinct)
        )  # fmt: skip
    model, _ = pretrain(
        tokenizer, model, Path(encoder).name, distinct, settings.domain, rng,
        positives=positives, max_tokens=settings.max_tokens, tuning=settings.tuning, progress=progress,
    )  # fmt: skip

    def read(some: Sequence[str]) -> NDArray[np.float32]:
        return encode_with(tokenizer, model, some, settings.max_tokens, device=settings.tuning.device)

    vectors = read(distinct)
    asked = read(queries) if queries else np.zeros((0, 0), np.float32)
    return model, np.concatenate([vectors, np.zeros((1, vectors.shape[1]), np.float32)])[text_of_item], asked
