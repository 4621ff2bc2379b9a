"""A user's own behaviour, `simulator.behaviour: file.py:Class`, in place of the kernel's choice and leaving.

The class is vectorised over users and keeps its state in arrays, so that sessions can be started lane by lane. Its luck
comes from the moment it is asked at, never from a generator of its own: draws are keyed by (seed, user, session, step,
place) as the kernel's are. `check_behaviour` holds it to that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError, did_you_mean

State = dict[str, NDArray[Any]]
"""Arrays [n, ...] of a behaviour's own; rows are users."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One slate for each of n users, and what the world knows of them.

    Attributes:
        shown: [n, K] int64 items, -1 where the place stayed empty.
        appeal: [n, K] float32 fitted logit of a click on each, were it examined; -inf where the place is empty.
        categories: [n, K, C] float32 categories of each as shares that sum to 1.
        step: [n] int64 slates shown before in this session.
        user: [n] int64 number of the real user.
        state: what `begin` returned and `act` changed; changed in place.
        uniforms: draws [n, K] on [0, 1) of a named stream: `moment.uniforms("click")`; the same users meet the same
            luck whatever was shown and whoever is simulated beside them. `[:, 0]` serves one draw a slate.
    """

    shown: NDArray[np.int64]
    appeal: NDArray[np.float32]
    categories: NDArray[np.float32]
    step: NDArray[np.int64]
    user: NDArray[np.int64]
    state: State
    uniforms: Callable[[str], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Acts:
    """What n users did.

    Attributes:
        clicks: [n, K] 0 or 1, 0 where the place was empty.
        leave: [n] bool the user leaves after this slate.
        reward: [n] reward of the step; None: the number of clicks.
    """

    clicks: NDArray[Any]
    leave: NDArray[Any]
    reward: NDArray[Any] | None = None


class Behaviour(Protocol):
    """What a user's class needs: these two methods and nothing else."""

    def begin(self, user: NDArray[np.int64]) -> State:
        """State [n, ...] of the users at the start of a session; may be empty."""
        ...

    def act(self, moment: Moment) -> Acts:
        """What the users do with their slates; changes `moment.state` in place and nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class OwnBehaviour:
    """Where a user's class stands, and what it was when the world was built.

    Attributes:
        path: of the file; name: of the class; params: its arguments; sha256: of the file.
    """

    path: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @classmethod
    def find(cls, kind: str, params: Mapping[str, Any], folder: Path | None) -> OwnBehaviour:
        """The class that `file.py:Class` names, checked.

        Raises:
            InputError: it is not there, cannot be loaded, or breaks the contract.
        """
        place, _, name = kind.rpartition(":")
        if not place.endswith(".py") or not name:
            raise InputError(f"simulator.behaviour: '{kind}' is no `file.py:Class`; name a file and a class in it")
        path = ((folder or Path()) / place).resolve()
        if not path.is_file():
            near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
            raise InputError(f"simulator.behaviour: '{kind}' cannot be loaded; there is no file {place}{near}")
        found = cls(str(path), name, dict(params), hashlib.sha256(path.read_bytes()).hexdigest())
        check_behaviour(found.load())
        return found

    def load(self) -> Behaviour:
        """An instance of the class.

        Raises:
            InputError: the file does not run, lacks the class, or the class does not take the parameters.
        """
        path = Path(self.path)
        shown = f"{path.name}:{self.name}"
        module_name = f"_behaviour_{hashlib.sha256(self.path.encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"simulator.behaviour: '{shown}' cannot be loaded; is it a Python file?")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses in the file look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise InputError(
                f"simulator.behaviour: '{shown}' cannot be loaded; {type(error).__name__}: {error}"
            ) from error
        there = [name for name, value in vars(module).items() if inspect.isclass(value)]
        if self.name not in there:
            raise InputError(f"simulator.behaviour: '{shown}' is not there{did_you_mean(self.name, there)}")
        try:
            built: Behaviour = getattr(module, self.name)(**self.params)
        except Exception as error:
            raise InputError(f"simulator.behaviour_params: '{shown}' does not take them; {error}") from error
        return built

    def identity(self) -> dict[str, Any]:
        """What decides what users do, without folders."""
        return {"name": self.name, "params": dict(self.params), "sha256": self.sha256}


def checked_acts(acts: Any, moment: Moment) -> Acts:
    """The acts, once they are what the contract says.

    Raises:
        InputError: they are not.
    """
    n, size = moment.shown.shape
    if not all(hasattr(acts, name) for name in ("clicks", "leave")):
        raise InputError(f"simulator.behaviour: act returned a {type(acts).__name__}; return Acts(clicks, leave)")
    clicks, leave = np.asarray(acts.clicks), np.asarray(acts.leave)
    reward = getattr(acts, "reward", None)
    for name, array, shape in (
        ("clicks", clicks, (n, size)),
        ("leave", leave, (n,)),
        *((("reward", np.asarray(reward), (n,)),) if reward is not None else ()),
    ):
        if array.shape != shape:
            raise InputError(f"simulator.behaviour: {name} has shape {array.shape}; it needs {shape}")
        if array.dtype.kind not in "bif" or not np.isfinite(array.astype(np.float64)).all():
            raise InputError(f"simulator.behaviour: {name} has values that are no numbers; give finite ones")
    if not np.isin(clicks, (0, 1)).all() or not np.isin(leave, (0, 1)).all():
        raise InputError("simulator.behaviour: clicks and leave must be 0 or 1; compare a chance with uniforms")
    if clicks[moment.shown < 0].any():
        raise InputError("simulator.behaviour: an empty place was clicked; clicks must be 0 where shown is -1")
    for name, array in moment.state.items():
        if len(array) != n:
            raise InputError(f"simulator.behaviour: state '{name}' has {len(array)} rows for {n} users; keep one each")
    return Acts(clicks.astype(np.uint8), leave.astype(bool), None if reward is None else np.asarray(reward, np.float32))


def begun(behaviour: Behaviour, user: NDArray[np.int64]) -> State:
    """State at the start of a session.

    Raises:
        InputError: it is no mapping of arrays with one row a user.
    """
    state = behaviour.begin(user.copy())
    if not isinstance(state, Mapping):
        raise InputError(f"simulator.behaviour: begin returned a {type(state).__name__}; return a dict of arrays")
    out = {name: np.array(value) for name, value in state.items()}
    for name, array in out.items():
        if array.ndim == 0 or len(array) != len(user):
            raise InputError(f"simulator.behaviour: state '{name}' has shape {array.shape} for {len(user)} users")
    return out


_TRIAL_USERS, _TRIAL_SLATE, _TRIAL_CATEGORIES, _TRIAL_STEPS = 6, 4, 3, 3


def check_behaviour(behaviour: Any) -> None:
    """Hold a behaviour to its contract on a small trial.

    Raises:
        InputError: a method is missing, a result has the wrong form, the same moment gives different acts, or a user's
            acts depend on who is simulated beside them.
    """
    for name in ("begin", "act"):
        if not callable(getattr(behaviour, name, None)):
            raise InputError(f"simulator.behaviour: the class has no method {name}; it needs begin and act")

    def flight(rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        rng = np.random.default_rng(0)
        state = begun(behaviour, np.arange(_TRIAL_USERS)[rows])
        seen: list[NDArray[Any]] = []
        for step in range(_TRIAL_STEPS):
            shown = rng.integers(-1, 30, (_TRIAL_USERS, _TRIAL_SLATE))[rows]
            appeal = rng.standard_normal((_TRIAL_USERS, _TRIAL_SLATE)).astype(np.float32)[rows]
            categories = np.eye(_TRIAL_CATEGORIES, dtype=np.float32)[shown % _TRIAL_CATEGORIES]
            luck: dict[str, Any] = {}

            def uniforms(name: str, step: int = step, luck: dict[str, Any] = luck) -> NDArray[np.float64]:
                seed = [step, *name.encode()]
                drawn = np.random.default_rng(seed).random((_TRIAL_USERS, _TRIAL_SLATE))
                return np.asarray(luck.setdefault(name, drawn[rows]))

            moment = Moment(
                shown, np.where(shown < 0, -np.inf, appeal).astype(np.float32), categories,
                np.full(len(rows), step), np.arange(_TRIAL_USERS)[rows], state, uniforms,
            )  # fmt: skip
            acts = checked_acts(behaviour.act(moment), moment)
            seen += [acts.clicks.astype(np.float64).ravel(), acts.leave.astype(np.float64)]
        return [part.reshape(len(rows), -1) for part in seen]

    try:
        everybody = flight(np.arange(_TRIAL_USERS))
        again = flight(np.arange(_TRIAL_USERS))
        alone = [flight(np.array([u])) for u in range(_TRIAL_USERS)]
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"simulator.behaviour: the class failed; {type(error).__name__}: {error}") from error
    if not all(np.array_equal(a, b) for a, b in zip(everybody, again, strict=True)):
        raise InputError(
            "simulator.behaviour: the same moment gives different acts; draw from moment.uniforms(name) only"
        )
    together = [np.concatenate([alone[u][k] for u in range(_TRIAL_USERS)]) for k in range(len(everybody))]
    if not all(np.array_equal(a, b) for a, b in zip(everybody, together, strict=True)):
        raise InputError("simulator.behaviour: a user's acts depend on the other users; use each user's row alone")
