"""Deep Q-network over fine-tuned BERT: texts are read once, before training; Q of all items is one matrix product."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agents.base import Training
from agents.deep_rl import DQNSettings, QAgent
from simulator.cache import default_cache_folder
from simulator.datasets.sources import named_file
from simulator.encoders.settings import Adaptation
from simulator.log import HELD_OUT, WORLD_A, InteractionLog, Split
from simulator.streams import stream

TUNING_SHARE = 0.1
"""Share of the train users who choose the pass of the fine-tuning; the others' rows are fitted."""


class BertQSettings(DQNSettings):
    """Parameters of the Q-network over BERT."""

    double: bool = Field(
        default=True, description="the learned network names the next item, the target network values it"
    )
    duelling: bool = Field(default=True, description="value of the state and advantages of items, whose mean is 0")
    n_steps: int = Field(default=2, ge=1, description="slates whose clicks are summed before the target is asked")
    encoder: str = Field(
        default="minilm",
        min_length=1,
        description="text encoder: a name of `list encoders`, a folder, a Hugging Face id",
    )
    adaptation: Adaptation = Field(
        default="top_layers", description="what is trained of the encoder: `preference.adaptation`"
    )
    max_tokens: int = Field(default=64, ge=4, le=512, description="word pieces kept of an item's text")

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files of an encoder that is a folder beside the scenario."""
        from simulator.encoders.text import ENCODERS, encoder_files

        place = named_file(folder, self.encoder)
        return encoder_files(str(place)) if self.encoder not in ENCODERS and place.is_dir() else ()

    def located(self, folder: Path, where: str) -> BertQSettings:
        """The settings with the full path of an encoder that is a folder beside the scenario.

        Raises:
            InputError: there is no such encoder.
        """
        from simulator.encoders.text import ENCODERS, resolve_encoder

        path = resolve_encoder(self.encoder, folder, f"{where}.params.encoder")
        return self if self.encoder in ENCODERS else self.model_copy(update={"encoder": path})


class BertQ(QAgent):
    """A DQN (double, duelling, n-step) that knows items by a BERT which it has fine-tuned on the log's rows.

    The encoder is fine-tuned, and item vectors are made of its text vectors, by the preference model's own code on the
    rows that an agent may see: the worlds' own models are fitted elsewhere, and none of them is looked at. The item
    tower encodes actions from these vectors; the state tower reads the user's history as them (liked against not
    liked, shown lately, and the coefficients that best explain the likes) beside where in the session he is. The
    transformer is never run while the agent learns in the train world or acts.
    """

    settings: BertQSettings

    def __init__(self, settings: BertQSettings) -> None:
        super().__init__(settings)

    def fit(self, training: Training) -> None:
        """Fine-tune the encoder on the log, then learn for `budget` user-steps (default 24,000)."""
        vectors = item_vectors(training.log, self.settings, training.seed)
        catalogue = replace(training.catalogue, content=vectors)
        super().fit(replace(training, log=replace(training.log, catalogue=catalogue), catalogue=catalogue))


def item_vectors(log: InteractionLog, settings: BertQSettings, seed: int) -> NDArray[np.float32]:
    """[I, d] what items are to a preference model whose text encoder was fine-tuned on the rows of this log.

    Raises:
        InputError: the encoder cannot be found, or the log has too few rows to fit or to tune on.
    """
    from simulator.preference import PreferenceSettings, fine_tune, fit_preference

    root = np.random.SeedSequence(seed)
    preference = PreferenceSettings(
        encoder=settings.encoder, adaptation=settings.adaptation, max_tokens=settings.max_tokens, members=2
    )
    split = everyone_teaches(log, root)
    cache = default_cache_folder() / "vectors"
    tower = fine_tune(log, split, WORLD_A, preference, root, cache=cache)
    model = fit_preference(log, split, WORLD_A, tower, preference, root, cache=cache, rehearsed=False)
    return model.item_vectors


def everyone_teaches(log: InteractionLog, root: np.random.SeedSequence) -> Split:
    """All users who have rows fit by all of them, but for a tenth, the second half of whose rows tunes."""
    users = np.unique(log.user)
    tuning = np.zeros(log.catalogue.n_users, bool)
    tuning[stream(root, "tuning users").permutation(users)[: max(1, round(TUNING_SHARE * len(users)))]] = True
    role = np.full(log.catalogue.n_users, HELD_OUT, np.int8)
    role[users] = WORLD_A
    starts = log.row_starts()
    rank = np.arange(len(log)) - starts[log.user]
    return Split(role, tuning, tuning[log.user] & (2 * rank >= np.diff(starts)[log.user]))
