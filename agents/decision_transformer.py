"""Decision transformer: a causal sequence model of returns to go, states and items, asked for what earns a high return.

It is trained in `agents.decision_transformer_trainer`; a trained agent holds plain arrays, so acting needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agents.base import Observation, Training
from agents.bert_items import by_bert
from agents.deep_rl import ItemQ, StateScale
from agents.features import fit_features
from agents.logged_choices import in_order
from agents.offline import OfflineAgent, OfflineSettings, rows_to_learn

F32 = NDArray[np.float32]

EPSILON = 1e-5
"""Added to variances where a layer is normalised, as in the model that is trained."""


class DecisionTransformerSettings(OfflineSettings):
    """Parameters of the decision transformer."""

    gamma: float = Field(default=0.5, ge=0, lt=1, description="discount a row of the return to go")
    target: float = Field(
        default=0.9, ge=0, le=1, description="quantile of the log's returns to go that is asked for while judged"
    )
    length: int = Field(default=10, ge=1, le=100, description="rows of the history that it reads")
    layers: int = Field(default=2, ge=1, description="layers of the transformer")
    width: int = Field(default=32, ge=1, description="width of the transformer")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="share of what passes between layers that is hidden")


@dataclass(frozen=True, slots=True)
class Sequences:
    """n histories as the model reads them: L times a return to go, a state and an action, the newest last.

    Attributes:
        returns: [n, L] returns to go, in units of the largest there can be.
        states: [n, L, s] the feedback on the row before, whether there was one, and the user's public features.
        items: [n, L] item taken; -1 where it is not known yet, or where there is no row.
        there: [n, L] whether there is such a row.
    """

    returns: F32
    states: F32
    items: NDArray[np.int64]
    there: NDArray[np.bool_]

    @classmethod
    def of(cls, observation: Observation, *, length: int, gamma: float, target: float) -> Sequences:
        """What was observed, with the target as the return to go from now on: earlier ones follow from it."""
        n = len(observation)
        items = np.full((n, length), -1, np.int64)
        feedback = np.zeros((n, length), np.float32)
        known = min(length - 1, observation.history_items.shape[1])
        if known:
            items[:, length - 1 - known : -1] = observation.history_items[:, -known:]
            feedback[:, length - 1 - known : -1] = observation.history_feedback[:, -known:]
        returns = np.full((n, length), target, np.float32)
        for place in range(length - 2, -1, -1):
            returns[:, place] = (1 - gamma) * feedback[:, place] + gamma * returns[:, place + 1]
        there = items >= 0
        there[:, -1] = True
        return cls(returns, sequence_states(feedback, there, observation.user_features), items, there)


def sequence_states(feedback: F32, there: NDArray[np.bool_], user_features: F32) -> F32:
    """[n, L, s] states from the feedback [n, L] on each row: what is known at a row is what came of the one before."""
    before = np.zeros((*there.shape, 2), np.float32)
    before[:, 1:, 0] = np.where(there, feedback, 0)[:, :-1]
    before[:, 1:, 1] = there[:, :-1]
    return np.concatenate([before, np.repeat(user_features[:, None], there.shape[1], axis=1)], axis=2)


@dataclass(frozen=True, slots=True)
class Block:
    """A layer of the transformer as arrays: attention of one head and a feed-forward network, before each a norm."""

    first_norm: tuple[F32, F32]
    attention: tuple[F32, F32]
    joined: tuple[F32, F32]
    second_norm: tuple[F32, F32]
    wide: tuple[F32, F32]
    narrow: tuple[F32, F32]

    def __call__(self, x: F32, visible: NDArray[np.bool_], *, newest: int) -> F32:
        """[n, m, w] of the newest m of the tokens [n, T, w]; visible: [n, T] tokens that may be looked at."""
        width, tokens = x.shape[2], x.shape[1]
        weight, bias = self.attention
        seen = normed(x, self.first_norm)
        query = seen[:, tokens - newest :] @ weight[:, :width] + bias[:width]
        key = seen @ weight[:, width : 2 * width] + bias[width : 2 * width]
        value = seen @ weight[:, 2 * width :] + bias[2 * width :]
        score = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width))
        past = np.arange(tokens)[None, :] <= np.arange(tokens - newest, tokens)[:, None]
        score = np.where(past & visible[:, None, :], score, np.float32(-1e30))
        share = np.exp(score - score.max(axis=2, keepdims=True))
        share /= share.sum(axis=2, keepdims=True)
        x = x[:, tokens - newest :] + (share @ value) @ self.joined[0] + self.joined[1]
        hidden = np.maximum(normed(x, self.second_norm) @ self.wide[0] + self.wide[1], 0)
        out: F32 = x + hidden @ self.narrow[0] + self.narrow[1]
        return out


def normed(x: F32, norm: tuple[F32, F32]) -> F32:
    """Layer norm of the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    out: F32 = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON) * norm[0] + norm[1]
    return out


@dataclass(frozen=True, slots=True)
class SequenceModel:
    """The trained transformer as arrays.

    Attributes:
        of_return, of_state, of_item: weight [in, w] and bias [w] that make tokens.
        place: [L, w] of each row's place; norm: of the tokens.
        blocks: the layers; last_norm: after them.
        out: weight [w, a] and bias [a] of what is said of the next item.
        items: [I, a] what an item is to the model.
    """

    of_return: tuple[F32, F32]
    of_state: tuple[F32, F32]
    of_item: tuple[F32, F32]
    place: F32
    norm: tuple[F32, F32]
    blocks: tuple[Block, ...]
    last_norm: tuple[F32, F32]
    out: tuple[F32, F32]
    items: F32

    def __call__(self, sequences: Sequences) -> F32:
        """[n, a] what is said of the item to come after the newest state."""
        known = np.where(sequences.items >= 0, sequences.items, 0)
        vectors = self.items[known] * (sequences.items >= 0)[..., None]
        tokens = np.stack(
            [
                sequences.returns[..., None] @ self.of_return[0] + self.of_return[1],
                sequences.states @ self.of_state[0] + self.of_state[1],
                vectors @ self.of_item[0] + self.of_item[1],
            ],
            axis=2,
        )  # [n, L, 3, w]
        tokens = tokens + self.place[:, None, :]
        n, length, _, width = tokens.shape
        x = normed(tokens.reshape(n, 3 * length, width), self.norm)[:, :-1]  # the newest action is not known
        visible = np.repeat(sequences.there, 3, axis=1)[:, :-1]
        for number, block in enumerate(self.blocks):
            x = block(x, visible, newest=1 if number == len(self.blocks) - 1 else x.shape[1])
        out: F32 = normed(x[:, -1], self.last_norm) @ self.out[0] + self.out[1]
        return out


class DecisionTransformer(OfflineAgent):
    """Decision transformer (Chen et al., 2021): imitates given the return that followed, then asks for a high one.

    Tokens are the return to go, what is known since the row before, and the item taken, as a vector of what catalogue
    and log say of it. What the transformer makes of them goes, beside the state that the other agents read, to the
    networks whose product scores all items; the loss is that of behaviour cloning.
    """

    settings: DecisionTransformerSettings

    def __init__(self, settings: DecisionTransformerSettings) -> None:
        super().__init__(settings)
        self.sequence: SequenceModel | None = None
        self.target = 0.0

    def fit(self, training: Training) -> None:
        """Learn for `budget` rows (default four passes); the train world is flown for the learning curve only."""
        from agents.decision_transformer_trainer import train_sequences

        training = in_order(by_bert(training, self.settings))
        features = fit_features(training)
        train_sequences(self, training, features, StateScale.of(features, training), budget=rows_to_learn(training))

    def take(self, sequence: SequenceModel, policy: ItemQ, target: float) -> None:
        """Decide by these from now on."""
        self.sequence, self.policy, self.target = sequence, policy, target

    def scores(self, observation: Observation) -> F32:
        """[n, I] logits of the items, given the target."""
        assert self.sequence is not None, "fit comes before act"
        assert self.policy is not None
        settings = self.settings
        read = Sequences.of(observation, length=settings.length, gamma=settings.gamma, target=self.target)
        return self.policy.scores(observation, self.sequence(read))
