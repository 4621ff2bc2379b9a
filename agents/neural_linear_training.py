"""Training of the network of the neural-linear bandit: the only part of it that needs torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.deep_rl import Layers
from agents.item_networks import layers_of
from agents.neural_linear import NeuralLinearSettings

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]


def train_features(
    settings: NeuralLinearSettings,
    networks: tuple[Layers, Layers],
    inputs: tuple[F32, F32],
    rows: tuple[Ints, Ints],
    known: F32,
    clicks: F32,
    rng: np.random.Generator,
) -> tuple[Layers, Layers]:
    """State and item network whose product explains the clicks beside the known features, by least squares.

    Args:
        settings: sizes and steps.
        networks: state and item network to go on from.
        inputs: [u, s] states and [I, a] items.
        rows: [m] row of the states, and [m] item, of each place that was shown.
        known: [m, f] features that need no network.
        clicks: [m] what came of it.
        rng: draws the batches.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state_network, item_network = (_module(network) for network in networks)
        head = torch.zeros(known.shape[1] + settings.embedding_size, requires_grad=True)
        with torch.no_grad():
            head[known.shape[1] :] = 1 / np.sqrt(settings.embedding_size)
        parameters = [*state_network.parameters(), *item_network.parameters(), head]
        optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate)
        states, items = (torch.as_tensor(part) for part in inputs)
        for _ in range(settings.gradient_steps):
            batch = rng.integers(0, len(clicks), min(settings.batch_size, len(clicks)))
            made = state_network(states[rows[0][batch]]) * item_network(items[rows[1][batch]])
            expected = torch.cat([torch.as_tensor(known[batch]), made], dim=1) @ head
            loss = nn.functional.mse_loss(expected, torch.as_tensor(clicks[batch]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return layers_of([*state_network], "relu"), layers_of([*item_network], "relu")
    finally:
        torch.set_num_threads(threads)


def _module(layers: Layers) -> nn.Sequential:
    """The network as a torch module; its weights are copies."""
    (hidden, width), (out, _) = (weight.shape for weight in layers.weights)
    with torch.random.fork_rng(devices=[]):  # layers draw weights that are not wanted from the global generator
        linear = nn.Linear(width, hidden), nn.Linear(hidden, out)
    with torch.no_grad():
        for layer, weight, bias in zip(linear, layers.weights, layers.biases, strict=True):
            layer.weight.copy_(torch.as_tensor(weight))
            layer.bias.copy_(torch.as_tensor(bias))
    return nn.Sequential(linear[0], nn.ReLU(), linear[1])
