"""What a log tells of the behaviour model: every part that it identifies, fitted; the rest is left to be assumed.

Fits see the early rows of the given users, as the world's histories do. Heads see the late rows of tuning users, on
which the preference model is calibrated too, and gaps between sessions all of their rows. None sees a row that scores
the world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from simulator.behaviour.assumptions import Assumption
from simulator.behaviour.calibrating import Calibration, Logits, SlateBehaviour, calibrate_appeal
from simulator.behaviour.examination import (
    ExaminationFit,
    LoggedSlates,
    examination_table,
    fit_examination,
)
from simulator.behaviour.heads import Head, fit_head
from simulator.behaviour.leaving import (
    SESSION_GAP,
    LoggedSteps,
    fit_gaps,
    fit_leaving,
    in_slates,
    logged_gaps,
    running_satisfaction,
    session_numbers,
)
from simulator.behaviour.settings import KINDS, SimulatorSettings
from simulator.errors import LogError
from simulator.log import InteractionLog, Split

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted.

    Attributes:
        assumptions: fitted parameters with standard errors.
        shift: logits to add to every appeal, because the log's rate is one of places that were not all examined and of
            items that competed.
        usual_rate: chance of a click on a usual item that alone is looked at; None where nothing tells it from the
            log's share of clicks.
        notes: what could not be fitted and why, and what a fit found.
    """

    assumptions: tuple[Assumption, ...] = ()
    shift: float = 0.0
    usual_rate: float | None = None
    notes: tuple[str, ...] = ()


def fit_behaviour(
    log: InteractionLog,
    split: Split,
    users: NDArray[np.int64],
    settings: SimulatorSettings,
    logits: Logits,
    *,
    usual_rate: float,
    rng: np.random.Generator,
) -> Fitted:
    """Fit examination, leaving and returning where this log identifies them.

    Args:
        log: the log.
        split: which rows are early.
        users: whose early rows are read.
        settings: which models, and what may be fitted.
        logits: the preference model on rows of the log.
        usual_rate: share of the primary behaviour among the early rows.
        rng: permutes for the placebos of leaving, and draws what is looked at where items compete.
    """
    rows = split.rows(log, users, late=False)
    found: list[Assumption] = []
    notes: list[str] = []
    examined: list[Assumption] = []
    if log.position is not None and settings.examination.fit:
        try:
            fit = examination_of(log, rows, settings.examination.model)
            found += examination_assumptions(fit, settings.slate_size)
            examined = examination_assumptions(fit)
            notes.append(f"examination: fitted on {fit.n} slates with {fit.clicks} clicks")
        except ValueError as error:
            notes.append(f"examination: assumed; {error}")
    behaviour_of = partial(_slate_behaviour, settings, examined)
    calibrated = (
        calibrate_appeal(log, rows, behaviour_of, settings.slate_size, logits, rng.spawn(1)[0])
        if settings.behaviour is None
        else Calibration(0.0, "appeal: examination and choice are not calibrated; users of your own class decide them")
    )
    usual = usual_rate if calibrated.usual_rate is None else calibrated.usual_rate
    notes += [calibrated.note] * bool(calibrated.note)
    if log.impression is not None and log.has_time and settings.leave.fit:
        try:
            assumed = (settings.leave.satisfaction, settings.leave.repetition)
            steps, whole = (
                logged_steps(log, read, settings, behaviour_of, usual)
                for read in (rows, _whole_rows(log, split, users))
            )
            leaving = fit_leaving(steps, rng, assumed, whole)
            swept = bool(settings.leave.base_rate_sweep)
            found += [one if swept else replace(one, sweep=()) for one in leaving.assumptions()]
            notes.append(f"leave: fitted on {leaving.leavings} leavings; {leaving.why}")
        except ValueError as error:
            notes.append(f"leave: assumed; {error}")
    if settings.returning is not None and settings.returning.fit and log.has_time:
        tuning = split.users(int(split.role[users[0]]), tuning=True)
        try:
            logged = logged_gaps(log, _whole_rows(log, split, users))
            gaps = fit_gaps(logged.days, logged.followed, logged.user)
            found += gaps.assumptions()
            notes.append(
                f"returning: fitted on {gaps.n} sessions of {len(tuning)} tuning users, {gaps.returns} returns"
            )
        except ValueError as error:
            notes.append(f"returning: assumed; {error}")
    return Fitted(tuple(found), calibrated.shift, calibrated.usual_rate, tuple(notes))


def _whole_rows(log: InteractionLog, split: Split, users: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] all rows of the tuning users, for when users leave and come back.

    Early rows end for each user at another time. That the user came back later is not among them: taken as censored
    where the log ends, their last gaps would make all gaps too long. Nor is that he left in the end: too few leave.
    """
    return np.flatnonzero(np.isin(log.user, split.users(int(split.role[users[0]]), tuning=True)))


def slates_of(log: InteractionLog, rows: NDArray[np.int64]) -> LoggedSlates:
    """Slates of the log's rows; each row by itself where the log does not say what was shown together."""
    assert log.position is not None
    impression = None if log.impression is None else log.impression[rows]
    return LoggedSlates.of_rows(log.item[rows], log.position[rows], log.primary[rows], log.user[rows], impression)


def examination_of(log: InteractionLog, rows: NDArray[np.int64], model: str) -> ExaminationFit:
    """Examination fitted on rows of a log that has positions.

    Raises:
        ValueError: the model needs to know what was shown together, and the log does not say; or there is no click.
    """
    if model != "position" and log.impression is None:
        raise ValueError(f"{model} needs to know which rows were shown together; name data.columns.impression")
    return fit_examination(slates_of(log, rows), model, n_items=log.catalogue.n_items)  # type: ignore[arg-type]


def examination_assumptions(fit: ExaminationFit, slate_size: int | None = None) -> list[Assumption]:
    """The fit as a world's parameters: as probabilities, the most examined place being examined always.

    Those of the first `slate_size` places, of all places of the log where that is None.
    """
    if fit.model == "cascade":
        return [Assumption("examination", name, fit.value[name], "fitted", fit.se[name]) for name in fit.value]
    most = max(1.0, *fit.value.values()) if fit.value else 1.0
    rows = [Assumption("examination", "place_0", 1 / most, "fitted", 0.0)]
    for name, value in fit.value.items():
        place = int(name.split("_")[1])
        if (slate_size is None or place < slate_size) and np.isfinite(fit.se[name]):
            rows.append(Assumption("examination", name, value / most, "fitted", fit.se[name] / most))
    return rows


def fitted_table(
    model: str, assumptions: tuple[Assumption, ...], decay: float, continuation: float, slate_size: int
) -> NDArray[np.float32]:
    """`examination_table` with the fitted places in it; the places below the last fitted one decay on from it."""
    table = examination_table(model, decay, continuation, slate_size).astype(np.float64)
    fitted = {a.parameter: a.value for a in assumptions if a.part == "examination" and a.parameter.startswith("place")}
    if not fitted or model == "cascade":
        return table.astype(np.float32)
    for k in range(slate_size):
        before = table[k - 1, 0] if k else 1.0
        table[k, 0] = fitted.get(f"place_{k}", min(1.0, before * decay if k else 1.0))
        if model == "position":
            table[k, 1:] = table[k, 0]
    if model == "user_browsing":
        for name, value in fitted.items():
            if "after" in name:
                place, last = (int(word) for word in name.split("_") if word.isdigit())
                if place < slate_size:
                    table[place, last + 1] = value
    return np.clip(table, 0, 1).astype(np.float32)


def _slate_behaviour(settings: SimulatorSettings, fitted: list[Assumption], slate_size: int) -> SlateBehaviour:
    """How the world's users act on a slate of this size."""
    exam, choice = settings.examination, settings.choice
    value = {a.parameter: a.value for a in fitted if a.part == "examination"}
    decay, continuation = value.get("decay", exam.decay), value.get("continuation", exam.continuation)
    table = fitted_table(exam.model, tuple(fitted), decay, continuation, slate_size)
    return SlateBehaviour(exam.model, table, continuation, choice.model, choice.no_choice, choice.dissimilarity)


def logged_steps(
    log: InteractionLog,
    rows: NDArray[np.int64],
    settings: SimulatorSettings,
    behaviour_of: Callable[[int], SlateBehaviour],
    usual_rate: float,
) -> LoggedSteps:
    """Logged slates as the kernel's hazard sees them, each with whether the user left after it.

    That is told by when the next slate came, which may be a late one: its time is read, and nothing else of it. Whether
    a user left after his last slate is told by the log's end, where that is far enough behind it.

    Args:
        log: a log that says what was shown together, and when.
        rows: [n] rows that may be read, by user, then time.
        settings: of the world.
        behaviour_of: slate size -> how the world's users act on such a slate.
        usual_rate: chance of a click on a usual item that alone is looked at.
    """
    assert log.impression is not None
    readable = np.zeros(len(log), bool)
    readable[rows] = True
    of_users = np.zeros(log.catalogue.n_users, bool)
    of_users[log.user[rows]] = True
    rows = in_slates(log, np.flatnonzero(of_users[log.user]))
    impression = log.impression[rows]
    begins = np.flatnonzero(np.diff(impression, prepend=-1) != 0)
    user = log.user[rows][begins]
    session = session_numbers(log, rows[begins])
    clicks = np.add.reduceat(log.primary[rows].astype(np.float64), begins)
    shown = np.diff(np.append(begins, len(rows)))
    usual = behaviour_of(int(np.median(shown))).usual_clicks(usual_rate)
    satisfaction = running_satisfaction(session, clicks, usual=usual, memory=settings.leave.memory)
    categories = log.catalogue.item_categories
    shares = categories / np.maximum(categories.sum(axis=1, keepdims=True), 1)
    first = np.flatnonzero(np.diff(session, prepend=-1) != 0)
    step = np.arange(len(session)) - np.repeat(first, np.diff(np.append(first, len(session))))
    repetition = _running_repetition(shares[log.item[rows]], begins, step, settings.satiation.memory)
    ends = np.append(np.diff(session) != 0, True)
    last = np.append(np.diff(user) != 0, True)
    over = log.time.max() - np.maximum.reduceat(log.time[rows], begins) > SESSION_GAP
    told = np.logical_and.reduceat(readable[rows], begins) & (~last | over)
    return LoggedSteps(user[told], session[told], step[told], satisfaction[told], repetition[told], ends[told])


def _running_repetition(
    shares: NDArray[np.floating], begins: NDArray[np.int64], step: NDArray[np.int64], memory: float
) -> Floats:
    """[m] what each slate has in common with the exposure before it, as in the kernel."""
    if shares.shape[1] == 0:
        return np.zeros(len(begins))
    counts = np.diff(np.append(begins, len(shares)))
    mean = np.add.reduceat(shares.astype(np.float64), begins, axis=0) / counts[:, None]
    out = np.zeros(len(begins))
    exposure = np.zeros(shares.shape[1])
    for at in range(len(begins)):
        if step[at] == 0:
            exposure = np.zeros(shares.shape[1])
        out[at] = exposure @ mean[at]
        exposure = memory * exposure + (1 - memory) * mean[at]
    return out


def fit_heads(
    log: InteractionLog, split: Split, role: int, settings: SimulatorSettings, logits: Logits
) -> tuple[Head, ...]:
    """Heads of the behaviours that the settings name, on clicked late rows of the role's tuning users.

    Raises:
        LogError: the log lacks a column, or it cannot be used.
    """
    if not settings.behaviours:
        return ()
    users = split.users(role, tuning=True)
    rows = split.rows(log, users, late=True)
    rows = rows[log.primary[rows] > 0]
    z = logits(rows)
    heads = []
    for kind in KINDS:
        for column, what in settings.behaviours.items():
            if what != kind:
                continue
            if column not in log.behaviours:
                there = ", ".join(log.behaviours) or "none"
                raise LogError(
                    f"simulator.behaviours.{column}: the log keeps no such column; name it in data.behaviours "
                    f"(there: {there})"
                )
            heads.append(fit_head(kind, column, log.behaviours[column][rows], z, log.user[rows]))  # type: ignore[arg-type]
    return tuple(heads)


def shifted(head: Head, shift: float) -> Head:
    """The same head for logits that all stand `shift` higher."""
    if head.kind == "rating":
        return replace(head, levels=tuple(level + head.slope * shift for level in head.levels))
    return replace(head, intercept=head.intercept - head.slope * shift)
