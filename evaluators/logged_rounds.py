"""What agents would have earned on the log's own rounds: off-policy values of a run, no simulator in between.

A round is one logged row of a user whom no agent has learned from: the state before it, the action, the primary
behaviour. Where the log has propensities the action is the item. Where it has none the items are put into at most 50
groups of like content, the action is the group, and the propensities of groups are estimated (EVALUATION, section 2);
where users chose the items themselves every number says so. An agent's probabilities are asked for once, in parts, and
reduced to columns: no loop over users, no matrix of rounds by items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent, Observation
from agents.contract import check_probabilities, check_slate
from evaluators import off_policy
from evaluators.estimate import Estimate
from evaluators.gates import Term
from evaluators.logged_check import MONTE_CARLO, ItemFacts
from evaluators.off_policy.bandit import Matrix, Reduced, reduce_rounds
from evaluators.off_policy.estimation import difference_prepared, estimate_prepared
from evaluators.off_policy.names import EstimatorName, parse
from evaluators.off_policy.prepared import Prepared, Propensities, prepare_reduced
from evaluators.off_policy.propensity import MAX_ACTIONS
from evaluators.off_policy.reward_model import cross_fit_q
from evaluators.off_policy.terms import Units, slices
from evaluators.picks import said_of
from simulator.errors import LogError
from simulator.log import HELD_OUT, JUDGE, WORLD_A, Catalogue, InteractionLog, Split
from simulator.streams import stream, stream_word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROWS_A_GROUP = 200
"""Rounds for each group of items at least: fewer would fit no propensity."""
MOST_CELLS = 50_000_000
"""Rounds times items that an agent is asked for at most; whole users are left out at random beyond it."""
MOST_MODEL_CELLS = 20_000_000
"""Rounds times actions of a reward model at most."""
PART_CELLS = 2_000_000
"""Rounds times items that an agent is asked for at once."""
TASTE = 8
"""Directions of the content vectors by which a user's taste is described to propensity and reward model."""


@dataclass(frozen=True, slots=True)
class LogRounds:
    """n logged rounds of users whom no agent has learned from.

    Attributes:
        rounds: as the estimators read them; without pscore where `propensities` has it.
        propensities: estimated ones, or None where the log has its own.
        q_hat: [n, A] reward model, cross-fitted by user; None where `no_model` says why.
        how_q: how it was made.
        no_model: why there is none.
        group: [I] action of each item; None: the item is the action.
        n_items: I.
        n_actions: A.
        notes: said with every estimate.
        features, history_items, history_feedback: what an agent sees at each round, as in `Observation`.
        seen: (start [n], stop [n], item): before round i `item[start[i]:stop[i]]` were seen; None: all may be shown.
        slate_size: K.
        self_selected: users, or a policy that nobody logged, chose the items.
    """

    rounds: off_policy.Rounds
    propensities: Propensities | None
    q_hat: Floats | None
    how_q: str
    no_model: str | None
    group: Ints | None
    n_items: int
    n_actions: int
    notes: tuple[str, ...]
    features: NDArray[np.float32]
    history_items: Ints
    history_feedback: NDArray[np.float32]
    seen: tuple[Ints, Ints, Ints] | None
    slate_size: int
    self_selected: bool

    def __len__(self) -> int:
        return len(self.rounds)

    @property
    def weighable(self) -> off_policy.Rounds:
        """The rounds with the propensities that weights are made of."""
        if self.propensities is None:
            return self.rounds
        return replace(self.rounds, pscore=self.propensities.pscore)

    def observation(self, part: slice) -> Observation:
        """What an agent sees at some of the rounds."""
        items = self.history_items[part]
        n = len(items)
        candidates = None
        if self.seen is not None:
            start, stop, item = self.seen
            length = stop[part] - start[part]
            owner = np.repeat(np.arange(n), length)
            place = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
            candidates = np.ones((n, self.n_items), bool)
            candidates[owner, item[start[part][owner] + place]] = False
        return Observation(
            user_features=self.features[part],
            history_items=items,
            history_feedback=self.history_feedback[part],
            context=np.zeros((n, 0), np.float32),
            candidates=candidates,
            step=np.zeros(n, np.int64),
            slate_size=self.slate_size,
        )


def log_rounds_of(
    log: InteractionLog,
    split: Split,
    root: np.random.SeedSequence,
    *,
    feature_names: Sequence[str],
    history_length: int,
    slate_size: int,
    need_model: bool = True,
) -> LogRounds:
    """Rounds of the judge and held-out users' late rows, with their propensities and a reward model.

    Args:
        log: the interaction log.
        split: who trained what, and which rows are late.
        root: root of the scenario's streams.
        feature_names: user features that agents see.
        history_length: H.
        slate_size: K.
        need_model: whether an estimator asked for reads q_hat.

    Raises:
        LogError: the log cannot be made into rounds; the line says why.
    """
    catalogue = log.catalogue
    rows = _rows(log, split, stream(root, "off_policy", "rows"))
    past = _Past.of(log, split, rows, history_length)
    known = log.propensity is not None and not log.self_selected
    notes: list[str] = [said_of(log)] if log.self_selected else []
    content = _content(catalogue)
    group, actions = None, catalogue.n_items
    if not known:
        if content is None:
            raise LogError(
                "off_policy: no propensities, and neither content vectors nor categories to group items by; name "
                "data.item_text, or log propensities"
            )
        group = _groups(content, len(rows), stream_word(root, "off_policy", "groups", bits=31))
        actions = int(group.max()) + 1
        notes.append(f"actions: {actions} groups of items of like content, the item within a group as logged")
    elif log.position is not None:
        notes.append("the agent's first choice, shown at the logged positions")
    directions = _directions(content)
    taste = past.taste(directions)
    features = catalogue.user_features[log.user[rows]].astype(np.float64)
    action = log.item[rows] if group is None else group[log.item[rows]]
    facts = ItemFacts.of(log, np.flatnonzero(np.isin(log.user, split.users(WORLD_A))))
    of_item = np.column_stack([facts.popularity, facts.like_rate, directions])
    rounds = off_policy.Rounds(
        action,
        log.primary[rows].astype(np.float64),
        log.propensity[rows] if known and log.propensity is not None else None,
        user=log.user[rows],
        position=log.position[rows] if known and log.position is not None else None,
        context=np.column_stack([features, np.log1p(past.count), past.share, taste]),
        action_features=of_item if group is None else None,
    )
    units = Units.of(rounds.cluster, rounds.n_users, len(rounds))
    propensities = None
    if not known:
        propensities = Propensities.of(rounds, actions, units, stream(root, "off_policy", "folds", "propensity"), 0.95)
    q_hat, how, no_model = None, "", None
    if len(rounds) * actions > MOST_MODEL_CELLS:
        no_model = (
            f"q_hat: {len(rounds)} rounds x {actions} actions are more than the {MOST_MODEL_CELLS} of a reward model; "
            "use ips or snips"
        )
    elif need_model:
        q_hat, how = cross_fit_q(rounds, actions, stream(root, "off_policy", "folds", "q_hat"))
    columns = [catalogue.user_feature_names.index(name) for name in feature_names]
    repeats = len(np.unique(log.user * catalogue.n_items + log.item)) < len(log)
    return LogRounds(
        rounds,
        propensities,
        q_hat,
        how,
        no_model,
        group,
        catalogue.n_items,
        actions,
        tuple(notes),
        np.ascontiguousarray(catalogue.user_features[log.user[rows]][:, columns], np.float32),
        past.items,
        past.feedback,
        None if repeats else past.seen,
        slate_size,
        log.self_selected,
    )


def _rows(log: InteractionLog, split: Split, rng: np.random.Generator) -> Ints:
    """Late rows of users whom no agent has learned from; where they are too many, users are left out at random."""
    users = np.concatenate([split.users(JUDGE), split.users(HELD_OUT)])
    rows = split.rows(log, users, late=True)
    most = max(1, MOST_CELLS // log.catalogue.n_items)
    if len(rows) > most:
        count = np.bincount(log.user[rows], minlength=log.catalogue.n_users)
        order = rng.permutation(users)
        kept = order[np.cumsum(count[order]) <= most]
        rows = split.rows(log, kept, late=True)
    if len(rows) == 0:
        raise LogError("off_policy: no late rows of users whom no agent has learned from; log more users")
    return rows


@dataclass(frozen=True, slots=True)
class _Past:
    """What had happened before each round: newest H items, all items seen, their number and the share liked."""

    items: Ints
    feedback: NDArray[np.float32]
    seen: tuple[Ints, Ints, Ints]
    count: Ints
    share: Floats

    @classmethod
    def of(cls, log: InteractionLog, split: Split, rows: Ints, length: int) -> _Past:
        """The user's rows before the round; without times, where nothing tells what came before, the early ones."""
        if log.has_time:
            start, stop, item, primary = log.row_starts()[log.user[rows]], rows, log.item, log.primary
        else:
            users, index = np.unique(log.user[rows], return_inverse=True)
            early = split.histories(log, users)
            start, stop = early.start[index], early.start[index + 1]
            item, primary = early.item, early.primary
        offset = stop[:, None] - length + np.arange(length)
        there = offset >= start[:, None]
        safe = np.where(there, offset, 0)
        liked = np.concatenate([[0.0], np.cumsum(primary, dtype=np.float64)])
        count = stop - start
        return cls(
            np.where(there, item[safe], -1),
            np.where(there, primary[safe], 0.0).astype(np.float32),
            (start, stop, item),
            count,
            (liked[stop] - liked[start]) / np.maximum(count, 1),
        )

    def taste(self, directions: Floats) -> Floats:
        """[n, d] mean direction of the newest liked items."""
        weight = ((self.feedback > 0) & (self.items >= 0)).astype(np.float64)
        out = np.zeros((len(weight), directions.shape[1]))
        for part in slices(len(weight), 4096):
            out[part] = np.einsum("nh,nhd->nd", weight[part], directions[np.maximum(self.items[part], 0)])
        return out / np.maximum(weight.sum(axis=1, keepdims=True), 1.0)


def _content(catalogue: Catalogue) -> Floats | None:
    if catalogue.content is not None:
        return catalogue.content.astype(np.float64)
    return catalogue.item_categories.astype(np.float64) if catalogue.item_categories.shape[1] else None


def _directions(content: Floats | None) -> Floats:
    """[I, d] main directions of the content, unit spread; d is 0 without content."""
    if content is None or len(content) < 2:
        return np.zeros((0 if content is None else len(content), 0))
    centred = content - content.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    kept = vectors[:, np.argsort(-values)[: min(TASTE, int((values > 1e-9 * values.max()).sum()))]]
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    found = centred @ kept
    return found / np.maximum(found.std(axis=0), 1e-12)


def _groups(content: Floats, n_rows: int, seed: int) -> Ints:
    """[I] group of each item by k-means on the content vectors; as many groups as the rows can tell apart."""
    from sklearn.cluster import KMeans

    wanted = int(np.clip(n_rows // ROWS_A_GROUP, 2, MAX_ACTIONS))
    wanted = min(wanted, len(np.unique(content, axis=0)))
    if wanted < 2:
        raise LogError("off_policy: all items have the same content, so they make one group; log propensities")
    found = KMeans(wanted, n_init=3, random_state=seed).fit_predict(content)
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class PolicyOnLog:
    """An agent on the log's rounds, reduced to columns.

    Attributes:
        reduced: weights and model values.
        noise: [n] variance of the logged action's probability that comes of asking only so often; None where exact.
        how: where the probabilities came from.
    """

    reduced: Reduced
    noise: Floats | None
    how: str


class _AgentRows:
    """[n, A] probabilities of an agent over actions, made when asked for; keeps the noise of those it had to draw."""

    def __init__(self, asked: LogRounds, agents: Sequence[Agent], root: np.random.SeedSequence, name: str) -> None:
        self.shape = (len(asked), asked.n_actions)
        self.exact = all(hasattr(agent, "action_probabilities") for agent in agents)
        self.noise = None if self.exact else np.zeros(len(asked))
        self._asked, self._agents = asked, agents
        self._rngs = [stream(root, "off_policy", "agent", name, number) for number in range(len(agents))]

    def __getitem__(self, part: slice) -> Floats:
        out = np.zeros((part.stop - part.start, self.shape[1]))
        for piece in slices(len(out), max(1, PART_CELLS // self._asked.n_items)):
            rows = slice(part.start + piece.start, part.start + piece.stop)
            seen = self._asked.observation(rows)
            for agent, rng in zip(self._agents, self._rngs, strict=True):
                chance = self._actions(self._chance(agent, seen, rng))
                out[piece] += chance
                if not hasattr(agent, "action_probabilities"):
                    self._note_noise(chance, rows)
        return out / out.sum(axis=1, keepdims=True)

    def _chance(self, agent: Agent, seen: Observation, rng: np.random.Generator) -> Floats:
        """[c, I] chance of each item at the first position: the agent's own word, or its share of first places."""
        if hasattr(agent, "action_probabilities"):
            return check_probabilities(agent.action_probabilities(seen), seen, self._asked.n_items)
        out = np.zeros((len(seen), self._asked.n_items))
        for _ in range(MONTE_CARLO):
            first = check_slate(agent.act(seen, rng), seen)[:, 0]
            out[np.arange(len(out)), first] += 1.0 / MONTE_CARLO
        return out

    def _actions(self, chance: Floats) -> Floats:
        group = self._asked.group
        if group is None:
            return chance
        order = np.argsort(group, kind="stable")
        return np.add.reduceat(chance[:, order], np.searchsorted(group[order], np.arange(self.shape[1])), axis=1)

    def _note_noise(self, chance: Floats, rows: slice) -> None:
        assert self.noise is not None
        p = chance[np.arange(len(chance)), self._asked.rounds.action[rows]]
        self.noise[rows] += p * (1 - p) / (MONTE_CARLO - 1) / len(self._agents) ** 2


def policy_on_log(asked: LogRounds, agents: Sequence[Agent], root: np.random.SeedSequence, *, name: str) -> PolicyOnLog:
    """An agent's choices on the log's rounds, averaged over its training seeds.

    An agent without `action_probabilities` is asked for slates several times: its shares of first places are unbiased,
    and drawn anew for every round, so that the user-cluster interval holds their noise as well.

    Raises:
        AgentError: the agent broke its contract.
    """
    source = _AgentRows(asked, agents, root, name)
    rounds = asked.weighable
    model = None if asked.q_hat is None else Matrix.of(rounds, asked.q_hat, "q_hat")
    reduced = reduce_rounds(rounds, Matrix.of(rounds, source, "pi_e"), model, (0.0, 1.0))
    how = "action_probabilities" if source.exact else f"share of first places in {MONTE_CARLO} draws of act"
    trained = f", mean over {len(agents)} training seeds" if len(agents) > 1 else ""
    return PolicyOnLog(reduced, source.noise, f"pi_e: {how}{trained}")


@dataclass(frozen=True)
class OffPolicyEvidence:
    """Off-policy values and differences of a run's agents on the log's own rounds: `off_policy` of the evidence.

    Attributes:
        asked: the rounds, or why the log gives none.
        policies: agent -> its columns, or why it has none.
        seed: of halves and bootstrap.
    """

    asked: LogRounds | str
    policies: Mapping[str, PolicyOnLog | str]
    seed: int = 0
    _prepared: dict[tuple[str, float], Prepared] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, term: Term, agent: str, level: float) -> Estimate:
        """The number that a gate asks for."""
        return self.estimate(agent, term.subject, level, vs=term.vs)

    def estimate(self, agent: str, estimator: str, level: float = 0.95, *, vs: str | None = None) -> Estimate:
        """Value of an agent, or minus that of another one or of the `logged` policy, covariance kept."""
        if isinstance(self.asked, str):
            return Estimate.withhold(estimator, self.asked, level=level)
        for other in (agent, vs):
            missing = None
            if other not in (None, "logged"):
                missing = self.policies.get(other or "", f"off-policy: no {other} on the log")
            if isinstance(missing, str):
                return Estimate.withhold(estimator, missing, level=level)
        name = parse(estimator, "bandit")
        first = self._of(agent, level)
        if vs is None:
            return self._with_noise(estimate_prepared(name, first), agent, name)
        if name.info.family == "distribution":
            why = f"off-policy: {estimator} has no paired difference; gate on snips or dr"
            return Estimate.withhold(estimator, why, level=level)
        return difference_prepared(name, first, None if vs == "logged" else self._of(vs, level))

    def _of(self, agent: str, level: float) -> Prepared:
        key = (agent, level)
        if key not in self._prepared:
            asked, policy = self.asked, self.policies[agent]
            assert isinstance(asked, LogRounds)
            assert isinstance(policy, PolicyOnLog)
            no_model = asked.no_model
            if no_model is None and asked.q_hat is None:
                no_model = "q_hat: no estimator of evaluate.off_policy needed a reward model; name this one there"
            # One table of calibration for all agents and estimators would be copied into every estimate of the report.
            fitted = asked.propensities
            if fitted is not None:
                kept = {k: v for k, v in fitted.diagnostics.items() if k != "propensity_calibration"}
                fitted = replace(fitted, diagnostics=kept)
            self._prepared[key] = prepare_reduced(
                asked.rounds,
                policy.reduced,
                level=level,
                seed=self.seed,
                propensities=fitted,
                no_model=no_model,
                diagnostics={"q_hat": asked.how_q} if asked.how_q else {},
                notes=[*asked.notes, policy.how],
            )
        return self._prepared[key]

    def _with_noise(self, estimate: Estimate, agent: str, name: EstimatorName) -> Estimate:
        """The standard error that comes of drawing an agent's choices, beside an interval that already holds it."""
        policy = self.policies[agent]
        assert isinstance(policy, PolicyOnLog)
        assert isinstance(self.asked, LogRounds)
        if policy.noise is None:
            return estimate
        x = policy.reduced.weighted
        pscore = self.asked.weighable.pscore
        assert pscore is not None
        centre: Any = 0.0
        if name.info.needs_model and x.q is not None:
            centre = x.q
        elif name.base.startswith("sn"):
            centre = float(x.w @ x.r / max(float(x.w.sum()), 1e-12))
        error = math.sqrt(float(policy.noise @ ((x.r - centre) / pscore) ** 2)) / len(x.r)
        return replace(estimate, diagnostics={**estimate.diagnostics, "monte_carlo_se": error})
