"""Agents in the true world beside the judge worlds: paired flights, checks that confirm or contradict, what is shown.

Sabotaged once, each seen red: other luck in the true world, the bound among the policies, the true interval read for
the simulator's, the judge worlds' order compared with itself, the true world left out of the flights' key, true and
judged numbers exchanged in the terminal and on the page.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation
from agents.slates import top_slates
from evaluators.flights import Flight, Flights, gather
from evaluators.judging import TRUTH, Course, fly_course
from evaluators.known import Simulated
from evaluators.metrics import Reference
from evaluators.page import render_page
from evaluators.report import Report, TruthDifference, TruthSection, TruthValue
from evaluators.truth import ORDER, Truth
from scenarios.stages.flying import where_of
from tests.evaluators.example_report import about, example_report
from tests.simulator.small_world import small_world

Floats = NDArray[np.float64]
USERS = 120
TRUE_MEANS = {"popularity": 4.0, "a": 5.0, "b": 6.0, "c": 7.0, "oracle": 12.0}


class Showing:
    """Shows the same items to everyone."""

    def __init__(self, scores: Floats) -> None:
        self.scores = scores.astype(np.float32)

    def act(self, observation: Observation, rng: np.random.Generator) -> NDArray[np.int64]:
        return top_slates(np.tile(self.scores, (len(observation), 1)), observation)


def flown_in(truth: Any) -> Any:
    world = small_world(1, users=60, slate_size=3, horizon=4)
    course = Course(
        worlds=(small_world(2, users=60, slate_size=3, horizon=4), world),
        claimed=world,
        sweeps=(),
        seeds=(4, 5),
        sessions=2,
        metrics=("reward",),
        reference=Reference(np.ones(130, np.int64), np.ones(130, bool)),
        held_out=None,
        truth=truth,
    )
    agent = Showing(np.arange(130.0))
    return fly_course(agent, course, name="a", training_seed=0, root=np.random.SeedSequence(3),
                      report=lambda share, words: None)  # fmt: skip


def test_in_the_true_world_an_agent_meets_the_users_and_the_luck_of_the_judge_worlds() -> None:
    """A truth that is what the second judge world says pays the same, user by user, to the last bit."""
    judged = flown_in(small_world(1, users=60, slate_size=3, horizon=4))
    second = [flight for flight in judged.flights if flight.world == 2]
    assert [flight.world for flight in judged.truth] == [TRUTH] * 4
    for true, said in zip(judged.truth, second, strict=True):
        assert (true.seed, true.session) == (said.seed, said.session)
        assert np.array_equal(true.user, said.user)
        assert np.array_equal(true.values["reward"], said.values["reward"])
        assert np.ptp(true.values["reward"]) > 0
    assert flown_in(None).truth == ()


def table(means: dict[str, float], rng: np.random.Generator, worlds: tuple[int, ...]) -> Flights:
    """Every agent's users, each with a level of their own that all agents share."""
    level = np.linspace(-1, 1, USERS)
    return gather(
        [
            Flight(name, 0, world, 1, 0, np.arange(USERS), {"reward": mean + level + 0.3 * rng.standard_normal(USERS)},
                   {}, np.ones(USERS), np.ones(USERS))
            for name, mean in means.items()
            for world in worlds
        ],
        ("reward",),
    )  # fmt: skip


def found(judged_means: dict[str, float]) -> tuple[Truth, dict[str, Any], TruthSection]:
    rng = np.random.default_rng(8)
    judged = table(judged_means, rng, (1, 2, 3))
    truth = Truth(table(TRUE_MEANS, rng, (TRUTH,)), judged, {"oracle"})
    checks = truth.checks(lambda name, metric: (), rng)
    return truth, {check.name: check for check in checks}, truth.section("world:x", ["popularity"], checks)


def test_a_right_simulator_is_confirmed_by_the_truth_and_a_wrong_one_contradicted() -> None:
    _, right, section = found({**TRUE_MEANS, "oracle": 9.0})
    assert {name: check.verdict for name, check in right.items()} == {
        "truth: reward of popularity": "pass", "truth: reward of a": "pass", "truth: reward of b": "pass",
        "truth: reward of c": "pass", ORDER: "pass",
    }  # fmt: skip
    held = {(one.agent, "value"): one.holds for one in section.values}
    held |= {(one.agent, "difference"): one.holds for one in section.differences}
    assert held == {
        **{(name, "value"): True for name in ("popularity", "a", "b", "c")},
        **{(name, "difference"): True for name in ("a", "b", "c")},
        ("oracle", "value"): None, ("oracle", "difference"): None,
    }  # fmt: skip
    assert section.ranking_agreement.value == 1.0

    turned = {"popularity": 7.0, "a": 6.0, "b": 5.0, "c": 4.0, "oracle": 9.0}
    _, wrong, section = found(turned)
    assert wrong["truth: reward of c"].verdict == "fail"
    assert "contradicted" in wrong["truth: reward of c"].reason
    assert "in the true world 6.9" in wrong["truth: reward of c"].reason
    assert wrong[ORDER].verdict == "fail"
    assert section.ranking_agreement.value == -1.0
    [last] = [one for one in section.differences if one.agent == "c"]
    assert last.true.low is not None
    assert last.true.low > 2.5
    assert last.simulated.high is not None
    assert last.simulated.high < -2.5
    assert last.holds is False


def test_of_fewer_than_four_policies_no_order_is_compared() -> None:
    rng = np.random.default_rng(8)
    few = {name: TRUE_MEANS[name] for name in ("popularity", "a", "b", "oracle")}
    truth = Truth(table(few, rng, (TRUTH,)), table(few, rng, (1,)), {"oracle"})
    order = truth.checks(lambda name, metric: Simulated(truth.judged.simulated(name, metric)), rng)[-1]
    assert (order.name, order.verdict) == (ORDER, "not made")
    assert "3 policies, needs 4" in order.reason


def test_the_true_world_is_in_the_key_of_every_flight() -> None:
    def key(truth: Any) -> tuple[Any, ...]:
        world = SimpleNamespace(digest="judge")
        evaluate = SimpleNamespace(model_copy=lambda update: "evaluate")
        setting: Any = SimpleNamespace(scenario=SimpleNamespace(seed=1, evaluate=evaluate))
        worlds: Any = SimpleNamespace(judges=(world,), a_on_judge_users=world, truth=truth)
        data: Any = SimpleNamespace(digest="d", content="c")
        return where_of(setting, data, worlds)

    assert len({key(None), key(SimpleNamespace(digest="one")), key(SimpleNamespace(digest="two"))}) == 3


def with_truth() -> Report:
    values = [
        TruthValue(
            agent=name, metric="reward", true=about(33.25 + k, 1.5), simulated=about(44.75 + k, 1.5), holds=False
        )
        for k, name in enumerate(("popularity", "linucb"))
    ]
    difference = TruthDifference(
        agent="linucb", metric="reward", baseline="popularity", true=about(-3.25, 1.25), simulated=about(6.75, 1.25),
        holds=False, p_adjusted=0.001,
    )  # fmt: skip
    order = about(0.5, 0.3)
    return example_report(
        truth=TruthSection(source="world:drift", values=values, differences=[difference], ranking_agreement=order)
    )


def test_the_terminal_and_the_page_show_the_truth_beside_what_the_judge_worlds_said(tmp_path: Any) -> None:
    report = with_truth()
    text = report.as_text(width=140)
    [line] = [one for one in text.split("In the true world")[1].splitlines() if one.startswith("linucb")]
    assert line.split() == ["linucb", "34.2", "[32.8,", "35.8]", "45.8", "[44.2,", "47.2]", "-3.2", "[-4.5,", "-2.0]",
                            "+6.8", "[5.5,", "8.0]"]  # fmt: skip
    page = render_page(report)
    part = page.split('<section id="truth">')[1].split("</section>")[0]
    assert "world:drift" in part
    for number in ("-3.2", "+6.8", "34.2", "45.8", "no, no"):
        assert number in part
    assert '<a href="#truth">' in page
    assert '<section id="truth">' not in render_page(example_report())
    path = tmp_path / "report.json"
    path.write_text(report.to_json_text(), encoding="utf-8")
    assert Report.read(path) == report


def test_a_report_of_before_there_was_a_truth_is_still_read(tmp_path: Any) -> None:
    document = example_report().model_dump(mode="json")
    del document["truth"]
    assert Report.model_validate(document) == example_report()
