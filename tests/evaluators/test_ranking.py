"""Rank ranges: what separates agents, in which direction, and what keeps them together."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.comparison import AgentValues
from evaluators.ranking import rank_agents

U = 400


def agents_of(rng: np.random.Generator, means: dict[str, float], *, n_worlds: int = 5) -> dict[str, AgentValues]:
    """Agents that do not learn, on the same users; a difference has standard error 1.4 / sqrt(M U), .032 of 5 worlds.

    Each agent's mean in each world is exactly the given one, so that no test hangs on a draw.
    """
    user = rng.standard_normal(U)
    noise = {name: rng.standard_normal((1, n_worlds, U)) for name in means}
    return {
        name: AgentValues(mean + user + noise[name] - noise[name].mean(axis=2, keepdims=True))
        for name, mean in means.items()
    }


def test_separated_agents_have_one_place_each_and_the_best_comes_first(rng: np.random.Generator) -> None:
    ranks = rank_agents(agents_of(rng, {"low": 0.0, "high": 2.0, "middle": 1.0}))
    assert [(r.agent, r.rank_low, r.rank_high, r.tie_group) for r in ranks] == [
        ("high", 1, 1, 1),
        ("middle", 2, 2, 2),
        ("low", 3, 3, 3),
    ]
    assert ranks[0].worlds == (1, 1, 1, 1, 1)


def test_where_less_is_better_the_order_turns_round(rng: np.random.Generator) -> None:
    ranks = rank_agents(agents_of(rng, {"low": 0.0, "high": 2.0, "middle": 1.0}), higher_is_better=False)
    assert [(r.agent, r.rank_low, r.rank_high) for r in ranks] == [("low", 1, 1), ("middle", 2, 2), ("high", 3, 3)]
    assert ranks[0].worlds == (1, 1, 1, 1, 1)


def test_equal_agents_share_all_places_and_one_tie_group(rng: np.random.Generator) -> None:
    ranks = rank_agents(agents_of(rng, dict.fromkeys("abcd", 1.0)))
    assert {(r.rank_low, r.rank_high, r.tie_group) for r in ranks} == {(1, 4, 1)}


def test_not_separated_is_not_transitive_so_ranges_overlap(rng: np.random.Generator) -> None:
    """A chain: neighbours cannot be told apart, the ends can. No place in it parts all above from all below."""
    ranks = {r.agent: r for r in rank_agents(agents_of(rng, {"a": 0.0, "b": 0.05, "c": 0.1}))}
    assert (ranks["c"].rank_low, ranks["c"].rank_high) == (1, 2)
    assert (ranks["b"].rank_low, ranks["b"].rank_high) == (1, 3)
    assert (ranks["a"].rank_low, ranks["a"].rank_high) == (2, 3)
    assert [ranks[name].tie_group for name in "cba"] == [1, 1, 1]


def test_a_pair_that_may_not_be_compared_is_not_separated(rng: np.random.Generator) -> None:
    agents = agents_of(rng, {"a": 0.0, "b": 2.0, "c": 1.0})
    allowed = {frozenset("ab"), frozenset("bc")}
    ranks = {r.agent: (r.rank_low, r.rank_high, r.tie_group) for r in rank_agents(agents, comparable=allowed)}
    assert ranks == {"b": (1, 1, 1), "a": (2, 3, 2), "c": (2, 3, 2)}
    with_the_best = {r.agent: r for r in rank_agents(agents, comparable={frozenset("bc")})}
    assert [(with_the_best[n].rank_low, with_the_best[n].rank_high) for n in "bca"] == [(1, 2), (2, 3), (1, 3)]
    assert {r.tie_group for r in with_the_best.values()} == {1}  # a may be the best: it is shown below nobody


def test_a_pair_whose_difference_is_withheld_is_not_separated() -> None:
    """All of the difference comes from three users."""
    values = np.zeros((1, 5, U))
    lucky = values.copy()
    lucky[..., :3] = 1e4
    ranks = rank_agents({"plain": AgentValues(values), "lucky": AgentValues(lucky)})
    assert {(r.rank_low, r.rank_high) for r in ranks} == {(1, 2)}


def test_a_stricter_alpha_only_widens_the_ranges(rng: np.random.Generator) -> None:
    agents = agents_of(rng, {name: 0.11 * i for i, name in enumerate("abcdef")})
    loose, strict = ({r.agent: r for r in rank_agents(agents, alpha=alpha)} for alpha in (0.05, 0.0005))
    assert all(strict[n].rank_low <= loose[n].rank_low and strict[n].rank_high >= loose[n].rank_high for n in agents)
    assert any(strict[n].rank_high > loose[n].rank_high for n in agents)


@pytest.mark.parametrize("n", [1, 2])
def test_few_agents_have_ranks_too(rng: np.random.Generator, n: int) -> None:
    ranks = rank_agents(agents_of(rng, dict.fromkeys("ab"[:n], 1.0)))
    assert [(r.rank_low, r.rank_high) for r in ranks] == [(1, n)] * n
