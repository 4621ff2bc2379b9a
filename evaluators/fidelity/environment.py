"""Does the environment that agents learn in keep Gymnasium's word, where peers do not?

Two faults spoil training without a trace in any metric: a terminal observation that is the next user's (the learner
bootstraps from a stranger), and draws from a global generator (a run that cannot be repeated). EVALUATION's known
truth 27 has both.
"""

from __future__ import annotations

import random  # noqa: TID251  the check is whether anybody reads or moves this global generator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.estimate import Estimate
from evaluators.fidelity.checks import Check, Ints

if TYPE_CHECKING:
    from simulator.world import World

LANES, STEPS = 32, 30


def environment_checks(world: World, *, seed: int) -> tuple[Check, ...]:
    """Terminal observation and global random state of the vector environment of a world."""
    from simulator.env import WindtunnelVectorEnv

    return check_environment(
        lambda: WindtunnelVectorEnv(world, LANES, seed=seed), slate_size=world.slate_size, n_items=world.n_items
    )


def check_environment(
    make_env: Callable[[], Any], *, slate_size: int, n_items: int, seed: int = 0
) -> tuple[Check, ...]:
    """Fly random slates through a vector environment with `final_obs`, and count what is not as it should be.

    Args:
        make_env: builds the environment anew: observations hold user_features, history_items and step by lane.
        slate_size: K.
        n_items: I.
        seed: of the slates and of `reset`.
    """
    slates = np.random.default_rng(seed).integers(0, n_items, (STEPS, LANES, slate_size))
    with _globals_kept():
        wrong, ended = _strangers(make_env(), slates, seed)
        first, second = (_rewards(make_env(), slates, seed, under=number) for number in (1, 2))
    return (
        _exactly_none("terminal observation", wrong, f"of {ended} last observations are not of the user who left"),
        _exactly_none(
            "global random state",
            int((first[0] != second[0]).sum()) + first[1] + second[1],
            "values or states move with a global generator",
        ),
    )


def _exactly_none(name: str, count: int, what: str) -> Check:
    estimate = Estimate(float(count), float(count), float(count), 1.0, LANES, what)
    if count:
        return Check(name, estimate, "exactly 0", "fail", f"{count} {what}")
    return Check(name, estimate, "exactly 0", "pass")


def _strangers(env: Any, slates: Ints, seed: int) -> tuple[int, int]:
    """(last observations that do not go on from the lane's own state, sessions ended)."""
    before, _ = env.reset(seed=seed)
    before = {name: np.array(values) for name, values in before.items()}
    wrong = ended = 0
    for slate in slates:
        observation, _, terminated, truncated, info = env.step(slate)
        for lane in np.flatnonzero(terminated | truncated):
            ended += 1
            last = info["final_obs"][lane]
            same = np.array_equal(last["user_features"], before["user_features"][lane])
            same &= int(last["step"]) == int(before["step"][lane]) + 1
            wrong += not (same and _goes_on(before["history_items"][lane], last["history_items"], slate.shape[1]))
        before = {name: np.array(values) for name, values in observation.items()}
    return wrong, ended


def _goes_on(before: Ints, after: Ints, slate_size: int) -> bool:
    """Whether a history is the earlier one with at most a slate of items behind it."""
    n = len(before)
    return any(np.array_equal(before[shown:], after[: n - shown]) for shown in range(min(slate_size, n) + 1))


def _rewards(env: Any, slates: Ints, seed: int, *, under: int) -> tuple[Any, int]:
    """Rewards with the global generators set to something else, and how many of them were moved meanwhile."""
    random.seed(under)
    np.random.seed(under)  # noqa: NPY002  the very thing that must not matter
    states = _global_states()
    env.reset(seed=seed)
    rewards = np.array([np.array(env.step(slate)[1]) for slate in slates])
    return rewards, sum(a != b for a, b in zip(states, _global_states(), strict=True))


def _global_states() -> tuple[Any, bytes]:
    return random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index, union-attr]  # noqa: NPY002


@contextmanager
def _globals_kept() -> Iterator[None]:
    """Put the global generators back as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
