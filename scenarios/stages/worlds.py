"""Load a log, fine-tune and fit on it, and build the worlds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scenarios.schema import Scenario
from scenarios.stages.setting import Setting
from simulator.cache import digest_of
from simulator.engine import Task
from simulator.errors import ScenarioError, did_you_mean
from simulator.log import JUDGE, WORLD_A, InteractionLog, Split, split_users
from simulator.streams import stream

if TYPE_CHECKING:
    from agents.loading import AgentSpec
    from simulator.preference.continual import Forgetting, SavedModel
    from simulator.preference.explaining import Explanations
    from simulator.preference.fitting import TextTower
    from simulator.preference.graded import GradedModel
    from simulator.preference.model import PreferenceModel
    from simulator.preference.settings import PreferenceSettings
    from simulator.world import World

FITTING = ("simulator/log.py", "simulator/streams.py", "simulator/encoders", "simulator/preference")
OTHER_CLASS = "matrix_factorisation"
"""Model class of the last judge world: a policy that exploits one class's faults is found out by another."""


@dataclass(frozen=True, slots=True)
class Domain:
    """What agents may learn from in another scenario.

    Attributes:
        log: rows of its train users; content vectors are by the encoder of the scenario that learns from it.
        world: its train world.
        digest: of all that both depend on, content vectors left out.
        content: digest of the content vectors.
    """

    log: InteractionLog
    world: World
    digest: str
    content: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """The log with content vectors, who may see which rows, the digest of its content, and other policies' logs.

    `content` is the digest of the content vectors, which `digest` leaves out: it is of the log as it was read.
    `domains` are the scenarios that agents learn in beside this one, by the name that their parameters give.
    """

    log: InteractionLog
    split: Split
    digest: str
    others: Mapping[str, InteractionLog] = field(default_factory=dict)
    domains: Mapping[str, Domain] = field(default_factory=dict)
    content: str = ""

    @property
    def run_digest(self) -> str:
        """Digest of the content of everything that a run reads."""
        return digest_of((self.digest, *(one.digest for one in self.domains.values()))) if self.domains else self.digest


@dataclass(frozen=True, slots=True)
class Worlds:
    """Everything fitted on the log.

    `validation` values the trials of a search of parameters and says when a training stops early: fitted on a draw of
    world A's fitting users, with the sessions of its tuning users. What is so valued is trained in `a_without_tuning`,
    whose sessions are the fitting users'; both worlds' models were stopped and calibrated on the tuning users, and
    behaviours that are fitted (heads, friends, gaps) are fitted on them in both.
    Both are None where nothing is tuned or stops early. `truth` is what the judge users truly do, where that is known:
    no agent learns in it, and nothing is fitted to it. `forgotten` is what updated models lost, by world.
    """

    tower_a: TextTower
    tower_judge: TextTower
    model_a: PreferenceModel
    judge_models: tuple[PreferenceModel, ...]
    references: Mapping[str, PreferenceModel]
    a: World
    a_on_judge_users: World
    judges: tuple[World, ...]
    validation: World | None = None
    a_without_tuning: World | None = None
    explained: tuple[str, ...] = ()
    forgotten: Mapping[str, Forgetting] = field(default_factory=dict)
    graded: tuple[GradedModel, ...] = ()
    truth: World | None = None


def own_files(scenario: Scenario, folder: Path) -> tuple[tuple[str, str], ...]:
    """Names and digests of the user's own files that worlds are made of beside the log.

    Runs that differ in one share no world; a copy elsewhere is the same.
    """
    from simulator.datasets.sources import file_sha256
    from simulator.preference.continual import file_name

    own, pairs = scenario.simulator.behaviour, scenario.simulator.friends.pairs
    update = scenario.preference.update
    named = [own.rpartition(":")[0]] if own is not None else []
    named += [pairs] if pairs is not None else []
    named += [] if update is None else [str(Path(update.model, file_name(role))) for role in (WORLD_A, JUDGE)]
    digests = {name: file_sha256(folder / Path(name).expanduser()) for name in named}
    digests |= _of_preference(scenario.preference, folder)
    return tuple((Path(name).name, digest) for name, digest in digests.items() if digest)


def _of_preference(settings: PreferenceSettings, folder: Path) -> dict[str, str | None]:
    """Digests of what preference models read beside the log, by name: encoder, synonyms, translators; None: no file."""
    from simulator.datasets.sources import file_sha256
    from simulator.encoders.text import encoder_digest

    robust = settings.robustness
    named = (settings.encoder, *([robust.synonyms] if robust.synonyms else []), *(robust.back_translation or ()))
    places = {name: folder / Path(name).expanduser() for name in named}
    return {name: encoder_digest(str(at)) if at.is_dir() else file_sha256(at) for name, at in places.items()}


def preference_files(settings: PreferenceSettings, folder: Path) -> tuple[str, ...]:
    """Digests of the user's own files that preference models read beside the log: encoder, synonyms, translators."""
    # A name, or an id of the hub, stands for the same weights always.
    return tuple(digest or name for name, digest in _of_preference(settings, folder).items())


def load(setting: Setting, specs: Sequence[AgentSpec] = (), *, vetted: bool = False) -> Data:
    """Read the log, split it by user and time, and give its items the pretrained encoder's vectors.

    Args:
        setting: of the scenario.
        specs: agents that are to be trained, whose needs the log is held against.
        vetted: a policy to vet is one of them.
    """
    from simulator.preference.searching import encoder_texts

    data = read_log(setting, specs, vetted=vetted)
    with setting.progress.stage("encode"):
        texts = encoder_texts(data.log, setting.scenario.preference)
        log = with_content(setting, data.log, texts)
        return replace(data, log=log, content=digest_of(log.catalogue.content))


def read_log(setting: Setting, specs: Sequence[AgentSpec] = (), *, vetted: bool = False) -> Data:
    """The log without content vectors, and its split by user and time; arguments as in `load`."""
    from scenarios.checking import check_graded, check_log, check_needs, read_other_logs
    from simulator.datasets import load_dataset

    scenario = setting.scenario
    with setting.progress.stage("load"):
        log = load_dataset(scenario.data, setting.folder, seed=scenario.seed)
        mistakes = check_log(log, scenario.simulator, scenario.evaluate)
        mistakes += check_graded(log, scenario.preference)
        if mistakes := [*mistakes, *check_needs(log, specs, scenario.agents, vetted=vetted)]:
            raise ScenarioError(mistakes)
        data_digest = digest_of(log)
        if files := own_files(scenario, setting.folder):
            data_digest = digest_of((data_digest, files))
        others = read_other_logs(scenario.evaluate.other_logs, scenario.data, setting.folder, log, seed=scenario.seed)
        if others:
            data_digest = digest_of((data_digest, *others.values()))
        split = split_users(log, setting.root)
    return Data(log, split, data_digest, others)


def with_content(setting: Setting, log: InteractionLog, texts: Sequence[str]) -> InteractionLog:
    """The log with content vectors of its items, by the scenario's encoder; of their categories without text.

    Args:
        setting: of the scenario.
        log: the log, which may be another scenario's.
        texts: what the encoder is made for; the items' own are among them.
    """
    from simulator.encoders.text import encode_texts, encoder_for

    scenario = setting.scenario
    content: NDArray[np.float32] | None = None
    if any(text.strip() for text in log.catalogue.item_text):
        vectors = setting.engine.cache.folder / "vectors"
        encoder = encoder_for(
            scenario.preference.encoder, texts, setting.folder, cache=vectors,
            own=scenario.preference.own, root=setting.root,
        )  # fmt: skip
        content = encode_texts(
            log.catalogue.item_text,
            encoder,
            cache=vectors,
            max_tokens=scenario.preference.max_tokens,
            device=scenario.preference.tuning.device,
        )
    elif log.catalogue.item_categories.shape[1]:
        categories = log.catalogue.item_categories
        length = np.linalg.norm(categories, axis=1, keepdims=True)
        content = (categories / np.where(length > 0, length, 1)).astype(np.float32)
    return replace(log, catalogue=replace(log.catalogue, content=content))


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


def _fit_graded(
    log: InteractionLog,
    split: Split,
    tower: TextTower,
    settings: Any,
    root: Any,
    behaviour: str,
    thresholds: Sequence[float],
    *,
    report: Callable[[float, str], None],
) -> GradedModel:
    from simulator.preference.graded import fit_graded

    return fit_graded(log, split, JUDGE, tower, settings, root, behaviour, thresholds)


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


@dataclass(frozen=True, slots=True)
class _Fitting:
    """The tasks that fine-tune encoders and fit preference models on a log.

    Attributes:
        setting, data: of the scenario whose log it is.
        saved: models of an earlier run, by the role of their users.
        beside: what tells the tasks from those of the scenario that is run, for people.
    """

    setting: Setting
    data: Data
    saved: Mapping[int, SavedModel]
    beside: str = ""

    @property
    def bare(self) -> InteractionLog:
        """The log without content vectors."""
        log = self.data.log
        return replace(log, catalogue=replace(log.catalogue, content=None))

    @property
    def vectors(self) -> Path:
        """Where texts' vectors are kept."""
        return self.setting.engine.cache.folder / "vectors"

    @property
    def depends(self) -> tuple[Any, ...]:
        """What every model depends on."""
        scenario = self.setting.scenario
        files = preference_files(scenario.preference, self.setting.folder)
        return (self.data.digest, scenario.seed, scenario.preference, files, self.saved)

    def tune(self, role: int) -> Task:
        """The encoder, fine-tuned on the users of a role."""
        setting = self.setting
        name = {WORLD_A: "world A", JUDGE: "judge worlds"}[role]
        inputs = (self.bare, self.data.split, role, setting.scenario.preference, setting.root, setting.folder,
                  self.vectors)  # fmt: skip
        return Task("fine-tune", f"encoder of {name}{self.beside}", _tune, inputs, (*self.depends, role), FITTING)

    def fit(self, name: str, role: int, tower: TextTower, architecture: str, bootstrap: int | None = None) -> Task:
        """A preference model of the users of a role."""
        setting = self.setting
        inputs = (
            self.bare,
            self.data.split,
            role,
            tower,
            setting.scenario.preference,
            setting.root,
            architecture,
            bootstrap,
            self.saved.get(role),
            setting.folder,
            self.vectors,
        )
        depends = (*self.depends, role, architecture, bootstrap)
        return Task("fit", f"{name}{self.beside}", _fit, inputs, depends, FITTING)


def fit_train_world(setting: Setting, data: Data, *, beside: str = "") -> World:
    """World A alone, from the cache where a run of the scenario has fitted it.

    Args:
        setting: of the scenario.
        data: of the scenario.
        beside: what tells its tasks from those of the scenario that is run, for people.
    """
    fitting = _Fitting(setting, data, load_saved(setting), beside)
    [tower] = setting.map("fine-tune", [fitting.tune(WORLD_A)])
    task = fitting.fit("world A", WORLD_A, tower, setting.scenario.preference.architecture)
    [model] = setting.map("fit worlds", [task])
    return _world_a(setting, data, model)


def explain_scores(setting: Setting, data: Data, users: Sequence[str], items: Sequence[str]) -> Explanations:
    """Why judge world 1 scores each of the items for each of the users as it does; models come from a run's cache.

    Args:
        setting: of the scenario.
        data: of the scenario.
        users: ids in the log.
        items: likewise.

    Raises:
        ScenarioError: the log has no such user or item, one line each.
    """
    from simulator.preference.explaining import Explanations, explain_pairs, names_of

    catalogue, settings = data.log.catalogue, setting.scenario.preference
    source, mistakes = data.log.source, []
    places = []
    for what, known, asked in (("user", catalogue.user_ids, users), ("item", catalogue.item_ids, items)):
        place = {name: k for k, name in enumerate(known)}
        mistakes += [
            f"--{what}: '{name}' is not among the {len(known):,} {what}s of '{source}'"
            f"{did_you_mean(name, known) or f'; the first is {known[0]!r}'}"
            for name in asked
            if name not in place
        ]
        places.append([place[name] for name in dict.fromkeys(asked) if name in place])
    if mistakes:
        raise ScenarioError(mistakes)
    fitting = _Fitting(setting, data, load_saved(setting))
    [tower] = setting.map("fine-tune", [fitting.tune(JUDGE)])
    [model] = setting.map("fit worlds", [fitting.fit("judge world 1", JUDGE, tower, settings.architecture)])
    pairs = [(user, item) for user in places[0] for item in places[1]]
    with setting.progress.stage("explain") as show:
        found = explain_pairs(
            model, fitting.bare, data.split, tower, settings, setting.root, pairs,
            cache=fitting.vectors, folder=setting.folder, progress=show,
        )  # fmt: skip
    return Explanations(setting.scenario.name, found, names_of(catalogue))


def _world_a(setting: Setting, data: Data, model: PreferenceModel) -> World:
    from simulator.world import World

    users = data.split.users(WORLD_A)
    return World.build(model, data.log, data.split, users, setting.scenario.simulator, name="A", folder=setting.folder)


def fit_worlds(setting: Setting, data: Data) -> Worlds:
    """Fine-tune one encoder on world A's users and one on the judge users; fit world A and the judge worlds."""
    from simulator.preference.continual import forgetting

    scenario, root = setting.scenario, setting.root
    log, split, settings = data.log, data.split, scenario.preference
    saved = load_saved(setting)
    fitting = _Fitting(setting, data, saved)
    bare, vectors = fitting.bare, fitting.vectors
    roles = (WORLD_A, JUDGE)
    towers = dict(zip(roles, setting.map("fine-tune", [fitting.tune(role) for role in roles]), strict=True))

    def fit(name: str, role: int, architecture: str, bootstrap: int | None = None) -> Task:
        return fitting.fit(name, role, towers[role], architecture, bootstrap)

    m = scenario.evaluate.worlds
    own = settings.architecture
    judges = [fit("judge world 1", JUDGE, own)]
    judges += [fit(f"judge world {b}", JUDGE, own, b) for b in range(2, m if m > 2 else m + 1)]
    if m > 2:
        other = OTHER_CLASS if own != OTHER_CLASS else "two_tower"
        judges.append(fit(f"judge world {m}", JUDGE, other, m))
    references = ["bias", OTHER_CLASS]
    tasks = [fit("world A", WORLD_A, own), *judges, *(fit(f"reference {name}", JUDGE, name) for name in references)]
    tuned = any(agent.tune is not None or agent.train.early_stopping is not None for agent in scenario.agents)
    tasks += [fit("validation world", WORLD_A, own, 1)] * tuned
    model_a, *fitted = setting.map("fit worlds", tasks)
    validation = fitted.pop() if tuned else None
    judge_models = tuple(fitted[: len(judges)])
    explained: tuple[str, ...] = ()
    if settings.examples:
        inputs = (judge_models[0], bare, split, towers[JUDGE], settings, root, setting.folder, vectors)
        [explained] = setting.map("explain", [Task("explain", "examples", _explain, inputs, fitting.depends, FITTING)])

    graded: Sequence[GradedModel] = ()
    if settings.graded:
        tasks = [
            Task("fit graded", name, _fit_graded, (bare, split, towers[JUDGE], settings, root, name, limits),
                 (*fitting.depends, name, limits), FITTING)
            for name, limits in settings.graded.items()
        ]  # fmt: skip
        graded = setting.map("fit graded", tasks)

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
        a=_world_a(setting, data, model_a),
        **judged_on(setting, data, model_a, judge_models, judge_users),
        **({} if validation is None else _tuned_in(setting, data, model_a, validation)),
        explained=explained,
        graded=tuple(graded),
        forgotten={
            whose: forgetting(model, saved[role], log, split)
            for whose, model, role in (("judge world 1", judge_models[0], JUDGE), ("world A", model_a, WORLD_A))
            if role in saved
        },
    )


def _tuned_in(setting: Setting, data: Data, model_a: PreferenceModel, validation: PreferenceModel) -> dict[str, Any]:
    """The worlds of a search of parameters or of early stopping, on users of world A apart from each other."""
    from simulator.world import World

    def build(model: PreferenceModel, name: str, *, tuning: bool) -> World:
        users = data.split.users(WORLD_A, tuning=tuning)
        return World.build(
            model, data.log, data.split, users, setting.scenario.simulator, name=name, folder=setting.folder
        )

    return {
        "a_without_tuning": build(model_a, "A without its tuning users", tuning=False),
        "validation": build(validation, "validation", tuning=True),
    }


def judged_on(
    setting: Setting,
    data: Data,
    model_a: PreferenceModel,
    judge_models: Sequence[PreferenceModel],
    users: NDArray[np.int64],
) -> dict[str, Any]:
    """The worlds in which agents are judged, with the sessions of these users; the true one where it is known."""
    from simulator.known_worlds import WORLD_PREFIX, known_world
    from simulator.world import World

    def build(model: PreferenceModel, name: str) -> World:
        return World.build(
            model, data.log, data.split, users, setting.scenario.simulator, name=name, folder=setting.folder
        )

    judges = tuple(build(model, f"B{b}") for b, model in enumerate(judge_models, 1))
    source, truth = setting.scenario.data.source, None
    if source.startswith(WORLD_PREFIX):
        truth = known_world(source.removeprefix(WORLD_PREFIX)).beside(judges[0], data.log.catalogue)
        if truth is None:
            setting.progress.say("truth: not flown; reward, delay, arrivals or returning are not the true ones")
    return {"a_on_judge_users": build(model_a, "A on judge users"), "judges": judges, "truth": truth}


def save_models(folder: Path, data: Data, worlds: Worlds) -> None:
    """Keep world A's model and the first judge world's, for `preference.update` of a later run."""
    from simulator.preference.continual import file_name, save

    for role, model in ((WORLD_A, worlds.model_a), (JUDGE, worlds.judge_models[0])):
        save(model, data.log.catalogue, folder / file_name(role))
