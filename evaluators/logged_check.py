"""How far may each off-policy estimator be believed? Rounds logged inside a judge world, beside the exact truth.

A softmax policy of known propensities logs bandit rounds of real users' start states; every estimator then values the
agents from these rounds alone, and the value is also known exactly, because the world's probabilities are. The reward
model of the estimates is fitted on the rounds: no number of the simulator enters it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Observation
from agents.contract import check_probabilities, check_slate
from evaluators import off_policy
from evaluators.estimate import Estimate
from evaluators.intervals import Ratios
from evaluators.off_policy.estimation import estimate_prepared
from evaluators.off_policy.names import parse
from evaluators.off_policy.prepared import Asked, prepare
from evaluators.off_policy.reward_model import cross_fit_q
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.streams import stream, stream_word
from simulator.world import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 256
"""Rounds for which an agent is asked at once: bounds the [n, I] arrays."""
MONTE_CARLO = 16


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What the log's train rows say of I items: features of the logging policy and of the reward model.

    Attributes:
        popularity: [I] standardised log of the item's rows.
        like_rate: [I] share of the primary behaviour, shrunk towards the mean of all rows.
        content: [I, d] float32 unit vectors, or None.
    """

    popularity: Floats
    like_rate: Floats
    content: NDArray[np.float32] | None

    @classmethod
    def of(cls, log: InteractionLog, rows: Ints) -> ItemFacts:
        """Counts of the given (train) rows."""
        n_items = log.catalogue.n_items
        shown = np.bincount(log.item[rows], minlength=n_items).astype(np.float64)
        liked = np.bincount(log.item[rows], log.primary[rows].astype(np.float64), minlength=n_items)
        logs = np.log1p(shown)
        rate = (liked + 5 * liked.sum() / max(1.0, shown.sum())) / (shown + 5)
        return cls((logs - logs.mean()) / max(float(logs.std()), 1e-12), rate, log.catalogue.content)


@dataclass(frozen=True, slots=True)
class JudgeLog:
    """n bandit rounds logged inside a judge world, each over its own A candidates.

    Attributes:
        rounds: what an off-policy estimator may read.
        start: [n] row of the world's starts whose state each round is in.
        candidates: [n, A] items; column a of every [n, A] array is candidate a of that round.
        click: [n, A] the world's probability of the primary behaviour at the first position: the truth, for no
            estimator's eyes.
        q_hat: [n, A] reward model cross-fitted by user on the rounds, and how; None: each estimate fits its own.
    """

    rounds: off_policy.Rounds
    start: Ints
    candidates: Ints
    click: Floats
    q_hat: Floats | None = None
    how_q: str = ""

    def with_model(self, estimators: Sequence[str], root: np.random.SeedSequence) -> JudgeLog:
        """With the reward model that every agent's estimates read: it knows no agent, so it is fitted once.

        Args:
            estimators: asked for; where none reads a model, none is fitted.
            root: root of the streams, as `off_policy_check` takes it.
        """
        if not any(parse(name, "bandit").info.needs_model for name in estimators):
            return self
        folds = stream(np.random.SeedSequence(_seed(root)), "off_policy", "folds", "q_hat")
        q_hat, how = cross_fit_q(self.rounds, self.candidates.shape[1], folds)
        return replace(self, q_hat=q_hat, how_q=how)

    def truth(self, pi_e: Floats, *, level: float = 0.95) -> Estimate:
        """Exact value of a policy on the logged contexts: mean over rounds of sum_a pi_e p."""
        value = float((pi_e * self.click).sum(1).mean())
        method = "exact: the judge world's probabilities under the policy, on the logged contexts"
        return Estimate(value, value, value, level, self.rounds.n_users, method)


def log_rounds(
    world: World,
    items: ItemFacts,
    root: np.random.SeedSequence,
    *,
    rounds_per_user: int = 20,
    candidates: int = 20,
    temperature: float = 2.0,
) -> JudgeLog:
    """Log rounds inside a judge world with a softmax over popularity, propensities known.

    Args:
        world: the judge world; each start user logs `rounds_per_user` rounds in their start state, but for those whom
            fewer items may be shown than half of the users.
        items: what the train rows say of the items.
        root: root of the scenario's streams; the streams "off_policy_check" are used.
        rounds_per_user: rounds of each user.
        candidates: A, items drawn for each round among those that the user may be shown; fewer where half of the
            users may not be shown so many.
        temperature: of the softmax; larger is closer to uniform.

    Raises:
        InputError: half of the users may be shown one item at most.
    """
    starts, n_items = world.starts, world.n_items
    unseen = _unseen(world)
    left = unseen.sum(1)
    candidates = min(candidates, int(np.median(left)))
    if candidates < 2:
        raise InputError(
            f"simulator.shown_again: 'false' leaves half of the users {candidates} of {n_items} items that they have "
            "not met; set it to true"
        )
    start = np.repeat(np.flatnonzero(left >= candidates), rounds_per_user)
    n = len(start)
    drawn = np.empty((n, candidates), np.int64)
    rng = stream(root, "off_policy_check", "candidates")
    for at in range(0, n, CHUNK):
        rows = start[at : at + CHUNK]
        key = np.where(unseen[rows], rng.random((len(rows), n_items), dtype=np.float32), np.float32(2))
        drawn[at : at + CHUNK] = np.sort(np.argpartition(key, candidates - 1, axis=1)[:, :candidates], axis=1)

    score = items.popularity[drawn] / temperature
    pi_b = np.exp(score - score.max(1, keepdims=True))
    pi_b /= pi_b.sum(1, keepdims=True)
    uniform = stream(root, "off_policy_check", "action").random(n)
    action = np.minimum((np.cumsum(pi_b, axis=1) < uniform[:, None]).sum(1), candidates - 1)

    click = _click_probability(world, start, drawn)
    chance = click[np.arange(n), action]
    reward = (stream(root, "off_policy_check", "reward").random(n) < chance).astype(np.float64)
    context, affinity = _context(world, items, start, drawn)
    features = np.stack([items.popularity[drawn], items.like_rate[drawn], affinity], axis=2)
    rounds = off_policy.Rounds(
        action, reward, pi_b=pi_b, user=starts.user[start], context=context, action_features=features
    )
    return JudgeLog(rounds, start, drawn, click)


def _unseen(world: World) -> NDArray[np.bool_]:
    """[U, I] True for items that may be shown to the user."""
    seen = world.barred
    out = np.ones((len(world.starts), world.n_items), bool)
    out[np.repeat(np.arange(len(seen)), np.diff(seen.start)), seen.item] = False
    return out


def _click_probability(world: World, start: Ints, candidates: Ints) -> Floats:
    """[n, A] probability of the primary behaviour at the first position of a session's first slate."""
    starts = world.starts
    offset = starts.bias[start] + np.float32(world.appeal_shift)
    out = np.empty(candidates.shape)
    for at in range(0, len(start), CHUNK):
        part = slice(at, at + CHUNK)
        vectors = world.item_vectors[candidates[part]]  # [c, A, d]
        logit = np.einsum("nad,nd->na", vectors, starts.vector[start[part]]) + world.item_bias[candidates[part]]
        logit += world.friends_lift(start[part], candidates[part])
        out[part] = 1 / (1 + np.exp(-(logit.astype(np.float64) + offset[part, None])))
    return out * float(world.examination_table(1)[0, 0])


def _context(world: World, items: ItemFacts, start: Ints, candidates: Ints) -> tuple[Floats, Floats]:
    """[n, c] what is known of the user, and [n, A] likeness of each candidate to what the user liked."""
    starts = world.starts
    there = starts.history_items >= 0
    n_history = there.sum(1)
    liked = (starts.history_feedback > 0) & there
    share = liked.sum(1) / np.maximum(n_history, 1)
    of_user = np.column_stack([starts.user_features, np.log1p(n_history), share]).astype(np.float64)
    if items.content is None:
        return of_user[start], np.zeros(candidates.shape)
    safe = np.where(there, starts.history_items, 0)
    taste = np.einsum("uhd,uh->ud", items.content[safe], liked.astype(np.float32))
    taste /= np.maximum(np.linalg.norm(taste, axis=1, keepdims=True), 1e-12)
    likeness = np.empty(candidates.shape)
    for at in range(0, len(start), CHUNK):
        part = slice(at, at + CHUNK)
        likeness[part] = np.einsum("nad,nd->na", items.content[candidates[part]], taste[start[part]])
    return of_user[start], likeness


@dataclass(frozen=True, slots=True)
class Policy:
    """An agent's choice in each round: pi_e [n, A] over the round's candidates, and how it was found."""

    pi_e: Floats
    how: str


def policy_in(
    judge_log: JudgeLog, world: World, agents: Sequence[Agent], root: np.random.SeedSequence, *, name: str
) -> Policy:
    """The agent's probabilities over each round's candidates, averaged over its training seeds.

    An agent without `action_probabilities` is asked for slates several times with other draws: its share of first
    places is an unbiased, if noisy, stand-in, and the estimators are linear in it.

    Args:
        judge_log: the rounds.
        world: the judge world that they were logged in.
        agents: the agent as trained from each of its seeds.
        root: root of the streams; the agent's draws come from one named after it.
        name: name of the agent.

    Raises:
        AgentError: the agent broke its contract.
    """
    n, size = judge_log.candidates.shape
    pi_e = np.zeros((n, size))
    exact = all(hasattr(agent, "action_probabilities") for agent in agents)
    for number, agent in enumerate(agents):
        rng = stream(root, "off_policy_check", "agent", name, number)
        for at in range(0, n, CHUNK):
            part = slice(at, at + CHUNK)
            seen = _observation(world, judge_log, part, privileged=bool(getattr(agent, "privileged", False)))
            here = judge_log.candidates[part]
            if exact:
                given = check_probabilities(agent.action_probabilities(seen), seen, world.n_items)  # type: ignore[attr-defined]
                chosen = np.take_along_axis(given, here, axis=1)
            else:
                chosen = np.zeros(here.shape)
                for _ in range(MONTE_CARLO):
                    first = check_slate(agent.act(seen, rng), seen)[:, :1]
                    chosen += here == first
            pi_e[part] += chosen / chosen.sum(1, keepdims=True)
    trained = f"mean over {len(agents)} training seeds" if len(agents) > 1 else "one trained agent"
    how = "action_probabilities" if exact else f"share of first places in {MONTE_CARLO} draws of act"
    return Policy(pi_e / len(agents), f"{how}, {trained}")


def _observation(world: World, judge_log: JudgeLog, part: slice, *, privileged: bool) -> Observation:
    """The start state of some rounds, with the round's candidates as the only items that may be shown."""
    starts = world.starts
    rows = judge_log.start[part]
    here = judge_log.candidates[part]
    mask = np.zeros((len(rows), world.n_items), bool)
    mask[np.arange(len(rows))[:, None], here] = True
    appeal = None
    if privileged:
        appeal = starts.vector[rows] @ world.item_vectors.T + world.item_bias + starts.bias[rows, None]
    return Observation(
        user_features=starts.user_features[rows],
        history_items=starts.history_items[rows],
        history_feedback=starts.history_feedback[rows],
        context=np.zeros((len(rows), 0), np.float32),
        candidates=mask,
        step=np.zeros(len(rows), np.int64),
        slate_size=min(world.slate_size, here.shape[1]),
        appeal=appeal,
    )


@dataclass(frozen=True, slots=True)
class LoggedCheck:
    """Off-policy estimates of one agent on the judge log, beside the truth.

    Attributes:
        estimates: name of the estimator as asked -> estimate.
        truth: exact value on the same contexts.
        how: where pi_e came from.
        sums: name of the estimator -> its user sums, of those that have a value; exact: those of the exact value.
        logged: user sums of the exact value of the policy that logged the rounds.
    """

    estimates: Mapping[str, Estimate]
    truth: Estimate
    how: str
    sums: Mapping[str, Ratios]
    exact: Ratios
    logged: Ratios


def _seed(root: np.random.SeedSequence) -> int:
    return stream_word(root, "off_policy_check", "estimate", bits=31)


def off_policy_check(
    judge_log: JudgeLog, policy: Policy, *, estimators: Sequence[str], root: np.random.SeedSequence, level: float = 0.95
) -> LoggedCheck:
    """Estimate a policy's value from the judge log, and say what it is.

    Args:
        judge_log: rounds logged inside a judge world.
        policy: the agent's probabilities in these rounds.
        estimators: names, as `off_policy.estimate` takes them.
        root: root of the streams (folds, bootstrap).
        level: of the intervals.
    """
    names = [parse(text, "bandit") for text in estimators]
    asked = Asked(tuple(names), level=level, seed=_seed(root))
    prepared = prepare(judge_log.rounds, policy.pi_e, asked, q_hat=judge_log.q_hat, q_hat_source=judge_log.how_q)
    estimates = {name.asked: estimate_prepared(name, prepared).note(f"pi_e: {policy.how}") for name in names}
    means = [name for name in names if name.info.family != "distribution"]
    sums = {name.asked: prepared.sums(name)[0].ratios for name in means if estimates[name.asked].value is not None}
    assert judge_log.rounds.pi_b is not None
    units = prepared.units
    return LoggedCheck(
        estimates,
        judge_log.truth(policy.pi_e, level=level),
        policy.how,
        sums,
        units.mean((policy.pi_e * judge_log.click).sum(1)),
        units.mean((judge_log.rounds.pi_b * judge_log.click).sum(1)),
    )
