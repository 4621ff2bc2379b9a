"""Whole flights on a small log of known making: resumption, equal reports, failing agents, who sees what."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import cli
from evaluators.report import Report
from simulator.errors import InputError
from simulator.log import HELD_OUT, JUDGE, WORLD_A

SCENARIO = """
name: tiny
seed: 3
data: {source: log.csv, positive: liked, users: users.csv, sensitive: [side]}
preference: {members: 1, refit_members: 1, dims: [4], epochs: 6, patience: 2}
simulator:
  slate_size: 3
  horizon: 4
  examination: {sweep: [0.7]}
  leave: {sweep: [0.0], base_rate_sweep: [], repetition_sweep: []}
  satiation: {sweep: []}
  drift: {sweep: []}
agents:
  - {name: random, kind: random}
  - {name: popularity, kind: popularity}
  - {name: oracle, kind: oracle}
  - {name: linucb, kind: linucb, train: {seeds: 2, steps: 300}}
EXTRA
evaluate: {baseline: popularity, worlds: 3, metrics: [reward, click_rate], fairness: {attributes: [side]}}
gates:
  - {name: better, rule: "difference(reward, vs=popularity) > THRESHOLD", agents: [linucb]}
"""

TUNED = """  - name: tuned
    kind: epsilon_greedy
    params: {epsilon: 0.3}
    train: {seeds: 1, steps: 200}
    tune: {trials: 3, space: {epsilon: {low: 0.0, high: 0.9}}}
"""

SAVED = '''
"""An agent that breaks, and one that was made elsewhere."""
import numpy as np

class Broken:
    def fit(self, training):
        return None

    def act(self, observation, rng):
        raise ValueError("the model file is empty")

class Flat:
    def act(self, observation, rng):
        return np.zeros(len(observation.step), dtype=int)

class Shy:
    def fit(self, training):
        return None

    def act(self, observation, rng):
        return Elsewhere().act(observation, rng)

    def action_probabilities(self, observation):
        raise ValueError("no scores today")

class Elsewhere:
    def act(self, observation, rng):
        noise = rng.random(observation.candidates.shape)
        noise[~observation.candidates] = -1
        return np.argsort(-noise, axis=1)[:, : observation.slate_size]
'''


def write_scenario(folder: Path, *, extra: str = "", threshold: float = 0.0) -> Path:
    """A log of 150 users and 40 items with one taste dimension, and a scenario that reads it."""
    rng = np.random.default_rng(5)
    taste, trait = rng.normal(size=150), rng.normal(size=40)
    rows = ["user,item,time,liked"]
    for u in range(150):
        for t, i in enumerate(rng.choice(40, 16, replace=False)):
            p = 1 / (1 + np.exp(-(0.4 * trait[i] + taste[u] * trait[i])))
            rows.append(f"u{u},i{i},{t},{int(rng.random() < p)}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    users = ["user,side", *(f"u{u},{'left' if u % 2 else 'right'}" for u in range(150))]
    (folder / "users.csv").write_text("\n".join(users) + "\n")
    (folder / "agents.py").write_text(SAVED)
    path = folder / "tiny.yaml"
    path.write_text(SCENARIO.replace("EXTRA", extra).replace("THRESHOLD", str(threshold)))
    return path


def fly(scenario: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Run a scenario in this process with a cache of its own."""
    import pipeline
    from simulator.progress import Progress

    monkeypatch.setenv("WINDTUNNEL_CACHE", str(cache))
    return pipeline.run(scenario, out=cache / "runs", progress=Progress(None), **options)


def files_of(cache: Path) -> set[Path]:
    return set(cache.rglob("*.pkl"))


FAMILIES = """  - {name: dqn, kind: dqn, params: {num_envs: 8}, train: {seeds: 1, steps: 200}}
  - {name: ppo, kind: ppo, params: {num_envs: 8, n_steps: 8}, train: {seeds: 1, steps: 200}}
  - {name: slate_q, kind: slate_q, params: {num_envs: 8}, train: {seeds: 1, steps: 200}}
  - {name: q_learning, kind: q_learning, params: {num_envs: 8}, train: {seeds: 1, steps: 200}}
  - {name: reinforce, kind: reinforce, params: {num_envs: 8}, train: {seeds: 1, steps: 200}}
  - {name: iql, kind: iql, train: {seeds: 1, steps: 2000}}
  - {name: maml, kind: maml, train: {seeds: 1, steps: 500}}
  - {name: multimodal, kind: multimodal, params: {modalities: [id]}, train: {seeds: 1, steps: 2000}}
  - {name: bpr, kind: "recbole:BPR", train: {seeds: 1, steps: 2000}}
"""
"""One agent of each family that trains by steps, beside the bandit of the scenario."""


@dataclass(frozen=True)
class Flown:
    """A scenario flown by one worker, and the cache that it left."""

    scenario: Path
    cache: Path
    report: Any


@pytest.fixture(scope="session")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Flown:
    folder = tmp_path_factory.mktemp("flown")
    scenario = write_scenario(folder / "s", extra=TUNED)
    with pytest.MonkeyPatch.context() as patch:
        return Flown(scenario, folder / "cache", fly(scenario, folder / "cache", patch, workers=1))


@pytest.fixture
def fitted(flown: Flown, tmp_path: Path) -> Path:
    """A cache with what is fitted on the scenario's log, and nothing of its agents."""
    cache = tmp_path / "cache"
    for stage in ("fine-tune", "fit", "vectors"):
        if (flown.cache / stage).exists():
            shutil.copytree(flown.cache / stage, cache / stage)
    return cache


def test_a_run_has_every_agent_every_finding_and_what_a_search_chose(flown: Flown) -> None:
    report = flown.report
    assert {agent.name for agent in report.agents} == {"random", "popularity", "oracle", "linucb", "tuned"}
    assert report.verdict == "undecided"  # 60 judge users: the simulator cannot be trusted, so no gate is decided
    reward = {agent.name: agent.simulated["reward"].value for agent in report.agents}
    assert reward["oracle"] > reward["random"]
    assert {profile.agent for profile in report.profiles} == set(reward)  # every finding of a run is in its report
    search = next(agent for agent in report.agents if agent.name == "tuned").training.search
    assert search.trials[0].params == {"epsilon": 0.3}
    assert max(search.trials, key=lambda trial: trial.value).params == search.chosen
    assert {trial.value for trial in search.trials} > {search.trials[0].value}
    assert not list(flown.cache.glob("trials/*"))  # of use only while the search is under way


def test_what_was_shown_can_be_read_with_the_logs_own_ids(flown: Flown) -> None:
    """Users and items stood as numbers that nothing in the folder explained: no slate could be looked up."""
    (folder,) = (path.parent for path in (flown.cache / "runs").rglob("report.json"))
    ids = pd.read_parquet(folder / "ids.parquet").set_index(["kind", "number"]).id
    log = pd.read_csv(flown.scenario.parent / "log.csv")
    sessions = pd.read_parquet(folder / "sessions.parquet")
    for _, row in sessions[sessions.agent == "popularity"].iterrows():
        met = log.item[(log.user == ids["user", row.user]) & (log.time < 8)]  # histories are not shown again
        shown = {ids["item", number] for number in row.slate if number >= 0}
        assert shown <= set(log.item) - set(met)
    assert set(ids["user"]) == set(log.user)


def test_times_and_memory_stand_in_seconds_and_nowhere_else(flown: Flown) -> None:
    """Fine-tuning's stood in the section on the preference model: two runs from fresh caches were not equal."""

    def keys(part: Any) -> set[str]:
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return set(part if isinstance(part, dict) else ()).union(*(keys(one) for one in inner))

    document = flown.report.without_seconds()
    del document["scenario"]  # agents[].train.seconds is a setting
    assert not [key for key in keys(document) if "second" in key or "MB" in key or "memory" in key]


@pytest.mark.slow
def test_workers_change_nothing_but_the_seconds(flown: Flown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = fly(flown.scenario, tmp_path / "two", monkeypatch, workers=2)
    assert flown.report.without_seconds() == two.without_seconds()


@pytest.mark.slow
def test_learning_curves_of_every_family_are_the_same_whatever_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = write_scenario(tmp_path / "s", extra=FAMILIES)
    short = ["evaluate.adaptation.interactions=[0, 2]"]  # users of 16 rows have no more
    one, two = (fly(scenario, tmp_path / str(n), monkeypatch, workers=n, overrides=short) for n in (1, 2))
    assert one.without_seconds() == two.without_seconds()
    taught = {agent.name: agent for agent in one.agents if agent.training and agent.training.curve}
    assert set(taught) == {"linucb", *re.findall(r"name: (\w+)", FAMILIES)}
    assert all(len(agent.training.curve) > 1 for agent in taught.values())
    assert not [agent.name for agent in one.agents if agent.failed]


def test_a_changed_gate_or_a_value_known_from_elsewhere_runs_nothing_again(
    flown: Flown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, first = flown.scenario, flown.report
    cache = Path(shutil.copytree(flown.cache, tmp_path / "cache"))
    before = files_of(cache)
    again = fly(write_scenario(tmp_path / "s", extra=TUNED, threshold=0.5), cache, monkeypatch, workers=1)
    assert files_of(cache) == before
    assert again.digest != first.digest
    assert again.world_digest == first.world_digest
    known = "evaluate.known=[{policy: popularity, metric: reward, value: 100, low: 95, high: 105}]"
    told = fly(scenario, cache, monkeypatch, workers=1, overrides=[known])
    assert files_of(cache) == before
    assert not told.fidelity.trusted
    assert any("known: reward of popularity: contradicted" in reason for reason in told.fidelity.reasons)
    assert not any("known" in reason for reason in again.fidelity.reasons)


def test_fidelity_holds_known_policies_against_their_values_as_a_run_does_and_says_which_it_did_not_train(
    flown: Flown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator that a run calls contradicted is not trusted here either, on the same flights."""
    import pipeline
    from simulator.progress import Progress

    cache = Path(shutil.copytree(flown.cache, tmp_path / "cache"))
    values = "".join(f"{{policy: {name}, metric: reward, value: 100}}, " for name in ("popularity", "linucb", "tuned"))
    options: dict[str, Any] = {"workers": 1, "overrides": [f"evaluate.known=[{values}]"]}
    told = fly(flown.scenario, cache, monkeypatch, **options)
    before = files_of(cache)
    asked = pipeline.fidelity(flown.scenario, out=tmp_path, progress=Progress(None), **options)
    assert files_of(cache) == before
    of_run, here = ({check.name: check for check in one.fidelity.checks} for one in (told, asked))
    name = "known: reward of popularity"
    assert here[name] == of_run[name]
    assert any(reason.startswith(f"{name}: contradicted") for reason in asked.fidelity.reasons)
    for learner in ("linucb", "tuned"):
        name = f"known: reward of {learner}"
        assert of_run[name].outcome == "fail"
        assert here[name].outcome == "not made"
        assert any(name in reason and "no confirmation" in reason for reason in asked.fidelity.reasons)


def test_fidelity_alone_is_written_beside_a_run_and_read_from_the_cache_the_second_time(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipeline
    from simulator.progress import Progress

    scenario, cache, out = write_scenario(tmp_path / "s"), fitted, tmp_path / "runs"
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(cache))
    report = pipeline.fidelity(scenario, out=out, workers=1, progress=Progress(None))
    (path,) = out.rglob("fidelity.json")
    assert Report.read(path).without_seconds() == report.without_seconds()
    assert path.with_suffix(".html").exists()
    assert report.data.holds is not None
    assert report.data.holds.rows == report.data.n_interactions
    assert report.data.holds.exposure == report.data.card["exposure"]
    assert path.parent.name == report.digest[:12]
    assert not list(out.rglob("report.json"))  # a leaderboard ranks agents: this is no run
    before = files_of(cache)
    assert any(one.parent.name == "fidelity" for one in before)
    again = pipeline.fidelity(scenario, out=out, workers=1, progress=Progress(None))
    assert files_of(cache) == before
    assert not any(stage.startswith("fidelity/") for stage in again.seconds)  # no processor second was spent on it
    assert again.without_seconds() == report.without_seconds()


def test_an_agent_that_fails_costs_one_row_and_one_made_elsewhere_has_no_numbers(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = "\n".join(
        f"  - {{name: {name.lower()}, kind: 'agents.py:{name}', train: {{seeds: 1}}}}"
        for name in ("Broken", "Flat", "Shy", "Elsewhere")
    )
    report = fly(write_scenario(tmp_path / "s", extra=extra), fitted, monkeypatch, workers=1)
    rows = {agent.name: agent for agent in report.agents}
    assert "the model file is empty" in (rows["broken"].failed or "")
    assert "shape" in (rows["flat"].failed or "")
    assert rows["linucb"].failed is None
    assert rows["linucb"].simulated["reward"].n == 60
    assert rows["shy"].simulated["reward"].value is not None
    assert rows["shy"].off_policy_check == {}
    assert any("off-policy check" in note and "no scores today" in note for note in rows["shy"].notes)
    unseen = rows["elsewhere"].simulated["reward"]
    assert unseen.value is None
    assert "may have seen these rows" in (unseen.withheld or "")


def test_vet_answers_for_the_candidate_alone_and_names_a_failing_one(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipeline
    from simulator.progress import Progress

    scenario = write_scenario(tmp_path / "s")
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(fitted))
    options = {"workers": 1, "out": tmp_path / "runs", "progress": Progress(None)}
    report = pipeline.vet(scenario, policy="agents.py:Elsewhere", trained_on="nothing", **options)
    assert {gate.agent for gate in report.gates} == {"candidate"}
    with pytest.raises(InputError, match=r"--policy: 'agents.py:Broken' failed: .*the model file is empty"):
        pipeline.vet(scenario, policy="agents.py:Broken", **options)


def test_agents_learn_from_the_train_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training log holds every row of world A's users and no other: no sensitive attribute, no random row."""
    from scenarios.stages.training import training_log
    from simulator.datasets import DataSettings, load_dataset
    from simulator.log import RandomRows, split_users

    folder = write_scenario(tmp_path / "s").parent
    log = load_dataset(DataSettings(source="log.csv", positive="liked", users="users.csv", sensitive=["side"]), folder)
    log = replace(log, random=RandomRows(log.user[:3], log.item[:3], log.primary[:3]))
    split = split_users(log, np.random.SeedSequence(3))
    seen = training_log(log, split)
    assert seen.random is None
    assert set(np.unique(seen.user)) == set(split.users(WORLD_A))
    assert not set(np.unique(seen.user)) & {*split.users(JUDGE), *split.users(HELD_OUT)}
    assert len(seen) == np.isin(log.user, split.users(WORLD_A)).sum()
    assert seen.catalogue.user_attributes == {}
    assert log.catalogue.user_attributes != {}


@pytest.mark.parametrize("kind", ["popularity", "segment_popularity", "cooccurrence", "debiased", "recbole:EASE"])
def test_what_the_judges_users_did_and_are_changes_nothing_that_an_agent_learned(kind: str, tmp_path: Path) -> None:
    """Their answers turned round and their features gone wild: slates and chances are the same to the last bit."""
    from agents.base import Observation, Training
    from agents.loading import AgentSettings, train
    from scenarios.stages.training import training_log
    from simulator.datasets import DataSettings, load_dataset
    from simulator.log import split_users

    folder = write_scenario(tmp_path / "s").parent
    settings = DataSettings(source="log.csv", positive="liked", users="users.csv", policy_inputs=["side"])
    log = load_dataset(settings, folder)
    split = split_users(log, np.random.SeedSequence(3))
    others = np.isin(log.user, split.users(WORLD_A), invert=True)
    wild = log.catalogue.user_features.copy()
    wild[split.role != WORLD_A] = 1e6
    poisoned = replace(
        log,
        primary=np.where(others, 1 - log.primary, log.primary).astype(np.float32),
        catalogue=replace(log.catalogue, user_features=wild),
    )
    rng = np.random.default_rng(4)
    asked = Observation(
        user_features=log.catalogue.user_features[:20],
        history_items=rng.permuted(np.tile(np.arange(40), (20, 1)), axis=1)[:, :8],
        history_feedback=(rng.random((20, 8)) < 0.5).astype(np.float32),
        context=np.zeros((20, 0), np.float32),
        candidates=np.ones((20, 40), bool),
        step=np.zeros(20, np.int64),
        slate_size=3,
    )
    slates = []
    for one in (log, poisoned):
        seen = training_log(one, split)
        training = Training(
            log=seen, catalogue=seen.catalogue, make_env=None, slate_size=3, horizon=4,  # type: ignore[arg-type]
            rng=np.random.default_rng(1), seed=1, budget=None, report=lambda steps, value: None,
        )  # fmt: skip
        agent = train(AgentSettings(name="one", kind=kind), training, Path()).agent
        slates.append(agent.act(asked, np.random.default_rng(2)))
    np.testing.assert_array_equal(*slates)


LEARNERS: dict[str, str] = {
    "recbole:MODEL": "{kind: 'recbole:BPR', train: {steps: 2000}}",
    "rerank:AGENT": "{kind: 'rerank:linucb', train: {steps: 300}}",
    "bert_q": "{params: {adaptation: frozen, num_envs: 8}, train: {steps: 200}}",
    "ppo": "{params: {num_envs: 8, n_steps: 8}, train: {steps: 200}}",
    "maskable_ppo": "{params: {num_envs: 8, n_steps: 8}, train: {steps: 200}}",
    "mixture": "{params: {num_envs: 8, agents: [{kind: popularity}, {kind: cooccurrence}]}, train: {steps: 300}}",
    "uplift": "{params: {trial_steps: 300}}",
    **dict.fromkeys(
        ("behaviour_cloning", "cql", "iql", "decision_transformer", "multimodal"), "{train: {steps: 1500}}"
    ),
    **dict.fromkeys(("maml", "anil", "meta_sgd", "reptile", "prototypical", "fine_tuned"), "{train: {steps: 300}}"),
}
"""How kinds that learn are trained in little time; all others with `{params: {num_envs: 8}}` where they have that."""


def learners() -> list[dict[str, Any]]:
    """An entry for every kind that learns, and one for an agent that is made of one."""
    from importlib import import_module

    from agents.kinds import KINDS

    entries = []
    for name, kind in KINDS.items():
        if kind.learns or name in LEARNERS:
            module, _, settings = kind.settings.partition(":")
            envs = "num_envs" in getattr(import_module(module), settings).model_fields
            given = LEARNERS.get(name, "{params: {num_envs: 8}, train: {steps: 300}}" if envs else "{}")
            entry = {"name": name.partition(":")[0], "kind": name, **yaml.safe_load(given)}
            entries.append({**entry, "train": {"seeds": 1, **entry.get("train", {})}})
    return entries


@pytest.mark.slow
def test_no_answer_of_a_user_who_is_not_a_train_user_reaches_anything_that_any_kind_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer of judge and held-out users turned round: curves and slates of all that learn are the same bits."""
    from agents.kinds import KINDS
    from agents.loading import Trained
    from evaluators.rollout import observation_of
    from scenarios.checking import prepare_scenario
    from scenarios.stages.setting import open_setting
    from scenarios.stages.training import train_agents
    from scenarios.stages.worlds import fit_worlds, load
    from simulator.cache import digest_of
    from simulator.progress import Progress
    from simulator.users import SimulatedUsers

    entries = learners()
    assert {entry["name"] for entry in entries} >= {n.partition(":")[0] for n, kind in KINDS.items() if kind.learns}
    found, judged = [], []
    for turned in (False, True):
        path = write_scenario(tmp_path / str(turned))
        items = ["item,title", *(f"i{i},{'red' if i % 2 else 'blue'} number {i}" for i in range(40))]
        (path.parent / "items.csv").write_text("\n".join(items) + "\n")
        text = yaml.safe_load(path.read_text())
        text["data"] |= {"items": "items.csv", "item_text": ["title"], "policy_inputs": ["side"]}
        text["agents"] = [{"name": "popularity", "kind": "popularity"}, *entries]
        text["preference"]["adaptation"] = "frozen"
        text["gates"] = []
        path.write_text(yaml.safe_dump(text, sort_keys=False))
        monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / f"cache {turned}"))
        prepared = prepare_scenario(path)
        with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
            if turned:
                _turn_round(path.parent / "log.csv", load(setting))
            data = load(setting)
            worlds = fit_worlds(setting, data)
            trained = train_agents(setting, data, worlds, prepared.specs)
        users = SimulatedUsers(worlds.a, 20, seed=4)
        users.start(np.arange(20))
        asked = observation_of(users.observe(), np.arange(20), 3, privileged=False)
        outcome = {}
        for name, several in trained.items():
            for number, one in enumerate(several):
                assert isinstance(one, Trained), (name, one)
                slates = one.agent.act(asked, np.random.default_rng(2)).tolist()
                outcome[name, number] = (one.curve, slates)
        found.append(outcome)
        judged.append(digest_of(worlds.judge_models[0]))
    assert judged[0] != judged[1]  # the answers did reach the models that judge
    assert found[0].keys() == found[1].keys()
    assert [key for key in found[0] if found[0][key] != found[1][key]] == []


def _turn_round(path: Path, data: Any) -> None:
    """Turn every answer of the users who are not train users in a log."""
    others = {data.log.catalogue.user_ids[user] for user in np.flatnonzero(data.split.role != WORLD_A)}
    assert len(others) > 50
    head, *rows = path.read_text().splitlines()
    fields = [row.split(",") for row in rows]
    turned = [[*row[:3], str(1 - int(row[3]))] if row[0] in others else row for row in fields]
    path.write_text("\n".join([head, *(",".join(row) for row in turned)]) + "\n")


def start(scenario: Path, cache: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command as a user types it, in a process group of its own."""
    environment = {**os.environ, "WINDTUNNEL_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, cli.__file__, "run", str(scenario), "--out", str(out), "--workers", "2"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def killed_in(stage: str, scenario: Path, cache: Path, out: Path) -> None:
    """Run until the first result of a stage is stored, then kill every process of the run."""
    process = start(scenario, cache, out)
    deadline = time.monotonic() + 120
    while not any((cache / stage).glob("*.pkl")):
        assert process.poll() is None, f"the run ended with {process.returncode} before {stage} was stored"
        assert time.monotonic() < deadline, f"nothing of {stage} was stored in time"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check_resumption(stages: list[str], whole: Flown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in stages:
        cache, out = tmp_path / stage, tmp_path / f"runs-{stage}"
        killed_in(stage, whole.scenario, cache, out)
        assert not list(out.rglob("report.json"))
        monkeypatch.setenv("WINDTUNNEL_CACHE", str(cache))
        assert cli.main(["run", str(whole.scenario), "--out", str(out), "--workers", "2"]) == 3
        (path,) = out.rglob("report.json")
        assert Report.read(path).without_seconds() == whole.report.without_seconds()


def test_a_run_of_two_workers_killed_while_training_goes_on_to_the_report_of_one(
    flown: Flown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_resumption(["train"], flown, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_run_killed_in_any_stage_goes_on_and_ends_with_the_same_report(
    flown: Flown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_resumption(["fine-tune", "fit", "trials", "train", "fly", "off-policy check"], flown, tmp_path, monkeypatch)
