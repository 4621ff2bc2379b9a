"""The command line: exit codes, what goes to which stream, and that nothing heavy is imported for `--help`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cli
from scenarios.listing import LISTS
from simulator.errors import InputError, ScenarioError

PROJECT = Path(cli.__file__).resolve().parent
SMALL = """\
name: small
data: {source: ml-100k, max_users: 60, max_items: 60}
agents: [{name: random, kind: random}, {name: popularity, kind: popularity}]
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


class FakeReport(SimpleNamespace):
    """What the commands ask of a report."""

    def to_json_text(self) -> str:
        return json.dumps({"verdict": self.verdict})

    def as_text(self, *, html: str | None = None, width: int = 80) -> str:
        return f"the verdict is {self.verdict}, page {html}"


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the pipeline: keeps what it was called with and answers with `report`."""
    fake = SimpleNamespace(calls=[], report=report("pass"), error=None)

    def called(name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            fake.calls.append((name, args, options))
            print("noise of a library")  # noqa: T201 - that is the point
            if fake.error is not None:
                raise fake.error
            return fake.report

        return call

    for name in ("run", "vet", "fidelity"):
        setattr(fake, name, called(name))
    monkeypatch.setitem(sys.modules, "pipeline", fake)
    return fake


def report(verdict: str, *, trusted: bool = True) -> FakeReport:
    code = {"pass": 0, "fail": 1, "undecided": 3}[verdict]
    return FakeReport(
        verdict=verdict, exit_code=code, name="small", digest="0" * 64, fidelity=SimpleNamespace(trusted=trusted)
    )


# ------------------------------------------------------------------------------------------------- exit codes, streams


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("undecided", 3)])
@pytest.mark.parametrize("command", [["run"], ["vet", "--policy", "random"]])
def test_the_exit_code_is_the_verdict(
    command: list[str], verdict: str, code: int, pipeline: SimpleNamespace, scenario: Path
) -> None:
    pipeline.report = report(verdict)
    assert cli.main([command[0], str(scenario), *command[1:]]) == code


def test_fidelity_ends_with_3_where_the_simulator_is_not_trusted(pipeline: SimpleNamespace, scenario: Path) -> None:
    assert cli.main(["fidelity", str(scenario)]) == 0
    pipeline.report = report("pass", trusted=False)
    assert cli.main(["fidelity", str(scenario)]) == 3


def test_json_stands_alone_on_stdout_whatever_libraries_print(
    pipeline: SimpleNamespace, scenario: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.main(["run", str(scenario), "--json"])
    out, err = capfd.readouterr()
    assert json.loads(out) == {"verdict": "pass"}
    assert "noise of a library" in err


def test_noise_of_the_c_level_and_of_children_goes_to_stderr_too(capfd: pytest.CaptureFixture[str]) -> None:
    with cli._stdout_is_for_the_result() as result:
        subprocess.run(["echo", "from a child"], check=True)
        result.write("the result\n")
    print("afterwards")  # noqa: T201 - that is the point
    out, err = capfd.readouterr()
    assert out == "the result\nafterwards\n"
    assert err == "from a child\n"


def test_options_reach_the_pipeline(pipeline: SimpleNamespace, scenario: Path, tmp_path: Path) -> None:
    options = [
        "--out",
        str(tmp_path),
        "--seed",
        "3",
        "--workers",
        "2",
        "--engine",
        "dask",
        "--set",
        "a=1",
        "--set",
        "b=2",
        "--tensorboard",
        str(tmp_path / "curves"),
        "--wandb",
        "films",
        "--mlflow",
        "http://host:5000",
    ]
    cli.main(["run", str(scenario), *options])
    cli.main(["vet", str(scenario), "--policy", "p.py:P", "--baseline", "b", "--trained-on", "nothing", *options])
    (run, args, given), (vet, _, more) = pipeline.calls
    given.pop("progress")
    more.pop("progress")
    assert (run, vet, args) == ("run", "vet", (scenario,))
    assert given.pop("tensorboard") == more.pop("tensorboard") == tmp_path / "curves"
    assert (given.pop("wandb"), given.pop("mlflow")) == ("films", "http://host:5000")
    assert (more.pop("wandb"), more.pop("mlflow")) == ("films", "http://host:5000")
    assert given == {"out": tmp_path, "seed": 3, "workers": 2, "engine": "dask", "overrides": ["a=1", "b=2"]}
    assert more == {**given, "policy": "p.py:P", "baseline": "b", "trained_on": "nothing"}


@pytest.mark.parametrize("error", [InputError("a.b: 'c' is wrong; mend it"), ScenarioError(["x: one", "y: two"])])
def test_bad_input_is_its_lines_on_stderr_and_2(
    error: InputError, pipeline: SimpleNamespace, scenario: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline.error = error
    assert cli.main(["run", str(scenario), "--json"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"noise of a library\n{error}\n"


def test_an_interrupt_ends_with_130_and_a_fault_of_ours_with_70_and_its_traceback(
    pipeline: SimpleNamespace, scenario: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline.error = KeyboardInterrupt()
    assert cli.main(["run", str(scenario)]) == 130
    assert "goes on where it stopped" in capfd.readouterr().err
    pipeline.error = ZeroDivisionError("ours")
    assert cli.main(["run", str(scenario)]) == 70  # and not 1, which says that a gate failed
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: ours" in said


@pytest.mark.parametrize(
    "arguments",
    [["rnu"], ["run"], ["run", "a.yaml", "--wrokers", "2"], ["run", "a.yaml", "--workers", "x"], ["list", "x"]],
)
def test_a_command_line_that_is_wrong_ends_with_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "Error" in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------- commands of its own


def test_dry_run_prints_the_resolved_scenario_and_stops(
    pipeline: SimpleNamespace, scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from scenarios.loading import load_scenario

    assert cli.main(["run", str(scenario), "--dry-run", "--seed", "5", "--set", "evaluate.users=9"]) == 0
    text = capfd.readouterr().out
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(text)
    read = load_scenario(resolved)
    assert (read.seed, read.evaluate.users, read.simulator.slate_size) == (5, 9, 10)
    assert cli.main(["vet", str(scenario), "--policy", "popularity", "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["agents"][-1]["name"] == "candidate"
    assert pipeline.calls == []


def test_validate_names_all_mistakes_of_all_files(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SMALL.replace("max_users", "max_usrs").replace("kind: popularity", "kind: popularty"))
    assert cli.main(["validate", str(scenario)]) == 0
    ok, detectable, few = capfd.readouterr().out.splitlines()
    assert ok == f"{scenario}: ok"
    assert detectable.startswith("  random, popularity: smallest detectable difference: about")
    assert few.startswith("  simulator.shown_again: false leaves half of the users 50 of 60 items")
    assert cli.main(["validate", str(scenario), str(wrong)]) == 2
    out, err = capfd.readouterr()
    assert out.startswith(f"{scenario}: ok\n")
    assert str(wrong) not in out
    assert [line.removeprefix(f"{wrong}: ").partition(":")[0] for line in err.splitlines()] == [
        "data.max_usrs", "agents[1].kind"
    ]  # fmt: skip
    assert cli.main(["validate", "--json", str(wrong)]) == 2
    (found,) = json.loads(capfd.readouterr().out)
    assert (len(found["mistakes"]), found["advice"]) == (2, [])


def test_schema_is_a_json_schema_that_knows_every_key(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert {"name", "data", "agents", "simulator", "evaluate", "gates"} <= set(document["properties"])
    assert document["additionalProperties"] is False


@pytest.mark.parametrize("what", sorted(LISTS))
def test_lists_are_one_line_each_and_the_same_as_json(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", what]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert cli.main(["list", what, "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)
    assert all({"name", "about"} <= set(entry) for entry in entries)
    assert len(entries) == len(lines) > 0
    assert all(line.startswith(entry["name"]) for line, entry in zip(lines, entries, strict=True))
    assert all(entry["about"] for entry in entries)


def test_list_takes_what_there_are_lists_of() -> None:
    assert {member.value for member in cli.Listed} == set(LISTS)


def test_data_says_where_a_dataset_is_and_whether_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "check", "ml-100k"]) == 0
    assert "whole" in capfd.readouterr().out
    assert cli.main(["data", "fetch", "ml-100k"]) == 0
    assert cli.main(["data", "check", "ml-100"]) == 2
    assert "did you mean 'ml-100k'?" in capfd.readouterr().err
    (tmp_path / "ml-100k").mkdir()
    monkeypatch.setenv("WINDTUNNEL_DATA", str(tmp_path))
    assert cli.main(["data", "list"]) == 0
    assert "missing or changed" in capfd.readouterr().out
    assert cli.main(["data", "check"]) == 2
    capfd.readouterr()
    assert cli.main(["data", "list", "--json"]) == 0
    (found,) = (row for row in json.loads(capfd.readouterr().out) if row["name"] == "ml-100k")
    assert found["whole"] is False
    assert found["folder"] == str(tmp_path / "ml-100k")


@pytest.mark.parametrize("text", ["1,0", "0", "a,b", "0,inf", "nan,1"])
def test_a_reward_range_that_is_none_is_refused(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ope", "log.npz", "--reward-range", text]) == 2
    assert "--reward-range" in capfd.readouterr().err


def test_ope_estimates_from_a_file_and_withheld_ends_with_3(
    tmp_path: Path, rng: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    n = 400
    action = rng.integers(0, 2, n)
    np.savez(tmp_path / "log.npz", action=action, reward=rng.integers(0, 2, n).astype(float), pscore=np.full(n, 0.5))
    np.savez(tmp_path / "even.npz", pi_e=np.full((n, 2), 0.5))
    asked = ["ope", str(tmp_path / "log.npz"), "--policy", str(tmp_path / "even.npz"), "--json"]
    assert cli.main([*asked, "--estimator", "ips", "--estimator", "snips"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert list(document["estimates"]) == ["ips", "snips"]
    assert (document["record"], document["n"]) == ("bandit", n)
    assert cli.main([*asked, "--estimator", "dr"]) == 3  # no q_hat and no context to fit one from


# ------------------------------------------------------------------------------------------------- start


def test_help_imports_nothing_heavy_and_every_command_shows_an_example() -> None:
    heavy = ("numpy", "pandas", "torch", "scipy", "pydantic", "pyarrow", "numba", "gymnasium", "rich.console")
    code = (
        f"import os, sys, cli; cli.main(['--help']); print(sorted(m for m in {heavy} if m in sys.modules),"
        "*(os.environ[name + '_NUM_THREADS'] for name in ('OMP', 'OPENBLAS', 'MKL')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True, env={})
    assert done.stdout.splitlines()[-1] == "[] 1 1 1"
    assert "Example: windtunnel run" in done.stdout


@pytest.mark.parametrize(
    "command",
    ["run", "vet", "fidelity", "validate", "schema", "list", "ope", "effect", "leaderboard", "report", "bench",
     "ablation", "explain", "data list", "data check", "data fetch", "cache list", "cache prune"],
)  # fmt: skip
def test_the_help_of_every_command_has_an_example_and_json(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    shown = capfd.readouterr().out
    assert f"Example: windtunnel {command}" in shown
    assert "--json" in shown


def test_the_cache_is_listed_and_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from simulator.cache import StageCache

    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    StageCache(tmp_path).store("train", "a" * 64, [1, 2, 3])

    def answer(*arguments: str) -> tuple[int, str, str]:
        return cli.main(["cache", *arguments]), *capfd.readouterr()

    code, out, _ = answer("list", "--json")
    assert (code, [(s["stage"], s["results"]) for s in json.loads(out)["stages"]]) == (0, [("train", 1)])
    code, _, err = answer("prune", "--stage", "trian")
    assert (code, "'trian' is not in the cache" in err) == (2, True)
    assert json.loads(answer("prune", "--json")[1])["removed"] == 0  # used just now
    assert json.loads(answer("prune", "--days", "0", "--json")[1])["removed"] == 1
