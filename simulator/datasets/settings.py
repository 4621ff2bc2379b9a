"""The `data:` key of a scenario: which log, which columns, and what counts as the primary behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from simulator.datasets.conditions import Condition
from simulator.datasets.published import DATASETS, log_of_policy
from simulator.errors import did_you_mean
from simulator.known_worlds import DATA_DEFAULTS, WORLD_PREFIX


class ColumnMap(BaseModel):
    """Which column of the user's file plays which part; None means the usual names are tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str | None = Field(default=None, description="Column of the user's id; tried when left out: user_id, user.")
    item: str | None = Field(default=None, description="Column of the item's id; tried when left out: item_id, item.")
    time: str | None = Field(
        default=None,
        description="Column of the time, seconds or dates; tried when left out: timestamp, time. May be absent.",
    )
    position: str | None = Field(default=None, description="Column of the position on the slate, counted from 0.")
    propensity: str | None = Field(default=None, description="Column of the logging propensity, in (0, 1].")
    impression: str | None = Field(
        default=None, description="Column that is the same for all items offered to a user at once."
    )
    session: str | None = Field(default=None, description="Column that is the same for all rows of one visit.")


class ModalitySettings(BaseModel):
    """One modality of the items beside text and categories: where it is read and how it becomes a vector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number", "image", "audio", "vectors"] = Field(
        description="number: a column of numbers. image, audio: a file each, which an encoder turns into a vector. "
        "vectors: made elsewhere."
    )
    column: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the items: the number (default: the modality's own name), or the name of the image or "
        "audio file, counted from `files`. Empty cells mean that an item has none.",
    )
    files: str | None = Field(
        default=None,
        min_length=1,
        description="image, audio: folder of the files (default: the scenario's). vectors: a .npz with `item_id` [m] "
        "and `vectors` [m, d]. A built-in dataset that brings its own needs neither column nor files.",
    )
    encoder: str = Field(
        default="statistics",
        min_length=1,
        description="image, audio: `statistics` (colours and edges; log-mel spectrum), or a Hugging Face id or folder "
        "that transformers' AutoModel reads.",
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> ModalitySettings:
        if self.kind == "number" and self.files is not None:
            raise ValueError("a number is read from a column and has no files; leave files out")
        if self.kind == "vectors" and self.column is not None:
            raise ValueError("vectors are read from files, a .npz, or the dataset's own; leave column out")
        if self.kind in ("image", "audio") and self.files is not None and self.column is None:
            raise ValueError("say which column names the files, e.g. column: poster")
        if self.kind in ("number", "vectors") and self.encoder != "statistics":
            raise ValueError(f"encoder '{self.encoder}' has nothing to encode in a {self.kind} modality; leave it out")
        return self


TAKEN_MODALITIES = ("id", "text", "category")
"""Names of the modalities that every catalogue may have of itself."""

Bands = list[float] | dict[str, tuple[float, float]]


class DataSettings(BaseModel):
    """The log that a scenario starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(
        description="Built-in dataset (`windtunnel list datasets`), a folder of RecBole atomic files "
        "(.inter, optional .user and .item), a .csv, .tsv or .parquet interaction log, or world:NAME, the log of a "
        "known test world (`windtunnel list scenarios` has one scenario for each)."
    )
    columns: ColumnMap = Field(default_factory=ColumnMap, description="Column map of the interaction log.")
    items: str | None = Field(
        default=None, description="File with one row an item (.csv, .tsv, .parquet), keyed by the item's id."
    )
    users: str | None = Field(
        default=None, description="File with one row a user (.csv, .tsv, .parquet), keyed by the user's id."
    )
    random: str | None = Field(
        default=None,
        description="File with rows like the log's (.csv, .tsv, .parquet) whose items were drawn uniformly at random: "
        "an unbiased test set. Nothing is fitted on it, and rows of the log that are in it are dropped.",
    )
    queries: str | None = Field(
        default=None,
        description="File of searches (.csv, .tsv, .parquet): columns query (its text), the item's id as in the log, "
        "and grade (how well the item answers, 0 = not at all; left out: every row answers alike). Read by "
        "preference.search.",
    )
    positive: str = Field(
        description='When the primary behaviour occurred: a condition such as "rating >= 4", "click == 1", '
        '"rating >= 4 and watched", or the name of a yes/no column.'
    )
    behaviours: list[str] = Field(default=[], description="Further numeric columns to keep (rating, dwell, like, ...).")
    item_text: list[str] = Field(default=[], description="Columns that make up an item's text, in this order.")
    item_categories: list[str] = Field(default=[], description="Columns that hold an item's categories.")
    category_separator: str = Field(
        default=" ", min_length=1, description="What stands between two categories of one item."
    )
    modalities: dict[str, ModalitySettings] = Field(
        default={},
        description="Further modalities of the items, by a name each, e.g. {year: {kind: number, column: "
        "release_year}, cover: {kind: image, column: poster, files: posters}}. Agents see them, worlds do not.",
    )
    policy_inputs: list[str] = Field(
        default=[],
        description="User columns that every agent may see: numbers are standardised, text is one-hot. Empty: agents "
        "see histories only, and no sensitive attribute reaches a policy.",
    )
    sensitive: list[str] = Field(
        default=[], description="User columns by which groups are compared; agents never see them."
    )
    bands: dict[str, Bands] = Field(
        default={},
        description="How a numeric sensitive column is cut into groups: limits ([25, 45] makes three bands) or named "
        "half-open bands ({young: [0, 25], older: [25, 120]}). Left out: terciles of the users.",
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default={},
        description="Least and greatest value that a numeric column of the log may have ({rating: [0.5, 5]}), in the "
        "column's own unit; a row outside refuses the log.",
    )
    reward_range: tuple[float, float] | None = Field(
        default=None,
        description="Least and greatest reward of one row, for off-policy bounds; [0, 1] for a yes/no behaviour.",
    )
    max_users: Annotated[int, Field(ge=10)] | None = Field(
        default=None, description="Use this many users, drawn at random by the scenario's seed; all where left out."
    )
    max_items: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Use this many items, those with most rows; all where left out. For a quick look only.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_dataset_defaults(cls, given: Any) -> Any:
        """A built-in dataset brings its own defaults, so that the resolved scenario shows them."""
        if isinstance(given, Mapping) and isinstance(given.get("source"), str) and given["source"] in DATASETS:
            known = DATASETS[given["source"]]
            if known.instead:
                return {"positive": "none", **given}  # the reader refuses it by name; this asks for no behaviour first
            return {**known.defaults, **given}
        if isinstance(given, Mapping) and (named := log_of_policy(str(given.get("source")))) is not None:
            return {**DATASETS[named[0]].defaults, **given}
        if isinstance(given, Mapping) and str(given.get("source")).startswith(WORLD_PREFIX):
            return {**DATA_DEFAULTS, **given}
        return given

    @field_validator("positive")
    @classmethod
    def _positive_is_a_condition(cls, positive: str) -> str:
        Condition.parse(positive)
        return positive

    @field_validator("bands")
    @classmethod
    def _bands_are_ordered(cls, bands: dict[str, Bands]) -> dict[str, Bands]:
        for name, band in bands.items():
            if isinstance(band, list):
                if not band or any(b <= a for a, b in pairwise(band)):
                    raise ValueError(f"limits of '{name}' must rise; give e.g. [25, 45]")
            else:
                ranges = sorted(band.values())
                if not ranges or any(high <= low for low, high in ranges):
                    raise ValueError(
                        f"each band of '{name}' needs low < high; give e.g. {{young: [0, 25], older: [25, 120]}}"
                    )
                if any(b[0] < a[1] for a, b in pairwise(ranges)):
                    raise ValueError(f"bands of '{name}' overlap; each ends where the next begins")
        return bands

    @field_validator("modalities")
    @classmethod
    def _modalities_have_free_names(cls, modalities: dict[str, ModalitySettings]) -> dict[str, ModalitySettings]:
        taken = [name for name in modalities if name in TAKEN_MODALITIES]
        if taken:
            raise ValueError(f"'{taken[0]}' is what the catalogue has of itself; give the modality another name")
        return modalities

    @field_validator("ranges")
    @classmethod
    def _ranges_are_ordered(cls, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in ranges.items():
            if low >= high:
                raise ValueError(f"the least value of '{name}' must be below the greatest; give e.g. [0, 5]")
        return ranges

    @field_validator("reward_range")
    @classmethod
    def _range_is_ordered(cls, reward_range: tuple[float, float] | None) -> tuple[float, float] | None:
        if reward_range is not None and reward_range[0] >= reward_range[1]:
            raise ValueError("the least reward must be below the greatest; give e.g. [0, 1]")
        return reward_range

    @model_validator(mode="after")
    def _bands_belong_to_sensitive_columns(self) -> DataSettings:
        for name in self.bands:
            if name not in self.sensitive:
                hint = did_you_mean(name, self.sensitive)
                raise ValueError(f"bands.{name}: '{name}' is not among data.sensitive{hint or '; add it there'}")
        for group in ("behaviours", "item_text", "item_categories", "policy_inputs", "sensitive"):
            names = getattr(self, group)
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"{group}: '{twice[0]}' is listed twice; list it once")
        return self
