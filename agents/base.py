"""What an agent is, sees and learns from: the only types that other packages need to know of agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from numpy.typing import NDArray

from simulator.errors import WindtunnelError
from simulator.log import Catalogue, InteractionLog

if TYPE_CHECKING:
    from agents.checkpoints import Checkpoint
    from agents.settings import EarlyStopping


class AgentError(WindtunnelError):
    """An agent failed: it raised, took too long, ate too much memory or gave no valid slate. One line."""


class AgentLimitError(AgentError):
    """An agent came up against a limit on time or memory, which it may keep on a machine that is less busy."""


MOST_SAID = 500
"""Characters of an error that are told: it may carry a whole table in its text."""


def said_by(error: BaseException) -> str:
    """What an error says, in one line that is cut where it is long; empty where it says nothing."""
    try:
        text = str(error)
    except Exception as worse:  # noqa: BLE001  the text of a user's own error is code of the user's
        text = f"its text cannot be had ({type(worse).__name__})"
    line = " ".join(text[: 4 * MOST_SAID].split())
    return line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]}..."


@dataclass(frozen=True, slots=True)
class Observation:
    """What a production policy would know of n users at one step.

    Attributes:
        user_features: [n, f] float32 public features of the scenario's policy inputs.
        history_items: [n, H] int64 items met before (in the log and this session), newest last; -1 pads on the left.
        history_feedback: [n, H] float32 feedback on them: 1 liked or clicked, 0 consumed or shown and not.
        context: [n, c] float32 context of the request (a query's vector in search); c is 0 in `recommend`.
        candidates: [n, I] bool mask of the items that may be shown, or None where all may be.
        step: [n] int64 slates shown before in this session.
        slate_size: K, the number of items to return.
        appeal: [n, I] float32 the judge world's own logit of the primary behaviour. Only an agent with
            `privileged = True` (the oracle bound) ever gets it; None for all others.
    """

    user_features: NDArray[np.float32]
    history_items: NDArray[np.int64]
    history_feedback: NDArray[np.float32]
    context: NDArray[np.float32]
    candidates: NDArray[np.bool_] | None
    step: NDArray[np.int64]
    slate_size: int
    appeal: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.step)


class MakeEnv(Protocol):
    """Builds training environments in the train world; never in a judge world."""

    def __call__(
        self, num_envs: int, *, action: str = "slate", seed: int = 0, copy: bool = True
    ) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Vector environment of `num_envs` users; `action` is "slate", "item" or "proto"."""
        ...


def nobody_waits(steps: int) -> None:
    """How long a training will be, told to nobody."""


def unheard(steps: int, value: float) -> None:
    """A point of a curve, told to nobody."""


@dataclass(frozen=True, slots=True)
class Training:
    """What `fit` gets.

    Attributes:
        log: rows of world A's users only, early and late (the judge's and held-out users' rows are not in it).
        catalogue: content vectors, text and categories of the items; features of the users.
        make_env: builds vector environments in world A.
        slate_size: K.
        horizon: steps of a session at most.
        rng: generator of this agent and training seed.
        seed: an integer of the same stream, for libraries that want a number.
        budget: environment steps (user-steps) to train for, or None for the agent's own default.
        report: call `report(steps, value)` to add a point to the learning curve (value: mean reward a session).
        seconds: wall-clock seconds after which training must stop, or None. Such a training is not reproducible.
        expect: call `expect(steps)` at the beginning to say how many steps the whole training has, for those who wait.
        domains: what would be learned from in other scenarios, by the name that the agent's parameters give each
            (`learned_in`); the content vectors of all are by one encoder.
        stopping: when to stop before the budget is used up, or None.
        watched: whether anyone looks at the learning curve; an agent within an agent is not watched.
        validation: builds environments in the validation world, on users who have no row in `log`; None where nothing
            is stopped early.
        valued: told of each point of the learning curve in the validation world, as `report` is.
        shown_again: whether world A may show a user what stands in its logged history.
        checkpoint: where the training is kept while it goes on, so that it need not start anew; None: nowhere.
    """

    log: InteractionLog
    catalogue: Catalogue
    make_env: MakeEnv
    slate_size: int
    horizon: int
    rng: np.random.Generator
    seed: int
    budget: int | None
    report: Callable[[int, float], None]
    seconds: float | None = None
    expect: Callable[[int], None] = nobody_waits
    domains: Mapping[str, Training] = field(default_factory=dict)
    stopping: EarlyStopping | None = None
    watched: bool = True
    validation: MakeEnv | None = None
    valued: Callable[[int, float], None] = unheard
    shown_again: bool = False
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What came of one slate for each of n users.

    Attributes:
        observation: what the agent was asked with.
        slates: [n, K] int64 items it showed; -1 is an empty place.
        clicks: [n, K] float32 primary behaviour at each place.
        reward: [n] float32.
        done: [n] bool the session ended with this slate.
    """

    observation: Observation
    slates: NDArray[np.int64]
    clicks: NDArray[np.float32]
    reward: NDArray[np.float32]
    done: NDArray[np.bool_]


def learns_online(agent: object) -> bool:
    """Whether an agent goes on learning while it is judged."""
    return callable(getattr(agent, "observe", None)) and bool(getattr(agent, "online", True))


@runtime_checkable
class Agent(Protocol):
    """A policy that can be asked for slates. A user's class needs `act`; `fit` and the rest are optional.

    Optional methods, found by name:
        fit(training: Training) -> anything: learn; called once, before any `act`.
        action_probabilities(observation) -> [n, I]: the chance of each item at the first position; needed for
            off-policy evaluation. Rows sum to one and are zero outside `candidates`.
        observe(feedback: Feedback): learn online, called after each slate of a flight. Every flight starts from what
            the agent was after `fit`, in a copy of its own. An agent with `online = False` is not called.
    """

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose a slate for each of n users: [n, K] items, best first, none twice; the agent's state is unchanged."""
        ...
