"""The process in which a user's own agent runs: `python -m agents.user_process`. Answers one request after another.

It talks over the socket whose number is its first argument; the second is its limit of address space in bytes.
Requests and answers are tuples. What the agent prints goes to this process's own output, which the parent cuts.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import resource
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from agents.base import AgentError, Feedback, Observation, Training, learns_online, said_by, unheard
from agents.contract import check_slate, not_an_array
from agents.leftovers import MARK, end_marked
from agents.train_world import VALUE_SEED, VALUE_SESSIONS, Lanes, session_value

FILE_MODULE = "windtunnel_user_file"
"""Name under which a user's file is a module, so that what was pickled here can be read in another such process."""

WINDTUNNEL = ("agents", "cli", "evaluators", "pipeline", "scenarios", "simulator")
"""Packages and modules that are Windtunnel's own."""


def load_class(target: str) -> Any:
    """The class named by "path/file.py:Class" or "package.module:Class"."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        path = Path(where)
        sys.path.insert(0, str(path.parent))  # so that the file may import its neighbours
        spec = importlib.util.spec_from_file_location(FILE_MODULE, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path.name} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[FILE_MODULE] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    return _named_class(module, name)


def _named_class(module: ModuleType, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        classes = sorted(key for key, value in vars(module).items() if inspect.isclass(value))
        raise ImportError(f"there is no '{name}' in it; its classes: {', '.join(classes) or 'none'}")
    if not callable(found):
        raise ImportError(f"'{name}' is a {type(found).__name__}, not a class")
    if not callable(getattr(found, "act", None)):
        raise ImportError(f"'{name}' has no method act(observation, rng)")
    return found


def describe(target: str) -> dict[str, Any]:
    """What the parent must know of the class before anything trains."""
    before = set(sys.modules)
    agent_class = load_class(target)
    parameters = inspect.signature(agent_class).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {
        "has_fit": callable(getattr(agent_class, "fit", None)),
        "has_probabilities": callable(getattr(agent_class, "action_probabilities", None)),
        "has_observe": learns_online(agent_class),
        "known": [p.name for p in named],
        "required": [p.name for p in named if p.default is p.empty],
        "open": any(p.kind is p.VAR_KEYWORD for p in parameters),
        "imported": own_files(sys.modules.keys() - before - {FILE_MODULE}, target),
    }


def own_files(names: Collection[str], target: str) -> list[str]:
    """Files of the user's own modules of these names, in the order of names: what came with no installation.

    What lies among installed packages is the user's own where it is of the package that `target` names. Windtunnel's
    modules are known by other means.
    """
    package = "" if target.rpartition(":")[0].endswith(".py") else target.partition(":")[0].partition(".")[0]
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = []
    for name in sorted(names):
        top = name.partition(".")[0]
        file = getattr(sys.modules.get(name), "__dict__", {}).get("__file__")  # what is loaded late loads on getattr
        if file is None or top in WINDTUNNEL or not Path(file).is_file():
            continue
        path = Path(file).resolve()
        if top == package or not any(path.is_relative_to(place) for place in installed):
            found.append(str(path))
    return found


class StoppedEarly(BaseException):
    """Ends `fit` where its points gain nothing any more; not for the user's code to catch."""


class NotKeptError(BaseException):
    """Ends `fit` where the agent cannot be pickled; not for the user's code to catch."""


class NoSlateError(BaseException):
    """Ends `fit` where the agent fails in the validation world, for this reason; not for the user's code to catch."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


def kept(agent: Any) -> bytes:
    """What the agent is now.

    Raises:
        NotKeptError: it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(agent))
    except MemoryError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise NotKeptError(one_line(error)) from error


class _Watch:
    """Values the agent in the validation world at each point that it reports, and keeps what it was at the best.

    Args:
        agent: of the user.
        training: gives the validation world and says when to stop.
        asked: called before each slate is asked for.
    """

    def __init__(self, agent: Any, training: Training, asked: Callable[[], None]) -> None:
        assert training.stopping is not None
        assert training.validation is not None
        seed = (training.seed + VALUE_SEED) % 2**31
        self._agent, self._stopping, self._values = agent, training.stopping, list[float]()
        self._asked = asked
        self._lanes = Lanes(training, VALUE_SESSIONS, seed=seed, make_env=training.validation)
        self.best: bytes | None = None

    def value(self) -> float:
        """Mean reward a session of the agent as it is.

        Raises:
            NoSlateError: it raised, or returned what is a failure in judging, too.
            NotKeptError: it cannot be pickled.
        """
        try:
            self._values.append(session_value(self._lanes, self._act))
        except Exception as error:
            raise NoSlateError(error) from error
        if self._stopping.best(self._values) == len(self._values) - 1:
            self.best = kept(self._agent)
        return self._values[-1]

    def _act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        self._asked()
        slates = plain_array(self._agent.act(observation, rng))
        if isinstance(slates, str):
            raise AgentError(not_an_array("act", slates))
        return check_slate(slates, observation)

    @property
    def over(self) -> bool:
        """Whether the patience is used up."""
        return self._stopping.over(self._values)


class Host:
    """Holds the user's agent and does what the parent asks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._agent: Any = None

    def serve(self) -> None:
        """Answer until the parent hangs up."""
        while True:
            try:
                name, *rest = self._connection.recv()
            except EOFError:
                return
            try:
                answer = ("done", getattr(self, f"do_{name}")(*rest))
            except MemoryError:
                self._agent = None  # gives back what it holds, so that the answer below finds room
                answer = ("memory", None)
            except BaseException as error:  # noqa: BLE001  whatever the user's code raises becomes one line
                traceback.print_exc()
                answer = ("raised", one_line(error))
            sys.stdout.flush()
            sys.stderr.flush()
            try:
                self._connection.send(answer)
            except MemoryError:  # what is sent is pickled first
                self._agent, answer = None, ("memory", None)
                self._connection.send(answer)

    def do_describe(self, target: str) -> dict[str, Any]:
        """See `describe`."""
        return describe(target)

    def do_build(self, target: str, params: dict[str, Any], state: bytes | None) -> None:
        """Make the agent from its parameters, or from what it was after `fit`; a saved built-in one has no target."""
        agent_class = load_class(target) if target else None
        self._agent = agent_class(**params) if state is None else cloudpickle.loads(state)  # type: ignore[misc]

    def do_fit(self, parts: dict[str, Any]) -> bytes | str:
        """Let the agent learn; returns what it is then, or why that cannot be kept."""
        training = Training(**parts, report=unheard)
        watch = None
        if training.stopping is not None:
            watch = _Watch(self._agent, training, lambda: self._connection.send(("asked",)))

        def report(steps: int, value: float) -> None:
            self._connection.send(("report", int(steps), float(value)))
            if watch is not None:
                self._connection.send(("valued", int(steps), watch.value()))
                if watch.over:
                    raise StoppedEarly

        try:
            with contextlib.suppress(StoppedEarly):
                self._agent.fit(replace(training, report=report, stopping=None, validation=None))
            if watch is None or watch.best is None:
                return kept(self._agent)
        except NotKeptError as error:
            return str(error)
        except NoSlateError as error:
            raise error.why from None
        self._agent = cloudpickle.loads(watch.best)
        return watch.best

    def do_state(self) -> bytes:
        """What the agent is now."""
        return bytes(cloudpickle.dumps(self._agent))

    def do_act(self, observation: Observation, rng: np.random.Generator) -> Any:
        """The agent's slates as an array."""
        return plain_array(self._agent.act(observation, rng))

    def do_action_probabilities(self, observation: Observation) -> Any:
        """The agent's chances of the first position as an array."""
        return plain_array(self._agent.action_probabilities(observation))

    def do_observe(self, feedback: Feedback) -> None:
        """Let the agent learn from one slate of each user."""
        self._agent.observe(feedback)


def plain_array(value: Any) -> Any:
    """What the agent returned as an array of numbers, or as text that says what it is instead."""
    try:
        array = np.asarray(value)
    except ValueError:
        return "rows of different lengths"
    return f"{type(value).__name__}" if array.dtype.kind not in "iufb" else array


def one_line(error: BaseException) -> str:
    """The error and the line of the user's own file that raised it."""
    said = said_by(error)
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != Path(__file__).parent]
    frames = [f for f in frames if not f.filename.startswith("<")]
    return f"{line} ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else line


def _end_with_parent(mark: str) -> None:
    """End when the parent has gone, also while the user's code is busy, and with it what that started."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    end_marked(mark)
    os._exit(1)


def main() -> None:
    """Serve one agent."""
    connection = Connection(int(sys.argv[1]))
    limit = int(sys.argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    threading.Thread(target=_end_with_parent, args=(os.environ[MARK],), daemon=True).start()
    Host(connection).serve()


if __name__ == "__main__":
    main()
