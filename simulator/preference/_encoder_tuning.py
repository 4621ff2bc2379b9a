"""Fine-tuning of a BERT as the item text tower, in torch: the top layers learn, what lies below is computed once.

Only `simulator.preference.fitting` imports this module, inside its functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.encoders.text import load_encoder, mean_pool, pad, tokenize
from simulator.errors import InputError
from simulator.log import Histories
from simulator.preference._two_tower import Heads, draw_hidden
from simulator.preference.problem import Problem
from simulator.preference.settings import PreferenceSettings

LAYER_PATHS = ("encoder.layer", "transformer.layer", "encoder.layers", "layers")
"""Where BERT, RoBERTa, ELECTRA (the first), DistilBERT (the second) and their kin keep their layers."""
SAME = 1e-3
"""Largest difference of a unit vector's entry at which the split encoder counts as the encoder."""
READ_BATCH = 128
LENGTH_JITTER = 4.0
"""Tokens by which two texts of one training batch may differ beyond their order."""


class TopLayers:
    """An encoder cut in two: hidden states below the cut are kept for each distinct text, the layers above are trained.

    Args:
        texts: [I] text of each item; items without text keep the zero vector.
        pretrained: [I, p] vectors of the whole encoder, to check the cut against.
        text: [I, p] the same, standardised as the heads were trained on them.
        side: [I, C] further features of the items, which stay as they are.
        encoder: folder of the encoder.
        problem: the rows to fit.
        settings: how to tune.

    Raises:
        InputError: the encoder's layers cannot be found, or cut, in the way of a BERT.
    """

    def __init__(
        self,
        texts: Sequence[str],
        pretrained: NDArray[np.float32],
        text: NDArray[np.float32],
        side: NDArray[np.float32],
        encoder: str,
        problem: Problem,
        settings: PreferenceSettings,
    ) -> None:
        self.problem, self.settings = problem, settings
        self._now = pretrained
        self.distinct = sorted({text for text in texts if text.strip()})
        number = {text: k for k, text in enumerate(self.distinct)}
        self.text_of_item = np.array([number.get(text, -1) for text in texts])  # [I]
        has_text = self.text_of_item >= 0
        self.has_text = torch.from_numpy(has_text.astype(np.float32))[:, None]
        self.side = torch.from_numpy(side)
        # The trained vectors go through the very shift and scale that made `text` of the pretrained ones.
        self.centre = torch.from_numpy(pretrained[has_text].mean(0))
        spread = np.linalg.norm(pretrained[has_text] - pretrained[has_text].mean(0))
        self.scale = float(spread / np.linalg.norm(text[has_text]))

        tokenizer, model = load_encoder(encoder)
        parent, name, layers = _find_layers(model, encoder)
        cut = max(len(layers) - settings.tuning.top_layers, 0)
        self.top = layers[cut:]
        ids = tokenize(self.distinct, tokenizer, settings.max_tokens)
        self.start = np.concatenate([[0], np.cumsum([len(row) for row in ids])])
        setattr(parent, name, layers[:cut])
        self.below = self._read_below(model, ids, tokenizer.pad_token_id or 0)
        self._check_cut(pretrained, encoder)

        self.top.requires_grad_(requires_grad=True)
        tuning = settings.tuning
        groups = [
            {"params": list(layer.parameters()), "lr": tuning.learning_rate * tuning.layer_decay**depth}
            for depth, layer in enumerate(reversed(self.top))
        ]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=tuning.weight_decay)
        total = tuning.epochs * -(-len(self.distinct) // tuning.batch_items)
        warm = max(1, round(tuning.warm_up * total))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda k: min((k + 1) / warm, max(0.0, (total - k) / max(1, total - warm)))
        )

    def train_pass(self, heads: Heads, features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Train the top layers for one pass over the texts, the heads held fixed; the items' new features [I, p + C].

        A pass hides part of every history, folds the users in from the rest, and then takes the hidden rows text by
        text: each distinct text is encoded once a pass, however many rows it has.
        """
        history = self.problem.histories
        hidden = draw_hidden(history.start, self.settings.hidden_share, rng)
        user = np.repeat(np.arange(len(history)), np.diff(history.start))
        kept = ~hidden
        start = np.concatenate([[0], np.cumsum(np.bincount(user[kept], minlength=len(history)))])
        member = heads.export(features)
        theta = member.fold_in(Histories(start, history.item[kept], history.primary[kept]), self.problem.features)

        text_of_row = self.text_of_item[history.item]
        rows = np.flatnonzero(hidden & (text_of_row >= 0))
        rows = rows[np.argsort(text_of_row[rows], kind="stable")]
        first = np.searchsorted(text_of_row[rows], np.arange(len(self.distinct) + 1))
        batch_items = self.settings.tuning.batch_items
        rows_a_batch = max(1.0, len(rows) * batch_items / len(self.distinct))
        width = len(self.centre)
        with torch.no_grad():
            vector, bias = heads.feature_vector[:width].clone(), heads.feature_bias[:width].clone()
            residual = heads.item_vector + self.side @ heads.feature_vector[width:]
            item_bias = heads.known_by_id(fitted=True) + self.side @ heads.feature_bias[width:]
        # Batches of texts of like length, who is with whom drawn anew each pass: a third less padding to compute on.
        order = np.argsort(np.diff(self.start) + rng.uniform(0, LENGTH_JITTER, len(self.distinct)))
        batches = [np.sort(order[low : low + batch_items]) for low in range(0, len(order), batch_items)]
        self.top.train()
        for number in rng.permutation(len(batches)):
            part = batches[number]
            here = np.concatenate([rows[first[k] : first[k + 1]] for k in part])
            if len(here) == 0:
                self.schedule.step()
                continue
            encoded = (self._encode(part) - self.centre) / self.scale  # [b, p]
            local = torch.from_numpy(np.searchsorted(part, text_of_row[here]))
            item = torch.from_numpy(history.item[here])
            state = torch.from_numpy(theta[user[here]])
            item_vectors = (encoded @ vector)[local] + residual[item]
            logit = (encoded @ bias)[local] + item_bias[item] + state[:, 0] + (state[:, 1:] * item_vectors).sum(1)
            outcome = torch.from_numpy(history.primary[here])
            loss = functional.binary_cross_entropy_with_logits(logit, outcome, reduction="sum") / rows_a_batch
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.top.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
        self._now = self._read_all()
        text = (torch.from_numpy(self._now) - self.centre) / self.scale * self.has_text
        return torch.cat([text, self.side], dim=1)

    def vectors(self) -> NDArray[np.float32]:
        """[I, p] unit-length vectors of the items after the last pass."""
        return self._now

    def _read_all(self) -> NDArray[np.float32]:
        self.top.eval()
        length = np.diff(self.start)
        order = np.argsort(length, kind="stable")
        out = np.zeros((len(self.distinct) + 1, self.below.shape[1]), np.float32)  # the last row: no text
        with torch.inference_mode():
            for low in range(0, len(order), READ_BATCH):
                part = order[low : low + READ_BATCH]
                out[part] = self._encode(part).numpy()
        return out[self.text_of_item]

    def _encode(self, part: NDArray[np.int64]) -> torch.Tensor:
        """[b, p] unit vectors of distinct texts, from the hidden states below the cut."""
        length = np.diff(self.start)[part]
        column = np.arange(length.max())
        there = column < length[:, None]
        place = np.where(there, self.start[part][:, None] + column, self.start[part][:, None])
        mask = torch.from_numpy(there.astype(np.float32))
        return mean_pool(_run(self.top, self.below[torch.from_numpy(place)], mask), mask)

    def _read_below(self, model: Any, ids: list[list[int]], pad_id: int) -> torch.Tensor:
        """[tokens, p] hidden states below the cut of all distinct texts, one after another."""
        out = torch.empty((int(self.start[-1]), int(model.config.hidden_size)))
        order = sorted(range(len(ids)), key=lambda k: (len(ids[k]), k))
        with torch.no_grad():
            for low in range(0, len(order), READ_BATCH):
                part = order[low : low + READ_BATCH]
                tokens, mask = pad([ids[k] for k in part], pad_id)
                hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state
                for row, k in enumerate(part):
                    out[self.start[k] : self.start[k + 1]] = hidden[row, : len(ids[k])]
        return out

    def _check_cut(self, pretrained: NDArray[np.float32], encoder: str) -> None:
        some = np.arange(min(READ_BATCH, len(self.distinct)))
        item = np.array([np.flatnonzero(self.text_of_item == k)[0] for k in some])
        with torch.inference_mode():
            difference = np.abs(self._encode(some).numpy() - pretrained[item]).max()
        if not difference < SAME:
            raise _cannot_cut(encoder)


def _find_layers(model: Any, encoder: str) -> tuple[Any, str, Any]:
    """The module that holds the encoder's layers, its attribute's name, and the layers."""
    for path in LAYER_PATHS:
        parent, found = model, True
        *way, name = path.split(".")
        for step in way:
            parent = getattr(parent, step, None)
            if parent is None:
                found = False
                break
        if found and isinstance(getattr(parent, name, None), torch.nn.ModuleList):
            return parent, name, getattr(parent, name)
    raise _cannot_cut(encoder)


def _cannot_cut(encoder: str) -> InputError:
    return InputError(
        f"preference.adaptation: 'top_layers' cannot cut '{Path(encoder).name}', whose layers are not those of a BERT; "
        "use adaptation: frozen"
    )


def _run(layers: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Hidden states [b, T, p] through the layers; mask [b, T] is 1.0 for tokens that are there."""
    blocked = (1.0 - mask)[:, None, None, :] * torch.finfo(hidden.dtype).min
    for layer in layers:
        out = layer(hidden, blocked)
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden
