"""Items known by a BERT that an agent fine-tunes on the log's rows: texts are read once, before it learns to act."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from agents.base import AgentError, Training
from agents.needs import lacking
from simulator.cache import default_cache_folder
from simulator.datasets.sources import named_file
from simulator.encoders.settings import Adaptation
from simulator.log import HELD_OUT, WORLD_A, InteractionLog, Split
from simulator.streams import stream

TUNING_SHARE = 0.1
"""Share of the train users who choose the pass of the fine-tuning; the others' rows are fitted."""


class BertItems(BaseModel):
    """Parameters of agents that may know items by such a BERT."""

    encoder: str | None = Field(
        default=None,
        min_length=1,
        description="text encoder, fine-tuned on the log's rows, by which items are known: a name of `list encoders`, "
        "a folder, a Hugging Face id; none: by the scenario's own vectors of their content",
    )
    adaptation: Adaptation = Field(
        default="top_layers", description="what is trained of the encoder: `preference.adaptation`"
    )
    max_tokens: int = Field(default=64, ge=4, le=512, description="word pieces kept of an item's text")

    @model_validator(mode="after")
    def _of_an_encoder(self) -> Self:
        idle = sorted({"adaptation", "max_tokens"} & self.model_fields_set)
        if self.encoder is None and idle:
            raise ValueError(f"{idle[0]} is of the encoder, and none is named; give encoder or leave it out")
        return self

    @property
    def needs(self) -> str:
        """What the log must hold, see `agents.needs`."""
        return "item text" if self.encoder else ""

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files of an encoder that is a folder beside the scenario."""
        from simulator.encoders.text import ENCODERS, encoder_files

        if self.encoder is None or self.encoder in ENCODERS:
            return ()
        place = named_file(folder, self.encoder)
        return encoder_files(str(place)) if place.is_dir() else ()

    def located(self, folder: Path, where: str) -> Self:
        """The settings with the full path of an encoder that is a folder beside the scenario.

        Raises:
            InputError: there is no such encoder.
        """
        from simulator.encoders.text import ENCODERS, resolve_encoder

        if self.encoder is None:
            return self
        path = resolve_encoder(self.encoder, folder, f"{where}.params.encoder")
        return self if self.encoder in ENCODERS else self.model_copy(update={"encoder": path})


def by_bert(training: Training, settings: BertItems) -> Training:
    """The training with items known by the fine-tuned BERT, or as it is where the settings name none.

    Raises:
        AgentError: the items have no text.
        InputError: the log has too few rows to fit or to tune on.
    """
    if settings.encoder is None:
        return training
    vectors = item_vectors(training.log, settings, training.seed)
    catalogue = replace(training.catalogue, content=vectors)
    return replace(training, log=replace(training.log, catalogue=catalogue), catalogue=catalogue)


def item_vectors(log: InteractionLog, settings: BertItems, seed: int) -> NDArray[np.float32]:
    """[I, d] what items are to a preference model whose text encoder was fine-tuned on the rows of this log.

    Raises:
        AgentError: the items have no text.
        InputError: the log has too few rows to fit or to tune on.
    """
    from simulator.preference import PreferenceSettings, fine_tune, fit_preference

    assert settings.encoder is not None
    if lack := lacking("item text", log):
        raise AgentError(f"encoder: {lack}")
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
