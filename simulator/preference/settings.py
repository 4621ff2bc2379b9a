"""The `preference:` key of a scenario: which encoder, how it is fine-tuned, and how the user head is trained."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from simulator.encoders.settings import (
    Adaptation,
    OwnEncoderSettings,
    Positive,
    Pretraining,
    PretrainingSettings,
    RobustnessSettings,
    TuningSettings,
)

Architecture = Literal["two_tower", "cross_encoder", "prompt", "matrix_factorisation", "bias"]
Loss = Literal["cross_entropy", "pairwise", "sampled_softmax"]
Debias = Literal["none", "ips", "doubly_robust"]
Propensities = Literal["logged", "popularity", "fitted"]


class PairSettings(BaseModel):
    """How cross_encoder and prompt read a user and an item as one text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    titles: Positive = Field(default=6, description="Texts of the latest history items, liked and not, in the pair.")
    max_tokens: Annotated[int, Field(ge=16, le=512)] = Field(default=96, description="Word pieces kept of a pair.")
    rows: Positive = Field(default=1000, description="Rows that are read in a pass; prompt does with few.")
    passes: Positive = Field(default=3, description="Passes at most; the best by the tuning users is kept.")
    batch_pairs: Positive = Field(default=16, description="Pairs in one step.")
    learning_rate: float = Field(
        default=1e-4, gt=0, lt=1, description="Rate of the encoder's top layer, after warm-up."
    )
    tuning_rows: Positive = Field(default=300, description="Rows of tuning users that choose the pass, at most.")
    distilled: Positive = Field(
        default=1000,
        description="Rows whose probability the item and user vectors of a world are taught from the pairs.",
    )
    words: tuple[str, str] = Field(
        default=("good", "bad"), description="Masked words that stand for liked and not liked, for prompt."
    )


class SearchSettings(BaseModel):
    """The search part L_s of a joint loss L_r + L_s: the queries of `data.queries` against the same item vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float = Field(default=1.0, gt=0, description="What L_s, a mean over queries, weighs against L_r.")
    batch_queries: Annotated[int, Field(ge=2)] = Field(
        default=32, description="Queries in one step; the items judged for one are rivals of those of the others."
    )


class UpdateSettings(BaseModel):
    """Going on from a saved model with newer rows, without losing what the older ones taught."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        min_length=1, description="Folder `preference` of an earlier run, relative to the scenario's folder."
    )
    replay: float = Field(
        default=0.5, ge=0, le=1, description="Weight of a row that the saved model was fitted on, against a newer one."
    )
    elastic: float = Field(
        default=0.0,
        ge=0,
        description="Strength of elastic weight consolidation: a weight is held the more, the more older rows told.",
    )
    learning_rate: float = Field(default=0.003, gt=0, lt=1, description="AdamW rate of the heads.")


class PreferenceSettings(BaseModel):
    """The preference model: P(primary behaviour | user, item, examined) from item texts and histories."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    encoder: str = Field(
        default="minilm",
        min_length=1,
        description="Text encoder: a name of `windtunnel list encoders`, a folder, a Hugging Face id.",
    )
    max_tokens: Annotated[int, Field(ge=4, le=512)] = Field(
        default=64, description="Word pieces kept of an item's text."
    )
    adaptation: Adaptation = Field(
        default="top_layers",
        description="What is trained of the encoder: nothing (frozen), its top layers (top_layers), all of it (full), "
        "or small weights beside it: lora, adalora, prefix, or a bottleneck adapter after each sublayer (adapter).",
    )
    pretraining: Pretraining = Field(
        default="none",
        description="Training of the encoder on the log's own texts before fine-tuning: none, masked_language (guess "
        "hidden words), contrastive (texts of items liked by the same fitting users come close; SimCSE).",
    )
    categories: bool = Field(
        default=True, description="Whether an item's categories stand beside its text vector as features of the item."
    )
    architecture: Architecture = Field(
        default="two_tower",
        description="two_tower: item text and id against a user head over the history; cross_encoder: one BERT reads "
        "history titles and item together; prompt: the same with the label as a masked word, for few labels (a world "
        "is built of vectors that are taught by either); matrix_factorisation and bias: the references, without text.",
    )
    loss: Loss = Field(
        default="cross_entropy",
        description="What the heads minimise on hidden rows: cross_entropy; pairwise (BPR: a liked row above one that "
        "the same user did not like); sampled_softmax (a liked row's item against drawn items, logQ-corrected). After "
        "a ranking loss the logit is calibrated by plain Platt scaling on the tuning users.",
    )
    search: SearchSettings | None = Field(
        default=None,
        description="Joint search and recommendation loss: the queries of data.queries are learned against the items "
        "beside the rows, whatever `loss` is; left out: no query is learned.",
    )
    debias: Debias = Field(
        default="none",
        description="Correction for rows missing not at random: none, ips (rows weighed by 1 / propensity), or "
        "doubly_robust (an imputed outcome of every pair, corrected on the rows by 1 / propensity).",
    )
    propensities: Propensities | None = Field(
        default=None,
        description="Where `debias` has propensities from: logged (the log's own column), popularity (the marginals of "
        "users and items), fitted (a logistic exposure model); left out: logged where the log has them, else fitted.",
    )
    largest_weight: float = Field(
        default=10.0, ge=1, description="Inverse propensities are cut at this multiple of their mean."
    )
    sampled_items: Positive = Field(
        default=64, description="Items drawn a user and step, for sampled_softmax and doubly_robust."
    )
    members: Positive = Field(default=4, description="Models trained from different seeds and averaged in the logit.")
    refit_members: Positive = Field(
        default=2, description="Members of a bootstrap refit (judge worlds beyond the first)."
    )
    dims: tuple[Positive, ...] = Field(
        default=(16,), min_length=1, description="Width of the item vectors; members take turns."
    )
    factors: Positive = Field(default=64, description="Width of the item vectors of matrix factorisation.")
    epochs: Positive = Field(default=60, description="Passes over the fitting users at most.")
    patience: Positive = Field(
        default=6, description="Passes without a better log-loss on the tuning users before training stops."
    )
    batch_users: Positive = Field(
        default=32, description="Users in one step of the heads at most; fewer where users are few."
    )
    learning_rate: float = Field(default=0.015, gt=0, lt=1, description="AdamW rate of the heads.")
    averaging: float = Field(
        default=0.97, ge=0, lt=1, description="Decay a step of the running mean of the weights that is kept."
    )
    hidden_share: tuple[float, float] = Field(
        default=(0.05, 0.7),
        description="Least and greatest share of a history that is hidden as targets, drawn anew each pass.",
    )
    bias_penalty: float = Field(
        default=0.25, ge=0, description="Penalty on squared item biases, per item (not per occurrence)."
    )
    vector_penalty: float | None = Field(
        default=None,
        ge=0,
        description="Penalty on squared item vectors, per item; left out: 40 where items have text or categories, "
        "16 from ids alone.",
    )
    label_budget: Positive | None = Field(
        default=None,
        description="Rows to fit whose outcome is read; left out: all. Beside them those of tuning users are.",
    )
    label_choice: Literal["uncertainty", "random"] = Field(
        default="uncertainty",
        description="Which rows are labelled: those that tell most of what is uncertain, in four rounds; or any.",
    )
    pseudo_labels: Annotated[float, Field(gt=0.5, lt=1)] | None = Field(
        default=None,
        description="Rows beyond `label_budget` get the more probable outcome as their label where it is at least this "
        "probable; left out: they are not used.",
    )
    graded: dict[str, tuple[float, ...]] = Field(
        default={},
        description="Behaviours of degree and the thresholds at which each is modelled, rising, in its own unit: "
        "{watch_ratio: [0.5, 1, 2]}. Fidelity checks them; a world still simulates the primary behaviour.",
    )
    examples: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="Users for whom the report says which history items and words moved a score."
    )
    update: UpdateSettings | None = Field(
        default=None, description="Saved model to go on from; left out, the model is fitted from nothing."
    )
    pairs: PairSettings = Field(default=PairSettings(), description="How cross_encoder and prompt read their pairs.")
    tuning: TuningSettings = Field(
        default=TuningSettings(), description="Fine-tuning of the encoder; unused where it is frozen."
    )
    domain: PretrainingSettings = Field(
        default=PretrainingSettings(), description="How pretraining goes; unused where it is none."
    )
    robustness: RobustnessSettings = Field(
        default=RobustnessSettings(), description="What the encoder must bear while it is fine-tuned."
    )
    own: OwnEncoderSettings = Field(
        default=OwnEncoderSettings(), description="The encoder that encoder: own trains on the log's texts."
    )

    @field_validator("hidden_share")
    @classmethod
    def _shares_are_ordered(cls, share: tuple[float, float]) -> tuple[float, float]:
        if not 0 < share[0] <= share[1] < 1:
            raise ValueError("two shares 0 < least <= greatest < 1 are needed; give e.g. [0.05, 0.7]")
        return share

    @field_validator("graded")
    @classmethod
    def _thresholds_rise(cls, graded: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, limits in graded.items():
            if not limits or any(b <= a for a, b in itertools.pairwise(limits)):
                raise ValueError(
                    f"'{name}' has thresholds {list(limits)}; give one or more that rise, e.g. [0.5, 1, 2]"
                )
        return graded

    @model_validator(mode="after")
    def _parts_fit(self) -> PreferenceSettings:
        if self.debias != "none" and self.loss != "cross_entropy":
            raise ValueError(f"debias: '{self.debias}' corrects cross_entropy alone; leave loss: '{self.loss}' out")
        if self.search is not None and self.architecture != "two_tower":
            raise ValueError(f"search: has no place in a {self.architecture}; leave search out, or use two_tower")
        return self
