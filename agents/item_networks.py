"""Torch twins of the networks of `agents.deep_rl`: what learns, and its way to the plain arrays that act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agents.deep_rl import ItemQ, Layers, StateScale, item_inputs
from agents.features import PAIR_NAMES, Features


def layers_of(modules: Sequence[nn.Module], activation: str, *, squashed: bool = False) -> Layers:
    """The linear layers among the modules as arrays; `squashed` where a tanh follows the last."""
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    return Layers(
        tuple(module.weight.detach().numpy().copy() for module in linear),
        tuple(module.bias.detach().numpy().copy() for module in linear),
        activation,
        squashed,
    )


class ItemHeads(nn.Module):
    """State and item network whose product scores all items, `heads` times over; the same function as `ItemQ`.

    With `centred` the items' part has mean zero over the catalogue, so that the state's value is an output of its own.
    """

    item_inputs: torch.Tensor
    item_features: torch.Tensor
    state_mean: torch.Tensor
    state_spread: torch.Tensor

    def __init__(
        self,
        features: Features,
        scale: StateScale,
        *,
        hidden_size: int,
        embedding_size: int,
        heads: int = 1,
        further: int = 1,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.centred = centred
        item = features.item_features()
        self.n_pair, self.n_item, self.heads, self.further = len(PAIR_NAMES), item.shape[1], heads, further
        out = heads * (self.n_pair + self.n_item + embedding_size + 1)
        inputs = item_inputs(features)
        state_size = len(scale.mean) + further
        self.state_network = nn.Sequential(nn.Linear(state_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, out))
        self.item_network = nn.Sequential(
            nn.Linear(inputs.shape[1], hidden_size), nn.ReLU(), nn.Linear(hidden_size, embedding_size)
        )
        with torch.no_grad():
            # A small start: nothing is known, so no item is far ahead of another.
            last = self.state_network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.register_buffer("item_inputs", torch.as_tensor(inputs))
        self.register_buffer("item_features", torch.as_tensor(item))
        self.register_buffer("state_mean", torch.as_tensor(scale.mean))
        self.register_buffer("state_spread", torch.as_tensor(scale.spread))
        self._slices = features.pair_slices()
        for number, block in enumerate(features.pair_item_blocks()):
            self.register_buffer(f"block_{number}", torch.as_tensor(block))

    def forward(self, obs: torch.Tensor) -> FactoredScores:
        """Scores of every item; obs is the raw state [n, s] and further inputs, such as the place's discount."""
        left, value = self._of_states(obs)
        items = self._of_items(slice(None))
        if self.centred:
            items = items - items.mean(dim=0)
        return FactoredScores(left, items, value)

    def at(self, obs: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """[n, K] scores of the items [n, K] by a network of one head that is not centred; no other item is read."""
        assert self.heads == 1
        assert not self.centred
        left, value = self._of_states(obs)
        scores: torch.Tensor = torch.einsum("nd,nkd->nk", left[:, 0], self._of_items(items)) + value[:, 0]
        return scores

    def _of_states(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, heads, d] and [n, heads, 1]."""
        raw, further = obs[:, : -self.further], obs[:, -self.further :]
        state = ((raw - self.state_mean) / self.state_spread).clamp(-5, 5)
        out = self.state_network(torch.cat([state, further], dim=1)).view(len(obs), self.heads, -1)
        left = [raw[:, None, part] * out[..., j, None] for j, part in enumerate(self._slices)]
        left.append(out[..., self.n_pair : -1])
        return torch.cat(left, dim=2), out[..., -1:]

    def _of_items(self, which: torch.Tensor | slice) -> torch.Tensor:
        """[..., d] of these items."""
        right = [getattr(self, f"block_{j}")[which] for j in range(self.n_pair)]
        right += [self.item_features[which], self.item_network(self.item_inputs[which])]
        return torch.cat(right, dim=-1)

    def as_arrays(self, features: Features, scale: StateScale, *, heads: int = 1) -> ItemQ:
        """The mean of the first heads without torch: the last layer is linear, so its rows are averaged."""
        state = layers_of([*self.state_network], "relu")
        weights = state.weights[-1].reshape(self.heads, -1, state.weights[-1].shape[1])[:heads].mean(axis=0)
        biases = state.biases[-1].reshape(self.heads, -1)[:heads].mean(axis=0)
        state = Layers((*state.weights[:-1], weights), (*state.biases[:-1], biases), state.activation)
        return ItemQ(features, scale, state, layers_of([*self.item_network], "relu"), self.centred)


class StateValue(nn.Module):
    """Value [m] of states [m, s + 1], whatever is shown."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, scale: StateScale, *, hidden_size: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(len(scale.mean), hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1))
        self.register_buffer("mean", torch.as_tensor(scale.mean))
        self.register_buffer("spread", torch.as_tensor(scale.spread))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """The place's discount, which stands last, is not looked at."""
        standard = ((obs[:, :-1] - self.mean) / self.spread).clamp(-5, 5)
        value: torch.Tensor = self.network(standard)[:, 0]
        return value


def move_target(target: nn.Module, learned: nn.Module, share: float) -> None:
    """Move the target's parameters by a share of the way to the learned ones (Polyak averaging)."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), learned.parameters(), strict=True):
            slow.lerp_(fast, share)


class FactoredScores:
    """[n, heads, I] scores as a product that is taken only where it is asked for.

    sb3-contrib's QR-DQN asks for the mean of the quantiles of all items and for all quantiles of one item; the whole
    array would be `heads` times as large as what DQN handles. It gets what it asks for by the names that it calls.

    Attributes:
        left: [n, heads, d]; right: [I, d]; value: [n, heads, 1].
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor, value: torch.Tensor) -> None:
        self.left, self.right, self.value = left, right, value

    def mean(self, dim: int = 1, *, keepdim: bool = False) -> torch.Tensor:
        """[n, I] mean over the heads; [n, 1, I] with `keepdim`."""
        assert dim == 1, "only the heads can be averaged"
        mean = self.left.mean(dim=1) @ self.right.T + self.value.mean(dim=1)
        return mean[:, None] if keepdim else mean

    def gather(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """[n, heads, 1] scores of one item for each row; index: [n, heads, 1], the same for all heads."""
        assert dim == 2, "only items can be gathered"
        return (self.left * self.right[index[:, 0, 0], None]).sum(dim=2, keepdim=True) + self.value

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> torch.Tensor:
        """torch.gather as the method."""
        if function is not torch.gather:
            return NotImplemented
        scores, *rest = args
        return scores.gather(*rest, **(kwargs or {}))
