"""`learned_in`: a meta-learned agent's tasks are sessions in the train worlds of other scenarios.

Sabotaged once, each seen red: users of one source not compared; the other scenario's own seed instead of this run's;
ids without items; items without their words; `~` not expanded where a domain is opened.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline
from scenarios.checking import check_scenario, prepare_scenario
from scenarios.loading import digest
from scenarios.stages.domains import open_domains
from scenarios.stages.setting import open_setting
from scenarios.stages.training import digests_of
from scenarios.stages.worlds import Data, read_log
from simulator.datasets import load_dataset
from simulator.errors import InputError
from simulator.log import WORLD_A, split_users
from simulator.progress import Progress

SCENARIO = """
name: %s
seed: 3
data: {source: %s.csv, items: %s-items.csv, positive: liked == 1, item_text: [title]}
preference: {adaptation: frozen, members: 1, refit_members: 1, dims: [4], epochs: 6, patience: 2, examples: 0}
simulator: {slate_size: 3, horizon: 6}
agents: [{name: random, kind: random}, {name: abroad, kind: %s, params: %s, train: {seeds: 1, steps: 96}}]
evaluate: {baseline: random, worlds: 1, metrics: [reward], adaptation: {interactions: [0, 2, 5]}}
"""
KINDS = ("spade", "rake", "hoe", "novel", "poem", "essay")


def write(folder: Path, name: str, *, params: str = "{}", kind: str = "maml", seed: int = 4, text: bool = True) -> Path:
    """A shop whose users like tools or books; the title of an item says which it is."""
    rng, lines = np.random.default_rng(seed), ["user_id,item_id,liked"]
    for user in range(220):
        for item in rng.choice(36, 14, replace=False):
            fond = (item % 6 < 3) == (user % 2 == 0)
            lines.append(f"{name}-u{user},{name}-{item},{int(rng.random() < (0.9 if fond else 0.1))}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    items = [f"{name}-{item},{KINDS[item % 6] + f' number {item}' if text else ''}" for item in range(36)]
    (folder / f"{name}-items.csv").write_text("\n".join(["item_id,title", *items]) + "\n", encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(SCENARIO % (name, name, name, kind, params), encoding="utf-8")
    return path


def twin_of(scenario: Path, **changes: str) -> None:
    """`twin.yaml` beside a scenario: a copy of it that learns at home, with some of its text changed."""
    text = scenario.read_text(encoding="utf-8").replace("{learned_in: [twin.yaml]}", "{}")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (scenario.parent / "twin.yaml").write_text(text, encoding="utf-8")


def opened(path: Path, *, seed: int | None = None) -> Data:
    """What a run would learn from, after its log is read."""
    prepared = prepare_scenario(path, seed=seed)
    with open_setting(prepared.scenario, prepared.folder, Progress(None), workers=1) as setting:
        return open_domains(setting, read_log(setting), prepared.specs)


def test_each_mistake_in_a_named_scenario_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, "other")
    home = write(tmp_path, "home", params="{learned_in: [nowhere.yaml, home.yaml, other.yaml, wrong.yaml]}")
    (tmp_path / "wrong.yaml").write_text("name: wrong\ndata: {source: other.csv}\nagents: []\n", encoding="utf-8")
    missing, own, *wrong = check_scenario(home)
    assert missing.startswith("agents[1].params.learned_in: 'nowhere.yaml' is no file; name scenarios")
    assert own.startswith("agents[1].params.learned_in: 'home.yaml' is this scenario; leave it out")
    assert len(wrong) == 2
    assert all(line.startswith("agents[1].params.learned_in: 'wrong.yaml': ") for line in wrong)
    assert any("data.positive" in line for line in wrong)


def test_it_is_found_in_an_agent_that_is_made_of_one(tmp_path: Path) -> None:
    home = write(tmp_path, "home", kind="mmr", params="{agent: maml, params: {learned_in: [nowhere.yaml]}}")
    [line] = check_scenario(home)
    assert "'nowhere.yaml' is no file" in line


def test_two_scenarios_may_learn_in_each_other_for_agents_of_the_other_play_no_part(tmp_path: Path) -> None:
    home = write(tmp_path, "home", params="{learned_in: [other.yaml]}")
    other = write(tmp_path, "other", params="{learned_in: [home.yaml]}")
    assert check_scenario(home) == check_scenario(other) == []


def judged_there(path: Path, seed: int | None = None) -> str:
    """The one line that refuses a domain, which `validate` and a run say alike but for the number of the agent."""
    (line,) = check_scenario(path, seed=seed)
    with pytest.raises(InputError) as refused:
        opened(path, seed=seed)
    assert line == f"agents[1].{refused.value}"
    return line


def test_a_domain_that_was_fitted_on_users_by_whom_agents_are_judged_is_refused(tmp_path: Path) -> None:
    """Of another seed the same log has another split: the reviewer counted 45 of 88 judge users in the train world."""
    home = write(tmp_path, "home", params="{learned_in: [twin.yaml]}")
    twin_of(home)
    assert check_scenario(home) == []  # one split: its train users are this scenario's
    said = judged_there(home, seed=4)
    assert said.startswith("agents[1].params.learned_in: 'twin.yaml': data.source: ")
    twin_of(home, **{"seed: 3": "seed: 4"})
    log = load_dataset(prepare_scenario(home).scenario.data, tmp_path)
    here, there = (split_users(log, np.random.SeedSequence(seed)) for seed in (3, 4))
    known = np.setdiff1d(there.users(WORLD_A), here.users(WORLD_A)).size
    assert known > 30
    assert f"{known} of the 121 users by whom agents are judged here are train users there" in judged_there(home)
    items = (tmp_path / "home-items.csv").read_text(encoding="utf-8")
    (tmp_path / "otherwise.csv").write_text(items.replace("number", "No."), encoding="utf-8")
    twin_of(home, **{"seed: 3": "seed: 4", "home-items": "otherwise"})
    assert "are train users there" in judged_there(
        home
    )  # of one source like ids are one person, whatever items are called


def test_they_are_found_in_a_copy_of_the_log_but_like_ids_alone_do_not_make_two_people_one(tmp_path: Path) -> None:
    home = write(tmp_path, "home", params="{learned_in: [twin.yaml]}")
    for kind in ("", "-items"):
        (tmp_path / f"copy{kind}.csv").write_bytes((tmp_path / f"home{kind}.csv").read_bytes())
    twin_of(home, **{"seed: 3": "seed: 4", "home": "copy"})
    assert "are train users there" in judged_there(home)
    items = (tmp_path / "copy-items.csv").read_text(encoding="utf-8")
    more = items.replace(" number", ", number").replace("title\n", "title,more\n")  # a column of text less
    (tmp_path / "copy-items.csv").write_text(more, encoding="utf-8")
    assert "are train users there" in judged_there(home)
    (tmp_path / "copy-items.csv").write_text(items.replace("number", "No."), encoding="utf-8")
    assert check_scenario(home) == []  # the words of the items differ: two shops that number all they have from 0
    (tmp_path / "copy-items.csv").write_text(items, encoding="utf-8")
    write(tmp_path, "other", seed=5)
    other = (tmp_path / "other.csv").read_text(encoding="utf-8").replace("other-", "home-")
    (tmp_path / "copy.csv").write_text(other, encoding="utf-8")
    assert check_scenario(home) == []  # the same shop, but whoever has an id met other things in it


def test_a_domain_is_found_in_the_home_folder_and_its_log_is_read_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.setenv("HOME", str(away))
    home = write(tmp_path, "home", params="{learned_in: [~/twin.yaml]}")
    there = {"source: home": f"source: {tmp_path}/home", "items: home": f"items: {tmp_path}/home"}
    twin_of(home, **{"seed: 3": "seed: 4", "[~/twin.yaml]": "[]", **there})
    (tmp_path / "twin.yaml").rename(away / "twin.yaml")
    assert "'~/twin.yaml': data.source: " in judged_there(home)
    assert "are train users there" in judged_there(home)
    write(away, "twin").with_name("twin.csv").unlink()
    assert "'~/twin.yaml': data.source: " in judged_there(home)
    assert "twin.csv" in judged_there(home)


def test_domains_know_each_others_items_by_text_so_there_must_be_some(tmp_path: Path) -> None:
    write(tmp_path, "other", text=False)
    home = write(tmp_path, "home", params="{learned_in: [other.yaml]}")
    with pytest.raises(InputError, match=r"params.learned_in: 'other.yaml': data.item_text: its items have no text"):
        opened(home)
    assert "its items have no text" in judged_there(home)
    own = home.read_text(encoding="utf-8").replace("{adaptation: frozen", "{encoder: own, adaptation: frozen")
    home.write_text(own, encoding="utf-8")
    assert any("'own' knows this log's texts alone" in line for line in check_scenario(home))


@pytest.mark.slow
def test_what_is_learned_elsewhere_orders_items_here_and_depends_on_what_is_there(tmp_path: Path) -> None:
    """Whoever liked a tool likes tools, here as there; no row of this scenario was learned from."""
    write(tmp_path, "other", seed=5)
    home = write(tmp_path, "home", params="{learned_in: [other.yaml]}")
    home.write_text(home.read_text(encoding="utf-8").replace("steps: 96", "steps: 1600"), encoding="utf-8")
    first = pipeline.run(home, out=tmp_path / "runs", workers=1, progress=Progress(None))
    ordered = {one.agent: one for one in first.adaptation if one.measure == "auc"}
    at_five = ordered["abroad"].points[-1]
    assert at_five.interactions == 5
    assert at_five.value.low is not None
    assert at_five.value.low > 0.65
    scratch = at_five.differences["from_scratch (reference)"]
    assert scratch.low is not None
    assert scratch.low > 0
    before = opened(home)
    assert first.digest == digest(prepare_scenario(home).scenario, before.run_digest)
    write(tmp_path, "other", seed=6)
    after = opened(home)
    assert before.digest == after.digest
    assert before.run_digest != after.run_digest
    [spec] = [one for one in prepare_scenario(home).specs if one.settings.name == "abroad"]
    assert digests_of(spec, before) != digests_of(spec, after)  # of which keys of stored trainings and flights are made


def test_without_domains_the_digest_of_a_run_is_that_of_its_log(tmp_path: Path) -> None:
    data = opened(write(tmp_path, "home"))
    assert data.run_digest == data.digest
    assert replace(data, domains={}).run_digest == data.digest
