"""The `simulator:` key of a scenario: how appeal becomes acts, and what is assumed where a log cannot tell.

The formulas are in docs/world.md; `simulator.kernel` computes them. What a log does not identify is *assumed*: it has
a value here, is marked so, and is swept in the sensitivity analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Given = dict[str, Any]
"""Fields of a settings model that stand before one, as they were read."""


def _around(
    of: str, values: Callable[[float], Iterable[float]], *, on: Callable[[Given], bool] = lambda given: True
) -> Callable[[Given], tuple[float, ...]]:
    """Default of a sweep: values around the one that is assumed, none where its part is off.

    Args:
        of: field with the assumed value.
        values: of the sweep, from the assumed one, which is left out if it is among them.
        on: whether the part is on.

    An empty `sweep` that stands before holds the whole part fixed.
    """

    def default(given: Given) -> tuple[float, ...]:
        held = given.get("sweep", True) == ()
        return () if held or not on(given) else tuple(value for value in values(given[of]) if value != given[of])

    return default


def _off_and_double(own: float) -> tuple[float, ...]:
    return 0.0, 2 * own


def _half_way_to_both_ends(own: float) -> tuple[float, ...]:
    return own / 2, (1 + own) / 2


class ExaminationSettings(_Settings):
    """Which positions of a slate the user looks at."""

    model: Literal["position", "cascade", "user_browsing"] = Field(
        default="position",
        description="position: each position k (from 0) is examined with probability decay^k, independently. "
        "cascade: from the top, going on with probability decay, after a click with decay * continuation. "
        "user_browsing: with probability decay^k while nothing was clicked above, else continuation * decay^(places "
        "since the last click - 1), independently.",
    )
    decay: float = Field(
        default=0.85, gt=0, le=1, description="Attention kept from one position to the next, probability."
    )
    continuation: Share = Field(
        default=0.5,
        description="Probability of going on after a click; cascade and user_browsing. A cascade with 0 stops at the "
        "first click.",
    )
    sweep: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.7, 1.0), description="Other values of decay under which the agents are flown again."
    )
    continuation_sweep: tuple[Share, ...] = Field(
        default_factory=_around("continuation", _half_way_to_both_ends, on=lambda given: given["model"] != "position"),
        description="Other values of continuation to fly again. Left out: half way to 0 and to 1; none for position.",
    )
    fit: bool = Field(
        default=True,
        description="Fit the model by EM where the log has positions; the values above then serve only the positions "
        "that it does not have.",
    )


class ChoiceSettings(_Settings):
    """How the examined items of a slate compete."""

    model: Literal["independent", "logit", "nested"] = Field(
        default="independent",
        description="independent: every examined item is clicked by itself. logit: at most one click a slate, by a "
        "multinomial logit over the examined items and choosing none. nested: the same with one nest a category.",
    )
    no_choice: float = Field(
        default=0.0, description="Logit of choosing none; 0 makes a slate of one item an independent click."
    )
    dissimilarity: float = Field(
        default=0.5, gt=0, le=1, description="nested only: 1 is logit, near 0 a category acts as one item."
    )
    sweep: tuple[float, ...] = Field(
        default_factory=_around(
            "no_choice", lambda own: (own - 1, own + 1), on=lambda given: given["model"] != "independent"
        ),
        description="Other values of no_choice to fly again. Left out: one logit to either side; none for independent.",
    )
    dissimilarity_sweep: tuple[Annotated[float, Field(ge=1e-3, le=1)], ...] = Field(
        default_factory=_around(
            "dissimilarity",
            lambda own: (max(own / 2, min(own, 1e-3)), (1 + own) / 2),
            on=lambda given: given["model"] == "nested",
        ),
        description="Other values of dissimilarity to fly again. Left out: half way to 0 and to 1; nested only.",
    )


class SatiationSettings(_Settings):
    """Loss of appeal of the categories that were shown lately."""

    strength: NotNegative = Field(
        default=1.0, description="Logits lost by an item when all recent exposure was of its own categories."
    )
    memory: Share = Field(default=0.8, description="Weight of the past in the running exposure by category, per slate.")
    sweep: tuple[NotNegative, ...] = Field(default=(0.0, 2.0), description="Other values of strength to fly again.")


class BoredomSettings(_Settings):
    """A category that was clicked too often lately loses its appeal all at once, and gets it back with time."""

    depth: NotNegative = Field(default=0.0, description="Logits lost by an item of a category that bores; 0: off.")
    threshold: Positive = Field(default=2.0, description="Clicks in running memory above which a category bores.")
    memory: Share = Field(default=0.7, description="Weight of the past in the running clicks by category, per slate.")
    sweep: tuple[NotNegative, ...] = Field(
        default_factory=_around("depth", _off_and_double, on=lambda given: given["depth"] > 0),
        description="Other values of depth to fly again. Left out: 0 and the double; none where it is off.",
    )


class DriftSettings(_Settings):
    """Taste moves towards what pleased more than expected, and away from what disappointed."""

    rate: NotNegative = Field(
        default=0.05,
        description="Logits by which a fully unexpected click raises the appeal of a typical item to this user.",
    )
    sweep: tuple[NotNegative, ...] = Field(default=(0.0, 0.2), description="Other values of rate to fly again.")


class LeaveSettings(_Settings):
    """Chance of leaving after each slate."""

    base_rate: OpenShare = Field(default=0.1, description="Probability of leaving after a slate, at satisfaction 0.5.")
    satisfaction: NotNegative = Field(
        default=2.5, description="c1: logits by which the hazard falls from satisfaction 0 to 1; satisfied users stay."
    )
    repetition: NotNegative = Field(
        default=1.0,
        description="c2: logits by which the hazard rises when the slate only repeats the categories shown lately.",
    )
    step: float = Field(default=0.0, description="c3: logits by which the hazard changes with each slate shown.")
    memory: Share = Field(default=0.7, description="Weight of the past in the running satisfaction, per slate.")
    sweep: tuple[NotNegative, ...] = Field(
        default=(0.0, 5.0), description="Other values of satisfaction (c1) to fly again."
    )
    base_rate_sweep: tuple[OpenShare, ...] = Field(
        default=(0.05, 0.2), description="Other values of base_rate to fly again."
    )
    repetition_sweep: tuple[NotNegative, ...] = Field(
        default=(0.0, 2.0), description="Other values of repetition to fly again."
    )
    fit: bool = Field(
        default=True,
        description="Fit the hazard where the log has slates and times, and the effect of satisfaction where it "
        "stands out from placebos; the values above serve where it does not.",
    )


class ReturningSettings(_Settings):
    """Whether and when a user comes back after a session; for evaluate.sessions_per_user above 1."""

    median_gap: Positive = Field(default=3.0, description="Median days until the next session at satisfaction 0.5.")
    spread: Positive = Field(default=1.5, description="Standard deviation of the gap's logarithm.")
    satisfaction: NotNegative = Field(
        default=1.0, description="By how much the gap's logarithm falls from satisfaction 0 to 1."
    )
    window: Positive = Field(default=30.0, description="Days after which a user no longer counts as returning.")
    forgetting: Positive = Field(
        default=7.0, description="Days in which satiation and boredom fall to 1/e between sessions."
    )
    sweep: tuple[NotNegative, ...] = Field(default=(0.0, 2.0), description="Other values of satisfaction to fly again.")
    median_gap_sweep: tuple[Positive, ...] = Field(
        default_factory=_around("median_gap", lambda own: (own / 2, own * 2)),
        description="Other values of median_gap to fly again where it is assumed. Left out: half and double.",
    )
    spread_sweep: tuple[Positive, ...] = Field(
        default_factory=_around("spread", lambda own: (own * 2 / 3, own * 4 / 3)),
        description="Other values of spread to fly again where it is assumed. Left out: a third less and a third more.",
    )
    fit: bool = Field(
        default=True, description="Fit median_gap and spread where the log has times, with its end as censoring."
    )


class DelaySettings(_Settings):
    """Feedback that comes late."""

    steps: int = Field(
        default=0, ge=0, le=100, description="Slates after which a click enters the observed history; 0: at once."
    )
    reward: bool = Field(
        default=True,
        description="Whether the reward comes as late; what is still due is paid when the session ends. No: at once.",
    )


class ArrivalSettings(_Settings):
    """New items and new users."""

    items: Share = Field(default=0.0, description="Share of the catalogue that may be shown only later.")
    step: int = Field(default=0, ge=0, description="Slate of a session from which new items may be shown.")
    session: int = Field(default=0, ge=0, description="Session from which new items may be shown, counted from 0.")
    users: Share = Field(
        default=0.0, description="Share of the users who start as strangers: agents see no history of theirs."
    )


class FriendsSettings(_Settings):
    """Appeal of what friends liked."""

    strength: float = Field(default=0.0, description="Logits gained by an item that a friend liked before; 0: off.")
    pairs: str | None = Field(
        default=None,
        description="File of friendships (.csv, .tsv, .parquet): two columns of user ids, both ways. Left out: the "
        "dataset's own (lastfm-2k).",
    )
    sweep: tuple[float, ...] = Field(
        default_factory=_around("strength", _off_and_double, on=lambda given: given["strength"] != 0),
        description="Other values of strength to fly again. Left out: 0 and the double; none where it is off.",
    )
    fit: bool = Field(
        default=True,
        description="Fit the strength where it predicts users left out of the fit and stands out from strangers in "
        "place of friends; the value above serves where it does not. 0 stays off.",
    )


class PopularitySettings(_Settings):
    """What was clicked becomes popular: a feedback loop between sessions."""

    strength: float = Field(
        default=0.0,
        description="Logits gained by an item with e times the average item's clicks, in the log and the sessions "
        "before; 0: off. Counted over all users of a flight, between sessions.",
    )
    sweep: tuple[float, ...] = Field(
        default_factory=_around("strength", _off_and_double, on=lambda given: given["strength"] != 0),
        description="Other values of strength to fly again. Left out: 0 and the double; none where it is off.",
    )


Reward = Literal["clicks", "likes", "dwell", "purchases", "ratings"]


class SimulatorSettings(_Settings):
    """The `simulator:` key of a scenario."""

    slate_size: int = Field(default=10, ge=1, le=1000, description="K, items on a slate.")
    horizon: int = Field(default=20, ge=1, le=10_000, description="Slates in a session at most.")
    reward: Reward = Field(
        "clicks",
        description="clicks: number of primary behaviours in the step. The others need a behaviour of that name: "
        "likes and purchases (number), dwell (seconds), ratings (sum of values). Agents are judged by it; most learn "
        "from clicks, whatever it is.",
    )
    history_length: int = Field(default=50, ge=1, le=10_000, description="H, newest interactions that an agent sees.")
    shown_again: bool = Field(
        default=False,
        description="Whether a session may show what the user met in the log; within a session nothing is shown twice. "
        "For logs that repeat items, and for catalogues that users know most of.",
    )
    behaviours: dict[str, Literal["like", "purchase", "dwell", "rating"]] = Field(
        default={},
        description="What may follow a click: column of data.behaviours -> what it is. Each gets a head fitted on the "
        "clicked rows: like and purchase (yes/no), dwell (seconds, as a distribution), rating (values).",
    )
    examination: ExaminationSettings = ExaminationSettings()
    choice: ChoiceSettings = ChoiceSettings()
    satiation: SatiationSettings = SatiationSettings()
    boredom: BoredomSettings = BoredomSettings()
    drift: DriftSettings = DriftSettings()
    leave: LeaveSettings = LeaveSettings()
    returning: ReturningSettings | None = Field(
        default=None, description="Left out: the sessions of a user are repeats that all start from the log."
    )
    delay: DelaySettings = DelaySettings()
    arrivals: ArrivalSettings = ArrivalSettings()
    friends: FriendsSettings = FriendsSettings()
    popularity: PopularitySettings = PopularitySettings()
    behaviour: str | None = Field(
        default=None,
        description="Your own users, `file.py:Class`: examination, choice, satiation, drift and leaving are then "
        "decided by your class.",
    )
    behaviour_params: dict[str, Any] = Field(default={}, description="Arguments of your class.")

    @model_validator(mode="after")
    def _reward_has_its_behaviour(self) -> SimulatorSettings:
        kind = REWARD_KINDS[self.reward]
        if kind is not None and kind not in self.behaviours.values():
            raise ValueError(f"reward: '{self.reward}' needs a {kind} in simulator.behaviours; name its column there")
        named: list[str] = list(self.behaviours.values())
        twice = [kind for kind in KINDS if named.count(kind) > 1]
        if twice:
            raise ValueError(f"behaviours: two columns are a {twice[0]}; keep one")
        return self


KINDS = ("like", "purchase", "dwell", "rating")
"""Behaviours that may follow a click, in the order of their draws."""
REWARD_KINDS: dict[str, str | None] = {
    "clicks": None,
    "likes": "like",
    "dwell": "dwell",
    "purchases": "purchase",
    "ratings": "rating",
}
"""Reward -> the behaviour that it sums; None for the clicks themselves."""

REWARDS = {
    "clicks": "number of primary behaviours (clicks) in the step",
    "likes": "number of likes in the step",
    "dwell": "seconds spent on what was clicked in the step",
    "purchases": "number of purchases in the step",
    "ratings": "sum of the ratings given in the step",
}
"""What `simulator.reward` may be: name -> about."""
