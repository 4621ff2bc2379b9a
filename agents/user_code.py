"""A user's own agent: it runs in a process of its own, with limits on time and memory, and what it prints is kept."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from agents.base import AgentError, AgentLimitError, Feedback, Observation, Training
from agents.contract import not_an_array
from agents.leftovers import MARK, end_marked
from agents.settings import LimitSettings
from simulator.errors import InputError, did_you_mean

LOG_BYTES = 1_000_000
"""What an agent prints is cut here."""

CUT = b"\n[cut here: of what an agent prints the first megabyte is kept]\n"
"""Last line of a log file that was cut."""

NOBODY: Mapping[str, Callable[[int, float], None]] = {}
"""Who is told of the points of a curve where nothing learns."""

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """What a user's class can do, and the files of the user's own modules that its file imports."""

    has_fit: bool
    has_probabilities: bool
    has_observe: bool
    imported: tuple[Path, ...]


def locate(kind: str, folder: Path, where: str) -> str:
    """The kind with the full path of its file, or as it is for a module.

    Raises:
        InputError: the file is not there.
    """
    place, _, name = kind.rpartition(":")
    if not place.endswith(".py"):
        return kind
    path = (folder / place).resolve()
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise InputError(f"{where}.kind: '{kind}' cannot be loaded; there is no file {place} in {folder}{near}")
    return f"{path}:{name}"


_described: dict[tuple[str, float], dict[str, Any]] = {}


def describe_class(target: str, params: dict[str, Any], limits: LimitSettings, where: str) -> ClassInfo:
    """Load the class once in a process of its own and check its parameters against its signature.

    Raises:
        InputError: it cannot be loaded, has no `act`, or does not take these parameters.
    """
    place = target.rpartition(":")[0]
    shown = f"{Path(place).name}:{target.rpartition(':')[2]}" if place.endswith(".py") else target
    key = (target, Path(place).stat().st_mtime if place.endswith(".py") else 0.0)
    about = _described.get(key)
    if about is None:
        process = _Process(limits.memory_gb, None)
        try:
            about = process.ask(("describe", target), _Patience(limits.load_seconds, "loading", "load_seconds", limits))
        except AgentError as error:
            raise InputError(f"{where}.kind: '{shown}' cannot be loaded; {error}") from error
        finally:
            process.stop()
        _described[key] = about
    known, required = about["known"], about["required"]
    for name in params:
        if name not in known and not about["open"]:
            there = f"known: {', '.join(known)}" if known else "the class takes none"
            raise InputError(f"{where}.params.{name}: unknown parameter{did_you_mean(name, known)}; {there}")
    for name in required:
        if name not in params:
            raise InputError(f"{where}.params.{name}: missing; {shown} needs it")
    imported = tuple(Path(file) for file in about["imported"])
    return ClassInfo(about["has_fit"], about["has_probabilities"], about["has_observe"], imported)


class UserAgent:
    """Stands for a user's or a saved agent here; asks the process in which it lives.

    Can be pickled at any time: what travels is what the agent was after `fit`, and a new process starts on use.
    """

    def __init__(
        self,
        target: str,
        params: dict[str, Any],
        limits: LimitSettings,
        *,
        has_fit: bool,
        has_probabilities: bool,
        has_observe: bool,
        log_file: Path | None,
        state: bytes | None = None,
    ) -> None:
        self.target, self.params, self.limits = target, params, limits
        self.has_fit, self.has_probabilities, self.online = has_fit, has_probabilities, has_observe
        self.log_file = log_file
        self._state = state
        self._process: _Process | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}

    def __getattribute__(self, name: str) -> Any:
        # An optional method that the user's class lacks must look absent, or off-policy evaluation would call it.
        if name == "action_probabilities" and not object.__getattribute__(self, "has_probabilities"):
            raise AttributeError(f"{object.__getattribute__(self, 'target')} has no action_probabilities")
        return object.__getattribute__(self, name)

    def fit(self, training: Training) -> None:
        """Let the user's agent learn within `limits.fit_seconds`, if it has `fit`."""
        if not self.has_fit:
            return
        parts = {
            name: getattr(training, name)
            for name in ("log", "catalogue", "make_env", "slate_size", "horizon", "rng", "seed", "budget", "seconds",
                         "stopping", "validation", "shown_again")
        }  # fmt: skip
        said = 0

        def valued(steps: int, value: float) -> None:
            nonlocal said
            said += 1
            training.valued(steps, value)

        told = {"report": training.report, "valued": valued}
        state = self._ask(("fit", parts), self.limits.fit_seconds, "fit", "fit_seconds", told)
        if isinstance(state, str):
            raise AgentError(
                f"the agent cannot be kept after fit; leave environments and open files out of self: {state}"
            )
        if training.stopping is not None and not said:
            raise AgentError("train.early_stopping: fit reported no point of a learning curve (training.report)")
        self._state = state

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """The user's agent's slates, as it gave them; `check_slate` judges them."""
        return self._array(self._ask(("act", observation, rng), self.limits.act_seconds, "act", "act_seconds"), "act")

    def action_probabilities(self, observation: Observation) -> NDArray[np.float64]:
        """The user's agent's chances of the first position."""
        question = ("action_probabilities", observation)
        answer = self._ask(question, self.limits.act_seconds, "action_probabilities", "act_seconds")
        return self._array(answer, "action_probabilities")

    def observe(self, feedback: Feedback) -> None:
        """Let the user's agent learn from one slate of each user, if its class has `observe`."""
        self._ask(("observe", feedback), self.limits.act_seconds, "observe", "act_seconds")

    def saved_state(self) -> bytes:
        """What the agent is, as bytes that another such process can be built from."""
        if self._state is None:
            self._state = self._ask(("state",), self.limits.act_seconds, "saving", "act_seconds")
        assert self._state is not None
        return self._state

    def close(self) -> None:
        """End the process; a later call starts another."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _array(self, answer: Any, method: str) -> NDArray[Any]:
        if isinstance(answer, str):
            raise AgentError(not_an_array(method, answer))
        array: NDArray[Any] = answer
        return array

    def _ask(
        self,
        question: tuple[Any, ...],
        seconds: float,
        method: str,
        limit: str,
        told: Mapping[str, Callable[[int, float], None]] = NOBODY,
    ) -> Any:
        try:
            if self._process is None:
                self._process = _Process(self.limits.memory_gb, self.log_file)
                build = ("build", self.target, self.params, self._state)
                patience = _Patience(self.limits.load_seconds, "building", "load_seconds", self.limits)
                self._process.ask(build, patience)
            return self._process.ask(question, _Patience(seconds, method, limit, self.limits), told)
        except AgentError:
            self.close()
            raise


class _Patience:
    """How long an answer is waited for. While a fit is valued, that is no part of its time, and each slate has its own.

    Args:
        seconds: for the whole answer.
        method: what is asked, as messages say it.
        limit: name of the setting that gives the seconds.
        limits: give a slate its seconds.
    """

    def __init__(self, seconds: float, method: str, limit: str, limits: LimitSettings) -> None:
        self.method = method
        self._seconds, self._limit, self._slate = seconds, limit, limits.act_seconds
        self._until = 0.0
        self._asked: float | None = None  # when it was asked for the last slate of a valuation
        self._since = 0.0  # when that valuation began

    def begin(self) -> None:
        """Start the clock."""
        self._until = time.monotonic() + self._seconds

    def heard(self, what: str) -> None:
        """Take note of a word of the child: "asked" for a slate, "valued" when the valuation is over."""
        now = time.monotonic()
        if what == "asked":
            self._since = now if self._asked is None else self._since
            self._asked = now
        elif self._asked is not None:
            self._until += now - self._since
            self._asked = None

    @property
    def left(self) -> float:
        """Seconds that the next word is waited for."""
        until = self._until if self._asked is None else self._asked + self._slate
        return max(0.0, until - time.monotonic())

    @property
    def lost(self) -> str:
        """What took too long."""
        if self._asked is not None:
            return f"act took longer than {self._slate:g} s (limits.act_seconds)"
        return f"{self.method} took longer than {self._seconds:g} s (limits.{self._limit})"


class _Process:
    """One child process and the socket to it."""

    def __init__(self, memory_gb: float, log_file: Path | None) -> None:
        ours, theirs = socket.socketpair()
        self.memory_gb = memory_gb
        mark = secrets.token_hex(16)
        paths = [str(PROJECT), *(p for p in sys.path if p)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "PYTHONHASHSEED": "0",
            MARK: mark,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        with theirs:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "agents.user_process", str(theirs.fileno()), str(int(memory_gb * 1e9))],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that it and what it starts can be ended together, and Ctrl-C is ours
            )
        self.connection = Connection(ours.detach())
        assert self.child.stdout is not None
        self._printer = threading.Thread(target=_keep_output, args=(self.child.stdout, log_file), daemon=True)
        self._printer.start()
        self.stop = weakref.finalize(self, _end, self.child, mark, self.connection, self._printer)

    def ask(
        self,
        question: tuple[Any, ...],
        patience: _Patience,
        told: Mapping[str, Callable[[int, float], None]] = NOBODY,
    ) -> Any:
        """Send a request and wait for its answer.

        Raises:
            AgentError: it raised, was out of patience, ate too much memory, or its process ended.
        """
        method = patience.method
        try:
            self.connection.send(question)
            patience.begin()
            while True:
                if not self.connection.poll(patience.left):
                    raise AgentLimitError(patience.lost)
                what, *rest = self.connection.recv()
                patience.heard(what)
                if what in told:
                    told[what](*rest)
                elif what != "asked":
                    break
        except (EOFError, OSError) as error:
            code = self._exit_code()
            raise AgentLimitError(
                f"{method}: its process ended with {_signal_name(code)}; "
                f"it may have eaten more memory than {self.memory_gb:g} GB (limits.memory_gb)"
            ) from error
        if what == "memory":
            raise AgentLimitError(f"{method} ate more memory than {self.memory_gb:g} GB (limits.memory_gb)")
        if what == "raised":
            raise AgentError(f"{method} raised {rest[0]}")
        return rest[0]

    def _exit_code(self) -> int | None:
        try:
            return self.child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return None


def _signal_name(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _keep_output(output: IO[bytes], log_file: Path | None) -> None:
    """Write what the process prints to the log file, until it is full; read on, so that the process never waits.

    A file that was cut says so in its last line, and is longer than `LOG_BYTES` by that.
    """
    room = LOG_BYTES
    if log_file is not None and log_file.exists():
        room -= log_file.stat().st_size
    while block := output.read1(65_536):  # type: ignore[attr-defined]
        if log_file is None or room < 0:
            continue
        with contextlib.suppress(OSError):  # a full disk costs what it prints, never the agent that waits to be read
            log_file.parent.mkdir(parents=True, exist_ok=True)
            with log_file.open("ab") as file:
                file.write(block if len(block) <= room else block[:room] + CUT)
        room -= len(block)


def _end(child: subprocess.Popen[bytes], mark: str, connection: Connection, printer: threading.Thread) -> None:
    """End the child and whatever it started: its process group, and by their mark those that have left it."""
    connection.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    end_marked(mark)
    printer.join(timeout=5)
    if child.stdout is not None and not printer.is_alive():
        child.stdout.close()
