"""What `ope` does: read a log and a policy, estimate, and lay the result out as JSON or as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.estimate import Estimate
from evaluators.off_policy.estimation import BOUNDED, difference, estimate, estimate_continuous, kind_of
from evaluators.off_policy.names import DEFAULTS, Record
from evaluators.off_policy.prepared import Q_WEIGHTS
from evaluators.off_policy.reading import read_continuous, read_log, read_policy
from evaluators.off_policy.records import Rounds
from evaluators.off_policy.reward_model import model_named
from evaluators.off_policy.selection import chosen_method, select
from simulator.errors import InputError


@dataclass(frozen=True, slots=True)
class OpeResult:
    """Off-policy estimates of one log.

    Attributes:
        record: kind of log; n: its units (rounds, slates, trajectories); users: clusters.
        estimates: by the names asked for.
        differences: value minus that of `against`, by the same names; empty where none was asked for.
        against: "logged", the file's name, or "".
        selected: value by the estimator that was chosen among those asked for, where that was asked.
    """

    record: Record
    n: int
    users: int
    estimates: dict[str, Estimate]
    differences: dict[str, Estimate]
    against: str = ""
    selected: Estimate | None = None

    @property
    def withheld(self) -> bool:
        """Whether no estimate may be shown (exit code 3)."""
        return all(e.value is None for e in (*self.estimates.values(), *self.differences.values()))

    @property
    def exit_code(self) -> int:
        """0, or 3 where every estimate is withheld."""
        return 3 if self.withheld else 0

    def to_json(self) -> dict[str, Any]:
        """The document of `ope --json`."""
        out: dict[str, Any] = {
            "record": self.record,
            "n": self.n,
            "estimates": {name: _document(e) for name, e in self.estimates.items()},
        }
        if self.selected is not None:
            out["selected"] = _document(self.selected)
        if self.against:
            out["difference"] = {
                "against": self.against,
                "estimates": {k: _document(e) for k, e in self.differences.items()},
            }
        return out

    def as_text(self) -> str:
        """A plain table: estimator, value, interval, what it rests on; reasons below."""
        lines = [f"{self.record} log: {self.n} {_UNITS[self.record]} of {self.users} users"]
        lines += _table(self.estimates)
        if self.selected is not None:
            e = self.selected
            value = f"withheld: {e.withheld}" if e.value is None else f"{e.value:.5g} {_interval(e.low, e.high)}"
            lines += [
                "",
                f"{e.method}: {value}",
                *_clearness([one["clear"] for one in e.diagnostics.get("selection", [])]),
            ]
        if self.against:
            lines += ["", f"minus {self.against}:", *_table(self.differences)]
        return "\n".join(lines)


def _clearness(clear: Sequence[bool]) -> list[str]:
    """Whether the halves' choices are more than their noise; nothing where none was made."""
    if not clear:
        return []
    if len(set(clear)) > 1:
        return ["one choice is clear, the other within its noise"]
    return ["both choices are clear" if clear[0] else "both choices are within their noise"]


_UNITS = {"bandit": "rounds", "slate": "slates", "trajectory": "trajectories"}


def _document(e: Estimate) -> dict[str, Any]:
    out = e.to_json()
    out["diagnostics"] = _plain(dict(e.diagnostics))
    return out


def _plain(x: Any) -> Any:
    """The same with NumPy numbers as Python's and infinite or undefined ones as null."""
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    if hasattr(x, "item") and not isinstance(x, str):
        x = x.item()
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return x


def _table(estimates: dict[str, Estimate]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        (
            "estimator",
            "value",
            "95 % interval" if _level(estimates) == 95 else f"{_level(estimates):g} % interval",
            "ess",
            "n_inf",
            "n_pos",
        )
    ]
    notes = []
    for name, e in estimates.items():
        d = e.diagnostics
        figures = tuple(_figure(d.get(k)) for k in ("ess", "n_inf", "n_pos"))
        rows.append((name, "withheld" if e.value is None else f"{e.value:.5g}", _interval(e.low, e.high), *figures))
        bounded = d.get(BOUNDED)
        if isinstance(bounded, dict) and BOUNDED not in estimates and not any(row[0] == BOUNDED for row in rows):
            rows.append((BOUNDED, f"{bounded['value']:.5g}", _interval(bounded["low"], bounded["high"]), "", "", ""))
        first = d.get("first_steps")
        if isinstance(first, dict):
            rows.append(
                (first["estimator"], f"{first['value']:.5g}", _interval(first["low"], first["high"]), "", "", "")
            )
        if e.withheld is not None:
            notes.append(f"{name}: withheld: {e.withheld}")
        elif "forced" in d:
            notes.append(f"{name}: forced although {d['forced']}")
        elif "no coverage claim" in e.method or "assumes" in e.method or "limits withheld" in e.method:
            notes.append(e.method)
        if "k_hat_warning" in d:
            notes.append(f"{name}: warning: {d['k_hat_warning']}")
    wrong = next((e.diagnostics["sensitivity"] for e in estimates.values() if "sensitivity" in e.diagnostics), None)
    if wrong is not None:
        ranges = ", ".join(f"{factor}: {_interval(*ends)}" for factor, ends in wrong.items())
        notes.append(f"snips if the odds of each estimated propensity are wrong by up to a factor of {ranges}")
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines + notes


def _level(estimates: dict[str, Estimate]) -> float:
    return round(100 * next(iter(estimates.values())).level, 6) if estimates else 95.0


def _interval(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "none"
    return f"[{'-inf' if low is None else f'{low:.5g}'}, {'inf' if high is None else f'{high:.5g}'}]"


def _figure(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, int | float) else "-"


def run_ope(
    log: Path,
    policy: Path | None = None,
    estimators: Iterable[str] | None = None,
    reward_range: tuple[float, float] | None = None,
    gamma: float | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - mirrors the command's options
    against: str | Path | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    interval: str = "default",
    reward_model: str | None = None,
    q_weights: str | None = None,
    bandwidth: float | None = None,
    choose: str | None = None,
) -> OpeResult:
    """Estimate a policy's value from a log file.

    Args:
        log: .npz or .parquet with bandit rounds, slates or trajectories.
        policy: .npz or .npy with `pi_e` and optional `q_hat`; for bandit rounds. None: `pi_e` in the log itself.
        estimators: names; None or empty: the usual ones of the record.
        reward_range: lowest and highest possible reward.
        gamma: discount of trajectories; None: the log's own `gamma`, or 1.
        force: show withheld values with their reason.
        against: another policy's file, or "logged": adds the paired differences. For slates and trajectories the file
            is the same log under the other policy.
        level: coverage.
        seed: of folds, halves and bootstrap.
        interval: `bernstein` or `betting` for limits of `ips` that need no large sample.
        reward_model: name of a scikit-learn regressor (or classifier, for yes/no rewards) for q_hat.
        q_weights: `importance` or `mrdr`.
        bandwidth: the action is a number: the log holds `action`, the density `pscore` of each and `action_range`, the
            policy's `pi_e` one action a round, and it is blurred by a kernel of this half-width.
        choose: also give the value by the estimator that a method of `selection.METHODS` chooses among those asked for.

    Raises:
        InputError: a file, column or value cannot be used; one line says which and what to do.
    """
    if q_weights is not None and q_weights not in Q_WEIGHTS:
        raise InputError(f"q_weights: '{q_weights}' is none of {', '.join(Q_WEIGHTS)}")
    if bandwidth is not None:
        if against is not None or interval != "default" or q_weights is not None or choose is not None:
            raise InputError("--bandwidth: goes with neither --against, --interval, --q-weights nor --select")
        logged_rounds, columns = read_continuous(Path(log))
        found = estimate_continuous(
            logged_rounds,
            _policy(policy, columns)[0],
            bandwidth=bandwidth,
            estimators=list(dict.fromkeys(estimators or ())) or None,
            reward_range=reward_range,
            level=level,
            force=force,
            seed=seed,
            reward_model=None if reward_model is None else model_named(reward_model, seed=seed),
        )
        return OpeResult("bandit", len(logged_rounds), logged_rounds.n_users, found, {})
    record, columns = read_log(Path(log))
    kind = kind_of(record)
    names = list(dict.fromkeys(estimators or ())) or list(DEFAULTS[kind])
    options: dict[str, Any] = {"reward_range": reward_range, "level": level, "force": force, "seed": seed}
    if reward_model is not None:
        options["reward_model"] = model_named(reward_model, seed=seed)
    options["q_weights"] = q_weights
    if kind != "trajectory" and gamma not in (None, 1.0):
        raise InputError(f"--gamma: discounts the steps of trajectories, and this is a {kind} log; leave it out")
    pi_e = other = None
    if isinstance(record, Rounds):
        pi_e, q_hat = _policy(policy, columns)
        options["q_hat"] = columns.get("q_hat") if q_hat is None else q_hat
    else:
        if policy is not None:
            raise InputError(
                f"--policy: a {kind} log carries the policy in its evaluation_policy_* columns; leave it out"
            )
        if q_weights is not None:
            raise InputError(f"--q-weights: for bandit logs, and this is a {kind} log; leave it out")
        options["gamma"] = gamma if gamma is not None else float(columns["gamma"]) if "gamma" in columns else 1.0
    found = estimate(record, pi_e, estimators=names, interval=interval, **options)
    selected = None
    if choose is not None:
        if not isinstance(record, Rounds):
            raise InputError(f"--select: for bandit logs, and this is a {kind} log; leave it out")
        plain = {name: value for name, value in options.items() if name != "q_weights"}
        selected = select(record, pi_e, candidates=names, method=chosen_method(choose), **plain)
    if against is None:
        return OpeResult(kind, len(record), record.n_users, found, {}, selected=selected)
    if interval != "default":
        raise InputError("--against: a difference has no such limits; leave out --interval")
    logged = str(against) == "logged"
    if not logged:
        other = read_policy(Path(against), "--against")[0] if kind == "bandit" else read_log(Path(against))[0]
    apart = difference(record, pi_e, other, estimators=names, **options)
    name = "logged" if logged else Path(against).name
    return OpeResult(kind, len(record), record.n_users, found, apart, name, selected)


def _policy(policy: Path | None, columns: Mapping[str, Any]) -> tuple[Any, Any]:
    """Policy and, where there, model values: from the policy's file, or from the log itself."""
    if policy is not None:
        return read_policy(Path(policy))
    if "pi_e" in columns:
        return columns["pi_e"], None
    raise InputError("--policy: bandit rounds need a policy; give a .npz or .npy file with pi_e [n, n_actions]")
