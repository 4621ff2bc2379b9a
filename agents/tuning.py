"""Search of an agent's parameters by optuna: trials train on some users of world A, valued in another world on others.

The first trial has the scenario's own parameters, so a search never ends below them where it was judged. That value is
the best of many and no estimate of anything: the agent is trained anew with what was chosen, and judged elsewhere.
A search that was killed goes on after the trials that it had made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.settings import Span, TuneSettings


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        params: what was tried.
        value: mean reward a session in the validation world, or None where it failed.
        why: it failed, in one line.
    """

    params: Mapping[str, Any]
    value: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found.

    Attributes:
        trials: in their order; the first has the scenario's own parameters.
        best: number of the trial of highest value.
    """

    trials: tuple[Trial, ...]
    best: int

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters that were chosen."""
        return self.trials[self.best].params


def search(
    tune: TuneSettings,
    own: Mapping[str, Any],
    value: Callable[[Mapping[str, Any]], float],
    *,
    seed: int,
    failure: Callable[[Exception], str],
    report: Callable[[float, str], None],
    made: Sequence[Trial] = (),
    keep: Callable[[Sequence[Trial]], None] = lambda trials: None,
) -> Tuned | str:
    """Try `tune.trials` points of the space by a tree-structured Parzen estimator (Bergstra et al., 2011).

    Args:
        tune: how many trials, and where.
        own: the agent's own value of each parameter of the space.
        value: trains with these parameters and values the result.
        seed: of the sampler.
        failure: an exception of `value` in one line; a trial that fails is a row of the search, not its end.
        report: told of each trial.
        made: the first trials, where the same search made them (`goes_on`) before it was killed; none is made again.
        keep: told of the trials so far after each that is made.

    Returns:
        What was found, or why there is nothing: every trial failed.
    """
    study = _study(own, seed)
    trials: list[Trial] = []
    for number in range(1, tune.trials + 1):
        asked, point = _ask(study, tune)
        if number <= len(made):
            trial = made[number - 1]
        else:
            try:
                trial = Trial(point, float(value(point)))
            except Exception as error:  # noqa: BLE001  see `failure`
                trial = Trial(point, None, failure(error))
        _tell(study, asked, trial)
        trials.append(trial)
        if number > len(made):
            keep(trials)
        report(number / tune.trials, f"trial {number} of {tune.trials}")
    values = [-float("inf") if trial.value is None else trial.value for trial in trials]
    if max(values) == -float("inf"):
        return f"all {len(trials)} trials of the search failed; the first: {trials[0].why}"
    return Tuned(tuple(trials), values.index(max(values)))


def goes_on(tune: TuneSettings, own: Mapping[str, Any], made: Sequence[Trial], *, seed: int) -> bool:
    """Whether `search` with these arguments would make these trials first, given how they came out."""
    study = _study(own, seed)
    for trial in made:
        asked, point = _ask(study, tune)
        if point != trial.params:
            return False
        _tell(study, asked, trial)
    return True


def _study(own: Mapping[str, Any], seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(dict(own))
    return study


def _ask(study: Any, tune: TuneSettings) -> tuple[Any, dict[str, Any]]:
    """The study's next trial and its parameters."""
    asked = study.ask()
    return asked, {name: _suggest(asked, name, part) for name, part in tune.space.items()}


def _tell(study: Any, asked: Any, trial: Trial) -> None:
    from optuna.trial import TrialState

    study.tell(asked, trial.value, state=None if trial.value is not None else TrialState.FAIL)


def _suggest(trial: Any, name: str, part: Span | list[Any]) -> Any:
    if not isinstance(part, Span):
        return trial.suggest_categorical(name, part)
    suggest = trial.suggest_int if part.whole else trial.suggest_float
    return suggest(name, part.low, part.high, log=part.log)
