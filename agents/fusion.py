"""Trains the fusion of an item's modalities by torch; the result is plain arrays. Only `multimodal` uses it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.features import unit_rows
from agents.multimodal import Inputs, ItemTables, MultimodalSettings
from simulator.encoders.tuning import one_thread
from simulator.log import InteractionLog

VALIDATION = 0.1
"""Share of the train users on whom the best pass is chosen."""
EMA = 0.98
"""Share of the averaged weights that a late step leaves: those are judged and kept."""
LEAST_STEPS = 8
"""Gradient steps of a pass at least: batches are smaller where a log has few users."""
HEADS = 2
CHUNK = 8_192
"""Items fused at a time."""


class Fusion(nn.Module):
    """M modalities of an item to one vector [e], and what that vector means for its own bias and for a user's taste."""

    def __init__(self, inputs: Inputs, n_features: int, settings: MultimodalSettings) -> None:
        super().__init__()
        size, n_items, count = settings.embedding_size, len(inputs.rate), len(inputs.names)
        size += size % HEADS
        self.fusion, self.names = settings.fusion, inputs.names
        self.project = nn.ModuleDict(
            {
                str(at): nn.Embedding(n_items, size) if name == "id" else nn.Linear(vectors.shape[1], size)
                for at, (name, vectors) in enumerate(zip(inputs.names, inputs.vectors, strict=True))
            }
        )
        for layer in self.project.values():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.1)
        self.kind = nn.Parameter(0.1 * torch.randn(count, size))
        self.nothing = nn.Parameter(0.1 * torch.randn(size))  # a token that is always there
        if settings.fusion == "concatenation":
            self.mix = nn.Sequential(nn.Linear(count * (size + 1), 2 * size), nn.GELU(), nn.Linear(2 * size, size))
        elif settings.fusion == "gated":
            self.gate = nn.Linear(count * (size + 1), count + 1)
        elif settings.fusion == "cross_attention":
            self.query = nn.Parameter(0.1 * torch.randn(size))
            self.attend = nn.MultiheadAttention(size, HEADS, batch_first=True)
        else:
            self.layer = nn.TransformerEncoderLayer(
                size, HEADS, 2 * size, dropout=0.0, batch_first=True, norm_first=True
            )
        self.norm = nn.LayerNorm(size)
        self.item, self.bias = nn.Linear(size, size, bias=False), nn.Linear(size, 1)
        self.liked, self.other = nn.Linear(size, size + 1), nn.Linear(size, size + 1)
        self.rate: Tensor
        self.register_buffer("rate", torch.from_numpy(inputs.rate.copy()))
        self.own = nn.Parameter(torch.zeros(n_items, 1))  # what training adds to it; decays
        for head in (self.bias, self.liked, self.other):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.shrink = nn.Parameter(torch.full((2,), 5.0).expm1().log())  # softplus of it is 5 rows
        self.origin = nn.Parameter(torch.zeros(size + 1))
        self.mean = nn.Parameter(torch.tensor(inputs.mean))
        self.features = nn.Parameter(torch.zeros(n_features, size + 1))

    def fuse(self, item: Tensor, vectors: list[Tensor], there: Tensor) -> tuple[Tensor, Tensor]:
        """Fused vectors [m, e] and biases [m] of the items [m], given what is there [m, M] of them."""
        tokens = torch.stack(
            [
                self.project[str(at)](item if name == "id" else vectors[at][item]) + self.kind[at]
                for at, name in enumerate(self.names)
            ],
            dim=1,
        ) * there.unsqueeze(2)  # [m, M, e]
        every = torch.cat([self.nothing.expand(len(item), 1, -1), tokens], dim=1)
        hidden = torch.cat([torch.zeros(len(item), 1, dtype=torch.bool), ~there], dim=1)  # [m, 1 + M]
        flat = torch.cat([tokens.flatten(1), there.float()], dim=1)
        if self.fusion == "concatenation":
            fused = self.mix(flat)
        elif self.fusion == "gated":
            weight = self.gate(flat).masked_fill(hidden, -torch.inf).softmax(dim=1)
            fused = (weight.unsqueeze(2) * torch.tanh(every)).sum(1)
        elif self.fusion == "cross_attention":
            query = self.query.expand(len(item), 1, -1)
            fused = self.attend(query, every, every, key_padding_mask=hidden, need_weights=False)[0].squeeze(1)
        else:
            fused = self.layer(every, src_key_padding_mask=hidden)[:, 0]
        fused = self.norm(fused)
        bias = self.bias(fused).squeeze(1)
        if "id" in self.names:
            bias = bias + (self.rate[item] + self.own[item, 0]) * there[:, self.names.index("id")]
        return fused, bias

    def user(self, liked: Tensor, other: Tensor, count: Tensor, features: Tensor) -> Tensor:
        """[B, e + 1] vectors of users, the last entry their level, from sums over the history and its rows [B]."""
        rows = count[:, None] + nn.functional.softplus(self.shrink)
        return self.origin + liked / rows[:, :1] + other / rows[:, 1:] + features @ self.features


class Passes:
    """Training of the fusion by passes over the rows; its policy is that of the best pass so far.

    Attributes:
        steps: rows shown.
    """

    def __init__(self, log: InteractionLog, inputs: Inputs, settings: MultimodalSettings, seed: int) -> None:
        self.steps = 0
        self._log, self._settings, self._seed = log, settings, seed
        self._rng = np.random.default_rng(seed)
        users = np.unique(log.user)
        chosen = self._rng.permutation(len(users))
        n_validation = max(1, round(VALIDATION * len(users))) if len(users) > 1 else 0
        self._rows = _Rows(log, users)
        with one_thread(seed):
            self._model = Fusion(inputs, log.catalogue.user_features.shape[1], settings)
            self._held = _Held(inputs, log)
        self._average = deepcopy(self._model)
        decayed = [p for p in self._model.parameters() if p.ndim > 1]
        rest = [p for p in self._model.parameters() if p.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.reg}, {"params": rest, "weight_decay": 0.0}],
            lr=settings.learning_rate,
        )
        self._validation = self._rows.of(np.sort(chosen[:n_validation]))
        self._fixed = _halves(self._validation, np.random.default_rng(seed + 1))
        self._fitted = chosen[n_validation:]
        self._best, self._since, self._kept = np.inf, 0, _tables(self._average, self._held)
        self._passes, self._gradient_steps = 0, 0

    def advance(self) -> bool:
        """One pass; False when `patience` of them brought nothing on the validation users."""
        settings, model, held = self._settings, self._model, self._held
        size = max(1, min(settings.batch_size, len(self._fitted) // LEAST_STEPS))
        with one_thread(self._seed + 1 + self._passes):
            order = self._rng.permutation(self._fitted)
            for start in range(0, len(order), size):
                batch = self._rows.of(np.sort(order[start : start + size]))
                loss = _loss(model, held, batch, _halves(batch, self._rng), settings, self._rng)
                self._optimiser.zero_grad(set_to_none=True)
                loss.backward()
                self._optimiser.step()
                self._gradient_steps += 1
                share = 1 - min(EMA, self._gradient_steps / (self._gradient_steps + 10))
                with torch.no_grad():
                    for mean, new in zip(self._average.parameters(), model.parameters(), strict=True):
                        mean.lerp_(new, share)
            with torch.no_grad():
                rng = np.random.default_rng(self._seed)
                found = float(_loss(self._average, held, self._validation, self._fixed, settings, rng, drop=False))
        if found < self._best:
            self._best, self._since, self._kept = found, 0, _tables(self._average, held)
        else:
            self._since += 1
        self._passes += 1
        self.steps += len(self._log)
        return self._since < settings.patience

    def policy(self) -> ItemTables:
        """The tables of the best pass so far; before any, of the untrained network."""
        return self._kept


class _Held:
    """The inputs as tensors."""

    def __init__(self, inputs: Inputs, log: InteractionLog) -> None:
        self.vectors = [torch.from_numpy(vectors) for vectors in inputs.vectors]
        self.there = torch.from_numpy(inputs.there)
        self.kinds = inputs.kinds
        self.met = np.unique(log.item)
        self.features = torch.from_numpy(np.ascontiguousarray(log.catalogue.user_features, np.float32))


class _Rows:
    """Rows of the log by user."""

    def __init__(self, log: InteractionLog, users: NDArray[np.int64]) -> None:
        self.log, self.users = log, users
        self.start = np.searchsorted(log.user, users)
        self.length = np.searchsorted(log.user, users, side="right") - self.start

    def of(self, chosen: NDArray[np.int64]) -> _Batch:
        """Rows of the chosen users."""
        length = self.length[chosen]
        end = np.cumsum(length)
        row = np.arange(end[-1] if len(end) else 0) + np.repeat(self.start[chosen] - (end - length), length)
        return _Batch(
            np.repeat(np.arange(len(chosen)), length), self.log.item[row], self.log.primary[row], self.users[chosen]
        )


class _Batch:
    """m rows of B users: user [m] in the batch, item [m], primary [m], and the users [B] of the catalogue."""

    def __init__(
        self,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        primary: NDArray[np.float32],
        users: NDArray[np.int64],
    ) -> None:
        self.user, self.item, self.primary, self.users = user, item, primary, users


def _halves(batch: _Batch, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[m] rows that are history; the others are predicted from it. Each user's share is drawn anew."""
    share = rng.uniform(0.1, 0.9, len(batch.users))
    return rng.random(len(batch.user)) < share[batch.user]


def _loss(
    model: Fusion,
    held: _Held,
    batch: _Batch,
    history: NDArray[np.bool_],
    settings: MultimodalSettings,
    rng: np.random.Generator,
    *,
    drop: bool = True,
) -> Tensor:
    """Mean loss of the rows that are no history."""
    item = batch.item
    target = ~history
    if settings.loss == "bpr":
        target = target & (batch.primary > 0)
        # Among items that somebody met: of the others no row says that they were passed over.
        other = rng.choice(held.met, int(target.sum()))
        item = np.concatenate([item, other])
    distinct, place = np.unique(item, return_inverse=True)
    of = torch.from_numpy(place)
    there = held.there[distinct]
    if drop and settings.modality_dropout:
        # Whole modalities of whole items; an item that lost all of them keeps what it had.
        stays = torch.from_numpy(rng.random(there.shape) >= settings.modality_dropout) & there
        there = torch.where(stays.any(dim=1, keepdim=True), stays, there)
    fused, bias = model.fuse(torch.from_numpy(distinct), held.vectors, there)
    rows = of[: len(batch.user)]
    vector = users_of(model, held, batch, history, fused[rows], bias[rows])
    future = torch.from_numpy(target)
    mine = vector[torch.from_numpy(batch.user)[future]]
    items = model.item(fused)

    def logit(which: Tensor) -> Tensor:
        return (mine[:, :-1] * items[which]).sum(1) + bias[which]

    if settings.loss == "bpr":
        return nn.functional.softplus(logit(of[len(batch.user) :]) - logit(rows[future])).mean()
    said = torch.from_numpy(batch.primary)[future]
    return nn.functional.binary_cross_entropy_with_logits(logit(rows[future]) + mine[:, -1] + model.mean, said)


def users_of(
    model: Fusion, held: _Held, batch: _Batch, history: NDArray[np.bool_], fused: Tensor, bias: Tensor
) -> Tensor:
    """[B, e + 1] vectors of users from the rows that are history, given what all rows' items are [m, e] and [m].

    As `ItemTables.users` pools them: a like counts by how little it was expected, and a row without one by how much.
    """
    user, liked, past = (torch.from_numpy(x) for x in (batch.user, batch.primary > 0, history))
    n = len(batch.users)
    chance = torch.sigmoid(bias + model.mean).detach()

    def pooled(head: nn.Linear, mask: Tensor, surprise: Tensor) -> Tensor:
        adds = head(fused[mask]) * surprise[mask, None]
        return torch.zeros(n, fused.shape[1] + 1).index_add(0, user[mask], adds)

    return model.user(
        pooled(model.liked, past & liked, 1 - chance),
        pooled(model.other, past & ~liked, chance),
        torch.bincount(user[past], minlength=n).float(),
        held.features[batch.users],
    )


def _tables(model: Fusion, held: _Held) -> ItemTables:
    """The model as plain arrays, every item fused from all that is there of it."""
    parts: list[tuple[Any, ...]] = []
    with torch.no_grad(), one_thread(0):
        for start in range(0, len(held.there), CHUNK):
            item = torch.arange(start, min(start + CHUNK, len(held.there)))
            fused, bias = model.fuse(item, held.vectors, held.there[item])
            liked, other = model.liked(fused)[:, :-1], model.other(fused)[:, :-1]
            parts.append(tuple(part.numpy().copy() for part in (model.item(fused), bias, liked, other)))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        shrink = nn.functional.softplus(model.shrink)
        return ItemTables(
            items=columns[0],
            bias=columns[1],
            liked=columns[2],
            other=columns[3],
            chance=torch.sigmoid(torch.from_numpy(columns[1]) + model.mean).numpy(),
            shrink=(float(shrink[0]), float(shrink[1])),
            origin=model.origin[:-1].numpy().copy(),
            features=model.features[:, :-1].numpy().copy(),
            kinds=held.kinds if held.kinds.shape[1] else unit_rows(columns[0]),
        )
