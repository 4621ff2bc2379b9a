"""A scenario file to a Scenario: what is right is kept, what is wrong is named all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scenarios.checking import check_scenario
from scenarios.listing import SCENARIOS_FOLDER
from scenarios.loading import (
    CANDIDATE,
    Candidate,
    digest,
    load_scenario,
    resolved,
    set_value,
    world_digest,
)
from scenarios.schema import Scenario
from simulator.errors import InputError, ScenarioError
from simulator.yaml_text import parse_yaml, write_yaml

SMALL = """\
name: small
data: {source: ml-100k, sensitive: [gender]}
agents:
  - {name: random, kind: random}
  - {name: popularity, kind: popularity}
evaluate: {baseline: popularity, fairness: {attributes: [gender]}}
gates:
  - {name: better, rule: "difference(reward, vs=random) > 0", agents: [popularity]}
"""


def write(folder: Path, text: str | bytes, name: str = "scenario.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistakes(folder: Path, text: str | bytes, **more: Any) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(write(folder, text), **more)
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
    return list(caught.value.mistakes)


# ------------------------------------------------------------------------------------------------- what is right


def test_a_gate_may_name_an_intersection_in_quotes_and_only_one_that_is_declared(tmp_path: Path) -> None:
    crossed = SMALL.replace("[gender]}\nagents", "[gender, age]}\nagents").replace(
        "attributes: [gender]", "attributes: [gender], intersections: [[gender, age]]"
    )
    rule = """'worst_group(reward, "gender x age") > 1'"""
    gated = crossed.replace('"difference(reward, vs=random) > 0"', rule)
    assert load_scenario(write(tmp_path, gated)).gates[0].rule == rule.strip("'")
    (line,) = mistakes(tmp_path, gated.replace("[[gender, age]]", "[[age, gender]]"))
    assert "attribute 'gender x age' is not in evaluate.fairness.intersections; it has age x gender" in line


def test_all_but_name_data_and_agents_may_be_left_out(tmp_path: Path) -> None:
    scenario = load_scenario(
        write(tmp_path, "name: a\ndata: {source: ml-100k}\nagents: [{name: random, kind: random}]\n")
    )
    assert scenario.task == "recommend"
    assert scenario.simulator.slate_size == 10
    assert scenario.gates == ()


def test_the_example_of_the_contract_is_read(tmp_path: Path) -> None:
    text = (SCENARIOS_FOLDER / "movielens.yaml").read_text(encoding="utf-8")
    scenario = load_scenario(write(tmp_path, text))
    assert [agent.name for agent in scenario.agents][:3] == ["random", "popularity", "oracle"]
    assert scenario.simulator.examination.sweep == (0.7, 1.0)
    assert scenario.evaluate.baseline == ("popularity",)
    assert scenario.data.sensitive == ["gender", "age"]


@pytest.mark.parametrize("path", sorted(SCENARIOS_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_resolved_scenario_reads_back_as_itself_with_every_default(path: Path, tmp_path: Path) -> None:
    scenario = load_scenario(path)
    text = resolved(scenario)
    assert load_scenario(write(tmp_path, text)) == scenario
    assert yaml.safe_load(text)["simulator"]["history_length"] == scenario.simulator.history_length
    assert set(yaml.safe_load(text)) == set(Scenario.model_fields)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(value=plain)
def test_what_is_written_as_yaml_reads_back_equal(value: Any) -> None:
    assert parse_yaml(write_yaml(value), "text") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("true", True), ("1998-02-01", "1998-02-01"), ("1e5", 100_000),
        ("1e-3", 0.001), ("1.0", 1.0), ("5", 5), ("1:30", "1:30"), ("007", "007"), ("~", None), ("", None),
        ("before 1998-02-01", "before 1998-02-01"),
    ],
)  # fmt: skip
def test_plain_words_mean_what_people_expect(text: str, value: Any) -> None:
    found = parse_yaml(f"x: {text}", "text")["x"]
    assert found == value
    assert isinstance(found, type(value))


# ------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: small", "nam: small", "nam: unknown key; did you mean 'name'?"),
        ("name: small", "", "name: is missing"),
        ("name: small", "name: a/b", "name: 'a/b' is no plain file name"),
        ("name: small", "name: ..", "name: '..' is no plain file name"),
        ("name: small", "name: small\nseed: seven", "seed: 'seven' is no whole number; the default is 0"),
        ("name: small", "name: small\nseed: -1", "seed: '-1' should be greater than or equal to 0"),
        ("name: small", "name: small\nseed: true", "seed: 'true' is no number"),
        ("name: small", "name: small\ntask: serach", "task: 'serach' is not one of recommend"),
        ("name: small", "name: small\nstress: {a: 1}", "stress: a mapping is not built yet; leave it out"),
        ("name: small", "name: small\npreference: {dims: []}", "preference.dims: [] has 0 entries; give at least 1"),
        ("source: ml-100k", "source: ml-100k, category_separator: ''", "separator: '' is empty; the default is ' '"),
        ("source: ml-100k", "source: ml-100k, reward_range: [2, 1]", "data.reward_range: [2, 1]: the least reward"),
        ("kind: random", "kind: random, trained_on: then", "trained_on: 'then' cannot be used; give it (what a"),
        ("name: small", "name: small\nsimulator: {leave: {sweep: [-1]}}", "simulator.leave.sweep[0]: '-1' should be"),
        ("name: small", "name: small\nsimulator: {boredom: {depth: x}}", "boredom.depth: 'x' is no number; the def"),
        ("name: small", "name: small\nsimulator: {boredom: {sweep: x}}", "sweep: 'x' is no list; leave it out, or"),
        ("name: small", "name: small\nsimulator: {slate_siez: 3}", "simulator.slate_siez: unknown key; did you mean"),
        ("name: small", "name: small\nsimulator: 3", "simulator: '3' is no mapping"),
        ("sensitive: [gender]", "sensitive: gender", "data.sensitive: 'gender' is no list"),
        ("source: ml-100k", "positive: rating >= 4", "data.source: is missing"),
        ("kind: random", "kind: random, parms: {}", "agents[0].parms: unknown key; did you mean 'params'?"),
        ("kind: random", "kind: random, train: {steps: lots}", "agents[0].train.steps: 'lots' is no whole number"),
        ("kind: random", "kind: random, params: {a: [1, .nan]}", "agents[0].params.a[1]: 'nan' is not finite"),
        ("kind: random", "kind: random, train: {seconds: .inf}", "agents[0].train.seconds: 'inf' is not finite"),
        ("name: random", "name: popularity", "agents[1].name: 'popularity' is also the name of agents[0]"),
        ("name: random", "name: Popularity", "agents[1].name: 'popularity' is also the name of agents[0]"),
        ("name: random", "name: ../random", "agents[0].name: '../random' is no plain file name"),
        ("baseline: popularity", "baseline: popularty", "evaluate.baseline: 'popularty' is not an agent"),
        ("baseline: popularity", "metrics: [rewad]", "evaluate.metrics: 'rewad' is not a metric; did you mean"),
        ("baseline: popularity", "off_policy: [snipps]", "evaluate.off_policy: 'snipps' is not an estimator"),
        ("baseline: popularity", "off_policy: [ips(klip=1)]", "evaluate.off_policy: 'ips(klip=1)' has no parameter"),
        ("attributes: [gender]", "attributes: [gendre]", "'gendre' is not among data.sensitive; did you mean"),
        ("reward, vs=random", "rewad, vs=random", "gates[0].rule: difference(rewad, vs=random): metric 'rewad'"),
        ("reward, vs=random", "reward, vs=rand", "gates[0].rule: difference(reward, vs=rand): agent 'rand'"),
        ("agents: [popularity]", "agents: [pop]", "gates[0].agents: 'pop' is not an agent of this scenario"),
        ("> 0", "== 0", "gates[0].rule:"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_field_value_and_mend(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in SMALL
    lines = mistakes(tmp_path, SMALL.replace(old, new, 1))
    assert any(said in line for line in lines), lines
    assert len(lines) <= 2  # a wrong name may be missed elsewhere, too


def test_every_mistake_is_named_at_once_across_all_parts(tmp_path: Path) -> None:
    text = """\
name: a b/c
sed: 1
data: {source: ml-100k, max_users: 0, sensitiv: [x]}
preference: {adaptation: all}
simulator: {horizon: 0, examination: {decay: 2}}
agents: [{name: a, kind: random, trian: {}}, {kind: random}, 3]
evaluate: {worlds: no, baseline: b, metrics: [x]}
gates: [{name: g, rule: "mean(click_rate > 1"}]
"""
    fields = [line.partition(":")[0] for line in mistakes(tmp_path, text)]
    assert sorted(fields) == sorted(
        ["sed", "name", "data.max_users", "data.sensitiv", "preference.adaptation", "simulator.horizon",
         "simulator.examination.decay", "agents[0].trian", "agents[1].name", "agents[2]", "evaluate.worlds",
         "gates[0].rule", "evaluate.baseline", "evaluate.metrics"]
    )  # fmt: skip


@pytest.mark.parametrize("agents", ["agents: []", "agents:", "agents: {}", ""])
def test_a_scenario_without_agents_is_refused(agents: str, tmp_path: Path) -> None:
    lines = mistakes(tmp_path, f"name: a\ndata: {{source: ml-100k}}\n{agents}\n")
    assert [line.partition(":")[0] for line in lines] == ["agents"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b\n", "line 2: the key 'name' stands twice, first in line 1"),
        ("data: {source: x, source: y}\n", "line 1: the key 'source' stands twice"),
        ("name: !!python/object/apply:os.system [ls]\n", "is a YAML tag"),
        ("name: !!str a\nseed: !x 3\n", "line 2: '!x' is a YAML tag"),
        ("name: &n a\ntask: *n\n", "line 2: '*n' is a YAML alias"),
        ("name: [a\n", "line 2:"),
        ("- a\n- b\n", "holds a list"),
        ("", "is empty"),
        ("just words", "holds a text"),
        ("name: a\n---\nname: b\n", "mend the YAML"),
        (b"name: \xff\n", "is not UTF-8"),
        ("? [a, b]\n: c\n", "a key is a list or mapping"),
        ("a: " + "[" * 3000 + "]" * 3000, "mend the YAML"),
    ],
)
def test_yaml_that_could_be_misread_is_refused(text: str | bytes, said: str, tmp_path: Path) -> None:
    assert any(said in line for line in mistakes(tmp_path, text))


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, SMALL, "films.yaml")
    with pytest.raises(ScenarioError, match=r"is not there; did you mean 'films\.yaml'\?"):
        load_scenario(tmp_path / "film.yaml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path)


# ------------------------------------------------------------------------------------------------- --set, --seed, vet


def test_overrides_reach_every_depth_lists_and_new_keys(tmp_path: Path) -> None:
    scenario = load_scenario(
        write(tmp_path, SMALL),
        overrides=["evaluate.users=20", "agents[0].params.alpha=1", "agents[popularity].train.seeds=5",
                   "simulator.leave.sweep=[0.5, 1]", "data.sensitive=[gender, age]",
                   "agents[2]={name: z, kind: random}",
                   "agents[2].train={seeds: 2}", "name=other"],
        seed=11,
    )  # fmt: skip
    assert scenario.evaluate.users == 20
    assert scenario.agents[0].params == {"alpha": 1}
    assert scenario.agents[1].train.seeds == 5
    assert scenario.simulator.leave.sweep == (0.5, 1.0)
    assert scenario.data.sensitive == ["gender", "age"]
    assert scenario.agents[2].train.seeds == 2
    assert (scenario.name, scenario.seed) == ("other", 11)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluate.users", "is no key.path=value"),
        ("=3", "is no key.path=value"),
        ("agents[9].name=a", "names entry 9 of 2"),
        ("agents[popularty].name=a", "did you mean 'popularity'?"),
        ("name.first=a", "goes into name, which is a text"),
        ("evaluate.usres=3", "evaluate.usres: unknown key; did you mean 'users'?"),
        ("evaluate.users=.nan", "evaluate.users: 'nan' is not finite"),
        ("evaluate.users=!!int 3", "is a YAML tag"),
    ],
)
def test_an_override_that_cannot_be_followed_is_refused(override: str, said: str, tmp_path: Path) -> None:
    assert any(said in line for line in mistakes(tmp_path, SMALL, overrides=[override]))


@given(value=plain)
def test_a_value_that_is_set_is_the_value_that_stands_there(value: Any) -> None:
    raw: dict[str, Any] = {"a": [{"name": "x", "b": 1}]}
    set_value(raw, f"a[x].b={write_yaml(value)}")
    assert raw == {"a": [{"name": "x", "b": value}]}
    with pytest.raises(InputError):
        set_value(raw, "a.b.c=1")


def test_a_candidate_joins_and_every_gate_is_for_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, SMALL)
    (tmp_path / "here").mkdir()
    write(tmp_path / "here", "class P: ...", "mine.py")
    monkeypatch.chdir(tmp_path / "here")
    vetted = load_scenario(path, candidate=Candidate("mine.py:P", baseline="random", trained_on="nothing"))
    agent = vetted.agent(CANDIDATE)
    assert (agent.kind, agent.trained_on) == ("here/mine.py:P", "nothing")
    assert vetted.evaluate.baseline == ("random",)
    assert [gate.agents for gate in vetted.gates] == [(CANDIDATE,)]
    with pytest.raises(ScenarioError, match="has an agent 'candidate' already"):
        load_scenario(write(tmp_path, SMALL.replace("name: random", "name: candidate")), candidate=Candidate("random"))


# ------------------------------------------------------------------------------------------------- digests


def test_digests_change_with_what_they_cover_and_with_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    base = load_scenario(path)

    def pair(*overrides: str, seed: int | None = None, data: str = "d") -> tuple[str, str]:
        scenario = load_scenario(path, overrides=overrides, seed=seed)
        return digest(scenario, data), world_digest(scenario, data, {"numpy": "2"})

    whole, world = pair()
    assert (whole, world) == (digest(base, "d"), world_digest(base, "d", {"numpy": "2"}))
    assert len(whole) == len(world) == 64
    for override in ("name=b", "agents[0].params.a=1", "gates=[]"):
        other, same = pair(override)
        assert other != whole, override
        assert same == world, override
    for override in ("simulator.horizon=3", "evaluate.users=3", "preference.members=1", "data.sensitive=[gender, age]"):
        other, apart = pair(override)
        assert other != whole, override
        assert apart != world, override
    assert pair(seed=9)[1] != world
    assert pair(data="e")[1] != world
    assert world_digest(base, "d", {"numpy": "3"}) != world
    # A default that is written out changes nothing.
    assert pair("simulator.slate_size=10") == (whole, world)


def test_where_the_log_lies_is_no_part_of_a_digest(tmp_path: Path) -> None:
    here = SMALL.replace("ml-100k", "a/log.csv, positive: click")
    there = SMALL.replace("ml-100k", "/elsewhere/log.csv, positive: click")
    first, second = (load_scenario(write(tmp_path, text)) for text in (here, there))
    assert digest(first, "d") == digest(second, "d")
    assert digest(first, "d") != digest(first, "e")


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("simulator.behaviour", "users.py:Patient"),
        ("simulator.friends.pairs", "friends.csv"),
        ("preference.robustness.synonyms", "words.txt"),
        ("preference.update.model", "preference"),
        ("preference.encoder", "bert"),
    ],
)
def test_where_a_file_of_the_users_lies_is_no_part_of_a_digest_and_its_name_is(
    tmp_path: Path, key: str, file: str
) -> None:
    path = write(tmp_path, SMALL)

    def found(value: str) -> tuple[str, str]:
        scenario = load_scenario(path, overrides=[f"{key}={value}"])
        return digest(scenario, "d"), world_digest(scenario, "d", {"numpy": "2"})

    assert found(f"/here/{file}") == found(f"/there/far/{file}")
    assert set(found(f"/here/{file}")).isdisjoint(found(f"/here/another-{file}"))


# ------------------------------------------------------------------------------------------------- with the log


def test_checking_reads_the_log_and_looks_up_agents_and_encoder(tmp_path: Path) -> None:
    write(tmp_path, "user,item,click,sex\n" + "".join(f"u{n},i{n % 3},{n % 2},f\n" for n in range(12)), "log.csv")
    text = """\
name: a
data: {source: log.csv, positive: clik, sensitive: [sex]}
preference: {encoder: minilmm}
agents: [{name: r, kind: randm}, {name: m, kind: gone.py:M}]
evaluate: {fairness: {attributes: [sex]}}
"""
    fields = [line.partition(":")[0] for line in check_scenario(write(tmp_path, text))]
    assert fields == ["agents[0].kind", "agents[1].kind", "preference.encoder", "data.positive"]
    right = text.replace("clik", "click").replace("minilmm", "minilm").replace("randm", "random")
    lines = check_scenario(write(tmp_path, right.replace(", {name: m, kind: gone.py:M}", "")))
    assert len(lines) == 2
    assert lines[0].startswith("simulator.slate_size: '10' is more than the log's items")
    assert lines[1].startswith("evaluate.fairness.attributes: 'sex' has only 'f'")


def test_shipped_scenarios_are_right_log_and_agents_included() -> None:
    for path in sorted(SCENARIOS_FOLDER.glob("*.yaml")):
        wrong = check_scenario(path)
        if not any("was not found (looked in" in line for line in wrong):  # its dataset does not come with the packages
            assert wrong == [], path.name


def test_where_the_files_of_a_log_lie_is_no_part_of_the_digest(tmp_path: Path) -> None:
    named = {"source": "log.csv", "items": "items.csv", "users": "users.csv", "random": "r.csv", "queries": "s.csv"}
    digests = set()
    for folder in ("", "old/", "/data/new/"):
        data = "\n".join(f"  {key}: {folder}{file}" for key, file in named.items())
        text = f"name: one\ndata:\n{data}\n  positive: liked\nagents:\n  - {{name: random, kind: random}}\n"
        digests.add(digest(load_scenario(write(tmp_path, text)), "content"))
    assert len(digests) == 1
