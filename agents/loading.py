"""From an entry of the scenario to an agent: built-in kinds by a table, the user's own by file or module."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from agents.base import Agent, AgentError, Training, said_by
from agents.kinds import KINDS, SERVICE, Kind
from agents.settings import AgentSettings, LimitSettings, Span, TrainSettings
from simulator.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from agents.saved import SavedAgent

__all__ = [
    "AgentSettings",
    "AgentSpec",
    "LimitSettings",
    "TrainSettings",
    "Trained",
    "build_agent",
    "learns",
    "resolve_kind",
    "train",
    "training_seeds",
]

MOST_POINTS = 1_000
"""Points of a learning curve that are kept: a page draws no more, and an agent of one's own may report each step."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What is known of an agent before it is built.

    Attributes:
        settings: the entry of the scenario.
        kind: the built-in kind, or None for a user's own class.
        params: the built-in kind's parameters with every default, or None for a user's own class.
        target: "file.py:Class" (with its full path) or "package.module:Class" of a user's own class, or None.
        fits: `fit` is called before it acts.
        learns: its training depends on draws, so it is repeated `settings.train.seeds` times.
        fitted_here: what it knows was fitted by this run (a user's class: it has `fit`).
        privileged: it is shown the judge world's appeal.
        has_probabilities: it can say its action probabilities.
        has_observe: a user's own class that learns while it is judged.
        wrapped: the agents that it is made of, in the order in which its class takes them.
        read: files that its parameters name; of a user's own class the modules that its file imports.
        saved: the folder of a saved agent and what it says, or None.
        steps: it, or the one agent that it is made of, learns in steps along a learning curve.
    """

    settings: AgentSettings
    kind: Kind | None
    params: BaseModel | None
    target: str | None
    fits: bool
    learns: bool
    fitted_here: bool
    privileged: bool
    has_probabilities: bool
    has_observe: bool = False
    wrapped: tuple[AgentSpec, ...] = ()
    read: tuple[Path, ...] = ()
    saved: tuple[Path, SavedAgent] | None = None
    steps: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Targets of the users' own classes ("file.py:Class") and "file:" of those read, this one's and the wrapped."""
        own = tuple(f"{path}:" for path in self.read) + (() if self.target is None else (self.target,))
        return own + tuple(target for inner in self.wrapped for target in inner.files)

    def made_of(self) -> Iterator[AgentSpec]:
        """It, and all that it is made of."""
        yield self
        for inner in self.wrapped:
            yield from inner.made_of()


@dataclass(frozen=True, slots=True)
class Trained:
    """An agent that is ready to be judged.

    Attributes:
        agent: picklable; holds no environment.
        curve: (user-steps, mean reward a session in the train world) from the untrained policy on.
        prior_value: value of the policy before any step where training started from a prior, else None.
        prior: what that prior was, or None.
        steps: user-steps trained for.
        seconds: wall-clock seconds of the training.
        reproducible: False where a limit in seconds decided when to stop.
        valued: (steps, mean reward a session in the validation world) where training could stop early, else empty.
        judged_at: steps at the point that is judged where training could stop early, else None.
    """

    agent: Agent
    curve: tuple[tuple[int, float], ...]
    prior_value: float | None
    prior: str | None
    steps: int
    seconds: float
    reproducible: bool
    valued: tuple[tuple[int, float], ...] = ()
    judged_at: int | None = None


def resolve_kind(settings: AgentSettings, folder: Path, *, where: str | None = None) -> AgentSpec:
    """What an entry of the scenario means; a user's own class is loaded once, in a process of its own.

    Args:
        settings: the entry.
        folder: the scenario's folder; relative paths start there.
        where: how messages name the entry, e.g. "agents[2]".

    Raises:
        InputError: the kind is not known, a parameter is not, or the user's class cannot be loaded.
    """
    where = where or f"agents[{settings.name}]"
    kind, given = _built_in(settings, folder, where)
    if kind is not None:
        params = _checked_params(kind, given, where)
        if settings.tune is not None:
            _check_space(settings, params.model_dump(), folder, where)
        read = tuple(getattr(params, "files", lambda folder: ())(folder))
        if hasattr(params, "located"):
            params = params.located(folder, where)
        agent_class = _load(kind.agent)
        named = getattr(params, "wrapped", None)
        inner = () if named is None else (one.model_copy(update={"limits": settings.limits}) for one in named())
        wrapped = tuple(resolve_kind(one, folder, where=where) for one in inner)
        own = kind.steps and not getattr(params, "deterministic", False)
        steps = own or (len(wrapped) == 1 and wrapped[0].steps)  # of several none's learning curve is the agent's
        if settings.train.early_stopping is not None and not steps:
            raise InputError(
                f"{where}.train.early_stopping: '{settings.kind}' does not learn in steps, so there is nothing to "
                "stop; leave early_stopping out"
            )
        return AgentSpec(
            settings,
            kind,
            params,
            None,
            fits=kind.fits,
            learns=(kind.learns and not getattr(params, "deterministic", False)) or any(s.learns for s in wrapped),
            fitted_here=not kind.elsewhere and all(spec.fitted_here for spec in wrapped),
            privileged=bool(getattr(agent_class, "privileged", False)) or any(spec.privileged for spec in wrapped),
            has_probabilities=hasattr(agent_class, "action_probabilities"),
            wrapped=wrapped,
            read=read,
            steps=steps,
        )
    if (folder / Path(settings.kind).expanduser()).is_dir():
        return _saved_spec(settings, (folder / Path(settings.kind).expanduser()).resolve(), where)
    from agents.user_code import describe_class, locate

    if settings.tune is not None:
        for name in settings.tune.space:
            if name not in settings.params:
                raise InputError(f"{where}.tune.space.{name}: give params.{name} as well; the search starts there")
        _check_space(settings, settings.params, folder, where)
    target = locate(settings.kind, folder, where)
    about = describe_class(target, settings.params, settings.limits, where)
    if settings.train.early_stopping is not None and not about.has_fit:
        raise InputError(
            f"{where}.train.early_stopping: {settings.kind} has no fit, so there is nothing to stop; leave "
            "early_stopping out"
        )
    return AgentSpec(
        settings,
        None,
        None,
        target,
        fits=about.has_fit,
        learns=about.has_fit,
        fitted_here=about.has_fit,
        privileged=False,
        has_probabilities=about.has_probabilities,
        has_observe=about.has_observe,
        read=about.imported,
        steps=about.has_fit,
    )


def with_params(spec: AgentSpec, params: Mapping[str, Any], folder: Path) -> AgentSpec:
    """The same agent with these parameters in place of its own."""
    settings = spec.settings.model_copy(update={"params": {**spec.settings.params, **params}})
    return resolve_kind(settings, folder)


def own_params(spec: AgentSpec) -> Mapping[str, Any]:
    """Every parameter of a built-in kind with its value; of a user's own class those that the scenario gives."""
    return spec.settings.params if spec.params is None else spec.params.model_dump()


def _saved_spec(settings: AgentSettings, place: Path, where: str) -> AgentSpec:
    """What a saved agent's folder means; the agent itself is opened in a child process when it is asked."""
    from agents.saved import STATE, read_saved

    saved = read_saved(place, where)
    if settings.params:
        raise InputError(f"{where}.params.{next(iter(settings.params))}: a saved agent keeps its own; leave params out")
    if settings.train.early_stopping is not None:
        raise InputError(f"{where}.train.early_stopping: a saved agent is not trained again; leave early_stopping out")
    if settings.tune is not None:
        raise InputError(f"{where}.tune: a saved agent is not trained again; leave tune out")
    target = str(place / saved.source) if saved.source.startswith("agent.py:") else saved.source
    return AgentSpec(
        settings,
        None,
        None,
        target,
        fits=False,
        learns=False,
        fitted_here=False,
        privileged=False,
        has_probabilities=saved.has_probabilities,
        read=(place / STATE,),
        saved=(place, saved),
    )


def learns(settings: AgentSettings, folder: Path = Path()) -> bool:
    """Whether trainings with different seeds differ, so that several are worth judging."""
    return resolve_kind(settings, folder).learns


def training_seeds(spec: AgentSpec) -> int:
    """How many trainings are judged: `train.seeds` for an agent that learns, else 1."""
    return spec.settings.train.seeds if spec.learns else 1


def build_agent(settings: AgentSettings | AgentSpec, folder: Path, *, log_file: Path | None = None) -> Agent:
    """The agent as it is before `fit`.

    Args:
        settings: the entry of the scenario, or what it was resolved to.
        folder: the scenario's folder.
        log_file: where what a user's own agent prints goes; None drops it.

    Raises:
        InputError: as `resolve_kind`.
    """
    spec = settings if isinstance(settings, AgentSpec) else resolve_kind(settings, folder)
    if spec.kind is not None:
        inner = [build_agent(one, folder, log_file=log_file) for one in spec.wrapped]
        agent: Agent = _load(spec.kind.agent)(*([spec.params, inner] if inner else [spec.params]))
        return agent
    from agents.saved import STATE
    from agents.user_code import UserAgent

    assert spec.target is not None
    return UserAgent(
        spec.target,
        spec.settings.params,
        spec.settings.limits,
        has_fit=spec.fits,
        has_probabilities=spec.has_probabilities,
        has_observe=spec.has_observe,
        log_file=log_file,
        state=None if spec.saved is None else (spec.saved[0] / STATE).read_bytes(),
    )


def train(
    settings: AgentSettings | AgentSpec, training: Training, folder: Path, *, log_file: Path | None = None
) -> Trained:
    """Build the agent and let it learn.

    Points that the agent reports go into the curve as well as to `training.report`. `train.steps` and `train.seconds`
    of the entry take the place of the training's own budget where they are given.

    Raises:
        InputError: as `resolve_kind`.
        AgentError: the agent failed.
    """
    spec = settings if isinstance(settings, AgentSpec) else resolve_kind(settings, folder)
    agent = build_agent(spec, folder, log_file=log_file)
    wanted = spec.settings.train
    stopping = wanted.early_stopping
    curve: list[tuple[int, float]] = []
    valued: list[tuple[int, float]] = []

    def report(steps: int, value: float) -> None:
        if not math.isfinite(value):
            raise AgentError(f"fit reported {value:g} at step {steps} (training.report); report a finite value")
        curve.append((int(steps), float(value)))
        training.report(int(steps), float(value))

    def note(steps: int, value: float) -> None:
        valued.append((int(steps), float(value)))
        training.valued(int(steps), float(value))

    budget = wanted.steps if wanted.steps is not None else training.budget
    seconds = wanted.seconds if wanted.seconds is not None else training.seconds
    started = time.perf_counter()
    before = 0.0 if training.checkpoint is None else training.checkpoint.seconds_before
    if spec.saved is not None:
        from agents.saved import check_catalogue

        check_catalogue(spec.saved[1], training.catalogue)
    if spec.fits or hasattr(agent, "fit"):
        agent.fit(  # type: ignore[attr-defined]
            replace(training, report=report, valued=note, budget=budget, seconds=seconds, stopping=stopping)
        )
    points = _thinned(sorted(curve))
    prior = getattr(agent, "prior", None)
    return Trained(
        agent,
        points,
        prior_value=points[0][1] if prior and points else None,
        prior=prior,
        steps=points[-1][0] if points else 0,
        seconds=time.perf_counter() - started + before,
        reproducible=seconds is None,
        valued=tuple(valued),
        judged_at=None if stopping is None or not valued else valued[stopping.best([value for _, value in valued])][0],
    )


def _thinned(points: list[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The points, or of very many `MOST_POINTS` evenly among them, the first and the last included."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(k * last / (MOST_POINTS - 1))] for k in range(MOST_POINTS))


def _built_in(settings: AgentSettings, folder: Path, where: str) -> tuple[Kind | None, dict[str, Any]]:
    """The built-in kind with its parameters, or None for a user's class; built-in prefixes win."""
    name, given = settings.kind, dict(settings.params)
    if name in KINDS:
        return KINDS[name], given
    if name.startswith(("http://", "https://")):
        if "url" in given:
            raise InputError(
                f"{where}.params.url: '{given['url']}' is given twice; the kind '{name}' names the address"
            )
        return KINDS[SERVICE], {**given, "url": name}
    if (folder / Path(name).expanduser()).is_dir():
        return None, given
    prefix, _, rest = name.partition(":")
    row = next((known for known in KINDS if known.startswith(f"{prefix}:")), None)
    if row is not None:
        parameter = row.partition(":")[2].lower()
        if parameter in given:
            raise InputError(
                f"{where}.params.{parameter}: '{given[parameter]}' is given twice; the kind '{name}' names the "
                f"{parameter}"
            )
        return KINDS[row], {**given, parameter: rest}
    looks_like_code = bool(
        re.fullmatch(r".+\.py:[A-Za-z_]\w*", name) or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name)
    )
    if not looks_like_code:
        raise InputError(
            f"{where}.kind: '{name}' is not an agent{did_you_mean(name, KINDS)} (`windtunnel list agents` has all "
            f"{len(KINDS)}; your own is file.py:Class, package.module:Class, a saved agent's folder or http://...)"
        )
    return None, given


def _checked_params(kind: Kind, given: dict[str, Any], where: str) -> BaseModel:
    model = _load(kind.settings)
    try:
        params: BaseModel = model.model_validate(given)
    except ValidationError as error:
        raise InputError("\n".join(_mistakes(error, model.model_fields, where))) from error
    return params


def _check_space(settings: AgentSettings, own: Mapping[str, Any], folder: Path, where: str) -> None:
    """Hold the space of a search against the agent: its ends, each value of its lists, and where the search starts.

    Raises:
        InputError: it leaves out the agent's own parameters, or the agent cannot be made with a value of it.
    """
    tune = settings.tune
    assert tune is not None
    for name, part in tune.space.items():
        if name not in own:
            continue  # a built-in kind has no such parameter, which its settings say with the nearest name
        if own[name] not in part:
            there = f"{part.low} to {part.high}" if isinstance(part, Span) else ", ".join(map(str, part))
            raise InputError(
                f"{where}.tune.space.{name}: {there} leaves out the agent's own {own[name]!r}, where the search "
                f"starts; widen it or set params.{name}"
            )
    points = [
        {
            name: (part.high if last else part.low) if isinstance(part, Span) else part[-1 if last else 0]
            for name, part in tune.space.items()
        }
        for last in (False, True)
    ]
    lists = ((name, part) for name, part in tune.space.items() if not isinstance(part, Span))
    points += [{name: value} for name, part in lists for value in part[1:-1]]
    for point in points:
        tried = settings.model_copy(update={"params": {**settings.params, **point}, "tune": None})
        resolve_kind(tried, folder, where=where)


def _mistakes(error: ValidationError, known: Iterable[str], where: str) -> list[str]:
    """One line for each mistake in an agent's parameters."""
    names = [name for name in known if name != "deterministic"]
    lines = []
    for mistake in error.errors():
        field = ".".join(str(part) for part in mistake["loc"]) or "params"
        if mistake["type"] == "extra_forbidden":
            there = f"known: {', '.join(names)}" if names else "this agent has none"
            lines.append(f"{where}.params.{field}: unknown parameter{did_you_mean(field, names)}; {there}")
        else:
            said = mistake["msg"].removeprefix("Value error, ")
            lines.append(
                f"{where}.params.{field}: {mistake.get('input')!r} cannot be used; {said[0].lower()}{said[1:]}"
            )
    return lines


def _load(path: str) -> Any:
    """The object that a "module:name" path of the table names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def failure_line(error: BaseException) -> str:
    """One line for the `failed` row of an agent."""
    said = said_by(error) or type(error).__name__
    return said if isinstance(error, AgentError | InputError) else f"{type(error).__name__}: {said}"
