"""Training of the decision transformer: Hugging Face's model over rows of the log, and its way to plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from agents.base import Training
from agents.decision_transformer import (
    EPSILON,
    Block,
    DecisionTransformer,
    DecisionTransformerSettings,
    SequenceModel,
    Sequences,
    sequence_states,
)
from agents.deep_rl import ItemQ, StateScale, item_inputs
from agents.features import Features
from agents.item_networks import ItemHeads
from agents.logged_choices import LoggedChoices, discounted_rows
from agents.offline_trainer import RowLearner, surprise_of_unmet
from agents.teaching import teach
from agents.train_world import Act
from simulator.encoders.tuning import one_thread

F32 = NDArray[np.float32]


def train_sequences(
    agent: DecisionTransformer, training: Training, features: Features, scale: StateScale, *, budget: int
) -> None:
    """Gradient steps on `budget` rows drawn from the log, in windows of `length` rows of one user."""

    def begin() -> _Windows:
        return _Windows(training, agent.settings, features, scale, budget)

    def act(learned: tuple[SequenceModel, ItemQ, float]) -> Act:
        agent.take(*learned)
        return agent.act

    with one_thread(training.seed):
        agent.take(*teach(training, begin, act, budget=budget))


class _Windows(RowLearner):
    """Imitation of the log's rows given what came before them and the return that followed."""

    def __init__(
        self,
        training: Training,
        settings: DecisionTransformerSettings,
        features: Features,
        scale: StateScale,
        budget: int,
    ) -> None:
        log = training.log
        self._network = SequenceNetwork(settings, features, scale, log.catalogue.user_features.shape[1])
        self._choices = LoggedChoices.of(training, features)
        self._returns = (1 - settings.gamma) * discounted_rows(log, settings.gamma)  # in [0, 1]
        self._target = float(np.quantile(self._returns, settings.target))
        self._rng, self._length = training.rng, settings.length
        self._features, self._scale = features, scale
        super().__init__(settings, self._network, budget)

    def loss(self, size: int) -> torch.Tensor:
        last = self._rng.integers(0, len(self._choices.log), max(1, size // self._length))
        sequences, rows = windows(self._choices, self._returns, last, self._length)
        there = sequences.there
        state = torch.as_tensor(self._choices.states(rows[there])[:, :-1])
        logits = self._network(sequences, state)
        met = torch.as_tensor(self._choices.met(rows[there]))
        return surprise_of_unmet(logits, met, torch.as_tensor(sequences.items[there])).mean()

    def policy(self) -> tuple[SequenceModel, ItemQ, float]:
        return *self._network.as_arrays(self._features, self._scale), self._target


def windows(
    choices: LoggedChoices, returns: F32, last: NDArray[np.int64], length: int
) -> tuple[Sequences, NDArray[np.int64]]:
    """The `length` rows up to each of the last ones [m], with their true returns to go; and the rows [m, length]."""
    log = choices.log
    rows, there = choices.places(last, length, own=True)
    feedback = log.primary[rows].astype(np.float32)
    users = log.catalogue.user_features[log.user[last]]
    # What came of a row whose predecessor is not in the window is not known to it, as it is not when the agent acts.
    sequences = Sequences(
        returns[rows] * there, sequence_states(feedback, there, users), np.where(there, log.item[rows], -1), there
    )
    return sequences, rows


class SequenceNetwork(nn.Module):
    """Hugging Face's DecisionTransformerModel, whose action is what the item networks read beside the state."""

    item_inputs: torch.Tensor

    def __init__(
        self, settings: DecisionTransformerSettings, features: Features, scale: StateScale, user_features: int
    ) -> None:
        super().__init__()
        inputs = item_inputs(features)
        self.transformer = DecisionTransformerModel(
            DecisionTransformerConfig(
                state_dim=2 + user_features,
                act_dim=inputs.shape[1],
                hidden_size=settings.width,
                max_ep_len=settings.length,
                action_tanh=False,
                n_layer=settings.layers,
                n_head=1,
                layer_norm_epsilon=EPSILON,
                resid_pdrop=settings.dropout,
                embd_pdrop=settings.dropout,
                attn_pdrop=settings.dropout,
                vocab_size=1,  # tokens are given as vectors
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self.items = ItemHeads(
            features,
            scale,
            hidden_size=settings.hidden_size,
            embedding_size=settings.embedding_size,
            further=inputs.shape[1],
        )
        self.register_buffer("item_inputs", torch.as_tensor(inputs))

    def said(self, sequences: Sequences) -> torch.Tensor:
        """[n, L, a] what is said of the item that follows each state."""
        items = torch.as_tensor(sequences.items)
        actions = self.item_inputs[items.clamp(min=0)] * (items >= 0)[..., None]
        n, length = sequences.items.shape
        made = self.transformer(
            states=torch.as_tensor(sequences.states),
            actions=actions,
            returns_to_go=torch.as_tensor(sequences.returns)[..., None],
            timesteps=torch.arange(length).expand(n, length),
            attention_mask=torch.as_tensor(sequences.there, dtype=torch.long),
        )
        said: torch.Tensor = made.action_preds
        return said

    def forward(self, sequences: Sequences, state: torch.Tensor) -> torch.Tensor:
        """[m, I] logits at the m rows that are there, whose states [m, s] the other agents would read."""
        said = self.said(sequences)[torch.as_tensor(sequences.there)]
        logits: torch.Tensor = self.items(torch.cat([state, said], dim=1)).mean()
        return logits

    def as_arrays(self, features: Features, scale: StateScale) -> tuple[SequenceModel, Any]:
        """The same without torch."""
        model: Any = self.transformer

        def linear(layer: nn.Linear) -> tuple[F32, F32]:
            return layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()

        def plain(layer: Any) -> tuple[F32, F32]:
            return layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()

        blocks = tuple(
            Block(
                plain(block.ln_1),
                plain(block.attn.c_attn),
                plain(block.attn.c_proj),
                plain(block.ln_2),
                plain(block.mlp.c_fc),
                plain(block.mlp.c_proj),
            )
            for block in model.encoder.h
        )
        scale_of_tokens, shift = plain(model.embed_ln)
        # All tokens have position 0 to the trunk, as their places were added before; its vector is one more shift.
        shift = shift + model.encoder.wpe.weight[0].detach().numpy()
        sequence = SequenceModel(
            of_return=linear(model.embed_return),
            of_state=linear(model.embed_state),
            of_item=linear(model.embed_action),
            place=model.embed_timestep.weight.detach().numpy().copy(),
            norm=(scale_of_tokens, shift),
            blocks=blocks,
            last_norm=plain(model.encoder.ln_f),
            out=linear(model.predict_action[0]),
            items=self.item_inputs.numpy(),
        )
        return sequence, self.items.as_arrays(features, scale)
