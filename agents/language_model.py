"""`language_model`: a causal or seq2seq model, in a folder or behind an OpenAI-compatible endpoint, ranks a shortlist.

The model in a folder is run by `agents.local_language_model`, which alone imports torch and transformers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.base import Agent, AgentError, AgentLimitError, Observation, Training
from agents.needs import lacking
from agents.remote import no_turns, post_json
from agents.settings import LONGEST, AgentSettings
from agents.wrapping import Wrapping, best_of
from simulator.cache import default_cache_folder, write_atomically
from simulator.datasets.sources import named_file

Ints = NDArray[np.int64]

TOKENS = 2
"""Part of the name of a local model's answers, raised when a text becomes other tokens."""


class LanguageModelSettings(BaseModel):
    """Parameters of a language model that ranks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        default="",
        description="folder or Hugging Face id of a causal or seq2seq model; with an endpoint, the name it knows",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="OpenAI-compatible address up to /v1, e.g. http://127.0.0.1:8000/v1; empty: the model is run here",
    )
    token_env: str | None = Field(
        default=None, min_length=1, description="endpoint: environment variable with the token; it is never written"
    )
    ranking: Literal["likelihood", "generated"] = Field(
        default="generated",
        description="likelihood: by the mean log-likelihood of an item's text after the prompt (a model run here). "
        "generated: by the order of the numbers that the model writes",
    )
    agent: str = Field(default="popularity", min_length=1, description="kind of the agent that makes the shortlist")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of that agent")
    pool: int = Field(default=2, ge=1, le=10, description="slates of that agent that make the shortlist")
    history: int = Field(default=10, ge=0, description="newest likes of a user that the prompt names")
    prompt: str = Field(
        default="Someone liked these, oldest first: {liked}.\n",
        description="how the prompt begins; {liked} stands for the texts of the newest likes",
    )
    max_new_tokens: int = Field(default=64, ge=1, description="tokens that a model may write in an answer")
    requests_per_minute: float | None = Field(
        default=None,
        ge=1e-4,
        description="endpoint: tries a minute at most, of all processes that share the cache folder",
    )
    most_requests: int = Field(
        default=2_000,
        ge=1,
        description="questions that are not in the cache, in one task of a run (its flights, each check), before the "
        "agent fails",
    )
    price_in: float = Field(default=0.0, ge=0, description="money for 1,000 tokens of a question")
    price_out: float = Field(default=0.0, ge=0, description="money for 1,000 tokens of an answer")
    seconds: float = Field(default=60.0, gt=0, le=LONGEST, description="endpoint: time for one answer")
    retries: int = Field(default=2, ge=0, le=10, description="endpoint: further tries after no answer")

    @model_validator(mode="after")
    def _model_is_named(self) -> LanguageModelSettings:
        if not self.model:
            raise ValueError("model: missing; name a folder, a Hugging Face id, or the endpoint's model")
        if self.endpoint is not None and self.ranking == "likelihood":
            raise ValueError("ranking: an endpoint gives no likelihood of a text; use generated, or a model run here")
        if "{liked}" not in self.prompt:
            raise ValueError("prompt: has no {liked}, so the model would be told nothing of the user")
        return self

    def wrapped(self) -> tuple[AgentSettings, ...]:
        """The entry of the agent that makes the shortlist."""
        return (AgentSettings(name="shortlist", kind=self.agent, params=self.params),)

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files of a model that is a folder beside the scenario."""
        from simulator.encoders.text import encoder_files

        place = named_file(folder, self.model)
        return encoder_files(str(place)) if self.endpoint is None and place.is_dir() else ()

    def located(self, folder: Path, where: str) -> LanguageModelSettings:
        """The settings with the full path of a model that is run here.

        Raises:
            InputError: there is no such model.
        """
        if self.endpoint is not None:
            return self
        from simulator.encoders.text import model_folder

        return self.model_copy(update={"model": model_folder(self.model, folder, f"{where}.params.model", ())})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one question.

    Attributes:
        order: places of the shortlist, best first; those that it left out are not in it.
        tokens_in, tokens_out: tokens of the question and of the answer.
    """

    order: tuple[int, ...]
    tokens_in: int
    tokens_out: int


@dataclass(slots=True)
class Usage:
    """What the questions of one process took; answers from the cache are free.

    Attributes:
        requests: questions put to the model.
        cached: questions answered from the cache.
        tokens_in, tokens_out: tokens of the questions put and of their answers.
        kept_in, kept_out: tokens of the questions answered from the cache, when they were put.
        unread: answers, also kept ones, that named no item of the list.
        cost: money for the questions put, by the prices of the settings.
    """

    requests: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    kept_in: int = 0
    kept_out: int = 0
    unread: int = 0
    cost: float = 0.0


class LanguageModel(Wrapping):
    """Orders the shortlist of another agent as a language model would.

    The prompt names the texts of a user's newest likes. likelihood: each shortlisted text is scored by its mean
    log-likelihood after the prompt (Sileo, Vossen and Raymaekers, 2022). generated: the shortlist is numbered, and the
    model writes numbers, best first (Hou et al., 2024); those it leaves out follow in the shortlist's order.

    A question costs a pass of the model, so this agent does not serve 1,000 users a second: choose few users and short
    sessions. Equal questions are put once: answers are kept in the cache folder under `language-model`, with the tokens
    that each took. `most_requests` ends a run that would become dear.
    """

    def __init__(self, settings: LanguageModelSettings, wrapped: Sequence[Agent]) -> None:
        super().__init__(wrapped)
        self.settings = settings
        self.agent = wrapped[0]
        self.usage = Usage()
        self._text: tuple[str, ...] = ()
        self._local: Any = None
        self._model_key = ""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_local": None}  # the model is loaded again where the agent is asked

    def fit(self, training: Training) -> None:
        """Fit the agent that makes the shortlist; the language model itself is not trained.

        Raises:
            AgentError: the items have no text.
        """
        if lack := lacking("item text", training.log):
            raise AgentError(f"language_model: {lack}")
        self.fit_wrapped(training)
        self._text = training.catalogue.item_text
        if self.settings.endpoint is None:
            from simulator.encoders.text import encoder_digest

            self._model_key = encoder_digest(self.settings.model)
        else:
            self._model_key = f"{self.settings.endpoint} {self.settings.model}"

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """[n, K] the shortlist's items in the model's order.

        Raises:
            AgentLimitError: the endpoint does not answer, or `most_requests` are used up.
            AgentError: the endpoint answers nonsense.
        """
        pool = best_of(self.agent, observation, rng, len(self._text), self.settings.pool)  # [n, L]
        out = np.full((len(pool), observation.slate_size), -1, np.int64)
        for row, items in enumerate(pool):
            shortlist = items[items >= 0]
            ordered = shortlist[self._order(self._begin(observation, row), [self._text[i] for i in shortlist])]
            out[row, : len(ordered)] = ordered[: observation.slate_size]
        return out

    def _begin(self, observation: Observation, row: int) -> str:
        items = observation.history_items[row]
        liked = items[(items >= 0) & (observation.history_feedback[row] > 0)]
        newest = liked[max(0, len(liked) - self.settings.history) :]
        return self.settings.prompt.replace("{liked}", "; ".join(self._text[item] for item in newest) or "nothing yet")

    def _order(self, begin: str, texts: list[str]) -> list[int]:
        """Places of the shortlist, best first, all of them."""
        if not texts:
            return []
        settings = self.settings
        local = [] if settings.endpoint is not None else [TOKENS]
        key = [self._model_key, settings.ranking, begin, texts, settings.max_new_tokens, *local]
        path = _kept_folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:40]}.json"
        answer = _kept(path)
        if answer is None:
            answer = self._ask(begin, texts)
            kept = {"order": answer.order, "tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out}
            write_atomically(path, lambda part: _write(part, json.dumps(kept)))
        else:
            self.usage.cached += 1
            self.usage.kept_in += answer.tokens_in
            self.usage.kept_out += answer.tokens_out
        self.usage.unread += not answer.order
        named = [place for place in dict.fromkeys(answer.order) if 0 <= place < len(texts)]
        return named + [place for place in range(len(texts)) if place not in set(named)]

    def _ask(self, begin: str, texts: list[str]) -> Answer:
        settings, usage = self.settings, self.usage
        if usage.requests >= settings.most_requests:
            raise AgentLimitError(
                f"language_model: {settings.most_requests:,} questions are used up (params.most_requests); fly fewer "
                "users or shorter sessions, or raise it"
            )
        usage.requests += 1
        if settings.endpoint is not None:
            answer = self._from_endpoint(question(begin, texts))
        else:
            if self._local is None:
                from agents.local_language_model import LocalModel

                self._local = LocalModel(settings.model)
            if settings.ranking == "likelihood":
                answer = self._local.by_likelihood(begin, texts)
            else:
                said, tokens_in, tokens_out = self._local.generate(question(begin, texts), settings.max_new_tokens)
                answer = Answer(numbers_in(said, len(texts)), tokens_in, tokens_out)
        usage.tokens_in += answer.tokens_in
        usage.tokens_out += answer.tokens_out
        usage.cost += self._price(answer.tokens_in, answer.tokens_out)
        return answer

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.settings.price_in + tokens_out * self.settings.price_out) / 1000

    def account(self) -> str:
        """What its questions take, in words: the same whether they were put or answered from the cache."""
        usage = self.usage
        tokens = usage.tokens_in + usage.kept_in, usage.tokens_out + usage.kept_out
        price = self._price(*tokens)
        questions = f"{usage.requests + usage.cached:,} questions, {tokens[0]:,} tokens in and {tokens[1]:,} out"
        questions += f", {price:.2f} by its prices where no answer was kept" if price else ""
        unread = f"; {usage.unread:,} answers named no item, so that the shortlist's order stood"
        return questions + unread * bool(usage.unread)

    def _from_endpoint(self, asked: str) -> Answer:
        settings = self.settings
        assert settings.endpoint is not None
        name = hashlib.sha256(settings.endpoint.encode()).hexdigest()[:40]
        rate = settings.requests_per_minute
        body = {
            "model": settings.model,
            "messages": [{"role": "user", "content": asked}],
            "temperature": 0,
            "max_tokens": settings.max_new_tokens,
        }
        answer = post_json(
            settings.endpoint.rstrip("/") + "/chat/completions",
            body,
            seconds=settings.seconds,
            retries=settings.retries,
            token_env=settings.token_env,
            turn=no_turns if rate is None else partial(wait_for_turn, _kept_folder() / f"{name}.turn", 60 / rate),
        )
        try:
            said = answer["choices"][0]["message"]["content"]
            used = answer.get("usage") or {}
            tokens = int(used.get("prompt_tokens", 0)), int(used.get("completion_tokens", 0))
        except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
            raise AgentError(
                "language_model: the endpoint's answer has no choices[0].message.content; give an OpenAI-compatible one"
            ) from error
        if not isinstance(said, str):
            raise AgentError(f"language_model: the endpoint answered {type(said).__name__} instead of text")
        return Answer(numbers_in(said, len(re.findall(r"(?m)^\d+\. ", asked))), *tokens)


def wait_for_turn(path: Path, apart: float) -> None:
    """Return `apart` seconds after the last turn that any process took by this file, and take one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # who waits holds it: turns are taken one after another
        file.seek(0)
        try:
            last = float(file.read())
        except ValueError:  # nobody has taken one yet
            last = -math.inf
        wait = min(last + apart - time.time(), apart)  # no more, should the clock have been set back
        if wait > 0:
            time.sleep(wait)
        file.truncate(0)
        file.write(repr(time.time()))


def question(begin: str, texts: Sequence[str]) -> str:
    """The prompt with the numbered shortlist."""
    numbered = "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(texts, 1))
    return f"{begin}Which of these will they like best?\n{numbered}\nAnswer with the numbers alone, best first:"


def numbers_in(said: str, count: int) -> tuple[int, ...]:
    """Places (from 0) that an answer names, in its order; numbers that stand for no item are left out."""
    found = (int(number) - 1 for number in re.findall(r"\d{1,6}", said))
    return tuple(place for place in dict.fromkeys(found) if 0 <= place < count)


def _kept_folder() -> Path:
    """Where answers and turns are kept."""
    return default_cache_folder() / "language-model"


def _kept(path: Path) -> Answer | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Answer(tuple(int(place) for place in held["order"]), int(held["tokens_in"]), int(held["tokens_out"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or a damaged file: ask again and replace it


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
