"""Every report under a folder in one table per `world_digest`: what was judged in the same worlds, and only that.

Two runs that share data, task, preference model, simulator, evaluation, seed and versions flew the same users with the
same luck. Beside its report a run leaves `users.parquet` with every user's value; agents of different runs are paired
by it, user by user, and ranked by the same rules as the agents of one run. Where a run has left no such table, its
agents are listed with their values and without a place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.comparison import AgentValues, Rules
from evaluators.metrics import METRICS
from evaluators.ranking import Rank, rank_agents
from evaluators.report import AgentSection, EstimateModel, Report
from evaluators.wording import counted, listing
from simulator.errors import InputError

if TYPE_CHECKING:
    from rich.console import Group as Renderables

REPORT, USERS = "report.json", "users.parquet"
KEYS = ("agent", "training_seed", "world", "user")
"""Columns of the table of users beside those of the metrics; several rows of one key are averaged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent of one run.

    Attributes:
        agent: its name. kind: what it is. trained_on: what it has seen.
        runs: names and digests of the runs that it comes from, shortened; several where it is the same in each.
        value: primary metric in the judge worlds; None where the agent failed.
        rank: places it may hold among the entries of the board; None where it is not paired with the others.
        why_no_rank: the reason then.
        trusted: whether the simulator of its run is trusted.
        bound: True for the oracle, which bounds what is reachable: it holds a place, as in the report.
    """

    agent: str
    kind: str
    trained_on: str
    runs: tuple[str, ...]
    value: EstimateModel | None
    rank: Rank | None
    why_no_rank: str | None
    trusted: bool
    bound: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        out: dict[str, Any] = {
            "agent": self.agent,
            "kind": self.kind,
            "trained_on": self.trained_on,
            "runs": list(self.runs),
            "value": None if self.value is None else self.value.model_dump(mode="json"),
            "trusted": self.trusted,
        }
        if self.rank is not None:
            out |= {"rank_low": self.rank.rank_low, "rank_high": self.rank.rank_high, "tie_group": self.rank.tie_group}
        else:
            out["why_no_rank"] = self.why_no_rank
        return out


@dataclass(frozen=True, slots=True)
class Board:
    """All agents that were judged in the same worlds.

    Attributes:
        world_digest: what the runs share.
        source: dataset. task: what the agents did. metric: by what they are ranked. seed: of the scenario.
        entries: by place, then by value; agents without a place last.
        notes: what the reader has to know.
    """

    world_digest: str
    source: str
    task: str
    metric: str
    seed: int
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "world_digest": self.world_digest,
            "source": self.source,
            "task": self.task,
            "metric": self.metric,
            "seed": self.seed,
            "entries": [entry.to_json() for entry in self.entries],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Boards, one for each `world_digest`, largest first; reports that could not be read are `skipped` with reasons."""

    boards: tuple[Board, ...]
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"boards": [board.to_json() for board in self.boards], "skipped": list(self.skipped)}

    def renderable(self) -> Renderables:
        """The boards for a console."""
        from evaluators.report_text import boards

        return boards(self)

    def as_text(self, *, width: int = 80) -> str:
        """The boards as plain text."""
        from evaluators.report_text import to_text

        return to_text(self.renderable(), width)

    def as_html(self) -> str:
        """The boards as one page without network or scripts; all names are escaped."""
        from evaluators.page import render_leaderboard

        return render_leaderboard(self)


def leaderboard(
    folder: Path,
    html: Path | None = None,
    *,
    metric: str | None = None,
    shown: Callable[[str], bool] | None = None,
) -> Leaderboard:
    """Compare every report under a folder; what was not judged in the same worlds stands in boards of its own.

    Args:
        folder: searched with all its subfolders for `report.json`.
        html: where to write the page; None writes none.
        metric: by which agents are ranked; default each board's primary one.
        shown: of a kind of agent, whether it is on the boards; places are among those shown. Default all.

    Raises:
        InputError: the folder is not there, has no report that can be read, or none with the metric.
    """
    if not folder.is_dir():
        raise InputError(f"leaderboard: '{folder}' is not a folder; give the one that `run --out` wrote to (runs)")
    runs: dict[str, _Run] = {}
    skipped: list[str] = []
    for path in sorted(folder.rglob(REPORT)):
        try:
            run = _Run(Report.read(path), path.parent)
        except InputError as error:
            skipped.append(str(error))
            continue
        runs.setdefault(run.report.digest, run)  # a copy of a run is the same run
    if not runs:
        why = f" ({skipped[0]})" if skipped else ""
        raise InputError(f"leaderboard: no report that can be read under '{folder}'{why}; run a scenario first")
    groups: dict[str, list[_Run]] = {}
    for run in runs.values():
        groups.setdefault(run.report.world_digest, []).append(run)
    measured = sorted({name for run in runs.values() for name in run.report.metrics})
    if metric is not None and metric not in measured:
        raise InputError(f"--metric: '{metric}' is in none of the reports; they have {', '.join(measured)}")
    boards = [
        _board(digest, group, metric, shown)
        for digest, group in groups.items()
        if metric is None or any(metric in run.report.metrics for run in group)
    ]
    boards.sort(key=lambda board: (-len(board.entries), board.source, board.world_digest))
    found = Leaderboard(tuple(boards), tuple(skipped))
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(found.as_html(), encoding="utf-8")
    return found


# ------------------------------------------------------------------------------------------------ the table of users


@dataclass(frozen=True, slots=True)
class _Users:
    """The table of one run on one metric: agent -> [T, M, U], and the users [U] that the last axis stands for."""

    user: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class _Run:
    """A report and the folder it lies in."""

    report: Report
    folder: Path

    @property
    def label(self) -> str:
        """Name and short digest."""
        return f"{self.report.name} {self.report.digest[:8]}"

    def users(self, metric: str) -> _Users | str:
        """The users' values on a metric, or why there are none."""
        from pyarrow import ArrowInvalid, parquet

        path = self.folder / USERS
        if not path.is_file():
            return f"no {USERS} beside the report of {self.label}; run the scenario again"
        try:
            table = parquet.read_table(path)
        except (ArrowInvalid, OSError):
            return f"{USERS} of {self.label} cannot be read; run the scenario again"
        lacks = [name for name in (*KEYS, metric) if name not in table.column_names]
        if lacks:
            return f"{USERS} of {self.label} has no column {listing(lacks)}; run the scenario again"
        agent = np.asarray(table["agent"].to_pylist(), dtype=str)
        seed, world, user = (table[name].to_numpy() for name in KEYS[1:])
        value = table[metric].to_numpy(zero_copy_only=False).astype(np.float64)
        users, place = np.unique(user, return_inverse=True)
        worlds, world_at = np.unique(world, return_inverse=True)
        values = {}
        for name in np.unique(agent):
            rows = np.flatnonzero(agent == name)
            seeds, seed_at = np.unique(seed[rows], return_inverse=True)
            shape = (len(seeds), len(worlds), len(users))
            cell = np.ravel_multi_index((seed_at, world_at[rows], place[rows]), shape)
            # Simulation seeds and repeated sessions only cut noise: they average within the user.
            total, count = (np.bincount(cell, weights, math.prod(shape)) for weights in (value[rows], None))
            values[str(name)] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0).reshape(shape)
        return _Users(users, values)


# ------------------------------------------------------------------------------------------------------- the boards


@dataclass(slots=True)
class _Candidate:
    """An agent before it is ranked."""

    section: AgentSection
    run: _Run
    per_user: NDArray[np.float64] | None
    why_not: str | None
    runs: list[str] = field(default_factory=list)


def _board(digest: str, runs: Sequence[_Run], wanted: str | None, shown: Callable[[str], bool] | None) -> Board:
    first = runs[0].report
    primary = first.primary_metric or next((m for run in runs if (m := run.report.primary_metric)), "reward")
    metric = wanted or primary
    candidates = {
        key: one for key, one in _candidates(runs, metric).items() if shown is None or shown(one.section.kind)
    }
    labels = _labels(candidates)
    ranked = {
        labels[key]: AgentValues(one.per_user, _learns(one.section, one.per_user), _planned(one.run.report))
        for key, one in candidates.items()
        if one.per_user is not None and one.why_not is None
    }
    row = METRICS.get(metric)
    higher = row.higher_is_better if row else True
    rules = Rules(rewarded=row.of == "user") if row else None
    ranks = {rank.agent: rank for rank in rank_agents(ranked, higher_is_better=higher, rules=rules)} if ranked else {}
    entries = [
        Entry(
            labels[key],
            one.section.kind,
            one.section.trained_on,
            tuple(one.runs),
            one.section.simulated.get(metric),
            ranks.get(labels[key]),
            one.why_not,
            one.run.report.fidelity.trusted,
            one.section.role == "bound",
        )
        for key, one in candidates.items()
    ]
    entries.sort(key=lambda entry: _order(entry, higher_is_better=higher))
    notes = [f"{counted(len(runs), 'run')}; agents paired by user, Holm over all pairs of this board"]
    if metric != primary:
        notes.append(f"ranked by {metric}, which is not the primary metric ({primary}): exploratory")
    if shown is not None:
        notes.append("some kinds of agents are left out; places are among those shown")
    untrusted = [run.label for run in runs if not run.report.fidelity.trusted]
    if untrusted:
        notes.append(f"simulator not trusted in {listing(untrusted)}: places describe the model, not people")
    notes += dict.fromkeys(f"{e.agent}: no place, {e.why_no_rank}" for e in entries if e.why_no_rank)
    notes += [f"{e.agent} is a bound, not a policy: it reads the judge world's own appeal" for e in entries if e.bound]
    task = str(first.scenario.get("task", ""))
    return Board(digest, first.data.source, task, metric, first.seed, tuple(entries), tuple(notes))


def _candidates(runs: Sequence[_Run], metric: str) -> dict[tuple[str, str], _Candidate]:
    """Agents of all runs; one that is set up alike and has the same values in several runs is one agent."""
    candidates: dict[tuple[str, str], _Candidate] = {}
    reference: NDArray[np.int64] | None = None
    shape: tuple[int, int] | None = None
    for run in runs:
        users = run.users(metric)
        if isinstance(users, _Users) and users.values:
            n_worlds = next(iter(users.values.values())).shape[1]
            if reference is None:
                reference, shape = users.user, (n_worlds, len(users.user))
            elif not np.array_equal(users.user, reference) or shape != (n_worlds, len(users.user)):
                users = f"other users or worlds in {USERS} of {run.label} than in the first run's"
        for section in run.report.agents:
            per_user, why = _values_of(section, users, metric)
            key = (section.name, _identity(run.report, section, metric))
            one = candidates.setdefault(key, _Candidate(section, run, per_user, why))
            if one.per_user is None and per_user is not None:
                one.per_user, one.why_not = per_user, why
            one.runs.append(run.label)
    return candidates


def _values_of(
    section: AgentSection, users: _Users | str, metric: str
) -> tuple[NDArray[np.float64] | None, str | None]:
    """[T, M, U] values of an agent, or why it has no place."""
    if section.failed is not None:
        return None, f"failed: {section.failed}"
    value = section.simulated.get(metric)
    if value is not None and value.withheld is not None:
        return None, f"{metric} withheld: {value.withheld}"
    if isinstance(users, str):
        return None, users
    per_user = users.values.get(section.name)
    if per_user is None:
        return None, f"not in {USERS}"
    if not np.isfinite(per_user).all():
        return None, f"{metric} is undefined for some users"
    return per_user, None


def _identity(report: Report, section: AgentSection, metric: str) -> str:
    """What makes an agent the same in two runs: its settings and its value."""
    listed = report.scenario.get("agents")
    agents = listed if isinstance(listed, list) else []
    settings = next((a for a in agents if isinstance(a, dict) and a.get("name") == section.name), None)
    value = section.simulated.get(metric)
    found = [section.kind, section.trained_on, section.failed, settings, None if value is None else value.model_dump()]
    return json.dumps(found, sort_keys=True, default=str)


def _labels(candidates: Mapping[tuple[str, str], _Candidate]) -> dict[tuple[str, str], str]:
    """A name for each entry: the agent's, with its run where two agents of one name differ."""
    count: dict[str, int] = {}
    for name, _ in candidates:
        count[name] = count.get(name, 0) + 1
    return {
        key: key[0] if count[key[0]] == 1 else f"{key[0]} ({candidate.run.label})"
        for key, candidate in candidates.items()
    }


def _learns(section: AgentSection, per_user: NDArray[np.float64]) -> bool:
    """Whether its training is one draw of many."""
    return per_user.shape[0] > 1 or section.training is not None


def _planned(report: Report) -> int | None:
    """Users planned where the run looked at its differences to decide how many to fly."""
    evaluate = report.scenario.get("evaluate")
    users = evaluate.get("users") if isinstance(evaluate, dict) and evaluate.get("precision") is not None else None
    return users if isinstance(users, int) else None


def _order(entry: Entry, *, higher_is_better: bool) -> tuple[float, float, float, str]:
    value = entry.value.value if entry.value is not None and entry.value.value is not None else None
    size = math.inf if value is None else (-value if higher_is_better else value)
    low, high = (entry.rank.rank_low, entry.rank.rank_high) if entry.rank else (math.inf, math.inf)
    return low, high, size, entry.agent
