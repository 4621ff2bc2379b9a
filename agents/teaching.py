"""The way that every learner goes: its learning curve, its limits, when it stops early, and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from agents.base import Agent, Training, nobody_waits, unheard
from agents.train_world import VALUE_SEED, VALUE_SESSIONS, Act, Lanes, session_value

POINTS = 8
"""Points of a learning curve after the first, where early stopping asks for no other number."""

L = TypeVar("L")
P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class Learner(Protocol[P_co]):
    """A training under way. All that changes as it goes on hangs on it, so that a pickle of it is a checkpoint."""

    @property
    def steps(self) -> int:
        """User-steps, rows or tasks so far, whichever its budget is counted in."""
        ...

    def advance(self) -> bool:
        """Learn a little more; False when there is nothing more to learn, whatever the budget."""
        ...

    def policy(self) -> P_co:
        """What would be judged were this the end."""
        ...


class Clock:
    """The training's limit in seconds."""

    def __init__(self, training: Training) -> None:
        self._began = time.perf_counter()
        self._seconds = training.seconds

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    def go_on_from(self, spent: float) -> None:
        """Count what was spent before the training was stopped."""
        self._began = time.perf_counter() - spent

    def out_of_time(self) -> bool:
        """Whether the training's seconds are over."""
        return self._seconds is not None and self.spent > self._seconds

    def __getstate__(self) -> dict[str, float | None]:
        return {"spent": self.spent, "seconds": self._seconds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._seconds = state["seconds"]
        self.go_on_from(state["spent"])


class Curve(Generic[P]):
    """Measures policies in the train world now and then, and where training may stop early in the validation world too.

    Args:
        training: gives the environments and takes the points.
        budget: steps of the whole training.
        act: how a policy shows slates.
    """

    def __init__(self, training: Training, budget: int, act: Callable[[P], Act]) -> None:
        self._training, self._act = training, act
        self.clock = Clock(training)
        seed = (training.seed + VALUE_SEED) % 2**31
        self._lanes = Lanes(training, VALUE_SESSIONS, seed=seed)
        self._stopping = training.stopping
        self._validation: Lanes | None = None
        if self._stopping is not None:
            assert training.validation is not None, "early stopping needs a validation world"
            self._validation = Lanes(training, VALUE_SESSIONS, seed=seed, make_env=training.validation)
        points = POINTS if self._stopping is None else self._stopping.points
        self._due = [round(budget * k / points) for k in range(points + 1)]
        self._measured = -1
        self._points: list[tuple[int, float]] = []
        self._valued: list[tuple[int, float]] = []
        self._best: P | None = None
        training.expect(budget)

    def due(self, steps: int) -> bool:
        """Whether a point is due at this number of steps."""
        return bool(self._due) and steps >= self._due[0]

    def measure(self, steps: int, policy: P, *, last: bool = False) -> None:
        """Report the value of a policy if a point is due at this number of steps, or if it is the last."""
        if steps == self._measured or not (last or self.due(steps)):
            return
        self._measured = steps
        self._due = [] if last else [due for due in self._due if due > steps]
        if self._training.watched:
            self._points.append((steps, session_value(self._lanes, self._act(policy))))
            self._training.report(*self._points[-1])
        if self._stopping is None or self._validation is None:
            return
        self._valued.append((steps, session_value(self._validation, self._act(policy))))
        self._training.valued(*self._valued[-1])
        if self._stopping.best([value for _, value in self._valued]) == len(self._valued) - 1:
            self._best = deepcopy(policy)

    def over(self) -> bool:
        """Whether training is to stop before its budget is used up."""
        patient = self._stopping is None or not self._stopping.over([value for _, value in self._valued])
        return self.clock.out_of_time() or not patient

    def chosen(self, policy: P) -> P:
        """What is judged: the policy at the end, or that of the best point where training may stop early."""
        return policy if self._best is None else self._best

    def state(self) -> tuple[Any, ...]:
        """What the curve needs to go on."""
        return self._due, self._measured, self._points, self._valued, self._best, self.clock.spent

    def go_on_from(self, state: tuple[Any, ...]) -> None:
        """Be what a curve was, and report its points again."""
        self._due, self._measured, self._points, self._valued, self._best, spent = state
        self.clock.go_on_from(spent)
        for point in self._points:
            self._training.report(*point)
        for point in self._valued:
            self._training.valued(*point)

    def close(self) -> None:
        """Close the environments."""
        self._lanes.close()
        if self._validation is not None:
            self._validation.close()


class Lesson(Generic[L, P]):
    """A training with its learning curve, where it has one, and its checkpoint, where it can be kept.

    Args:
        training: says when to stop and where checkpoints lie.
        curve: measures its policies; None where nobody watches.
        kept: whether what learns can be pickled.
    """

    def __init__(self, training: Training, curve: Curve[P] | None, *, kept: bool = True) -> None:
        self.curve = curve
        self._training = training
        self._checkpoint = training.checkpoint if kept else None
        self.result: P | None = None

    def begin(self, begin: Callable[[], L], policy: Callable[[L], P]) -> L | None:
        """What learns: as its checkpoint has it, or new. None where it had ended, and `result` is what came of it.

        Args:
            begin: makes it, before its first step.
            policy: what would be judged were this the end.
        """
        found = None if self._checkpoint is None else self._checkpoint.found(self._training)
        if found is None:
            learner = begin()
            if self.curve is not None:
                self.curve.measure(0, policy(learner))
            return learner
        ended, (content, points) = found
        if self.curve is not None:
            self.curve.go_on_from(points)
        if ended:
            self.result = content
        return None if ended else content

    def keep(self, learner: L) -> None:
        """Write a checkpoint if it is time."""
        if self._checkpoint is not None and self._checkpoint.due:
            self._checkpoint.keep(self._training, (learner, self._points()))

    def end(self, steps: int, policy: P) -> P:
        """Take in the last policy; returns the one that is judged."""
        if self.curve is not None:
            self.curve.measure(steps, policy, last=True)
            policy = self.curve.chosen(policy)
        if self._checkpoint is not None:
            self._checkpoint.end(self._training, (policy, self._points()))
        return policy

    def _points(self) -> Any:
        return None if self.curve is None else self.curve.state()


def teach(
    training: Training, begin: Callable[[], Learner[P]], act: Callable[[P], Act], *, budget: int, kept: bool = True
) -> P:
    """Let a learner learn for `budget` steps; returns the policy that is to be judged.

    Args:
        training: gives the environments, takes the points of the learning curve, and says when to stop.
        begin: makes the learner, before its first step.
        act: how a policy shows slates.
        budget: steps of the whole training.
        kept: whether the learner can be pickled, so that a checkpoint can be made of it.
    """
    curve = Curve(training, budget, act)
    try:
        return _taught(Lesson(training, curve, kept=kept), begin, budget)
    finally:
        curve.close()


def teach_unwatched(training: Training, begin: Callable[[], Learner[P]], *, budget: int) -> P:
    """As `teach`, for a training within a training: it has no learning curve and does not stop early."""
    return _taught(Lesson(training, None), begin, budget)


def _taught(lesson: Lesson[Learner[P], P], begin: Callable[[], Learner[P]], budget: int) -> P:
    learner = lesson.begin(begin, lambda learner: learner.policy())
    if learner is None:
        assert lesson.result is not None
        return lesson.result
    curve, goes_on = lesson.curve, True
    while goes_on and learner.steps < budget and not (curve is not None and curve.over()):
        goes_on = learner.advance()
        if curve is not None and curve.due(learner.steps):
            curve.measure(learner.steps, learner.policy())
        lesson.keep(learner)
    return lesson.end(learner.steps, learner.policy())


def whole_passes(budget: int, n_rows: int) -> int:
    """Passes over so many rows that are nearest to a budget of rows; none for 0 alone, or nothing would be learned."""
    return max(round(budget / n_rows), min(budget, 1))


def own_act(agent: Agent) -> Act:
    """How an agent that is its own policy shows slates."""
    return agent.act


def quietly(training: Training) -> Training:
    """What an agent within an agent learns from: the learning curve is the outer one's."""
    return replace(training, watched=False, report=unheard, valued=unheard, expect=nobody_waits)
