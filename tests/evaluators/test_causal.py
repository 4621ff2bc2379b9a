"""Effects of logged and simulated treatments, and what must refute or withhold them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evaluators.causal import (
    Effect,
    Trial,
    compare_learners,
    confounding_range,
    covariate_balance,
    doubly_robust,
    e_value,
    mean_effect,
    qini,
    qini_area,
    refute,
    run_effect,
    served_effect,
)
from evaluators.causal.learners import LearnerResult, calibration, gates, linear_drivers
from evaluators.causal.overlap import trimmed_effect, trimming_bound
from evaluators.estimate import Estimate
from simulator.causal_models import LEARNERS, effect_drivers, elastic_net_propensity, fit_effect_learner
from simulator.errors import InputError, LogError

Floats = NDArray[np.float64]
HILLSTROM = next(
    (p for d in os.environ["WINDTUNNEL_DATA"].split(":") if (p := Path(d) / "hillstrom" / "hillstrom.csv.gz").exists()),
    None,
)
needs_hillstrom = pytest.mark.skipif(HILLSTROM is None, reason="the Hillstrom log is not there")


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def trial(rng: np.random.Generator, n: int = 1500, *, effect: float = 0.15, known: bool = True) -> Trial:
    """A confounded treatment whose propensity and effect are known; the effect is larger where x1 is."""
    x = rng.standard_normal((n, 4))
    p = sigmoid(0.8 * x[:, 0])
    treated = (rng.random(n) < p).astype(np.int64)
    base = 0.3 + 0.15 * np.tanh(x[:, 0])
    y = (rng.random(n) < base + treated * effect * (1 + np.tanh(2 * x[:, 1]))).astype(float)
    return Trial(x, treated, y, p if known else None)


@pytest.mark.parametrize("known", [True, False])
def test_doubly_robust_scores_undo_confounding_that_the_difference_of_means_does_not(
    rng: np.random.Generator, root: np.random.SeedSequence, known: bool
) -> None:
    found = trial(rng, 3000, known=known)
    naive = found.y[found.treated == 1].mean() - found.y[found.treated == 0].mean()
    effect = mean_effect(doubly_robust(found, root).difference, found.clusters, method="effect")
    assert naive > 0.2
    assert effect.low < 0.15 < effect.high
    assert effect.high < naive


def test_scores_are_the_same_twice_and_never_from_a_model_that_saw_the_user(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    found = trial(rng, 600)
    first, again = doubly_robust(found, root), doubly_robust(found, root)
    assert np.array_equal(first.difference, again.difference)
    # A user whose outcome alone changes keeps the expectation that the models have of them.
    moved = Trial(found.x, found.treated, found.y.copy(), found.p)
    moved.y[7] = 1 - moved.y[7]
    assert doubly_robust(moved, root).expected[7] == first.expected[7]
    assert not np.array_equal(doubly_robust(moved, root).expected, first.expected)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("trees", [False, True])
def test_each_learner_ranks_by_the_true_effect(rng: np.random.Generator, learner: str, trees: bool) -> None:
    found = trial(rng, 4000, effect=0.2)
    predict = fit_effect_learner(found.x, found.treated, found.y, found.p, learner=learner, trees=trees, seed=1)
    models = predict(found.x, found.p)
    if learner == "s" and not trees:
        return  # a linear S-learner knows one effect on the logit for all: it cannot rank by x1
    assert np.corrcoef(models.effect, np.tanh(2 * found.x[:, 1]))[0, 1] > 0.4, learner
    assert models.treated.mean() > models.control.mean()


def test_the_elastic_net_propensity_follows_the_truth(rng: np.random.Generator) -> None:
    found = trial(rng, 3000)
    p = elastic_net_propensity(found.x * 100, found.treated, seed=1)(found.x * 100)
    assert np.abs(p - found.p).mean() < 0.04


def test_without_a_feature_that_varies_the_propensity_is_the_share_of_the_treated() -> None:
    """The solver gave .44 where .3 were treated, and the effect of an experiment without covariates was withheld."""
    treated = (np.arange(400) % 10 < 3).astype(np.int64)
    for x in (np.zeros((400, 1)), np.full((400, 2), 7.0)):
        assert elastic_net_propensity(x, treated, seed=0)(x[:5]).tolist() == pytest.approx([0.3] * 5)


def test_an_experiment_without_covariates_has_its_difference_of_means(tmp_path: Path, rng: np.random.Generator) -> None:
    arm = rng.integers(0, 2, 1000)
    bought = (rng.random(1000) < 0.2 + 0.2 * arm).astype(int)
    found = effects(write(tmp_path / "log.csv", pd.DataFrame({"arm": arm, "bought": bought})))["1"]
    assert found.ate.value == pytest.approx(bought[arm == 1].mean() - bought[arm == 0].mean(), abs=0.005)
    assert found.ate.low < 0.2 < found.ate.high


def test_the_driver_of_an_effect_is_named(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2000, 3))
    assert effect_drivers(x, np.tanh(x[:, 2]), trees=True, seed=0).argmax() == 2
    assert effect_drivers(x, np.zeros(2000), trees=False, seed=0).tolist() == [0, 0, 0]


def test_a_right_analysis_survives_every_refutation(rng: np.random.Generator, root: np.random.SeedSequence) -> None:
    found = trial(rng)
    tried = refute(found, doubly_robust(found, root), root, balance=covariate_balance(found))
    assert {r.name for r in tried} == {
        "placebo treatment", "random common cause", "80 % subset", "dummy outcome", "covariate balance",
    }  # fmt: skip
    assert [r.detail for r in tried if not r.passed] == []
    assert "printed, no filter" in tried[0].detail


def test_an_effect_that_is_nothing_is_not_refuted_for_being_nothing(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    found = trial(rng, effect=0.0)
    assert all(r.passed for r in refute(found, doubly_robust(found, root), root))


def test_a_negative_control_outcome_that_the_treatment_moves_refutes(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    """Hidden confounder: the outcome from before the treatment is 'moved' too."""
    found = trial(rng, 3000)
    before = (rng.random(3000) < 0.3 + 0.2 * found.treated).astype(float)
    tried = {r.name: r for r in refute(found, doubly_robust(found, root), root, negative_control=before)}
    assert not tried["negative control"].passed


def test_a_placebo_of_the_wrong_size_refutes(rng: np.random.Generator, root: np.random.SeedSequence) -> None:
    """Rows repeated ten times as if independent: their standard error is a third of what it claims to be."""
    one = trial(rng, 300)
    rows = np.repeat(np.arange(300), 10)
    repeated = Trial(one.x[rows], one.treated[rows], one.y[rows], one.p[rows], rows)
    honest = refute(repeated, doubly_robust(repeated, root), root)
    assert next(r for r in honest if r.name == "placebo treatment").passed


def test_a_covariate_from_after_the_treatment_is_found_by_its_imbalance(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4000, 2))
    treated = rng.integers(0, 2, 4000)
    fine = Trial(x, treated, x[:, 0], np.full(4000, 0.5))
    assert covariate_balance(fine).passed
    leaked = Trial(np.column_stack([x, treated + rng.standard_normal(4000)]), treated, x[:, 0], np.full(4000, 0.5))
    found = covariate_balance(leaked, ["a", "b", "spend"])
    assert not found.passed
    assert "spend" in found.detail
    wrong = Trial(x, treated, x[:, 0], np.full(4000, 0.3))
    assert "the treatment's share" in covariate_balance(wrong).detail
    assert covariate_balance(Trial(x, treated, x[:, 0])) is None


def test_e_values_are_those_of_the_paper() -> None:
    """VanderWeele and Ding (2017): a risk ratio of 3.9 gives 7.26; ratios below 1 count by their inverse."""
    assert e_value(3.9) == pytest.approx(7.26, abs=0.005)
    assert e_value(1 / 3.9) == pytest.approx(e_value(3.9))
    assert e_value(1.0) == 1.0


def test_the_qini_area_of_an_order_is_that_of_the_definition(rng: np.random.Generator) -> None:
    gain = rng.standard_normal(400)
    area = qini_area(gain, np.ones(400))
    curve = np.cumsum(gain) / 400
    line = gain.mean() * np.arange(1, 401) / 400
    assert area == pytest.approx((curve - line).mean(), abs=2 / 400)
    doubled = qini_area(gain, np.full(400, 2.0))
    assert doubled == pytest.approx(area)


def test_an_order_that_knows_the_effect_has_a_positive_qini(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    found = trial(rng, 4000)
    scores = doubly_robust(found, root)
    assert qini(scores, found.y, found.clusters, rng, resamples=200).low > 0
    few = np.zeros(4000)
    few[:100] = 1
    assert "200" in qini(scores, few, found.clusters, rng).withheld


def test_learners_stand_side_by_side_and_are_tested_on_users_whom_they_did_not_see(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    """The effect is .2 (1 + tanh 2 x1): fifths by a right ranking rise from about .02 to about .38."""
    found = trial(rng, 2400, effect=0.2)
    scores = doubly_robust(found, root)
    for one in compare_learners(found, scores, root, LEARNERS, resamples=60):
        assert one.mean.low is None, one.learner  # no valid interval, so none
        if one.learner == "s":
            continue  # a linear S-learner knows one effect on the logit for all
        if "forest" in one.learner:  # its trees know no propensity, and the treatment is confounded
            assert "no propensity" in one.mean.method
        else:
            assert one.mean.value == pytest.approx(0.2, abs=0.06), one.learner
        assert one.calibration.low > 0, one.learner
        assert one.qini.low > 0, one.learner
        assert len(one.gates) == 5
        lowest, highest = one.gates[0][2], one.gates[-1][2]
        assert lowest.low < 0.08, one.learner
        assert highest.low > lowest.value, one.learner
        assert "simultaneous over 5" in lowest.method
    # A ranking by noise has no slope, no area, and fifths that are alike.
    noise = replace(scores, effect=rng.standard_normal(2400))
    assert calibration(noise, found.clusters).low < 0 < calibration(noise, found.clusters).high
    parts = [part for _, _, part in gates(noise, found.clusters)]
    assert max(part.low for part in parts) < min(part.high for part in parts)


def test_a_learner_that_cannot_be_fitted_says_why(rng: np.random.Generator, root: np.random.SeedSequence) -> None:
    found = trial(rng, 600)
    few = {
        one.learner: one for one in compare_learners(found, doubly_robust(found, root), root, ["t", "causal_forest"])
    }
    assert few["t"].mean.value is not None
    assert "a forest needs 1000" in few["causal_forest"].mean.withheld
    many = trial(rng, 1200)
    counts = Trial(many.x, many.treated, many.y + rng.random(1200), many.p)
    (uplift,) = compare_learners(counts, doubly_robust(counts, root), root, ["uplift_forest"])
    assert "has to be 0 or 1" in uplift.mean.withheld


def test_the_slope_of_a_driver_is_covered_and_that_of_the_others_is_none(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    n = 2000
    x = rng.standard_normal((n, 3))
    treated = rng.integers(0, 2, n)
    y = x[:, 0] + treated * (0.5 + 0.8 * x[:, 1]) + rng.standard_normal(n)
    found = Trial(x, treated, y, np.full(n, 0.5))
    slopes = linear_drivers(x, doubly_robust(found, root).difference, found.clusters, ["a", "b", "c"])
    assert slopes["b"].low < 0.8 < slopes["b"].high
    assert slopes["b"].low > 0
    assert all(slopes[name].low < 0 < slopes[name].high for name in ("a", "c"))


def test_rows_without_the_other_arm_are_trimmed_by_the_rule_of_least_variance(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    assert trimming_bound(np.full(50, 0.5)) == 0.0
    # The threshold of Crump et al.: the mean of 1/(p(1-p)) inside is half of its limit.
    p = rng.beta(0.4, 0.4, 20_000).clip(1e-4, 1 - 1e-4)
    bound = trimming_bound(p)
    inside = 1 / (p * (1 - p))[(p >= bound) & (p <= 1 - bound)]
    assert 1 / (bound * (1 - bound)) == pytest.approx(2 * inside.mean(), rel=0.01)
    x = rng.standard_normal((3000, 2))
    chance = sigmoid(4 * x[:, 0])
    treated = (rng.random(3000) < chance).astype(np.int64)
    found = Trial(x, treated, x[:, 0] + 0.5 * treated + rng.standard_normal(3000), None)
    effect = trimmed_effect(doubly_robust(found, root), found.clusters, "effect")
    assert effect.low < 0.5 < effect.high
    assert "of the rows with a propensity in" in effect.method


def test_the_confounding_range_is_a_point_without_confounding_and_grows_with_lambda(rng: np.random.Generator) -> None:
    found = trial(rng, known=False)
    ranges = confounding_range(found, trial(rng).p)
    assert ranges["1"][0] == pytest.approx(ranges["1"][1])
    assert ranges["2"][0] < ranges["1.5"][0] < ranges["1"][0] < ranges["1.5"][1] < ranges["2"][1]


def test_the_effect_of_being_served_is_estimated_beside_the_exact_one(
    rng: np.random.Generator, root: np.random.SeedSequence
) -> None:
    n = 500
    x = rng.standard_normal((n, 3))
    baseline = 3 + x[:, 0] + rng.standard_normal(n)
    group = np.where(rng.random(n) < 0.4, "F", "M")
    group[:10] = "X"
    agent = baseline + 1 + (group == "F")
    found = served_effect(agent, baseline, x, np.arange(n), {"gender": group}, root, metric="reward")
    assert set(found.estimated) == set(found.exact) == {"all", "gender=F", "gender=M", "gender=X"}
    assert found.exact["gender=F"].value == pytest.approx(2.0)
    assert found.estimated["gender=F"].low < 2 < found.estimated["gender=F"].high
    assert found.estimated["gender=M"].low < 1 < found.estimated["gender=M"].high
    assert found.estimated["gender=X"].value is None
    small = served_effect(agent[:20], baseline[:20], x[:20], np.arange(20), {}, root, metric="reward")
    assert small.estimated["all"].value is None


# ------------------------------------------------------------------------------------------------ the command's log


def write(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def logged(rng: np.random.Generator) -> pd.DataFrame:
    n = 1600
    arm = rng.choice(["None", "a", "b"], n)
    age = rng.integers(18, 70, n)
    region = rng.choice(["north", "south"], n)
    lift = np.where(arm == "a", 0.15, np.where(arm == "b", 0.0, 0.0))
    bought = (rng.random(n) < 0.2 + 0.003 * (age - 40) + lift).astype(int)
    return pd.DataFrame({"arm": arm, "age": age, "region": region, "bought": bought, "who": np.arange(n) // 2})


def effects(path: Path, **options: object) -> dict[str, Effect]:
    options = {"learners": ["t"], **options}
    found = run_effect(path, treatment="arm", outcome="bought", **options)  # type: ignore[arg-type]
    return {e.treatment: e for e in found.effects}


def test_every_arm_is_set_against_the_control_with_the_document_of_the_contract(
    tmp_path: Path, logged: pd.DataFrame
) -> None:
    path = write(tmp_path / "log.csv", logged)
    found = run_effect(path, treatment="arm", outcome="bought", by=["region", "age"], propensity="0.3333", user="who")
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["n"] == 1600
    assert document["control"] == "None"
    assert [e["treatment"] for e in document["effects"]] == ["a", "b"]
    first = document["effects"][0]
    assert set(first) >= {
        "treatment",
        "outcome",
        "ate",
        "by",
        "qini",
        "overlap",
        "refutations",
        "sensitivity",
        "drivers",
    }
    assert first["ate"]["low"] < 0.15 < first["ate"]["high"]
    assert document["effects"][1]["ate"]["low"] < 0 < document["effects"][1]["ate"]["high"]
    assert [row["group"] for row in first["by"]["region"]] == ["north", "south"]
    assert len(first["by"]["age"]) == 4
    assert "simultaneous over 2 groups" in first["by"]["region"][0]["effect"]["method"]
    assert not found.withheld
    assert "a against None" in found.as_text()


def test_clusters_are_users_and_their_absence_is_said(tmp_path: Path, logged: pd.DataFrame) -> None:
    path = write(tmp_path / "log.csv", logged)
    assert effects(path, user="who", propensity="0.333")["a"].ate.n < effects(path, propensity="0.333")["a"].ate.n
    found = run_effect(path, treatment="arm", outcome="bought", propensity="0.333", learners=["t"])
    assert "clusters: rows assumed independent" in found.notes


def test_a_covariate_measured_afterwards_withholds_every_arm(
    tmp_path: Path, logged: pd.DataFrame, rng: np.random.Generator
) -> None:
    after = logged.assign(opened=(rng.random(1600) < np.where(logged.arm == "a", 0.6, 0.1)).astype(int))
    path = write(tmp_path / "log.csv", after)
    found = run_effect(path, treatment="arm", outcome="bought", propensity="0.333", learners=["t"])
    assert found.withheld
    assert "opened" in found.effects[0].ate.withheld
    assert not run_effect(
        path, treatment="arm", outcome="bought", propensity="0.333", ignore=["opened"], learners=["t"]
    ).withheld


def test_a_small_arm_is_withheld(tmp_path: Path, logged: pd.DataFrame) -> None:
    few = pd.concat([logged[logged.arm == "None"], logged[logged.arm == "a"].head(12)])
    found = run_effect(write(tmp_path / "log.csv", few), treatment="arm", outcome="bought")
    assert found.withheld
    assert "needs 30" in found.effects[0].ate.withheld


def test_an_outcome_that_never_varies_is_withheld(tmp_path: Path, logged: pd.DataFrame) -> None:
    found = effects(write(tmp_path / "log.csv", logged.assign(bought=(logged.arm == "b").astype(int))))
    assert "outcome: 0 and 0 in all rows of a and None" in found["a"].ate.withheld
    assert "outcome: 1 and 0 in all rows of b and None" in found["b"].ate.withheld
    assert found["a"].refutations == found["b"].refutations == ()


def test_a_group_has_to_hold_both_arms_and_a_few_events(
    tmp_path: Path, logged: pd.DataFrame, rng: np.random.Generator
) -> None:
    """Four treated of 40, and 3 buyers of 200: limits of such groups covered .76 and .66."""
    frame = logged[logged.arm != "b"].reset_index(drop=True)
    frame["part"] = "rest"
    frame.loc[frame.index[frame.arm == "None"][:36], "part"] = "untreated"
    frame.loc[frame.index[frame.arm == "a"][:4], "part"] = "untreated"
    seldom = frame.index[frame.part == "rest"][:200]
    frame.loc[seldom, "part"] = "seldom"
    frame.loc[seldom, "bought"] = 0
    frame.loc[seldom[:3], "bought"] = 1
    frame["chance"] = np.where(frame.part == "untreated", 0.1, 0.5)
    groups = effects(write(tmp_path / "log.csv", frame), propensity="chance", by=["part"])["a"].by["part"]
    found = {one.group: one.effect for one in groups}
    assert "an arm of untreated has 4 users, needs 30" in found["untreated"].withheld
    assert "events: 3 users with an outcome of 1, needs 10" in found["seldom"].withheld
    assert found["rest"].value is not None


def test_a_mediator_splits_the_effect_and_a_moved_negative_control_withholds_it(
    tmp_path: Path, logged: pd.DataFrame, rng: np.random.Generator
) -> None:
    """Arm a opens more mails, and who opens buys more: .4 times .5 by way of it, .15 directly."""
    opened = (rng.random(1600) < np.where(logged.arm == "a", 0.6, 0.2)).astype(int)
    bought = (rng.random(1600) < 0.1 + 0.15 * (logged.arm == "a") + 0.5 * opened).astype(int)
    frame = logged.assign(opened=opened, bought=bought, before=(rng.random(1600) < 0.3).astype(int))
    frame = frame[frame.arm != "b"]
    path = write(tmp_path / "log.csv", frame)
    options = {"propensity": "0.5", "mediators": ["opened"], "learners": ["t"], "negative_control": "before"}
    found = effects(path, **options)["a"]
    parts = found.mediation
    assert parts["direct"].low < 0.15 < parts["direct"].high
    assert parts["by way of the mediators"].low < 0.2 < parts["by way of the mediators"].high
    assert abs(parts["spurious"].value) < 0.03  # an experiment: the covariates of the arms differ by chance alone
    total = parts["difference of the arms"].value
    assert sum(part.value for name, part in parts.items() if name != "difference of the arms") == pytest.approx(total)
    assert {r.name for r in found.refutations} >= {"negative control"}
    assert found.ate.value == pytest.approx(total, abs=0.02)
    moved = frame.assign(before=np.where(frame.arm == "a", frame.before | (rng.random(len(frame)) < 0.3), frame.before))
    refuted = effects(write(tmp_path / "moved.csv", moved), **options)["a"]
    assert "negative control" in refuted.ate.withheld
    assert refuted.mediation["direct"].value is None
    assert refuted.learners[0].mean.value is None


def test_learners_stand_in_columns_whatever_their_numbers() -> None:
    """A slope of [-4.952, 0.7281] was wider than its column, and moved the rest of its row."""

    def row(name: str, slope: float) -> LearnerResult:
        about = Estimate(slope, slope - 1 / 3, slope + 1 / 3, 0.95, 90, "t")
        return LearnerResult(
            name, Estimate(0.01, None, None, 0.95, 90, "t"), about, about, ((0, 1, about), (1, 2, about))
        )

    nothing = Estimate.withhold("ate", why="an example")
    learners = (row("s", -2112.123456), row("causal_forest", 0.5))
    shown = Effect("a", "y", nothing, {}, nothing, {}, (), {}, (), learners=learners).as_lines("b")
    head, *rows = (line for line in shown if line.startswith(("  learner", "  s ", "  causal")))
    starts = [head.index(word) for word in ("mean", "slope", "Qini", "lowest")]
    assert len(rows) == 2
    for line in rows:
        assert all(line[at - 2 : at] == "  " and line[at] != " " for at in starts), line


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"treatment": "arn"}, ["treatment: 'arn'", "did you mean 'arm'"]),
        ({}, {"outcome": "region"}, ["outcome: 'region' is 'south'", "numbers are needed"]),
        ({}, {"control": "nothing"}, ["control: 'nothing' is not a value of 'arm'; it has None, a, b"]),
        ({}, {"propensity": "0.5"}, ["propensity: 0.5 for each of 2 treatments leaves 0"]),
        ({}, {"propensity": "1.5"}, ["propensity"]),
        ({}, {"propensity": "prob"}, ["propensity: 'prob' is neither a number nor a column"]),
        ({}, {"mediators": ["ages"]}, ["mediator: 'ages'", "did you mean 'age'"]),
        ({}, {"learners": ["xx"]}, ["learner: 'xx' is not a learner"]),
        ({}, {"by": ["regions"]}, ["by: 'regions'", "did you mean 'region'"]),
        ({"arm": "a"}, {}, ["one value"]),
        ({}, {"outcome": "arm"}, ["outcome: 'arm' is the treatment too"]),
        ({}, {"by": ["bought"]}, ["by: 'bought' is the outcome"]),
        ({}, {"by": ["arm"]}, ["by: 'arm' is the treatment"]),
        ({}, {"mediators": ["bought"]}, ["mediator: 'bought' is the outcome"]),
        ({}, {"negative_control": "bought"}, ["negative-control: 'bought' is the outcome"]),
        ({}, {"user": "arm"}, ["user: 'arm' is the treatment"]),
        ({}, {"mediators": ["age"], "negative_control": "age"}, ["negative-control: 'age' is a mediator too"]),
        ({"note": "unique"}, {}, ["ignore: 'note'", "names rows"]),
        ({"bought": None}, {}, ["outcome: 'bought'"]),
        ({"arm": None}, {}, ["treatment: 'arm' is missing"]),
    ],
)  # fmt: skip
def test_what_the_user_can_mend_is_said_in_one_line(
    tmp_path: Path, logged: pd.DataFrame, change: dict[str, object], options: dict[str, object], words: list[str]
) -> None:
    for column, value in change.items():
        if value == "unique":
            logged[column] = [f"row {i}" for i in range(len(logged))]
        elif value is None:
            logged[column] = logged[column].astype(object)
            logged.loc[3, column] = None
        else:
            logged[column] = value
    path = write(tmp_path / "log.csv", logged)
    with pytest.raises(InputError) as caught:
        run_effect(path, **{"treatment": "arm", "outcome": "bought", **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_column_that_stands_twice_is_said_in_one_line(tmp_path: Path, logged: pd.DataFrame) -> None:
    twice = logged.assign(again=logged["bought"]).rename(columns={"again": "bought"})
    path = write(tmp_path / "log.csv", twice)
    with pytest.raises(LogError, match="has the column 'bought' twice; rename one"):
        run_effect(path, treatment="arm", outcome="bought")


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"arm,bought\n\xff\xfe,1\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "log.txt").write_text("arm\n")
    for name in ("log.csv", "empty.csv", "log.txt", "missing.csv"):
        with pytest.raises(LogError) as caught:
            run_effect(tmp_path / name, treatment="arm", outcome="bought")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@needs_hillstrom
def test_the_lifts_of_the_hillstrom_experiment_are_covered(tmp_path: Path) -> None:
    """Randomised, propensity 1/3: visits rise by .0766 (men's) and .0452 (women's mail) by the raw means."""
    found = run_effect(
        HILLSTROM, treatment="segment", outcome="visit", control="No E-Mail", propensity="0.3333333",
        ignore=["conversion", "spend"], by=["newbie"],
    )  # fmt: skip
    men, women = found.effects
    assert men.ate.low < 0.0766 < men.ate.high
    assert women.ate.low < 0.0452 < women.ate.high
    assert men.ate.high - men.ate.low < 0.0145
    assert women.qini.low > 0  # who is moved by the women's mail is known: those who bought women's clothes
    assert women.drivers[0].feature == "womens"
