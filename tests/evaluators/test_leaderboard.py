"""Runs are compared only within one set of worlds, by user, and ranked as the agents of one run are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from evaluators.comparison import AgentValues
from evaluators.leaderboard import Board, Leaderboard, leaderboard
from evaluators.ranking import rank_agents
from evaluators.report import AgentSection, EstimateModel
from simulator.errors import InputError
from tests.evaluators.example_report import about, example_report

USERS = 60
WORLDS = "a" * 64


def values(mean: float, seed: int, seeds: int = 1, worlds: int = 2) -> NDArray[np.float64]:
    """[T, M, U] values around a mean, with a part that all agents share: the user."""
    taste = np.random.default_rng(0).normal(0, 3, USERS)
    own = np.random.default_rng(seed)
    return mean + taste + own.normal(0, 0.3, (seeds, 1, 1)) + own.normal(0, 0.5, (seeds, worlds, USERS))


def users_table(agents: Mapping[str, NDArray[np.float64]], user: NDArray[np.int64]) -> pa.Table:
    """Rows as a run writes them: two simulation seeds, of which the values [T, M, U] are the mean."""
    tables = []
    for name, per_user in agents.items():
        seed, world, place = (index.ravel() for index in np.indices(per_user.shape))
        for simulation, off in ((0, -1.0), (1, 1.0)):
            columns = {
                "agent": np.full(len(place), name),
                "training_seed": seed,
                "world": world + 1,
                "seed": np.full(len(place), simulation),
                "user": user[place],
                "reward": per_user.ravel() + off,
            }
            tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def leave_run(
    folder: Path,
    digest: str,
    agents: Mapping[str, NDArray[np.float64]],
    *,
    world_digest: str = WORLDS,
    users: NDArray[np.int64] | None = None,
    table: bool = True,
    settings: Mapping[str, object] | None = None,
    **changes: object,
) -> Path:
    """A folder as a run leaves it."""
    folder.mkdir(parents=True)
    sections = [
        AgentSection(
            name=name,
            kind=name,
            role="bound" if name == "oracle" else "policy",
            simulated={"reward": about(float(per_user.mean()), 0.5)},
        )
        for name, per_user in agents.items()
    ]
    report = example_report(
        digest=digest * 64,
        world_digest=world_digest,
        agents=sections,
        ranking=[],
        comparisons=[],
        scenario={"task": "recommend", "agents": [{"name": name, **(settings or {})} for name in agents]},
        **changes,
    )
    (folder / "report.json").write_text(report.to_json_text(), encoding="utf-8")
    if table:
        user = np.arange(USERS) * 3 if users is None else users
        parquet.write_table(users_table(agents, user), folder / "users.parquet")
    return folder


def only(found: Leaderboard) -> Board:
    assert len(found.boards) == 1
    return found.boards[0]


def places(board: Board) -> dict[str, tuple[int, int] | None]:
    return {e.agent: (e.rank.rank_low, e.rank.rank_high) if e.rank else None for e in board.entries}


def test_agents_of_two_runs_are_paired_by_user_and_ranked_as_in_one_run(tmp_path: Path) -> None:
    """The taste of a user has 10 times the spread of the difference: unpaired, these agents are not separated."""
    a, b, c = values(10.0, 1), values(10.4, 2, seeds=3), values(12.0, 3)
    leave_run(tmp_path / "one", "1", {"a": a, "b": b})
    leave_run(tmp_path / "two", "2", {"c": c, "a": a})
    board = only(leaderboard(tmp_path))
    together = rank_agents({"a": AgentValues(a), "b": AgentValues(b, True), "c": AgentValues(c)})
    assert places(board) == {rank.agent: (rank.rank_low, rank.rank_high) for rank in together}
    assert places(board)["c"] == (1, 1)
    assert board.entries[0].agent == "c"
    assert {entry.agent: len(entry.runs) for entry in board.entries} == {"a": 2, "b": 1, "c": 1}


def test_equal_agents_of_two_runs_share_a_tie_group(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1), "low": values(5.0, 4)})
    leave_run(tmp_path / "two", "2", {"b": values(10.0, 2)})
    board = only(leaderboard(tmp_path))
    groups = {entry.agent: entry.rank.tie_group for entry in board.entries if entry.rank}
    assert groups == {"a": 1, "b": 1, "low": 2}
    assert places(board)["low"] == (3, 3)


def test_a_shuffled_table_of_users_is_paired_all_the_same(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1)})
    folder = leave_run(tmp_path / "two", "2", {"b": values(10.6, 2)})
    before = leaderboard(tmp_path).to_json()
    table = parquet.read_table(folder / "users.parquet")
    order = np.random.default_rng(1).permutation(table.num_rows)
    parquet.write_table(table.take(order), folder / "users.parquet")
    assert leaderboard(tmp_path).to_json() == before
    assert places(only(leaderboard(tmp_path))) == {"b": (1, 1), "a": (2, 2)}


def test_runs_in_different_worlds_are_never_on_one_board(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1), "b": values(9.0, 3)})
    leave_run(tmp_path / "two", "2", {"c": values(10.0, 2)}, world_digest="b" * 64)
    found = leaderboard(tmp_path)
    assert [(board.world_digest[0], [e.agent for e in board.entries]) for board in found.boards] == [
        ("a", ["a", "b"]),
        ("b", ["c"]),
    ]


def test_agents_of_one_name_and_other_settings_are_two_entries(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1)})
    leave_run(tmp_path / "two", "2", {"a": values(11.0, 2)}, settings={"params": {"alpha": 2}})
    assert set(places(only(leaderboard(tmp_path)))) == {"a (movielens 11111111)", "a (movielens 22222222)"}


def test_a_copy_of_a_run_counts_once(tmp_path: Path) -> None:
    a = values(10.0, 1)
    leave_run(tmp_path / "one", "1", {"a": a})
    leave_run(tmp_path / "copy" / "of" / "one", "1", {"a": a})
    board = only(leaderboard(tmp_path))
    assert [entry.runs for entry in board.entries] == [("movielens 11111111",)]


@pytest.mark.parametrize("broken", ["missing", "rubbish", "columns", "users", "worlds"])
def test_a_run_that_cannot_be_paired_is_listed_with_the_reason_and_no_place(tmp_path: Path, broken: str) -> None:
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1), "b": values(11.0, 2)})
    other = {"c": values(20.0, 3, worlds=3 if broken == "worlds" else 2)}
    users = np.arange(USERS) if broken == "users" else None
    folder = leave_run(tmp_path / "two", "2", other, users=users, table=broken != "missing")
    if broken == "rubbish":
        (folder / "users.parquet").write_bytes(b"no parquet")
    if broken == "columns":
        parquet.write_table(pa.table({"agent": ["c"]}), folder / "users.parquet")
    board = only(leaderboard(tmp_path))
    assert places(board) == {"b": (1, 1), "a": (2, 2), "c": None}
    reason = {
        "missing": "no users.parquet beside",
        "rubbish": "cannot be read",
        "columns": "has no column training_seed, world, user and reward",
        "users": "other users or worlds",
        "worlds": "other users or worlds",
    }[broken]
    assert any(note.startswith("c: no place") and reason in note for note in board.notes)


def test_the_oracle_bounds_the_board_from_the_place_that_the_report_gives_it_and_a_failure_says_why(
    tmp_path: Path,
) -> None:
    folder = leave_run(tmp_path / "one", "1", {"oracle": values(30.0, 1), "a": values(10.0, 2), "b": values(1.0, 3)})
    text = (folder / "report.json").read_text()
    report = example_report().read(folder / "report.json")
    failed = AgentSection(name="mine", kind="my.py:Mine", failed="act: a slate of the wrong shape")
    (folder / "report.json").write_text(report.model_copy(update={"agents": [*report.agents, failed]}).to_json_text())
    assert text != (folder / "report.json").read_text()
    board = only(leaderboard(tmp_path))
    assert places(board) == {"oracle": (1, 1), "a": (2, 2), "b": (3, 3), "mine": None}
    assert any("mine: no place, failed: act: a slate of the wrong shape" in note for note in board.notes)
    assert any(note.startswith("oracle is a bound, not a policy") for note in board.notes)


def test_an_agent_whose_value_is_withheld_takes_no_place(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "one", "1", {"a": values(10.0, 1), "b": values(30.0, 2)})
    report = example_report().read(folder / "report.json")
    seen = EstimateModel(value=None, withheld="policy may have seen these rows", method="m")
    b = report.agents[1].model_copy(update={"simulated": {"reward": seen}})
    (folder / "report.json").write_text(report.model_copy(update={"agents": [report.agents[0], b]}).to_json_text())
    board = only(leaderboard(tmp_path))
    assert places(board) == {"a": (1, 1), "b": None}
    assert any("policy may have seen these rows" in note for note in board.notes)


def test_a_simulator_that_is_not_trusted_is_said_on_the_board(tmp_path: Path) -> None:
    fidelity = example_report().fidelity.model_copy(update={"trusted": False})
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1)}, fidelity=fidelity)
    assert any("simulator not trusted in movielens 11111111" in note for note in only(leaderboard(tmp_path)).notes)


def test_a_report_that_cannot_be_read_is_skipped_by_name_and_a_folder_without_any_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        leaderboard(tmp_path / "none")
    with pytest.raises(InputError, match="no report that can be read"):
        leaderboard(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        leaderboard(tmp_path)
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1)})
    found = leaderboard(tmp_path)
    assert len(found.boards) == len(found.skipped) == 1


def test_text_and_page_show_places_and_escape_names(tmp_path: Path) -> None:
    script = "<script>x</script>"
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1), script: values(5.0, 2)})
    page = tmp_path / "pages" / "board.html"
    found = leaderboard(tmp_path, page)
    lines = [" ".join(line.split()) for line in found.as_text().splitlines()]
    assert any(line.startswith("1 1 a ") for line in lines)
    assert max(len(line) for line in found.as_text().splitlines()) <= 80
    html = page.read_text(encoding="utf-8")
    assert script not in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html


def test_agents_left_out_by_kind_take_no_place_and_an_unknown_metric_is_named(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", "1", {"a": values(10.0, 1), "b": values(5.0, 2), "c": values(1.0, 3)})
    board = only(leaderboard(tmp_path, shown=lambda kind: kind != "a"))
    assert places(board) == {"b": (1, 1), "c": (2, 2)}
    assert any("left out" in note for note in board.notes)
    with pytest.raises(InputError, match="--metric: 'clicks' is in none of the reports; they have "):
        leaderboard(tmp_path, metric="clicks")
    by_coverage = only(leaderboard(tmp_path, metric="coverage"))
    assert by_coverage.metric == "coverage"
    assert any("not the primary metric" in note for note in by_coverage.notes)
