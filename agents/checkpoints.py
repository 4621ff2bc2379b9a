"""Checkpoints of a training: all that it needs to go on from where it was, bit for bit, after it was stopped."""

from __future__ import annotations

import contextlib
import io
import pickle
import random  # noqa: TID251  libraries draw from this global generator; its state is kept
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from agents.base import Training
from simulator.cache import StageCache

STAGE = "checkpoints"
"""Where they lie in the stage cache, one for each training that is under way."""

SECONDS_APART, SHARE = 20.0, 0.02
"""Least time between two checkpoints, and the share of a training that writing them takes at most."""


@dataclass(frozen=True, slots=True)
class GlobalDraws:
    """States of the generators that libraries draw from behind everyone's back: torch's, NumPy's old one, Python's."""

    torch: Any
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> GlobalDraws:
        """As they are; torch's only where it is in use."""
        torch = sys.modules.get("torch")
        legacy = np.random.get_state()  # noqa: NPY002  see above
        return cls(None if torch is None else torch.get_rng_state(), legacy, random.getstate())

    def put_back(self) -> None:
        """Make them as they were."""
        if self.torch is not None:
            import torch

            torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)  # noqa: NPY002  see above
        random.setstate(self.python)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the trainings that a task is made of (a mixture's agents learn one after another), pickled.

    Attributes:
        content: what was kept; draws: of the training's own generator, and the global ones.
        ended: whether the content is its result, and not what it needs to go on.
    """

    content: bytes
    draws: tuple[Any, GlobalDraws]
    ended: bool


@dataclass(slots=True)
class Checkpoint:
    """What one training task leaves in the stage cache while it is under way.

    Objects that the task is given anew when it starts again (the log, the world, ...) are named in it, not copied. One
    that cannot be read or written costs the time that it would have saved, never the training: it is dropped, and the
    agent's log says so.

    Attributes:
        cache, key: where it lies.
        log_file: the agent's log; None: nobody is told.
        seconds_apart: least time between two writes.
        seconds_before: what the task took before it was stopped, or 0.
    """

    cache: StageCache
    key: str
    log_file: Path | None = None
    seconds_apart: float = SECONDS_APART
    seconds_before: float = 0.0
    _parts: list[Part] = field(default_factory=list)
    _reached: int = 0
    _began: float = field(default_factory=time.perf_counter)
    _next: float = 0.0
    _written: bool = True

    def __post_init__(self) -> None:
        self._next = self._began + self.seconds_apart
        if self.cache.has(STAGE, self.key):
            try:
                self._parts, self.seconds_before = self.cache.load(STAGE, self.key)
            except Exception as error:  # noqa: BLE001  a damaged pickle raises anything
                self._drop("its checkpoint cannot be read, so it begins anew", error)

    def found(self, training: Training) -> tuple[bool, Any] | None:
        """Whether the training that begins now had ended, and its result or what it needs to go on; None: neither.

        Everything that draws is then as it was.
        """
        self._reached += 1
        if len(self._parts) < self._reached:
            return None
        part = self._parts[self._reached - 1]
        try:
            content = _Unpickler(io.BytesIO(part.content), training).load()
        except Exception as error:  # noqa: BLE001  as above
            del self._parts[self._reached - 1 :]
            self._drop("its checkpoint cannot be read, so it begins anew", error)
            return None
        if not part.ended:
            self._parts.pop()
        own, everyone = part.draws
        training.rng.bit_generator.state = own
        everyone.put_back()
        return part.ended, content

    @property
    def due(self) -> bool:
        """Whether it is time to write one."""
        return self._written and time.perf_counter() >= self._next

    def keep(self, training: Training, content: Any) -> None:
        """Write what the training needs to go on."""
        began = time.perf_counter()
        try:
            parts = [*self._parts, _pickled(training, content, ended=False)]
            self.cache.store(STAGE, self.key, (parts, self.seconds_before + began - self._began))
        except Exception as error:  # noqa: BLE001  what a library's object raises that cannot be pickled, a full disk
            self._give_up(error)
        now = time.perf_counter()
        self._next = now + max(self.seconds_apart, (now - began) / SHARE if self.seconds_apart else 0.0)

    def end(self, training: Training, result: Any) -> None:
        """Take note of a training's result; it is written with the next one's first checkpoint."""
        if not self._written:
            return
        try:
            self._parts.append(_pickled(training, result, ended=True))
        except Exception as error:  # noqa: BLE001  as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._written = False  # a later part would stand in the place of the one that is missing
        self._drop("no checkpoint can be written, so it would begin anew if it were stopped", error)

    def _drop(self, what: str, error: Exception) -> None:
        with contextlib.suppress(OSError):
            self.cache.drop(STAGE, self.key)
        with contextlib.suppress(OSError):
            if self.log_file is not None:
                self.log_file.parent.mkdir(parents=True, exist_ok=True)
                with self.log_file.open("a") as file:
                    file.write(f"training: {what} ({type(error).__name__}: {' '.join(str(error).split())})\n")


def _pickled(training: Training, content: Any, *, ended: bool) -> Part:
    file = io.BytesIO()
    _Pickler(file, training).dump(content)
    return Part(file.getvalue(), (training.rng.bit_generator.state, GlobalDraws.now()), ended)


def _given(training: Training) -> dict[str, Any]:
    """By name, what a task that starts again is given anew."""
    named: dict[str, Any] = {"training": training}
    named |= {name: getattr(training, name) for name in ("log", "catalogue", "make_env", "rng", "validation")}
    for part in ("_world", "_content"):  # of `MakeTrainEnv`: what an environment that is kept would bring along
        named |= {f"{part[1:]} of {name}": getattr(named[name], part, None) for name in ("make_env", "validation")}
    named |= {f"domain {name}": domain for name, domain in training.domains.items()}
    return {name: value for name, value in named.items() if value is not None}


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file: io.BytesIO, training: Training) -> None:
        super().__init__(file, protocol=5)
        self._names = {id(value): name for name, value in _given(training).items()}

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, training: Training) -> None:
        super().__init__(file)
        self._given = _given(training)

    def persistent_load(self, pid: str) -> Any:
        return self._given[pid]
