"""SlateQ: the best slate by trying all, the value of clicks, and a future that pays where greed drives users away.

Sabotaged once, each seen red: the slate's own value not taken off in Dinkelbach's rounds, clicks that do not add up, a
future after the end, gamma left out, what is shown credited by its clicks, a choice model that learns from values.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from agents.features import fit_features
from agents.loading import AgentSettings, train
from agents.slate_q import SlateQSettings, best_slates
from agents.train_world import Lanes, session_values
from simulator.known_worlds import known_world
from tests.agents.known_training import training_of
from tests.agents.taught_world import observed, taught_world, training_in


@pytest.mark.parametrize("single", [False, True])
def test_the_best_slate_is_the_best_of_all_slates(single: bool, rng: np.random.Generator) -> None:
    """Worths far apart make the cheapest of the most likely items not worth their place where one is chosen."""
    n, n_items, places = 20, 7, 3
    start = observed(taught_world()[0], n)
    candidates = rng.random((n, n_items)) < 0.8
    candidates[:, :places] = True
    observation = replace(start, candidates=candidates, slate_size=places)
    logits = rng.normal(0, 2, (n, n_items)).astype(np.float32)
    worth = rng.uniform(0.1, 4, (n, n_items)).astype(np.float32)

    def value(user: int, slate: tuple[int, ...]) -> float:
        v, q = np.exp(logits[user, slate]), worth[user, slate]
        return float((v * q).sum() / (1 + v.sum()) if single else (q * v / (1 + v)).sum())

    found = best_slates(logits.copy(), worth, observation, single=single)
    greedy_is_best = []
    for user in range(n):
        every = list(permutations(np.flatnonzero(candidates[user]), places))
        best = max(value(user, slate) for slate in every)
        assert value(user, tuple(found[user])) == pytest.approx(best, rel=1e-5)
        likeliest = np.argsort(-np.where(candidates[user], logits[user] + np.log(worth[user]), -np.inf))[:places]
        greedy_is_best.append(value(user, tuple(likeliest)) > best - 1e-6)
    assert not all(greedy_is_best)


def test_what_is_learned_of_a_slate_is_its_clicks_and_what_follows_while_the_session_goes_on() -> None:
    """The expected value and its target on a batch, worked out place by place."""
    import torch

    from agents.deep_rl import StateScale
    from agents.slate_q_trainer import _Learner

    where = taught_world()
    training = training_in(*where)
    features = fit_features(training)
    learner = _Learner(training, SlateQSettings(gamma=0.7), features, StateScale.of(features, training), 1_000)
    state = learner._state(observed(where[0], 3))
    batch = {
        "state": torch.as_tensor(state),
        "slates": torch.tensor([[4, 9, 2, 7], [1, 5, 8, -1], [3, 6, 0, 11]]),
        "clicks": torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]),
        "following": torch.as_tensor(state[::-1].copy()),
        "next_slates": torch.tensor([[10, 12, 14, 16], [20, 22, -1, -1], [30, 31, 32, 33]]),
        "done": torch.tensor([False, False, True]),
    }
    worth, nothing = learner._values
    with torch.no_grad():
        expected, target = learner._expected(batch), learner._target_of(batch)
        everything = worth(batch["state"]).mean()
        base = nothing(batch["state"])
        assert expected[0] == pytest.approx(float(base[0] + 2 + everything[0, 4] + everything[0, 2]), abs=1e-5)
        assert expected[1] == pytest.approx(float(base[1]), abs=1e-5)
        after, at = batch["following"], learner._discount
        for row, items in ((0, [10, 12, 14, 16]), (1, [20, 22])):
            follows = float(nothing(after)[row])
            for place, item in enumerate(items):
                looked = after[row : row + 1].clone()
                looked[:, -1] = at[place]
                chance = torch.sigmoid(learner._choice(looked).mean())[0, item]
                follows += float(chance * (1 + worth(after).mean()[row, item]))
            assert target[row] == pytest.approx(float(batch["clicks"][row].sum()) + 0.7 * follows, abs=1e-5)
        assert target[2] == 1


def test_credit_of_what_was_shown_asks_for_chances_and_not_for_clicks() -> None:
    """Who is shown the same again leaves, clicked or not: what was clicked by luck then tells nothing."""
    import torch

    from agents.deep_rl import StateScale
    from agents.slate_q_trainer import _Learner

    where = taught_world()
    training = training_in(*where)
    features = fit_features(training)
    settings = SlateQSettings(gamma=0.7, credit="shown")
    learner = _Learner(training, settings, features, StateScale.of(features, training), 1_000)
    state = torch.as_tensor(learner._state(observed(where[0], 2)))
    slates = torch.tensor([[4, 9, 2, 7], [1, 5, 8, -1]])
    few, many = (
        learner._expected({"state": state, "slates": slates, "clicks": torch.full((2, 4), share)})
        for share in (0.0, 1.0)
    )
    assert torch.equal(few, many)
    worth, nothing = learner._values
    with torch.no_grad():
        for row, items in ((0, [4, 9, 2, 7]), (1, [1, 5, 8])):
            value = float(nothing(state)[row])
            for place, item in enumerate(items):
                looked = state[row : row + 1].clone()
                looked[:, -1] = learner._discount[place]
                chance = torch.sigmoid(learner._choice(looked).mean())[0, item]
                value += float(chance * (1 + worth(state).mean()[row, item]))
            assert few[row].item() == pytest.approx(value, abs=1e-5)
    few.sum().backward()
    assert all(parameter.grad is None for parameter in learner._choice.parameters())
    assert any(parameter.grad is not None for parameter in learner._values.parameters())


@pytest.mark.parametrize("choice", ["independent", "one"])
def test_q_learning_values_the_best_slate_of_the_options_by_the_choice_that_is_assumed(choice: str) -> None:
    """Against all slates of seven options (one is not there), by the networks' scores of the whole catalogue."""
    import torch

    from agents.deep_rl import StateScale
    from agents.slate_q_trainer import _Learner

    where = taught_world()
    training = training_in(*where)
    features = fit_features(training)
    settings = SlateQSettings.model_validate({"choice": choice, "target": "q_learning"})
    torch.manual_seed(3)
    learner = _Learner(training, settings, features, StateScale.of(features, training), 1_000)
    with torch.no_grad():
        for parameter in [*learner._choice.parameters(), *learner._target.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    state = torch.as_tensor(learner._state(observed(where[0], 6)))
    options = torch.stack([torch.randperm(features.n_items)[:7] for _ in range(6)])
    options[0, 3] = -1
    at_top = state.clone()
    with torch.no_grad():
        found = learner._best(state, options, 3)
        logits, worth = learner._choice(at_top).mean().numpy(), 1 + learner._target[0](state).mean().numpy()

    def value(user: int, slate: list[int]) -> float:
        v, q = np.exp(logits[user, slate]), worth[user, slate]
        return float((v * q).sum() / (1 + v.sum()) if choice == "one" else (q * v / (1 + v)).sum())

    for user in range(6):
        every = [list(slate) for slate in permutations([i for i in options[user].tolist() if i >= 0], 3)]
        best = max(value(user, slate) for slate in every)
        assert value(user, found[user].tolist()) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("target", "final", "made"), [("sarsa", 1.0, 0), ("sarsa", 0.0, 2), ("q_learning", 1.0, 2)])
def test_the_whole_catalogue_is_read_only_where_the_policy_is_asked_for(
    target: str, final: float, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.deep_rl import StateScale
    from agents.slate_q_trainer import _Learner

    training = training_in(*taught_world())
    features = fit_features(training)
    settings = SlateQSettings.model_validate(
        {"target": target, "exploration_final_eps": final, "exploration_fraction": 0.0, "num_envs": 8}
    )
    learner = _Learner(training, settings, features, StateScale.of(features, training), 1_000)
    whole, asked = learner.policy, []
    monkeypatch.setattr(learner, "policy", lambda: asked.append(1) or whole())
    for _ in range(2):
        learner.advance()
    assert len(asked) == made


AHEAD = {
    "slate_q": ({}, 9_000, 0.8),
    "dqn": ({"double": True, "duelling": True, "n_steps": 2}, 24_000, 0.9),
    "q_learning": ({}, 50_000, 0.9),
}
"""Kind -> its parameters, user-steps and discount."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("kind", AHEAD)
def test_looking_ahead_pays_where_greed_drives_users_away(kind: str, seed: int) -> None:
    """World `tedium`: the same agent with and without a future, paired 95 % interval over users."""
    known = known_world("tedium")
    params, budget, gamma = AHEAD[kind]
    lanes = Lanes(training_of(known), 240, seed=99)
    values = []
    for discount in (0.0, gamma):
        settings = AgentSettings.model_validate({"name": "one", "kind": kind, "params": {**params, "gamma": discount}})
        trained = train(settings, training_of(known, seed=seed, budget=budget), Path())
        values.append(session_values(lanes, trained.agent.act))
    lanes.close()
    difference = values[1] - values[0]
    assert difference.mean() - 1.96 * difference.std() / np.sqrt(len(difference)) > 0, (kind, difference.mean())
