"""`http://host:port/path`: a ranking service of the user's own, asked by batches of users in JSON.

The protocol is in docs/agents.md with a server of 20 lines. Whatever the service does (slow, down, nonsense) is one
line of its agent's row.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agents.base import AgentError, AgentLimitError, Observation, Training, said_by
from agents.settings import LONGEST

Ints = NDArray[np.int64]

PROTOCOL = "windtunnel-rank/1"
MOST_BYTES = 64_000_000
"""An answer is read up to here."""
AGAIN = (429, 500, 502, 503, 504)
"""Statuses after which a request is made again."""
PAUSE = 0.2
"""Seconds before the second try; doubled before each further one."""


class RemoteSettings(BaseModel):
    """Parameters of a ranking service."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: str = Field(description="address of the service, from the agent's kind")
    seconds: float = Field(default=10.0, gt=0, le=LONGEST, description="time for one answer, connecting included")
    retries: int = Field(default=2, ge=0, le=10, description="further tries after no answer, 429 or a 5xx status")
    batch_size: int = Field(default=256, ge=1, description="users in one request")
    token_env: str | None = Field(
        default=None, min_length=1, description="environment variable whose content is sent as a bearer token"
    )

    @field_validator("url")
    @classmethod
    def _has_a_host(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  reading it is what finds a port that is no number
        except ValueError as error:
            raise ValueError(f"is no address ({error}); write e.g. http://127.0.0.1:8080/rank") from error
        if not parts.hostname:
            raise ValueError("names no host; write e.g. http://127.0.0.1:8080/rank")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a name or password, which the report would show; name a token's token_env")
        return url


class Remote:
    """Shows the slates that a service answers with.

    Users are written out one by one, so an answer costs time by the user and by the items that he may not be shown; a
    service is asked a batch at a time, one request after another. Items are named by the log's own ids.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self.settings = settings
        self._ids: tuple[str, ...] = ()
        self._index: dict[str, int] = {}
        self._features: tuple[str, ...] = ()

    def fit(self, training: Training) -> None:
        """Take note of the names of items and features; the service itself is not trained."""
        self._ids = training.catalogue.item_ids
        self._index = {name: at for at, name in enumerate(self._ids)}
        self._features = training.catalogue.user_feature_names

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """[n, K] what the service answers.

        Raises:
            AgentLimitError: it does not answer in time, or cannot be reached.
            AgentError: it answers what is no slate.
        """
        n, size = len(observation), observation.slate_size
        seed = int(rng.integers(2**31))
        out = np.full((n, size), -1, np.int64)
        for low in range(0, n, self.settings.batch_size):
            high = min(n, low + self.settings.batch_size)
            question = {
                "protocol": PROTOCOL,
                "slate_size": size,
                "seed": seed,
                "users": [self._user(observation, row) for row in range(low, high)],
            }
            answer = post_json(
                self.settings.url,
                question,
                seconds=self.settings.seconds,
                retries=self.settings.retries,
                token_env=self.settings.token_env,
            )
            self._read(answer, out[low:high])
        return out

    def _user(self, observation: Observation, row: int) -> dict[str, Any]:
        """One user as the protocol writes him."""
        items = observation.history_items[row]
        there = np.flatnonzero(items >= 0)
        user: dict[str, Any] = {
            "features": dict(zip(self._features, map(float, observation.user_features[row]), strict=False)),
            "history": [self._ids[item] for item in items[there]],
            "feedback": [float(value) for value in observation.history_feedback[row, there]],
            "step": int(observation.step[row]),
            "excluded": [],
        }
        if observation.candidates is not None:
            allowed = observation.candidates[row]
            few = 2 * int(allowed.sum()) < len(allowed)
            key = "candidates" if few else "excluded"
            user[key] = [self._ids[item] for item in np.flatnonzero(allowed if few else ~allowed)]
        return user

    def _read(self, answer: Any, out: Ints) -> None:
        """Write the answer's slates into `out` [n, K]; what `check_slate` judges is left to it."""
        n, size = out.shape
        slates = answer.get("slates") if isinstance(answer, Mapping) else None
        if not isinstance(slates, list):
            raise AgentError(f'the service answered {_short(answer)}; answer {{"slates": [[id, ...], ...]}}')
        if len(slates) != n:
            raise AgentError(
                f"the service answered {len(slates)} slates for {n} users; the shape must be [{n}, {size}]"
            )
        for row, slate in enumerate(slates):
            if not isinstance(slate, list) or len(slate) > size:
                found = f"{len(slate)} items" if isinstance(slate, list) else _short(slate)
                raise AgentError(f"slates[{row}] holds {found}; the shape must be [n, K] = [{n}, {size}]")
            for place, name in enumerate(slate):
                if not isinstance(name, str) or name not in self._index:
                    raise AgentError(
                        f"slates[{row}][{place}] is {_short(name)}, which is no item's id (ids are strings)"
                    )
                out[row, place] = self._index[name]


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came back.

    Attributes:
        status: of HTTP; content: what stands in the answer.
        later: seconds that the service asks to be left alone (`Retry-After`), or 0.
    """

    status: int
    content: bytes
    later: float


def no_turns() -> None:
    """Nobody waits for a turn."""


def post_json(
    url: str,
    question: Mapping[str, Any],
    *,
    seconds: float,
    retries: int,
    token_env: str | None,
    turn: Callable[[], None] = no_turns,
) -> Any:
    """What a service answers to a question, both in JSON.

    Args:
        url: address.
        question: JSON-ready.
        seconds: time for one answer.
        retries: further tries after no answer, or a status of `AGAIN`.
        token_env: environment variable whose content is sent as a bearer token, or None.
        turn: called before each try; returns when it may be made.

    Raises:
        AgentLimitError: no try was answered in time.
        AgentError: the answer is no JSON, too long, or its status says that the question was refused.
    """
    import httpx

    where = url.partition("://")[2].partition("?")[0]
    headers = {}
    if token_env is not None:
        if not os.environ.get(token_env):
            raise AgentError(f"{where}: the environment variable {token_env} is not set; set it to the service's token")
        token = os.environ[token_env].strip()
        if not (token.isascii() and token.isprintable()):
            raise AgentError(
                f"{where}: the environment variable {token_env} holds no token; it must be printable ASCII"
            )
        headers["Authorization"] = f"Bearer {token}"
    failed, later = "", 0.0
    for number in range(retries + 1):
        if number:
            time.sleep(max(PAUSE * 2 ** (number - 1), min(later, seconds)))
        turn()
        try:
            reply = _in_time(partial(_post, httpx, url, question, headers, seconds), seconds)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise AgentError(f"{where}: is no address ({said_by(error)}); mend it") from error
        except httpx.HTTPError as error:
            late = isinstance(error, httpx.TimeoutException)
            failed = f"no answer within {seconds:g} s" if late else f"cannot be reached ({type(error).__name__})"
            continue
        except TimeoutError:
            failed = f"no answer within {seconds:g} s"
            continue
        if reply.status in AGAIN:
            failed, later = f"status {reply.status}", reply.later
            continue
        if reply.status != 200:
            raise AgentError(f"{where}: status {reply.status}: {_short(reply.content.decode(errors='replace'))}")
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError) as error:
            said = _short(reply.content[:200].decode(errors="replace"))
            raise AgentError(f"{where}: the answer is no JSON: {said}") from error
    raise AgentLimitError(f"{where}: {failed}, in {retries + 1} {'tries' if retries else 'try'}")


def _in_time(ask: Callable[[], _Reply], seconds: float) -> _Reply:
    """The answer, if it is there in time: looking up a name and a drip of headers know no limit of their own.

    Raises:
        TimeoutError: it is not; the thread that waits for it ends with the connection, or with this process.
    """
    answers: SimpleQueue[_Reply | Exception] = SimpleQueue()

    def wait() -> None:
        try:
            answers.put(ask())
        except Exception as error:  # noqa: BLE001  raised below, in the thread that asked
            answers.put(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _post(httpx: Any, url: str, question: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> _Reply:
    """The answer; a drip of bytes is no answer in time."""
    deadline = time.monotonic() + seconds
    content = bytearray()
    # Proxies of the environment are not for a service on this machine, which is the usual case.
    with (
        httpx.Client(timeout=seconds, trust_env=not _is_local(url)) as client,
        client.stream("POST", url, json=question, headers=headers) as response,
    ):
        for part in response.iter_bytes():
            content += part
            if len(content) > MOST_BYTES:
                raise AgentError(
                    f"the answer is longer than {MOST_BYTES // 10**6} MB; ask for fewer users (batch_size)"
                )
            if time.monotonic() > deadline:
                raise TimeoutError
    asked = response.headers.get("Retry-After", "")  # seconds, or a date, which is not read
    return _Reply(int(response.status_code), bytes(content), float(asked) if asked.isdecimal() else 0.0)


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _short(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return f"'{text[:80]}...'" if len(text) > 80 else f"'{text}'"
