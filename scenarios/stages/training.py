"""Train every agent from each of its seeds in world A, on the rows of its users alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scenarios.stages.setting import Setting
from scenarios.stages.worlds import Data, Domain, Worlds
from simulator.cache import StageCache, code_digest
from simulator.engine import Task
from simulator.errors import InputError, full_disk
from simulator.log import WORLD_A, InteractionLog, Split
from simulator.streams import stream, stream_word

if TYPE_CHECKING:
    from agents.base import Agent, Training
    from agents.checkpoints import GlobalDraws
    from agents.loading import AgentSpec, Trained
    from agents.tuning import Trial, Tuned
    from simulator.world import World

    Draws = tuple[list[Mapping[str, Any]], GlobalDraws]

TRIALS = "trials"
"""Where the trials of a search lie in the stage cache while it is under way."""


@dataclass(frozen=True, slots=True)
class MakeTrainEnv:
    """Builds training environments in world A, of which agents get the open side alone.

    It is picklable, so that a child process can build them too: the world travels with it, hidden as it is in them.
    """

    _world: World
    _content: NDArray[np.float32] | None

    def __call__(self, num_envs: int, *, action: str = "slate", seed: int = 0, copy: bool = True) -> Any:
        """Vector environment of `num_envs` users."""
        from simulator.env import WindtunnelVectorEnv
        from simulator.open_side import OpenVectorEnv

        return OpenVectorEnv(
            WindtunnelVectorEnv(self._world, num_envs, action=action, seed=seed, content=self._content, copy=copy)
        )

    def __getattr__(self, name: str) -> Any:
        from simulator.open_side import hidden

        raise hidden(name) if name in ("world", "content") else AttributeError(name)


@dataclass(frozen=True, slots=True)
class Failure:
    """An agent that failed.

    Attributes:
        why: in one line.
        by_limit: it came up against a limit on time or memory, which a run on a less busy machine may not meet.
    """

    why: str
    by_limit: bool = False

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The failure that an error tells of.

        Raises:
            OSError: it tells of a full disk, which is no fault of the agent: a stored failure would outlast it.
        """
        from agents.base import AgentLimitError
        from agents.loading import failure_line

        full = full_disk(error)
        if full is not None:
            raise full
        return cls(failure_line(error), isinstance(error, AgentLimitError))


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search of parameters found.

    Attributes:
        found: the trials and the best, or why there is none.
        by_limit: a trial came up against a limit on time or memory.
    """

    found: Tuned | str
    by_limit: bool = False


def failed_by_limit(result: Any) -> bool:
    """Whether a task failed by a limit, wholly or in part: its result is passing, and is not kept."""
    return isinstance(result, Failure | Searched) and result.by_limit


def _train(
    spec: AgentSpec,
    training: Any,
    folder: Path,
    log_file: Path,
    cache: StageCache,
    key: str,
    *,
    report: Callable[[float, str], None],
) -> Trained | Failure:
    from agents.checkpoints import Checkpoint
    from agents.loading import train

    whole = spec.settings.train.steps or 0  # 0: not known; a built-in agent tells its own default
    seconds, began = spec.settings.train.seconds, time.monotonic()

    def expect(steps: int) -> None:
        nonlocal whole
        whole = steps

    def point(steps: int, value: float) -> None:
        of_steps = steps / whole if whole else 0.0
        of_seconds = (time.monotonic() - began) / seconds if seconds else 0.0  # whichever limit comes first
        report(min(0.99, max(of_steps, of_seconds)), f"{steps:,} steps, {value:.2f} a session")

    try:
        training = replace(training, report=point, expect=expect, checkpoint=Checkpoint(cache, key, log_file))
        return train(spec, training, folder, log_file=log_file)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  one agent's failure is a row of the table, not the end of the run
        return Failure.of(error)


def train_agents(
    setting: Setting, data: Data, worlds: Worlds, specs: Sequence[AgentSpec]
) -> dict[str, list[Trained | Failure]]:
    """Train every agent from each of its seeds in world A, on the rows of world A's users."""
    from agents.checkpoints import STAGE
    from agents.loading import training_seeds

    log, keys = training_log(data.log, data.split), keys_of(data, worlds, specs)
    tasks, owners = [], []
    for spec in specs:
        name = spec.settings.name
        stops = spec.settings.train.early_stopping is not None
        for number in range(training_seeds(spec)):
            apart: tuple[str, ...] = ()
            if stops:
                training, apart = _apart(spec, data, worlds, setting.root, "train", name, number)
            else:
                training = _training(log, worlds.a, setting.root, "train", name, number, domains=domains_of(spec, data))
            log_file = setting.engine.cache.folder / "agent-logs" / f"{name}-{number}.log"
            depends = (data.digest, setting.scenario.seed, number, *apart, keys[name])
            task = Task(
                "train",
                f"{name}, seed {number}" if spec.learns else name,
                _train,
                (spec, training, setting.folder, log_file, setting.engine.cache),
                depends,
                ("simulator", "agents"),
                passing=failed_by_limit,
                scratch=(STAGE,),
            )
            tasks.append(replace(task, inputs=(*task.inputs, task.key)))
            owners.append(name)
    trained: dict[str, list[Trained | Failure]] = {spec.settings.name: [] for spec in specs}
    for name, result in zip(owners, setting.map("train", tasks), strict=True):
        trained[name].append(result)
    return trained


@dataclass(frozen=True, slots=True)
class _Valuation:
    """How a trial of a search is valued: in which world, and with which sessions of its users."""

    world: World
    seed: int
    sessions: int

    def __call__(self, agent: Agent, name: str) -> float:
        """Mean reward a session."""
        from evaluators.metrics import session_reward
        from evaluators.rollout import fly

        flown = [
            fly(agent, self.world, name=name, world_number=0, seed=self.seed, training_seed=0, session=k)
            for k in range(self.sessions)
        ]
        return float(np.mean([session_reward(one).mean() for one in flown]))


def _search(
    spec: AgentSpec,
    training: Training,
    valuation: _Valuation,
    folder: Path,
    log_file: Path,
    seed: int,
    cache: StageCache,
    key: str,
    *,
    report: Callable[[float, str], None],
) -> Searched:
    from agents.checkpoints import GlobalDraws
    from agents.loading import own_params, train, with_params
    from agents.tuning import goes_on, search

    tune = spec.settings.tune
    assert tune is not None
    if tune.steps is not None:
        limits = spec.settings.train.model_copy(update={"steps": tune.steps})
        spec = replace(spec, settings=spec.settings.model_copy(update={"train": limits}))
    own = own_params(spec)

    def value(params: Mapping[str, Any]) -> float:
        done = train(with_params(spec, params, folder), training, folder, log_file=log_file)
        return valuation(done.agent, spec.settings.name)

    failures: list[Failure] = []

    def failure(error: Exception) -> str:
        failures.append(Failure.of(error))
        return failures[-1].why

    generators = [training.rng, *(domain.rng for domain in training.domains.values())]  # trials draw one after another

    def draws() -> Draws:
        return [one.bit_generator.state for one in generators], GlobalDraws.now()

    def put_back(was: Draws) -> None:
        for one, state in zip(generators, was[0], strict=True):
            one.bit_generator.state = state
        was[1].put_back()

    def keep(trials: Sequence[Trial]) -> None:
        if not any(one.by_limit for one in failures):  # nor is the result of a search kept that met a limit
            with contextlib.suppress(OSError):  # a full disk costs what this would save, and not the search
                cache.store(TRIALS, key, (tuple(trials), draws()))

    start = {name: own[name] for name in tune.space}
    made: tuple[Trial, ...] = ()
    if cache.has(TRIALS, key):
        with contextlib.suppress(Exception):  # a damaged pickle raises anything: then the search begins anew
            trials, then = cache.load(TRIALS, key)
            if goes_on(tune, start, trials, seed=seed):
                before = draws()
                try:
                    put_back(then)
                    made = trials
                except Exception:
                    put_back(before)
                    raise
    found = search(tune, start, value, seed=seed, failure=failure, report=report, made=made, keep=keep)
    return Searched(found, any(one.by_limit for one in failures))


def tune_agents(
    setting: Setting, data: Data, worlds: Worlds, specs: Sequence[AgentSpec]
) -> tuple[list[AgentSpec], dict[str, Tuned | str]]:
    """Search the parameters of the agents that ask for it: no judge world and none of its users is touched.

    Returns:
        The agents with the parameters that were chosen, and by name what each search found or why there is nothing.
    """
    from agents.loading import with_params

    asking = [spec for spec in specs if spec.settings.tune is not None]
    if not asking:
        return list(specs), {}
    root = setting.root
    tasks = []
    for spec in asking:
        name = spec.settings.name
        assert spec.settings.tune is not None
        training, apart = _apart(spec, data, worlds, root, "tune", name)
        assert worlds.validation is not None
        valued = _Valuation(worlds.validation, stream_word(root, "tune", "fly", bits=63), spec.settings.tune.sessions)
        log_file = setting.engine.cache.folder / "agent-logs" / f"{name}-tune.log"
        depends = (data.digest, data.content, *apart, setting.scenario.seed, spec.settings, source_of(spec),
                   *digests_of(spec, data))  # fmt: skip
        inputs = (spec, training, valued, setting.folder, log_file, stream_word(root, "tune", name, "search", bits=31))
        code = ("simulator", "agents", "evaluators/rollout.py", "evaluators/sessions.py", "evaluators/metrics.py")
        task = Task("tune", name, _search, inputs, depends, code, failed_by_limit, scratch=(TRIALS,))
        tasks.append(replace(task, inputs=(*inputs, setting.engine.cache, task.key)))
    done = setting.map("tune", tasks)
    found = {spec.settings.name: one.found for spec, one in zip(asking, done, strict=True)}
    chosen = []
    for spec in specs:
        one = found.get(spec.settings.name)
        chosen.append(spec if one is None or isinstance(one, str) else with_params(spec, one.params, setting.folder))
    return chosen, found


def _apart(
    spec: AgentSpec, data: Data, worlds: Worlds, root: np.random.SeedSequence, *names: str | int
) -> tuple[Training, tuple[str, str]]:
    """What an agent learns from that is valued in the validation world, and digests.

    It sees no row and no session of that world's users, world A's tuning users. Its train world knows them as that of
    any agent does: its model was stopped and calibrated on them, and its behaviours were fitted on them.
    """
    assert worlds.a_without_tuning is not None
    assert worlds.validation is not None
    log = training_log(data.log, data.split, tuning=False)
    training = _training(log, worlds.a_without_tuning, root, *names, domains=domains_of(spec, data))
    validation = MakeTrainEnv(worlds.validation, log.catalogue.content)
    return replace(training, validation=validation), (worlds.a_without_tuning.digest, worlds.validation.digest)


def _training(
    log: InteractionLog,
    world: World,
    root: np.random.SeedSequence,
    *names: str | int,
    domains: Mapping[str, Domain] = MappingProxyType({}),
) -> Training:
    """What an agent learns from, with the draws of the stream of these names."""
    from agents.base import Training

    return Training(
        log=log,
        catalogue=log.catalogue,
        make_env=MakeTrainEnv(world, log.catalogue.content),
        slate_size=world.slate_size,
        horizon=world.horizon,
        rng=stream(root, *names),
        seed=stream_word(root, *names, bits=31),
        budget=None,
        report=_no_report,
        shown_again=world.shown_again,
        domains={name: _training(one.log, one.world, root, *names, "in", name) for name, one in domains.items()},
    )


def learned_in(spec: AgentSpec) -> Iterator[str]:
    """Names of the scenarios that an agent, or one that it is made of, learns in beside this one."""
    yield from getattr(spec.params, "learned_in", ())
    for inner in spec.wrapped:
        yield from learned_in(inner)


def domains_of(spec: AgentSpec, data: Data) -> dict[str, Domain]:
    """The scenarios that an agent learns in, opened."""
    return {name: data.domains[name] for name in learned_in(spec)}


def keys_of(data: Data, worlds: Worlds, specs: Sequence[AgentSpec]) -> dict[str, tuple[Any, ...]]:
    """What each agent, as it is trained, depends on beside the log, the scenario's seed and the number of its seed."""
    code = code_digest("scenarios/stages/training.py")
    valued = () if worlds.validation is None else (worlds.validation.digest,)
    return {
        spec.settings.name: (
            spec.settings, source_of(spec), worlds.a.digest, data.content, digests_of(spec, data), code,
            valued if spec.settings.train.early_stopping is not None else (),
        )
        for spec in specs
    }  # fmt: skip


def digests_of(spec: AgentSpec, data: Data) -> tuple[str, ...]:
    """Digests of the scenarios that an agent learns in."""
    return tuple(digest for one in domains_of(spec, data).values() for digest in (one.digest, one.content))


def save_agents(
    folder: Path, data: Data, specs: Sequence[AgentSpec], trained: Mapping[str, Sequence[Trained | Failure]]
) -> None:
    """Keep every agent that was trained, `folder/NAME/SEED`: each is a kind that a later scenario can name."""
    from agents.saved import save_agent

    for spec in specs:
        for number, one in enumerate(trained[spec.settings.name]):
            if spec.fits and not isinstance(one, Failure):
                save_agent(folder / spec.settings.name / str(number), one.agent, spec, data.log.catalogue)


def training_log(log: InteractionLog, split: Split, *, tuning: bool | None = None) -> InteractionLog:
    """What an agent may learn from: rows of world A's users alone, and no sensitive attribute.

    Args:
        log: the whole log.
        split: who is whose.
        tuning: False leaves out the users who value trials of a search.
    """
    rows = np.isin(log.user, split.users(WORLD_A, tuning=tuning))
    return InteractionLog(
        **log.columns_of(rows),
        catalogue=replace(log.catalogue, user_attributes={}),
        source=log.source,
        self_selected=log.self_selected,
        exposure=log.exposure,
    )


def _no_report(steps: int, value: float) -> None:
    """A learning curve that nobody watches."""


def source_of(spec: AgentSpec) -> str:
    """Digest of a user's own file, so that an edited agent is trained again."""
    from simulator.datasets.sources import file_sha256

    found = []
    for target in spec.files:
        path = Path(target.rpartition(":")[0])
        found.append((file_sha256(path) if path.is_file() else None) or target)
    return " ".join(found)
