"""Deep Q-network over fine-tuned BERT: texts are read once, before training; Q of all items is one matrix product."""

from __future__ import annotations

from pydantic import Field

from agents.base import Training
from agents.bert_items import BertItems, by_bert
from agents.deep_rl import DQNSettings, QAgent


class BertQSettings(DQNSettings, BertItems):
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
        super().fit(by_bert(training, self.settings))
