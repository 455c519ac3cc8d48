"""Claims: the statistics against simulation, and every verdict."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mm1.errors import UserError
from mm1.study.claims import estimate, judge
from mm1.study.results import Results
from mm1.study.schema import Claim
from tests.study.builders import results_of, study_of

LARGER = {"claim": "Larger is better.", "better": {"size": "large"}, "worse": {"size": "small"}}


def simulated(random: np.random.Generator, effect: float, seeds: float, items: float, count: int = 60) -> np.ndarray:
    """Scores (2 arms, 3 seeds, items): an effect that differs by seed and by item, on top of what arms share."""
    shared = random.normal(50, 10, size=(1, 1, count))
    difference = effect + random.normal(0, seeds, size=(3, 1)) + random.normal(0, items, size=(1, count))
    return np.stack([np.broadcast_to(shared[0], (3, count)), shared[0] + difference])


@pytest.mark.parametrize(("seeds", "items"), [(2.0, 0.5), (0.1, 15.0), (1.0, 8.0)])
def test_an_interval_holds_the_truth_as_often_as_it_says(seeds: float, items: float) -> None:
    random, study, truth = np.random.default_rng(1), study_of(), 3.0
    inside = 0
    for _ in range(400):
        scores = results_of(study, simulated(random, truth, seeds, items)).scores
        effect = estimate("", [(np.array([-1.0, 1.0]), scores)])
        inside += effect.interval[0] <= truth <= effect.interval[1]
    assert inside / 400 >= 0.93


def test_without_items_it_is_the_paired_t_test() -> None:
    study, random = study_of(), np.random.default_rng(2)
    items = np.broadcast_to(random.normal(50, 5, size=(2, 3, 1)), (2, 3, 40))  # every item alike
    effect = estimate("", [(np.array([-1.0, 1.0]), results_of(study, items).scores)])
    reference = stats.ttest_rel(items[1, :, 0], items[0, :, 0])
    assert effect.p_value == pytest.approx(reference.pvalue)
    assert effect.interval == pytest.approx(tuple(reference.confidence_interval()))


@pytest.mark.parametrize(
    ("difference", "spread", "minimum", "verdict"),
    [(10, 0.5, 0, "holds"), (10, 0.5, 20, "fails"), (-10, 0.5, 0, "fails"), (1, 5, 0, "undecided")],
)
def test_verdicts_on_a_difference(difference: float, spread: float, minimum: float, verdict: str) -> None:
    items = simulated(np.random.default_rng(3), difference, spread, 1.0)
    finding = judge(Claim.model_validate(LARGER | {"minimum": minimum}), results_of(study_of(), items))
    assert finding.verdict == verdict
    assert finding.effects[0].name == "size large - size small"


def test_arms_that_a_choice_leaves_open_are_averaged_and_effects_compared() -> None:
    axes: dict[str, dict[str, dict[str, object]]] = {
        "size": {"small": {}, "large": {}},
        "pixels": {"few": {}, "many": {}},
    }
    study, random = study_of(axes=axes), np.random.default_rng(4)
    assert [dict(arm) for arm in study.arms()][1] == {"size": "small", "pixels": "many"}
    means = np.array([10.0, 30.0, 11.0, 31.0])  # pixels are worth 20 points, size is worth 1
    items = means[:, None, None] + random.normal(0, 0.2, size=(4, 3, 50))
    results = results_of(study, items)
    pixels = {"better": {"pixels": "many"}, "worse": {"pixels": "few"}}
    size = {"better": {"size": "large"}, "worse": {"size": "small"}}
    more = judge(Claim.model_validate({"claim": "Pixels count for more.", **pixels, "than": size}), results)
    assert more.verdict == "holds"
    assert more.effects[0].mean == pytest.approx(19, abs=0.3)
    less = judge(Claim.model_validate({"claim": "Size counts for more.", **size, "than": pixels}), results)
    assert less.verdict == "fails"


def test_the_same_arms_are_compared_at_different_shots() -> None:
    study, random = study_of(), np.random.default_rng(6)
    few, many = (results_of(study, random.normal(mean, 1, size=(2, 3, 50)), shots=k) for mean, k in ((50, 0), (60, 8)))
    results = Results(few.arms, few.seeds, (*few.scores, *many.scores), few.seconds, few.losses)
    large = {"size": "large"}
    content = {"claim": "Shots help.", "better": large, "worse": large, "shots": [8], "worse_shots": [0]}
    finding = judge(Claim.model_validate(content), results)
    assert finding.verdict == "holds"
    difference = many.scores[0].points[1] - few.scores[0].points[1]
    assert finding.effects[0].by_seed == pytest.approx(difference)
    with pytest.raises(ValueError, match="the same arms"):
        Claim.model_validate({**content, "worse_shots": None})


@pytest.mark.parametrize(
    ("large", "verdict"),
    [((2.0, 2.1, 1.9), "holds"), ((4.0, 4.1, 4.3), "fails"), ((2.9, 3.4, 2.0), "undecided")],
)
def test_of_the_training_loss_the_better_arm_has_less(large: tuple[float, ...], verdict: str) -> None:
    losses = np.array([(3.0, 3.2, 3.1), large])
    results = results_of(study_of(), np.full((2, 3, 5), 50.0), losses=losses)
    finding = judge(Claim.model_validate(LARGER | {"metric": "loss"}), results)
    (effect,) = finding.effects
    assert finding.verdict == verdict
    assert (effect.name, effect.unit) == ("loss: size small - size large", "nats")
    reference = stats.ttest_rel(*losses)
    assert effect.p_value == pytest.approx(reference.pvalue)
    assert effect.interval == pytest.approx(tuple(reference.confidence_interval()))


def test_an_effect_on_the_training_loss_exceeds_another() -> None:
    axes: dict[str, dict[str, dict[str, object]]] = {
        "size": {"small": {}, "large": {}},
        "rate": {"low": {}, "high": {}},
    }
    losses = np.array([5.0, 4.0, 3.0, 3.3])[:, None] + np.array([0.0, 0.1, 0.2])  # the high rate: -1 small, +0.3 large
    results = results_of(study_of(axes=axes), np.full((4, 3, 5), 50.0), losses=losses)
    small, large = (
        {"better": {"size": size, "rate": "high"}, "worse": {"size": size, "rate": "low"}} for size in axes["size"]
    )
    claim = Claim.model_validate({"claim": "High rates suit the small.", "metric": "loss", **small, "than": large})
    finding = judge(claim, results)
    assert finding.verdict == "holds"
    assert finding.effects[0].mean == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("third", "spread", "verdict"), [(50.3, 0.1, "holds"), (55, 0.1, "fails"), (52, 1, "undecided")]
)
def test_verdicts_on_no_difference(third: float, spread: float, verdict: str) -> None:
    study = study_of(axes={"kind": {"a": {}, "b": {}, "c": {}}})
    means = np.array([50.0, 50.2, third]) + np.random.default_rng(5).normal(0, spread, size=(3, 3)).T
    items = np.broadcast_to(means.T[..., None], (3, 3, 30))
    claim = Claim(claim="Alike.", alike=[{"kind": "a"}, {"kind": "b"}, {"kind": "c"}], within=2)
    finding = judge(claim, results_of(study, items))
    assert finding.verdict == verdict
    assert len(finding.effects) == 3


def test_a_missing_run_and_an_unknown_task_are_named() -> None:
    items = np.full((2, 3, 5), 50.0)
    items[1, 2] = np.nan
    whole = results_of(study_of(), items)
    there = np.where(np.isnan(items[..., 0]), np.nan, 1.0)
    missing = Results(whole.arms, whole.seeds, whole.scores, there, there)
    with pytest.raises(UserError, match=r"a run is missing.*mm1 study run"):
        judge(Claim.model_validate(LARGER), missing)
    with pytest.raises(UserError, match="no scores for task pages: choose from easy-vqa"):
        judge(Claim.model_validate(LARGER | {"tasks": ["pages"]}), missing)
