"""An agent of one's own, as an example: what the user liked, by text, on top of what everybody liked.

A scenario names it as `kind: my_agent.py:MyAgent`; nothing has to be registered. It runs in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agents.base import Observation, Training


class MyAgent:
    """Samples slates from a softmax over popularity plus similarity to the user's history.

    Args:
        temperature: above 0; small is greedy, large is random.
        text_weight: logits for an item whose text is as close to the liked items as can be.
    """

    def __init__(self, temperature: float = 0.2, text_weight: float = 3.0) -> None:
        if not temperature > 0:
            raise ValueError("temperature must be above 0")
        self.temperature = temperature
        self.text_weight = text_weight

    def fit(self, training: Training) -> None:
        """Count likes of the train rows, and keep the items' text vectors."""
        log, n_items = training.log, training.catalogue.n_items
        shown = np.bincount(log.item, minlength=n_items)
        liked = np.bincount(log.item, weights=log.primary, minlength=n_items)
        # Ten rows at the mean rate: an item seen once is not the best of all.
        mean = log.primary.mean()
        self.popularity = np.log1p(liked) + 4 * ((liked + 10 * mean) / (shown + 10) - mean)  # [I]
        content = np.asarray(training.catalogue.content)
        self.content = content - content.mean(axis=0)  # [I, d]
        self.mean_feedback = float(mean)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """Slates [n, K], best first, none twice: the top K of logits with Gumbel noise."""
        noisy = self._logits(observation) / self.temperature
        noisy += rng.gumbel(size=noisy.shape)
        return np.argsort(-noisy, axis=1)[:, : observation.slate_size]

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """Chance [n, I] of each item at the first position; with it, off-policy estimates can be made."""
        logits = self._logits(observation) / self.temperature
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        return chance / chance.sum(axis=1, keepdims=True)

    def _logits(self, observation: Observation) -> NDArray[Any]:
        items, feedback = observation.history_items, observation.history_feedback  # [n, H]
        weight = np.where(items >= 0, feedback - self.mean_feedback, 0.0)
        taste = np.zeros((len(observation), self.content.shape[1]))
        for step in range(items.shape[1]):  # over the history, not over users
            taste += weight[:, step, None] * self.content[items[:, step]]
        length = np.linalg.norm(taste, axis=1, keepdims=True)
        logits = self.popularity + self.text_weight * (taste / np.where(length > 0, length, 1.0)) @ self.content.T
        if observation.candidates is not None:
            logits[~observation.candidates] = -np.inf
        return logits
