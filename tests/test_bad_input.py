"""What a user can get wrong, through the command line: one line with field, value and mend, exit 2, nothing written."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import cli

ROWS = [f"u{user},i{item},{100 * user + item},{1 + (user + item) % 5}" for user in range(12) for item in range(12)]
LOG = "\n".join(["user,item,time,rating", *ROWS, ""])
ONE_USER = "\n".join(["user,item,time,rating", *ROWS[:12], ""])
NAN = LOG.replace("u3,i1,301,5", "u3,i1,301,nan")
LATIN = LOG.encode().replace(b"u3", b"\xff3", 1)
AGENT = "class Mine:\n    def act(self, observation, rng):\n        return None\n"
SCENARIO = """\
name: tried
data: {source: log.csv, positive: rating >= 4}
simulator: {slate_size: 2, shown_again: true}
agents:
  - {name: random, kind: random}
  - {name: mine, kind: "mine.py:Mine", trained_on: nothing}
evaluate: {baseline: random}
"""


@dataclass(frozen=True)
class Wrong:
    """A way to go wrong: the scenario's text `old` is `new`, the log or the agent's file is another."""

    field: str
    value: str
    mend: str
    old: str = ""
    new: str = ""
    log: str | bytes = LOG
    agent: str = AGENT


WRONG = {
    "an unknown key": Wrong("simulator.slate_siz", "", "did you mean 'slate_size'?", "slate_size", "slate_siz"),
    "a wrong type": Wrong("simulator.slate_size", "'two'", "whole number", "slate_size: 2", "slate_size: two"),
    "a missing file": Wrong("data.source", "gone.csv' is not there", "scenario's folder", "log.csv", "gone.csv"),
    "a file of nearly that name": Wrong("data.source", "logs.csv' is not there", "'log.csv'?", "log.csv", "logs.csv"),
    "an empty file": Wrong("data.source", "'log.csv'", "empty", log=""),
    "an empty log": Wrong("data.source", "'log.csv'", "no rows", log="user,item,time,rating\n"),
    "a log with one user": Wrong("data.source", "log.csv", "one user", log=ONE_USER),
    "a column twice": Wrong("data.source", "'rating' twice", "", log=LOG.replace("time", "rating", 1)),
    "NaN ratings": Wrong("data.positive", "'nan'", "line 39", log=NAN),
    "a file that is not UTF-8": Wrong("data.source", "'log.csv'", "UTF-8", log=LATIN),
    "an encoder that is not there": Wrong(
        "preference.encoder", "'no/such'", "", "simulator:", "preference: {encoder: no/such}\nsimulator:"
    ),
    "an agent's file that is not there": Wrong("agents[1].kind", "'gone.py:Mine'", "gone.py", "mine.py", "gone.py"),
    "an agent's class that is not there": Wrong("agents[1].kind", "'mine.py:Mien'", "Mine", ":Mine", ":Mien"),
    "an agent that does not compile": Wrong("agents[1].kind", "'mine.py:Mine'", "SyntaxError", agent="def def"),
    "an agent that raises when loaded": Wrong("agents[1].kind", "'mine.py:Mine'", "by zero", agent=AGENT + "1/0"),
    "an agent that cannot act": Wrong("agents[1].kind", "'mine.py:Mine'", "act", agent="class Mine: ..."),
    "an agent that is not known": Wrong("agents[0].kind", "'randm'", "'random'?", "kind: random", "kind: randm"),
    "a slate longer than the catalogue": Wrong("simulator.slate_size", "'99'", "at most 12", "size: 2", "size: 99"),
    "a behaviour that never occurs": Wrong("data.positive", "'rating >= 9'", "never", "rating >= 4", "rating >= 9"),
}  # fmt: skip


def lay_out(folder: Path, wrong: Wrong) -> Path:
    assert wrong.old in SCENARIO
    folder.joinpath("log.csv").write_bytes(wrong.log if isinstance(wrong.log, bytes) else wrong.log.encode())
    folder.joinpath("mine.py").write_text(wrong.agent)
    path = folder / "tried.yaml"
    path.write_text(SCENARIO.replace(wrong.old, wrong.new, 1) if wrong.old else SCENARIO)
    return path


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("command", ["run", "validate", "fidelity"])
@pytest.mark.parametrize("what", WRONG)
def test_bad_input_is_one_line_that_says_what_to_mend(
    what: str, command: str, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = WRONG[what]
    path = lay_out(tmp_path, wrong)
    out = tmp_path / "runs"
    more = [] if command == "validate" else ["--out", str(out)]
    assert cli.main([command, str(path), *more]) == 2
    shown, said = capfd.readouterr()
    assert shown == ""
    (line,) = said.splitlines()
    assert line.startswith(wrong.field), line
    assert wrong.value in line
    assert wrong.mend in line
    assert not out.exists()
    assert files_in(cache) == []


def test_a_policy_that_cannot_be_loaded_is_named_by_its_option(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = lay_out(tmp_path, Wrong("", "", ""))
    assert cli.main(["vet", str(path), "--policy", "gone.py:Mine"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("--policy: 'gone.py:Mine' cannot be loaded; there is no file gone.py")
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "randm"], "--policy: 'randm' is not an agent; did you mean 'random'?"),
        (["--policy", ""], "--policy: '' is empty; give it"),
        (["--policy", "needs.py:Needs"], "--set agents[candidate].params.size: missing; needs.py:Needs needs it"),
        (["--policy", "mine.py:Mine", "--trained-on", "then"], "--trained-on: 'then' cannot be used; give it"),
        (
            ["--policy", "mine.py:Mine", "--trained-on", "before 2001-13-45"],
            "--trained-on: 'before 2001-13-45' names no time; write",
        ),
        (
            ["--policy", "rules", "--set", "agents[candidate].params.rules=[{never: {genre: a}}]"],
            "--set agents[candidate].params.rules[0].never.genre: is nothing known of items",
        ),
    ],
)
def test_what_is_wrong_with_a_policy_is_named_by_the_option_that_gave_it(
    options: list[str], said: str, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was named agents[2].trained_on, an entry that the user's scenario does not have."""
    path = lay_out(tmp_path, Wrong("", "", ""))
    (tmp_path / "needs.py").write_text(
        "class Needs:\n    def __init__(self, size): ...\n    def act(self, o, rng): ...\n"
    )
    assert cli.main(["vet", str(path), *options]) == 2
    assert capfd.readouterr().err.splitlines()[0].startswith(said)


def test_a_column_that_a_treatment_s_log_lacks_is_told_with_those_that_it_has(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path, Wrong("", "", ""))
    assert cli.main(["effect", str(tmp_path / "log.csv"), "--treatment", "segment", "--outcome", "rating"]) == 2
    said = "treatment: 'segment' is not a column of 'log.csv'; it has user, item, time, rating"
    assert capfd.readouterr().err.splitlines() == [said]


def test_a_full_disk_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.json")

    monkeypatch.setattr("pipeline.run", full)
    assert cli.main(["run", str(lay_out(tmp_path, Wrong("", "", "")))]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("disk: No space left on device; free some where runs (--out)")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that exists and takes no files")
def test_a_folder_that_takes_no_files_is_refused_before_the_work(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(lay_out(tmp_path, Wrong("", "", ""))), "--out", "/proc/x"]) == 2
    assert capfd.readouterr().err.splitlines() == [
        "--out: '/proc' cannot be written to; give a folder that can be written to"
    ]


def test_a_choice_that_does_not_exist_is_refused_in_our_words(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "gates"]) == 2
    said = capfd.readouterr().err
    assert "'gates' is not one of 'agents'" in said
    assert "Value error" not in said


def test_what_is_right_about_the_table_above_is_found_right(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = lay_out(tmp_path, Wrong("", "", ""))
    assert cli.main(["validate", str(path)]) == 0
    assert re.match(r".*tried\.yaml: ok\n", capfd.readouterr().out)


@pytest.mark.parametrize("command", ["run", "fidelity"])
def test_a_cache_that_cannot_be_written_is_refused_before_any_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = lay_out(tmp_path, Wrong("", "", ""))
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "log.csv"))
    assert cli.main([command, str(path), "--out", str(tmp_path / "runs")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("WINDTUNNEL_CACHE: '")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--out", "--html"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    option: str, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = lay_out(tmp_path, Wrong("", "", ""))
    place = str(tmp_path / "log.csv" / "deeper" / "still")
    command = ["run", str(path)] if option == "--out" else ["leaderboard", str(tmp_path)]
    assert cli.main([*command, option, place]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{option}: '{tmp_path / 'log.csv'}' is no folder")
    assert files_in(cache) == []
