"""The wiring: a scenario goes through the stages load, fit, check, train, fly, evaluate, decide, report.

Each stage reads frozen results of those before it. The expensive ones (fine-tuning, fitting, training, flying) are
tasks whose results are stored by what they depend on (`simulator.cache`), so an interrupted run goes on where it
stopped and a changed gate re-runs nothing but the gate.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scenarios.loading import (
    CANDIDATE,
    Candidate,
    digest,
    kind_without_folder,
    load_scenario,
    resolved,
    without_folders,
    world_digest,
)
from scenarios.schema import Scenario
from simulator.cache import (
    PROJECT,
    StageCache,
    default_cache_folder,
    digest_of,
    library_versions,
)
from simulator.engine import ONE_THREAD, Engine, Task, parse_engine
from simulator.errors import InputError, LogError, ScenarioError, did_you_mean
from simulator.log import HELD_OUT, JUDGE, WORLD_A, InteractionLog, Split, split_users
from simulator.progress import Progress
from simulator.streams import stream, stream_word

if TYPE_CHECKING:
    from agents.loading import AgentSpec, Trained
    from evaluators.ablation import Ablation
    from evaluators.fidelity import CheckedWorld, Fidelity
    from evaluators.judging import Course, Flip, Judged, Sweep
    from evaluators.logged_check import JudgeLog, LoggedCheck
    from evaluators.logged_rounds import LogRounds, OffPolicyEvidence, PolicyOnLog
    from evaluators.picks import Picks
    from evaluators.report import Report
    from evaluators.speed import Speed
    from simulator.preference.continual import Forgetting, SavedModel
    from simulator.preference.fitting import TextTower
    from simulator.preference.model import PreferenceModel
    from simulator.world import World

FITTING = ("simulator/log.py", "simulator/streams.py", "simulator/encoders", "simulator/preference")
FLYING = ("simulator", "agents", "evaluators/judging.py", "evaluators/rollout.py", "evaluators/metrics.py",
          "evaluators/flights.py", "evaluators/fairness/counterfactual.py", "evaluators/slate_distance.py",
          "evaluators/sessions.py")  # fmt: skip
CHECKING = ("simulator", "evaluators/fidelity", "evaluators/intervals.py", "evaluators/estimate.py")
MOST_PICKS = 10
"""Items at the top of an agent's list that the picks check scores; its slate if that is longer."""
OTHER_CLASS = "matrix_factorisation"
"""Model class of the last judge world: a policy that exploits one class's faults is found out by another."""


# ------------------------------------------------------------------------------------------------------- the stages


@dataclass(frozen=True, slots=True)
class Setting:
    """What every stage of a run shares."""

    scenario: Scenario
    folder: Path
    root: np.random.SeedSequence
    engine: Engine
    progress: Progress
    cpu: dict[str, float]

    def map(self, stage: str, tasks: Sequence[Task]) -> list[Any]:
        """Results of tasks, with progress on show and processor seconds noted."""
        with self.progress.stage(stage) as show:
            done = self.engine.map(tasks, show)
            if not self.engine.serial:
                show.elsewhere = sum(one.cpu_seconds for one in done if not one.cached)
        for task, one in zip(tasks, done, strict=True):
            if not one.cached:
                self.cpu[f"{stage}/{task.name} (cpu)"] = one.cpu_seconds
        return [one.result for one in done]


@dataclass(frozen=True, slots=True)
class Data:
    """The log with content vectors, who may see which rows, and the digest of its content."""

    log: InteractionLog
    split: Split
    digest: str


@dataclass(frozen=True, slots=True)
class Worlds:
    """Everything fitted on the log."""

    tower_a: TextTower
    tower_judge: TextTower
    model_a: PreferenceModel
    judge_models: tuple[PreferenceModel, ...]
    references: Mapping[str, PreferenceModel]
    a: World
    a_on_judge_users: World
    judges: tuple[World, ...]
    explained: tuple[str, ...] = ()
    forgotten: Forgetting | None = None


@dataclass(frozen=True, slots=True)
class MakeTrainEnv:
    """Builds training environments in world A; picklable, so that a child process can build them too."""

    world: World
    content: NDArray[np.float32] | None

    def __call__(self, num_envs: int, *, action: str = "slate", seed: int = 0, copy: bool = True) -> Any:
        """Vector environment of `num_envs` users."""
        from simulator.env import WindtunnelVectorEnv

        return WindtunnelVectorEnv(self.world, num_envs, action=action, seed=seed, content=self.content, copy=copy)


def _behaviour_files(scenario: Scenario, folder: Path) -> tuple[str, ...]:
    """Digests of the files that users' behaviour reads beside the log: two runs that differ in them share no world."""
    from simulator.datasets.sources import file_sha256

    own, pairs = scenario.simulator.behaviour, scenario.simulator.friends.pairs
    named = [own.rpartition(":")[0]] if own is not None else []
    named += [pairs] if pairs is not None else []
    return tuple(file_sha256(folder / name) or name for name in named)


def load(setting: Setting) -> Data:
    """Read the log, split it by user and time, and give its items the pretrained encoder's vectors."""
    from scenarios.checking import check_log
    from simulator.datasets import load_dataset
    from simulator.encoders.text import encode_texts, encoder_for

    scenario = setting.scenario
    with setting.progress.stage("load"):
        log = load_dataset(scenario.data, setting.folder, seed=scenario.seed)
        if mistakes := check_log(log, scenario.simulator, scenario.evaluate):
            raise ScenarioError(mistakes)
        data_digest = digest_of(log)
        if files := _behaviour_files(scenario, setting.folder):
            data_digest = digest_of((data_digest, files))
        split = split_users(log, setting.root)
    with setting.progress.stage("encode"):
        content: NDArray[np.float32] | None = None
        if any(text.strip() for text in log.catalogue.item_text):
            vectors = setting.engine.cache.folder / "vectors"
            encoder = encoder_for(
                scenario.preference.encoder, log.catalogue.item_text, setting.folder, cache=vectors,
                own=scenario.preference.own, root=setting.root,
            )  # fmt: skip
            content = encode_texts(
                log.catalogue.item_text,
                encoder,
                cache=vectors,
                max_tokens=scenario.preference.max_tokens,
            )
        elif log.catalogue.item_categories.shape[1]:
            categories = log.catalogue.item_categories
            length = np.linalg.norm(categories, axis=1, keepdims=True)
            content = (categories / np.where(length > 0, length, 1)).astype(np.float32)
    return Data(replace(log, catalogue=replace(log.catalogue, content=content)), split, data_digest)


def _tune(
    log: InteractionLog,
    split: Split,
    role: int,
    settings: Any,
    root: Any,
    folder: Path,
    vectors: Path,
    *,
    report: Callable[[float, str], None],
) -> TextTower:
    from simulator.preference import fine_tune

    return fine_tune(log, split, role, settings, root, cache=vectors, folder=folder, progress=report)


def _fit(
    log: InteractionLog,
    split: Split,
    role: int,
    tower: TextTower,
    settings: Any,
    root: Any,
    architecture: str,
    bootstrap: int | None,
    saved: SavedModel | None,
    folder: Path,
    vectors: Path,
    *,
    report: Callable[[float, str], None],
) -> PreferenceModel:
    from simulator.preference import fit_preference

    return fit_preference(
        log, split, role, tower, settings, root,
        architecture=architecture, bootstrap=bootstrap, saved=saved, cache=vectors, folder=folder,
        progress=report,
    )  # fmt: skip


def _explain(
    model: PreferenceModel,
    log: InteractionLog,
    split: Split,
    tower: TextTower,
    settings: Any,
    root: Any,
    folder: Path,
    vectors: Path,
    *,
    report: Callable[[float, str], None],
) -> tuple[str, ...]:
    from simulator.preference.explaining import examples

    return examples(model, log, split, JUDGE, tower, settings, root, cache=vectors, folder=folder)


def load_saved(setting: Setting) -> dict[int, SavedModel]:
    """The models that `preference.update` goes on from, by role; none where it is left out."""
    from simulator.preference.continual import file_name, load

    update = setting.scenario.preference.update
    if update is None:
        return {}
    folder = setting.folder / Path(update.model).expanduser()
    return {role: load(folder / file_name(role)) for role in (WORLD_A, JUDGE)}


def fit_worlds(setting: Setting, data: Data) -> Worlds:
    """Fine-tune one encoder on world A's users and one on the judge users; fit world A and the judge worlds."""
    from simulator.preference.continual import forgetting
    from simulator.world import World

    scenario, root = setting.scenario, setting.root
    log, split, settings = data.log, data.split, scenario.preference
    bare = replace(log, catalogue=replace(log.catalogue, content=None))
    saved = load_saved(setting)
    shared = (data.digest, scenario.seed, settings, *(one.model.seen for one in saved.values()))
    vectors = setting.engine.cache.folder / "vectors"
    names = {WORLD_A: "world A", JUDGE: "judge worlds"}
    tuning = [
        Task("fine-tune", f"encoder of {names[role]}", _tune,
             (bare, split, role, settings, root, setting.folder, vectors), (*shared, role), FITTING)
        for role in (WORLD_A, JUDGE)
    ]  # fmt: skip
    towers = dict(zip((WORLD_A, JUDGE), setting.map("fine-tune", tuning), strict=True))

    def fit(name: str, role: int, architecture: str, bootstrap: int | None = None) -> Task:
        inputs = (
            bare,
            split,
            role,
            towers[role],
            settings,
            root,
            architecture,
            bootstrap,
            saved.get(role),
            setting.folder,
            vectors,
        )
        return Task("fit", name, _fit, inputs, (*shared, role, architecture, bootstrap), FITTING)

    m = scenario.evaluate.worlds
    own = settings.architecture
    judges = [fit("judge world 1", JUDGE, own)]
    judges += [fit(f"judge world {b}", JUDGE, own, b) for b in range(2, m if m > 2 else m + 1)]
    if m > 2:
        other = OTHER_CLASS if own != OTHER_CLASS else "two_tower"
        judges.append(fit(f"judge world {m}", JUDGE, other, m))
    references = ["bias", OTHER_CLASS]
    tasks = [fit("world A", WORLD_A, own), *judges, *(fit(f"reference {name}", JUDGE, name) for name in references)]
    model_a, *fitted = setting.map("fit worlds", tasks)
    judge_models = tuple(fitted[: len(judges)])
    explained: tuple[str, ...] = ()
    if settings.examples:
        inputs = (judge_models[0], bare, split, towers[JUDGE], settings, root, setting.folder, vectors)
        [explained] = setting.map("explain", [Task("explain", "examples", _explain, inputs, shared, FITTING)])

    judge_users = split.users(JUDGE)
    most = scenario.evaluate.users
    if len(judge_users) > most:
        judge_users = np.sort(stream(root, "evaluate", "users").choice(judge_users, most, replace=False))

    return Worlds(
        tower_a=towers[WORLD_A],
        tower_judge=towers[JUDGE],
        model_a=model_a,
        judge_models=judge_models,
        references=dict(zip(references, fitted[len(judges) :], strict=True)),
        a=World.build(model_a, log, split, split.users(WORLD_A), scenario.simulator, name="A", folder=setting.folder),
        **_judged_on(setting, data, model_a, judge_models, judge_users),
        explained=explained,
        forgotten=None if not saved else forgetting(judge_models[0], saved[JUDGE], log, split),
    )


def _judged_on(
    setting: Setting,
    data: Data,
    model_a: PreferenceModel,
    judge_models: Sequence[PreferenceModel],
    users: NDArray[np.int64],
) -> dict[str, Any]:
    """The worlds in which agents are judged, with the sessions of these users."""
    from simulator.world import World

    def build(model: PreferenceModel, name: str) -> World:
        return World.build(
            model, data.log, data.split, users, setting.scenario.simulator, name=name, folder=setting.folder
        )

    return {
        "a_on_judge_users": build(model_a, "A on judge users"),
        "judges": tuple(build(model, f"B{b}") for b, model in enumerate(judge_models, 1)),
    }


def _predict_references(
    references: Mapping[str, PreferenceModel],
    log: InteractionLog,
    split: Split,
    *,
    report: Callable[[float, str], None],
) -> dict[str, tuple[NDArray[np.float64], ...]]:
    """What each reference predicts for the judge users' future rows and for the held-out users' later half."""
    parts = [split.rows(log, users, late=True) for users in _scored_users(split)]
    return {name: tuple(model.predict(log, split, rows) for rows in parts) for name, model in references.items()}


def _scored_users(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return split.users(JUDGE, tuning=False), split.users(HELD_OUT)


def _check_world(
    number: int,
    model: PreferenceModel,
    world: World,
    references: Mapping[str, tuple[NDArray[np.float64], ...]],
    log: InteractionLog,
    split: Split,
    root: Any,
    *,
    report: Callable[[float, str], None],
) -> CheckedWorld:
    from evaluators.fidelity import (
        WorldEvidence,
        behaviour_checks,
        behaviour_rows,
        check_world,
        compare_predictions,
        replayed_sessions,
        score_random_rows,
        score_rows,
    )

    future, held_out = (
        score_rows(model, log, split, users, p_bias=p_bias)
        for users, p_bias in zip(_scored_users(split), references["bias"], strict=True)
    )
    report(0.3, "rows scored")
    gains = {}
    for place, scored, p in zip(("future rows", "held-out users"), (future, held_out), references[OTHER_CLASS],
                                strict=True):  # fmt: skip
        gain = compare_predictions("over matrix factorisation", scored.p, p, scored.y, scored.user)
        gains[f"matrix factorisation, {place}"] = gain
    fitting, held = _scored_users(split)
    rows = split.rows(log, fitting, late=True)
    further, graded = behaviour_rows(
        world.heads,
        log,
        rows,
        future.p,
        stream(root, "fidelity", number, "behaviours"),
        shift=float(world.item_bias[0] - model.item_bias[0]),
    )
    evidence = WorldEvidence(
        number,
        future,
        held_out,
        behaviour_checks(world, root),
        sessions=replayed_sessions(log, rows, future.p, stream(root, "fidelity", number, "replay")),
        further=further,
        graded=graded,
        unbiased=score_random_rows(model, log, split, np.union1d(fitting, held)),
        comparisons=gains,
    )
    fitted_users = np.union1d(model.fitted_users, model.tuning_users)
    return check_world(evidence, log=log, split=split, fitted_users=fitted_users, root=root)


def check_fidelity(setting: Setting, data: Data, worlds: Worlds) -> Fidelity:
    """Score every judge world on rows that it has not seen."""
    from evaluators.fidelity import conclude

    log, split, scenario = data.log, data.split, setting.scenario
    bare = replace(log, catalogue=replace(log.catalogue, content=None))
    shared = (data.digest, scenario.seed, scenario.preference, len(worlds.judges))
    (references,) = setting.map(
        "fidelity",
        [Task("fidelity", "references", _predict_references, (worlds.references, bare, split), shared, CHECKING)],
    )
    tasks = [
        Task("fidelity", f"judge world {number}", _check_world,
             (number, model, world, references, bare, split, setting.root), (*shared, number, world.digest), CHECKING)
        for number, (model, world) in enumerate(zip(worlds.judge_models, worlds.judges, strict=True), 1)
    ]  # fmt: skip
    return conclude(setting.map("fidelity", tasks))


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
        """The failure that an error tells of."""
        from agents.base import AgentLimitError
        from agents.loading import failure_line

        return cls(failure_line(error), isinstance(error, AgentLimitError))


def _by_limit(result: Any) -> bool:
    return isinstance(result, Failure) and result.by_limit


def _train(
    spec: AgentSpec, training: Any, folder: Path, log_file: Path, *, report: Callable[[float, str], None]
) -> Trained | Failure:
    from agents.loading import train

    budget = spec.settings.train.steps

    def point(steps: int, value: float) -> None:
        report(min(0.99, steps / budget) if budget else 0.5, f"{steps:,} steps, {value:.2f} a session")

    try:
        return train(spec, replace(training, report=point), folder, log_file=log_file)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  one agent's failure is a row of the table, not the end of the run
        return Failure.of(error)


def train_agents(
    setting: Setting, data: Data, worlds: Worlds, specs: Sequence[AgentSpec]
) -> dict[str, list[Trained | Failure]]:
    """Train every agent from each of its seeds in world A, on the rows of world A's users."""
    from agents.base import Training
    from agents.loading import training_seeds

    log = training_log(data.log, data.split)
    tasks, owners = [], []
    for spec in specs:
        name = spec.settings.name
        for number in range(training_seeds(spec)):
            training = Training(
                log=log,
                catalogue=log.catalogue,
                make_env=MakeTrainEnv(worlds.a, log.catalogue.content),
                slate_size=worlds.a.slate_size,
                horizon=worlds.a.horizon,
                rng=stream(setting.root, "train", name, number),
                seed=stream_word(setting.root, "train", name, number, bits=31),
                budget=None,
                report=_no_report,
            )
            log_file = setting.engine.cache.folder / "agent-logs" / f"{name}-{number}.log"
            depends = (data.digest, worlds.a.digest, setting.scenario.seed, spec.settings, number, _source_of(spec))
            tasks.append(
                Task(
                    "train",
                    f"{name}, seed {number}" if spec.learns else name,
                    _train,
                    (spec, training, setting.folder, log_file),
                    depends,
                    ("simulator", "agents"),
                    passing=_by_limit,
                )
            )
            owners.append(name)
    trained: dict[str, list[Trained | Failure]] = {spec.settings.name: [] for spec in specs}
    for name, result in zip(owners, setting.map("train", tasks), strict=True):
        trained[name].append(result)
    return trained


def training_log(log: InteractionLog, split: Split) -> InteractionLog:
    """What an agent may learn from: rows of world A's users alone, and no sensitive attribute."""
    rows = np.isin(log.user, split.users(WORLD_A))

    def cut(column: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if column is None else column[rows]

    return InteractionLog(
        user=log.user[rows],
        item=log.item[rows],
        time=log.time[rows],
        primary=log.primary[rows],
        catalogue=replace(log.catalogue, user_attributes={}),
        source=log.source,
        behaviours={name: column[rows] for name, column in log.behaviours.items()},
        position=cut(log.position),
        propensity=cut(log.propensity),
        self_selected=log.self_selected,
        impression=cut(log.impression),
        session=cut(log.session),
        exposure=log.exposure,
    )


def _no_report(steps: int, value: float) -> None:
    """A learning curve that nobody watches."""


def _source_of(spec: AgentSpec) -> str:
    """Digest of a user's own file, so that an edited agent is trained again."""
    from simulator.datasets.sources import file_sha256

    found = []
    for target in spec.files:
        path = Path(target.rpartition(":")[0])
        found.append((file_sha256(path) if path.is_file() else None) or target)
    return " ".join(found)


def _judge(
    trained: Trained, course: Course, name: str, training_seed: int, root: Any, *, report: Callable[[float, str], None]
) -> Judged | Failure:
    from evaluators.judging import fly_course

    try:
        return fly_course(trained.agent, course, name=name, training_seed=training_seed, root=root, report=report)
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)


def _judge_logged(
    agents: list[Trained],
    judge_log: JudgeLog,
    world: World,
    name: str,
    estimators: tuple[str, ...],
    root: Any,
    *,
    report: Callable[[float, str], None],
) -> LoggedCheck | Failure:
    from evaluators.logged_check import off_policy_check, policy_in

    try:
        policy = policy_in(judge_log, world, [one.agent for one in agents], root, name=name)
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)
    return off_policy_check(judge_log, policy, estimators=estimators, root=root)


def _shifted(
    trained: list[Trained],
    course: Course,
    shifts: tuple[float | None, ...],
    name: str,
    *,
    report: Callable[[float, str], None],
) -> Any:
    from evaluators.judging import fly_shifted

    try:
        return [
            fly_shifted(one.agent, course, shifts, name=name, training_seed=number)
            for number, one in enumerate(trained)
        ]
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)


def _round_log(
    log: InteractionLog,
    split: Split,
    root: Any,
    names: tuple[str, ...],
    history_length: int,
    slate_size: int,
    need_model: bool,  # noqa: FBT001  a task's inputs are given in order
    *,
    report: Callable[[float, str], None],
) -> LogRounds | str:
    from evaluators.logged_rounds import log_rounds_of

    try:
        return log_rounds_of(
            log, split, root, feature_names=names, history_length=history_length, slate_size=slate_size,
            need_model=need_model,
        )  # fmt: skip
    except LogError as error:
        return str(error)  # the log gives no rounds: a reason beside every agent, not the end of the run


def _choose_on_log(
    agents: list[Trained], asked: LogRounds, name: str, root: Any, *, report: Callable[[float, str], None]
) -> PolicyOnLog | Failure:
    from evaluators.logged_rounds import policy_on_log

    try:
        return policy_on_log(asked, [one.agent for one in agents], root, name=name)
    except Exception as error:  # noqa: BLE001  as in _train
        return Failure.of(error)


def value_on_log(
    setting: Setting,
    data: Data,
    world: World,
    ready: Mapping[str, list[Any]],
    keys: Mapping[str, Any],
) -> OffPolicyEvidence:
    """Every agent on the log's own rounds: no simulator in between."""
    from evaluators.logged_rounds import OffPolicyEvidence
    from evaluators.off_policy.names import parse

    scenario, root = setting.scenario, setting.root
    names = scenario.evaluate.off_policy
    if not names:
        return OffPolicyEvidence("off-policy: evaluate.off_policy names no estimator", {})
    need_model = any(parse(name, "bandit").info.needs_model for name in names)
    code = ("simulator", "agents", "evaluators/off_policy", "evaluators/intervals.py", "evaluators/logged_rounds.py")
    shape = (world.feature_names, world.history_length, world.slate_size, need_model)
    where = (data.digest, scenario.seed, scenario.preference.encoder, shape)
    inputs = (data.log, data.split, root, *shape)
    task = Task("log rounds", "rounds, propensities, rewards", _round_log, inputs, where, code)
    (asked,) = setting.map("log rounds", [task])
    seed = stream_word(root, "off_policy", "estimate", bits=31)
    if isinstance(asked, str):
        return OffPolicyEvidence(asked, {}, seed)
    bounds = {name for name, all_ in ready.items() if any(getattr(one.agent, "privileged", False) for one in all_)}
    able = [name for name in ready if name not in bounds]
    tasks = [
        Task("off-policy", name, _choose_on_log, (ready[name], asked, name, root), (where, keys[name]), code, _by_limit)
        for name in able
    ]
    found = dict(zip(able, setting.map("off-policy", tasks), strict=True))
    policies = {name: f"off-policy: {one.why}" if isinstance(one, Failure) else one for name, one in found.items()}
    reads = "off-policy: a bound, not a policy: it reads a judge world's appeal"
    return OffPolicyEvidence(asked, {**policies, **dict.fromkeys(bounds, reads)}, seed)


@dataclass(frozen=True, slots=True)
class Flown:
    """Everything that the agents did."""

    judged: Mapping[str, list[Judged]]
    failed: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]]
    picks: Mapping[str, Picks]
    shifted: Mapping[str, Any]
    logged: Mapping[str, LoggedCheck]
    on_log: OffPolicyEvidence


def plan_course(setting: Setting, data: Data, worlds: Worlds) -> Course:
    """Where every agent is flown."""
    from evaluators.judging import Course
    from evaluators.metrics import Reference
    from evaluators.picks import held_out_observation

    scenario, log, split = setting.scenario, data.log, data.split
    train_rows = np.isin(log.user, split.users(WORLD_A))
    first = worlds.judges[0]
    held_out = held_out_observation(
        log,
        split,
        split.users(HELD_OUT),
        feature_names=first.feature_names,
        history_length=first.history_length,
        slate_size=min(max(MOST_PICKS, first.slate_size), first.n_items),
    )
    n_items = log.catalogue.n_items
    sweeps: tuple[Sweep, ...] = tuple(
        (a.part, a.parameter, float(value)) for a in first.assumptions if a.source == "assumed" for value in a.sweep
    )
    return Course(
        worlds=worlds.judges,
        claimed=worlds.a_on_judge_users,
        sweeps=sweeps,
        seeds=tuple(stream_word(setting.root, "fly", number, bits=63) for number in range(scenario.evaluate.seeds)),
        sessions=scenario.evaluate.sessions_per_user,
        metrics=scenario.evaluate.metrics,
        reference=Reference(
            item_rows=np.bincount(log.item[train_rows], minlength=n_items),
            eligible=np.ones(n_items, bool),
            content=log.catalogue.content,
        ),
        held_out=held_out,
        flips=_flips(setting, data, worlds),
    )


def _flips(setting: Setting, data: Data, worlds: Worlds) -> Mapping[str, Flip]:
    """Sensitive attributes that users' features carry, so that an agent or a world may read them."""
    from evaluators.fairness import flipped_world, swap_of

    found = {}
    world, catalogue = worlds.judges[0], data.log.catalogue
    for attribute in setting.scenario.evaluate.fairness.attributes:
        seen = swap_of(world.feature_names, attribute)
        read = swap_of(catalogue.user_feature_names, attribute)
        if seen is not None and read is not None:
            features = catalogue.user_features[world.starts.user].astype(np.float32)
            found[attribute] = (seen, flipped_world(world, worlds.judge_models[0], features, read))
    return found


def _where(setting: Setting, data: Data, worlds: Worlds) -> tuple[Any, ...]:
    """What every flight depends on beside the agent."""
    # What was measured on-line is compared with the flights, and changes none of them.
    evaluated = setting.scenario.evaluate.model_copy(update={"known": ()})
    return (data.digest, setting.scenario.seed, evaluated, *(world.digest for world in worlds.judges),
            worlds.a_on_judge_users.digest)  # fmt: skip


def fly_users(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, list[Trained | Failure]],
    keys: Mapping[str, Any],
) -> tuple[Worlds, dict[str, list[Judged]], dict[str, str]]:
    """Fly every trained agent, with more and more users where the scenario asks for a precision.

    Returns:
        The worlds with the users who flew, what each agent did there, and why agents failed.
    """
    from evaluators.precision import looks, precise_enough

    users = worlds.judges[0].starts.user
    order = stream(setting.root, "evaluate", "order").permutation(users)
    learners = {spec.settings.name for spec in specs if spec.learns}
    bounds = {spec.settings.name for spec in specs if spec.privileged}
    judged: dict[str, list[Judged]] = {}
    failed: dict[str, str] = {}
    flown = worlds
    for number in looks(len(users), setting.scenario.evaluate):
        if number < len(users):
            some = np.sort(order[:number])
            flown = replace(worlds, **_judged_on(setting, data, worlds.model_a, worlds.judge_models, some))
        else:
            flown = worlds
        judged, failed = _fly(setting, data, flown, trained, keys)
        flights = [flight for all_ in judged.values() for one in all_ for flight in one.flights]
        if precise_enough(flights, setting.scenario.evaluate, learners=learners, bounds=bounds):
            break
    return flown, judged, failed


def _fly(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    trained: Mapping[str, list[Trained | Failure]],
    keys: Mapping[str, Any],
) -> tuple[dict[str, list[Judged]], dict[str, str]]:
    """Every trained agent on the whole course, and why agents failed."""
    root = setting.root
    course, where = plan_course(setting, data, worlds), _where(setting, data, worlds)
    failed = {name: one.why for name, all_ in trained.items() for one in all_ if isinstance(one, Failure)}
    ready = {name: all_ for name, all_ in trained.items() if name not in failed}
    tasks, owners = [], []
    for name, all_ in ready.items():
        for number, one in enumerate(all_):
            label = f"{name}, seed {number}" if len(all_) > 1 else name
            tasks.append(Task("fly", label, _judge, (one, course, name, number, root), (where, keys[name], number),
                              FLYING, _by_limit))  # fmt: skip
            owners.append(name)
    judged: dict[str, list[Any]] = {name: [] for name in ready}
    for name, result in zip(owners, setting.map("fly", tasks), strict=True):
        judged[name].append(result)
    for name, results in judged.items():
        wrong = next((one.why for one in results if isinstance(one, Failure)), None)
        if wrong is not None:
            failed[name] = wrong
    return {name: results for name, results in judged.items() if name not in failed}, failed


def check_flights(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    trained: Mapping[str, list[Any]],
    keys: Mapping[str, Any],
    judged: dict[str, list[Judged]],
    failed: dict[str, str],
) -> Flown:
    """Score each agent's picks, fly it corrected by them, and estimate it from rounds logged in a judge world."""
    from evaluators.logged_check import ItemFacts, log_rounds
    from evaluators.picks import picks_of

    scenario, log, split, root = setting.scenario, data.log, data.split, setting.root
    course, where = plan_course(setting, data, worlds), _where(setting, data, worlds)
    with setting.progress.stage("picks"):
        users = split.users(HELD_OUT)
        rows = split.rows(log, users, late=True)
        p = np.mean([model.predict(log, split, rows) for model in worlds.judge_models], axis=0)
        picks = {
            name: picks_of([one.slates for one in results if one.slates is not None], users, log, rows, p)
            for name, results in judged.items()
            if all(one.slates is not None for one in results)
        }
    correctable = [name for name, found in picks.items() if found.estimate.value is not None]
    corrections = [
        Task("correct", name, _shifted,
             (trained[name], course, (found.shift, found.shift_low, found.shift_high), name),
             (where, keys[name], found.shift, found.shift_low, found.shift_high), FLYING, _by_limit)
        for name in correctable
        for found in [picks[name]]
    ]  # fmt: skip
    shifted = dict(zip(correctable, setting.map("correct", corrections), strict=True))

    judge_log = log_rounds(
        worlds.judges[0], ItemFacts.of(log, np.flatnonzero(np.isin(log.user, split.users(WORLD_A)))), root
    )
    checks = [
        Task("off-policy check", name, _judge_logged,
             (trained[name], judge_log, worlds.judges[0], name, scenario.evaluate.off_policy, root),
             (where, keys[name], scenario.evaluate.off_policy),
             ("simulator", "agents", "evaluators/off_policy", "evaluators/intervals.py", "evaluators/logged_check.py"),
             _by_limit)
        for name in judged
    ]  # fmt: skip
    found_logged = dict(zip(judged, setting.map("off-policy check", checks), strict=True))
    missing = {"off-policy check": found_logged, "corrected value": shifted}
    notes = {
        name: tuple(
            f"no {what}: {found[name].why}" for what, found in missing.items() if isinstance(found.get(name), Failure)
        )
        for name in judged
    }
    return Flown(
        judged,
        failed,
        notes,
        picks,
        {name: found for name, found in shifted.items() if not isinstance(found, Failure)},
        {name: found for name, found in found_logged.items() if not isinstance(found, Failure)},
        value_on_log(setting, data, worlds.judges[0], {name: trained[name] for name in judged}, keys),
    )


def evaluate(
    setting: Setting,
    data: Data,
    worlds: Worlds,
    fidelity_found: Fidelity,
    specs: Sequence[AgentSpec],
    trained: Mapping[str, list[Trained | Failure]],
    flown: Flown,
) -> Any:
    """Compare, rank, correct, check for fairness and effect, and decide the gates."""
    from evaluators.findings import AgentFacts, Evidences, find
    from evaluators.for_whom import Population

    log, scenario = data.log, setting.scenario
    users = worlds.judges[0].starts.user
    facts = []
    for spec in specs:
        name = spec.settings.name
        ready = [one for one in trained[name] if not isinstance(one, Failure)]
        curves = tuple((k, one.curve, one.prior_value) for k, one in enumerate(ready) if one.curve)
        facts.append(
            AgentFacts(
                name=name,
                kind=kind_without_folder(spec.settings.kind),
                trained_on=_trained_on(spec),
                learns=spec.learns,
                bound=spec.privileged,
                curves=curves,
                steps=ready[0].steps if curves else None,
                reproducible=all(one.reproducible for one in ready),
                failed=flown.failed.get(name),
                notes=flown.notes.get(name, ()),
                barred=None if name in flown.failed else _may_have_seen(spec, log, data.split),
            )
        )
    starts = worlds.judges[0].starts
    train_rows = np.isin(log.user, data.split.users(WORLD_A))
    rows = np.diff(starts.seen.start)
    liked = np.add.reduceat(np.append(starts.seen.primary, 0.0), starts.seen.start[:-1]) * (rows > 0)
    features = np.column_stack([log.catalogue.user_features[users], np.log1p(rows), liked / np.maximum(rows, 1)])
    with setting.progress.stage("evaluate"):
        return find(
            facts,
            Evidences(
                judged=flown.judged,
                picks=flown.picks,
                shifted=flown.shifted,
                logged=flown.logged,
                population=Population(
                    features=features.astype(np.float64),
                    feature_names=(*log.catalogue.user_feature_names, "history_length", "like_share"),
                    groups=dict(log.catalogue.user_attributes),
                    world=worlds.judges[0],
                    likes=np.bincount(
                        log.item[train_rows], log.primary[train_rows], minlength=log.catalogue.n_items
                    ).astype(np.float64),
                    categories=log.catalogue.item_categories,
                ),
                self_selected=log.self_selected,
                on_log=flown.on_log,
            ),
            evaluate=scenario.evaluate,
            gates=scenario.gates,
            assumptions=worlds.judges[0].assumptions,
            fidelity=fidelity_found,
            root=setting.root,
        )


def _trained_on(spec: AgentSpec) -> str:
    """What the report says that an agent has learned from."""
    if spec.fits:
        return "this run"
    return "nothing" if spec.fitted_here else spec.settings.trained_on or "unsaid"


def _may_have_seen(spec: AgentSpec, log: InteractionLog, split: Split) -> str | None:
    """Why a policy that this run did not fit may have seen the rows that judge it, or None."""
    said = spec.settings.trained_on
    if spec.fitted_here or said == "nothing":
        return None
    if said is None:
        return (
            "policy may have seen these rows: it has no fit, so it was trained elsewhere; say trained_on: nothing, or "
            "before TIME"
        )
    if not log.has_time:
        return f"policy may have seen these rows: it was trained {said}, and the log has no times"
    limit = np.datetime64(said.removeprefix("before ").strip(), "s").astype(np.int64)
    judging = ~np.isin(log.user, split.users(WORLD_A))
    earlier = float(np.mean(log.time[judging] < limit))
    if earlier > 0:
        return (
            f"policy may have seen these rows: it was trained {said}, and {earlier:.0%} of the judging rows are "
            "earlier; give a log of later rows"
        )
    return None


def assemble(setting: Setting, data: Data, worlds: Worlds, fidelity_found: Fidelity, findings: Any = None) -> Report:
    """The report of a run, or of the fidelity stages alone."""
    from evaluators.data_card import data_card
    from evaluators.report import DataCardModel, DataSection, FidelitySection, PreferenceSection, Report

    log, split, scenario = data.log, data.split, setting.scenario
    base = float(log.primary.mean())
    parts = {"world A": WORLD_A, "judge worlds": JUDGE, "held out": HELD_OUT}
    splits: dict[str, Any] = {
        name: {
            "users": len(split.users(role)),
            "rows": int(np.isin(log.user, split.users(role)).sum()),
            "late rows": len(split.rows(log, split.users(role), late=True)),
        }
        for name, role in parts.items()
    }
    holds = data_card(log)
    card: dict[str, Any] = {
        "primary behaviour": scenario.data.positive,
        "base rate": round(base, 4),
        "sha256": data.digest,
        "time": "yes" if log.has_time else "no: the order within a user is drawn at random",
        "positions": "yes" if log.position is not None else "no: examination is assumed and swept",
        "propensities": "yes" if log.propensity is not None else "no: no off-policy estimate on the log's own rows",
        "exposure": holds.exposure,
        "notes": [*log.notes, *worlds.judges[0].notes],
    }
    block = (fidelity_found if findings is None else findings.fidelity).to_json()
    block["reliability"] = [{"bin": k, **one} for k, one in enumerate(block["reliability"], 1)]
    versions = {**library_versions(), "python": platform.python_version(), "windtunnel": _own_version()}
    of_stages = {f"{stage} (cpu)": cpu for stage, cpu in setting.progress.cpu_seconds.items()}
    seconds = {**setting.progress.seconds, **of_stages, **setting.cpu}
    return Report(
        name=scenario.name,
        digest=digest(scenario, data.digest),
        world_digest=world_digest(scenario, data.digest, versions),
        seed=scenario.seed,
        versions=versions,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        data=DataSection(
            source=Path(scenario.data.source).name,
            n_users=log.catalogue.n_users,
            n_items=log.catalogue.n_items,
            n_interactions=len(log),
            splits=splits,
            card=card,
            holds=DataCardModel.model_validate(holds.to_json()),
        ),
        fidelity=FidelitySection.model_validate(block),
        preference=PreferenceSection.model_validate(_preference(setting, worlds, block)),
        scenario=without_folders(scenario),
        metrics=list(scenario.evaluate.metrics),
        **({"verdict": "undecided"} if findings is None else findings.sections()),
    )


def _own_version() -> str:
    """Version of the installed package; of pyproject.toml where the code is run from a folder without installing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("windtunnel")
    except PackageNotFoundError:
        import tomllib

        return str(tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def _preference(setting: Setting, worlds: Worlds, fidelity_block: Mapping[str, Any]) -> dict[str, Any]:
    """The report's section on the preference model."""
    from evaluators.fidelity import ratio_by_user
    from evaluators.report import EstimateModel

    tower = worlds.tower_judge
    gain = None
    if tower.gain is not None:
        rows = tower.gain.rows.astype(np.float64)
        found = ratio_by_user(
            tower.gain.difference, rows, np.arange(len(rows)),
            method="log-loss a row, frozen control minus fine-tuned, tuning users, user-cluster t",
        )  # fmt: skip
        gain = EstimateModel.of(found)
    more: dict[str, Any] = {}
    if worlds.explained:
        more["examples"] = list(worlds.explained)
    if worlds.forgotten is not None:
        lost = worlds.forgotten
        found = ratio_by_user(
            lost.after - lost.before, np.ones(len(lost.user)), lost.user,
            method="log-loss a row after the update minus before it, older rows that neither model saw, user-cluster t",
        )  # fmt: skip
        more["forgetting"] = EstimateModel.of(found).model_dump(mode="json")
    comparisons = []
    for name, estimate in fidelity_block["comparisons"].items():
        reference, _, rows_of = name.partition(", ")
        comparisons.append({"reference": reference, "rows": rows_of, "estimate": estimate})
    return {
        "encoder": setting.scenario.preference.encoder,
        "adaptation": setting.scenario.preference.adaptation,
        "chosen": tower.chosen,
        "gain": gain,
        "comparisons": comparisons,
        "reliability": fidelity_block["reliability"],
        "summary": {
            "judge world 1": worlds.judge_models[0].summary(),
            "world A": {"chosen": worlds.tower_a.chosen, **worlds.model_a.summary()},
            "tuning loss by pass": list(tower.curve),
            "fine-tuning": {
                "trained parameters": tower.trained_parameters,
                "seconds": tower.seconds,
                "peak MB": tower.peak_memory,
            },
            "calibration floor": fidelity_block["calibration_floor"],
            **more,
        },
    }


# ------------------------------------------------------------------------------------------------- what the CLI calls


@contextmanager
def _setting(
    scenario: Scenario, folder: Path, progress: Progress, *, workers: int | None = None, engine: str = "local"
) -> Iterator[Setting]:
    """What the stages share, with the cache kept from being pruned meanwhile."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers: {workers} must be at least 1")
    os.environ.update(ONE_THREAD)
    count = workers or os.cpu_count() or 1
    cache = StageCache(default_cache_folder())
    root = np.random.SeedSequence(scenario.seed)
    with cache.in_use():
        yield Setting(scenario, folder.resolve(), root, Engine(cache, count, parse_engine(engine)), progress, {})


def run(
    scenario: Path,
    *,
    out: Path = Path("runs"),
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    candidate: Candidate | None = None,
) -> Report:
    """Everything in a scenario; the report and its page are written to `out/<name>/<digest12>/`.

    Args:
        scenario: the YAML file.
        out: folder of runs.
        seed: replaces the scenario's own seed.
        workers: processes; default one a core.
        engine: "local", "dask" or "dask:ADDRESS".
        overrides: `key.path=value` texts of `--set`.
        progress: where stages are shown; default standard error.
        candidate: a policy to vet.

    Raises:
        InputError: something the user gave cannot be used.
    """
    from scenarios.checking import prepare_scenario

    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed, candidate=candidate)
    with _setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        began = time.monotonic()
        data = load(setting)
        worlds = fit_worlds(setting, data)
        believed = check_fidelity(setting, data, worlds)
        trained = train_agents(setting, data, worlds, prepared.specs)
        keys = {spec.settings.name: (spec.settings, worlds.a.digest, _source_of(spec)) for spec in prepared.specs}
        worlds, judged, failed = fly_users(setting, data, worlds, prepared.specs, trained, keys)
        flown = check_flights(setting, data, worlds, trained, keys, judged, failed)
        if candidate is not None and CANDIDATE in flown.failed:
            raise InputError(f"--policy: '{candidate.policy}' failed: {flown.failed[CANDIDATE]}")
        findings = evaluate(setting, data, worlds, believed, prepared.specs, trained, flown)
        setting.progress.seconds["total"] = time.monotonic() - began
        report = assemble(setting, data, worlds, believed, findings)
        with setting.progress.stage("report"):
            save_models(write(report, out, flown) / "preference", data, worlds)
        setting.progress.say(
            f"{sum(setting.progress.cpu_seconds.values()):.0f} processor seconds, by task in report.json"
        )
        return report


def vet(
    scenario: Path, *, policy: str, baseline: str | None = None, trained_on: str | None = None, **options: Any
) -> Report:
    """Add a user's own policy as `candidate` and answer the scenario's gates for it alone.

    Raises:
        InputError: the policy cannot be loaded, or fails.
    """
    return run(scenario, candidate=Candidate(policy, baseline, trained_on), **options)


def fidelity(
    scenario: Path,
    *,
    out: Path = Path("runs"),
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Data, preference model and fidelity only, no agent; fidelity.json and its page go to `out/<name>/<digest12>/`."""
    from evaluators.run_folder import write_fidelity
    from scenarios.checking import prepare_scenario

    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed)
    with _setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        data = load(setting)
        worlds = fit_worlds(setting, data)
        report = assemble(setting, data, worlds, check_fidelity(setting, data, worlds))
        with setting.progress.stage("report"):
            write_fidelity(out / report.name / report.digest[:12], report)
    return report


def _ablate(
    log: InteractionLog,
    split: Split,
    settings: Any,
    root: Any,
    folder: Path,
    vectors: Path,
    rows: NDArray[np.int64],
    *,
    report: Callable[[float, str], None],
) -> Any:
    from evaluators.ablation import fit_variant

    return fit_variant(log, split, JUDGE, settings, root, rows, cache=vectors, folder=folder, progress=report)


def ablation(
    scenario: Path,
    *,
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Ablation:
    """Fit the preference model once for every combination of `ablation:`, and score all on the same unseen rows.

    Raises:
        InputError: the scenario has no `ablation:`, or one of its combinations is no preference model.
    """
    from evaluators.ablation import scored_rows, tabulate, variants
    from scenarios.checking import prepare_scenario

    prepared = prepare_scenario(scenario, overrides=overrides, seed=seed)
    chosen = variants(prepared.scenario.preference, prepared.scenario.ablation)
    with _setting(
        prepared.scenario, prepared.folder, progress or Progress(), workers=workers, engine=engine
    ) as setting:
        data = load(setting)
        log = replace(data.log, catalogue=replace(data.log.catalogue, content=None))
        rows = scored_rows(log, data.split, np.concatenate(_scored_users(data.split)), stream(setting.root, "ablation"))
        vectors = setting.engine.cache.folder / "vectors"
        tasks = [
            Task("ablation", label, _ablate, (log, data.split, one, setting.root, setting.folder, vectors, rows),
                 (data.digest, setting.scenario.seed, one), (*FITTING, "evaluators/ablation.py"))
            for label, one in chosen.items()
        ]  # fmt: skip
        fitted = dict(zip(chosen, setting.map("ablation", tasks), strict=True))
        return tabulate(setting.scenario.name, log, rows, fitted, setting.root)


def write(report: Report, out: Path, flown: Flown) -> Path:
    """Write the run's folder, `out/<name>/<digest12>/`, and return it."""
    from evaluators.run_folder import write_run

    folder = out / report.name / report.digest[:12]
    write_run(folder, report, flown.judged, scenario_text=resolved(Scenario.model_validate(report.scenario)))
    return folder


def save_models(folder: Path, data: Data, worlds: Worlds) -> None:
    """Keep world A's model and the first judge world's, for `preference.update` of a later run."""
    from simulator.preference.continual import file_name, save

    for role, model in ((WORLD_A, worlds.model_a), (JUDGE, worlds.judge_models[0])):
        save(model, data.log.catalogue, folder / file_name(role))


def report_again(folder: Path) -> Path:
    """Render report.html again from the report.json on disk; returns the page's path."""
    from evaluators.run_folder import render_again

    return render_again(folder)


def leaderboard(
    folder: Path, *, html: Path | None = None, metric: str | None = None, families: Sequence[str] = ()
) -> Any:
    """Every report under a folder, grouped by what makes runs comparable.

    Args:
        folder: of runs.
        html: where to write the page; None writes none.
        metric: by which agents are ranked; default the primary one.
        families: of agents that are shown, `user` being those that are no built-in kind; default all.

    Raises:
        InputError: no report can be read, or the metric or a family is unknown.
    """
    from agents.kinds import family_of, known_families
    from evaluators.leaderboard import leaderboard as rank_runs

    for family in families:
        if family not in known_families():
            hint = did_you_mean(family, known_families())
            raise InputError(
                f"--family: '{family}' is no family of agents{hint}; there are {', '.join(known_families())}"
            )
    shown = (lambda kind: family_of(kind) in families) if families else None
    return rank_runs(folder, html, metric=metric, shown=shown)


def bench(*, seconds: float = 1.0) -> Speed:
    """Measure the simulator, the off-policy estimators and the smoke scenario, nothing cached, on this machine.

    Args:
        seconds: how long each number of users and each estimator is measured.
    """
    import tempfile

    from evaluators.speed import measure_speed

    smoke = PROJECT / "scenarios" / "smoke.yaml"
    before = os.environ.get("WINDTUNNEL_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WINDTUNNEL_CACHE"] = folder
        try:
            report = run(smoke, out=Path(folder) / "runs", progress=Progress())
            world, _ = _train_world(smoke)
        finally:
            if before is None:
                del os.environ["WINDTUNNEL_CACHE"]
            else:
                os.environ["WINDTUNNEL_CACHE"] = before
    return measure_speed(world, seconds, stages=report.seconds)


# ------------------------------------------------------------------------------------------- Gymnasium's entry points


def _train_world(scenario: str | Path | Scenario) -> tuple[World, NDArray[np.float32] | None]:
    """World A of a scenario with the items' content vectors; fitted on first use, then read from the cache."""
    if isinstance(scenario, Scenario):
        chosen, folder = scenario, Path()
    else:
        chosen, folder = load_scenario(Path(scenario)), Path(scenario).parent
    with _setting(chosen, folder, Progress(None), workers=1) as setting:
        data = load(setting)
        return fit_worlds(setting, data).a, data.log.catalogue.content


def make_env(scenario: str | Path | Scenario, *, action: str = "slate", seed: int = 0, render_mode: None = None) -> Any:
    """One simulated user in world A of a scenario: what `gymnasium.make("windtunnel/Recommend-v0", ...)` returns."""
    from simulator.env import WindtunnelEnv

    world, content = _train_world(scenario)
    return WindtunnelEnv(world, action=action, seed=seed, content=content)


def make_vector_env(
    num_envs: int = 1,
    *,
    scenario: str | Path | Scenario,
    action: str = "slate",
    seed: int = 0,
    copy: bool = True,
    render_mode: None = None,
) -> Any:
    """Many simulated users at once: what `gymnasium.make_vec(..., vectorization_mode="vector_entry_point")` returns."""
    from simulator.env import WindtunnelVectorEnv

    world, content = _train_world(scenario)
    return WindtunnelVectorEnv(world, num_envs, action=action, seed=seed, content=content, copy=copy)
