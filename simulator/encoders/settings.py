"""How a text encoder is trained: what of it, by which optimiser, against which disturbances, after what pretraining."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Adaptation = Literal["frozen", "top_layers", "full", "lora", "adalora", "prefix", "adapter"]
Pretraining = Literal["none", "masked_language", "contrastive"]
Augmentation = Literal["synonym", "deletion", "swap", "back_translation"]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class TuningSettings(BaseModel):
    """Stage 2: how the encoder is fine-tuned, and for how long the frozen control goes on beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    top_layers: Positive = Field(
        default=2, description="Layers of the encoder, counted from the top, that top_layers trains."
    )
    epochs: Positive = Field(
        default=8, description="Passes over the item texts; the frozen control trains on for as many."
    )
    batch_items: Positive = Field(default=32, description="Item texts in one step of the encoder.")
    accumulate: Positive = Field(
        default=1, description="Batches whose gradients are added up before the weights move once."
    )
    learning_rate: Rate = Field(default=3e-4, description="Rate of the encoder's top layer, after warm-up.")
    heads_passes: Positive = Field(
        default=4, description="Passes of the heads over the users for one pass over the texts."
    )
    heads_learning_rate: Rate = Field(
        default=2e-3,
        description="AdamW rate of the heads in this stage, for the tuned and the frozen side.",
    )
    layer_decay: float = Field(
        default=0.9, gt=0, le=1, description="Rate of a layer as a share of the rate of the layer above it."
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Weight decay of the encoder's weights.")
    optimiser: Literal["adamw", "sgd"] = Field(
        default="adamw", description="adamw, or sgd with Nesterov momentum .9 (give it a far greater learning_rate)."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear",
        description="How the rate goes after warm-up: to 0 by a line or a cosine, or not at all.",
    )
    warm_up: Share = Field(default=0.1, description="Share of the steps in which the rate rises from 0.")
    averaging: Share = Field(
        default=0.0, description="Decay a step of the running mean of the encoder's weights that is read; 0: the last."
    )
    patience: Positive | None = Field(
        default=None,
        description="Passes without a better log-loss on the tuning users before this stage stops; left out: all "
        "passes. The best pass is kept either way.",
    )
    precision: Literal["float32", "mixed"] = Field(
        default="float32",
        description="mixed: bfloat16 autocast where the device computes it (a GPU, avx512_bf16, amx), else float32. "
        "Twice as fast there; the weights then differ from machine to machine.",
    )
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="Where the encoder computes: cpu, cuda or cuda:N. On a GPU the last bits of its vectors differ "
        "from those of a processor, from one kind of GPU to another, and two runs need not be equal.",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the trained layers; what compiling costs and saves was not measured.",
    )
    rank: Positive = Field(default=8, description="Rank of lora's matrices, and the mean that adalora comes down to.")
    adapter_width: Positive = Field(default=48, description="Width of the bottleneck of adapter.")
    prefix_tokens: Positive = Field(default=8, description="Virtual tokens before each layer's keys of prefix.")


TEXT_CLASSES = TuningSettings(
    learning_rate=5e-5, heads_learning_rate=2e-4, layer_decay=0.9, warm_up=0.1, epochs=3, averaging=0.98,
    precision="mixed",
)  # fmt: skip
"""The recipe by which a fine-tuned encoder told classes of unseen texts better than the frozen one with as good a head,
with adaptation `full` (docs/preference.md, *Whether it pays*)."""


class RobustnessSettings(BaseModel):
    """What the encoder must bear while it is trained, so that it learns what a text means and not how it is put."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    augmentation: tuple[Augmentation, ...] = Field(
        default=(), description="Ways of rewording a training text, one drawn each time; none: texts as they are."
    )
    augmented: Share = Field(default=0.5, description="Chance that a training text is reworded.")
    changed: Rate = Field(
        default=0.1, description="Share of a text's words that synonym, deletion or swap changes, one at least."
    )
    synonyms: str | None = Field(
        default=None,
        description="Tab-separated file of a word and its synonyms a line; left out: the nearest words of the "
        "encoder's own embedding table.",
    )
    back_translation: tuple[str, str] | None = Field(
        default=None,
        description="Folders of two translation models (there and back), as transformers' AutoModelForSeq2SeqLM reads "
        "them.",
    )
    adversarial: Literal["none", "fgm", "pgd"] = Field(
        default="none",
        description="Train also on the worst small move of the embeddings: one gradient step (fgm), or several (pgd).",
    )
    radius: float = Field(
        default=0.3,
        gt=0,
        description="Length of that move, as a share of the mean length of an embedded token.",
    )
    pgd_steps: Positive = Field(default=3, description="Gradient steps of pgd.")
    r_drop: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the symmetric Kullback-Leibler divergence between two dropout passes (R-Drop); 0: off.",
    )
    dropout: Share | None = Field(
        default=None, description="Dropout of the encoder while it is trained; left out: what it was published with."
    )

    @model_validator(mode="after")
    def _back_translation_has_its_models(self) -> RobustnessSettings:
        if "back_translation" in self.augmentation and self.back_translation is None:
            raise ValueError(
                "augmentation by back_translation needs two model folders; give back_translation: [there, back]"
            )
        return self


class PretrainingSettings(BaseModel):
    """Pretraining of the encoder on the log's own texts, before any outcome is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Positive = Field(default=2, description="Passes over the texts.")
    batch_items: Positive = Field(default=32, description="Texts in one step.")
    learning_rate: Rate = Field(default=5e-5, description="AdamW rate of the encoder, after warm-up.")
    layers: Positive | None = Field(
        default=None, description="Layers trained, counted from the top; left out: the whole encoder."
    )
    masked: Rate = Field(default=0.15, description="Share of the tokens that masked_language hides.")
    temperature: float = Field(
        default=0.05, gt=0, description="Temperature of contrastive's softmax over cosines (SimCSE's .05)."
    )


class OwnEncoderSettings(BaseModel):
    """The encoder `own`: a BERT that the product trains from nothing on the log's own texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocabulary: Annotated[int, Field(ge=32, le=100_000)] = Field(
        default=6000, description="Word pieces at most, learned from the texts."
    )
    width: Annotated[int, Field(ge=16, multiple_of=16)] = Field(default=128, description="Width of the hidden states.")
    layers: Positive = Field(default=3, description="Layers.")
    epochs: Positive = Field(default=30, description="Passes of masked-language training over the texts.")
    batch_items: Positive = Field(default=64, description="Texts in one step.")
    learning_rate: Rate = Field(default=1e-3, description="AdamW rate, after warm-up.")


class HeadSettings(BaseModel):
    """The head that reads classes off text vectors; where several values stand, the validation texts choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hidden: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0, 256), min_length=1, description="Width of the hidden layer; 0: none, a linear head."
    )
    dropout: tuple[Share, ...] = Field(
        default=(0.2, 0.5), min_length=1, description="Dropout before the last linear map."
    )
    weight_decay: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.01,), min_length=1, description="AdamW weight decay."
    )
    learning_rate: Rate = Field(default=1e-3, description="AdamW rate.")
    averaging: Share = Field(default=0.99, description="Decay a step of the running mean of the weights that is kept.")
    batch_texts: Positive = Field(default=64, description="Texts in one step.")
    epochs: Positive = Field(default=100, description="Passes over the training texts at most.")
    patience: Positive = Field(default=8, description="Passes without a better validation log-loss before it stops.")
