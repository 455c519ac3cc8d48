"""Claims: the statistics against simulation, and every verdict."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from mm1.confidence import Error, chance_above
from mm1.errors import UserError
from mm1.study.beside_paper import paper_beside
from mm1.study.claim import Claim
from mm1.study.claims import Effect, Finding, Measured, estimate, measure, verdicts
from mm1.study.results import Results
from tests.study.builders import results_of, study_of

LARGER = {"claim": "Larger is better.", "better": {"size": "large"}, "worse": {"size": "small"}}


def judge(claim: Claim, results: Results) -> Finding:
    """Judge a claim alone."""
    (finding,) = verdicts([measure(claim, results)])
    return finding


def simulated(random: np.random.Generator, effect: float, seeds: float, items: float, count: int = 60) -> np.ndarray:
    """Scores (2 arms, 3 seeds, items): an effect that differs by seed and by item, on top of what arms share."""
    shared = random.normal(50, 10, size=(1, 1, count))
    difference = effect + random.normal(0, seeds, size=(3, 1)) + random.normal(0, items, size=(1, count))
    return np.stack([np.broadcast_to(shared[0], (3, count)), shared[0] + difference])


@pytest.mark.parametrize(("seeds", "items"), [(2.0, 0.5), (0.1, 15.0), (1.0, 8.0)])
def test_an_interval_holds_the_truth_as_often_as_it_says(seeds: float, items: float) -> None:
    random, study, truth = np.random.default_rng(1), study_of(), 3.0
    inside = 0
    for _ in range(300):
        scores = results_of(study, simulated(random, truth, seeds, items)).scores
        effect = estimate("", [(np.array([-1.0, 1.0]), scores)])
        inside += effect.p_value(truth) >= 0.05
    low, high = effect.interval
    assert (effect.p_value(low), effect.p_value(high)) == (pytest.approx(0.05), pytest.approx(0.05))
    assert inside / 300 >= 0.93


@pytest.mark.parametrize("seeds", [0.0001, 0.03, 0.3, 3.0])
@pytest.mark.parametrize("freedom", [1, 2, 4])
def test_chances_are_right_far_out(seeds: float, freedom: int) -> None:
    """Corrections for many tests look far out, where a few seeds' heavy tail decides, however small their error is."""

    def beyond(value: float) -> float:  # the items' error is of size 0.3, with 299 degrees of freedom
        return float(stats.t.pdf(value, 299) * stats.t.sf((distance - 0.3 * value) / seeds, freedom))

    errors = (Error(seeds, freedom), Error(0.3, 299))
    for distance in (0.0, 0.3, 0.6, 1.2, 3.0):
        step = sorted((distance + near * seeds) / 0.3 for near in (-30, -3, 0, 3, 30))
        edges = sorted({-40.0, -8.0, -3.0, 0.0, 3.0, 8.0, 40.0, *(max(-40.0, min(40.0, edge)) for edge in step)})
        expected = sum(integrate.quad(beyond, *ends, epsabs=0, limit=200)[0] for ends in itertools.pairwise(edges))
        assert chance_above(distance, errors) == pytest.approx(expected, rel=0.01)
        assert chance_above(-distance, errors) == pytest.approx(1 - expected, rel=0.01)


def test_without_items_it_is_the_paired_t_test() -> None:
    study, random = study_of(), np.random.default_rng(2)
    items = np.broadcast_to(random.normal(50, 5, size=(2, 3, 1)), (2, 3, 40))  # every item alike
    effect = estimate("", [(np.array([-1.0, 1.0]), results_of(study, items).scores)])
    reference = stats.ttest_rel(items[1, :, 0], items[0, :, 0])
    assert effect.p_value() == pytest.approx(reference.pvalue)
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


def test_beside_the_paper_stands_the_mean_of_the_tasks_in_the_figure() -> None:
    arm = {"size": "large"}
    paper = [{"arm": arm, "scores": {0: 39.3}, "certainty": "stated"}]
    study = study_of(paper=paper, figure={"x": "size", "tasks": ["scenes-caption"]})
    drawn = results_of(study, np.full((2, 3, 50), 40.0), "scenes-caption")
    other = results_of(study, np.full((2, 3, 50), 90.0), "text-continuation")
    results = Results(drawn.arms, drawn.seeds, (*drawn.scores, *other.scores), drawn.seconds, drawn.losses)
    assert paper_beside(study, results)["rows"][0]["ours"] == {0: "40.0"}
    assert paper_beside(study_of(paper=paper), results)["rows"][0]["ours"] == {0: "65.0"}


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
    assert (effect.name, effect.measure) == ("loss: size small - size large", "nats")
    reference = stats.ttest_rel(*losses)
    assert effect.p_value() == pytest.approx(reference.pvalue)
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


FIVE: dict[str, dict[str, dict[str, object]]] = {"rate": {str(rate): {} for rate in range(5)}}


@pytest.mark.parametrize(
    ("slope", "minimum", "verdict"), [(-5, 0.5, "holds"), (5, 0.5, "fails"), (-5, 0.95, "undecided")]
)
def test_scores_follow_the_loss_or_do_not(slope: float, minimum: float, verdict: str) -> None:
    random = np.random.default_rng(11)
    losses = np.array([5.0, 4.0, 3.0, 3.6, 2.0])[:, None] + random.normal(0, 0.05, size=(5, 8))
    items = 50 + slope * losses[..., None] + random.normal(0, 10, size=(5, 8, 40))
    claim = Claim(claim="Scores follow the loss.", follows="loss", minimum=minimum)
    finding = judge(claim, results_of(study_of(axes=FIVE, seeds=list(range(8))), items, losses=losses))
    (effect,) = finding.effects
    assert finding.verdict == verdict
    reference = [stats.spearmanr(-losses[:, seed], items[:, seed].mean(1)).statistic for seed in range(8)]
    assert effect.by_seed == pytest.approx(np.array(reference))
    assert (effect.measure, effect.text(0.5)) == ("correlation", "+0.50")


def test_where_all_arms_score_alike_nothing_follows_the_loss() -> None:
    losses = np.arange(15.0).reshape(5, 3)
    results = results_of(study_of(axes=FIVE), np.full((5, 3, 6), 50.0), losses=losses)
    claim = Claim(claim="Scores follow the loss.", follows="loss")
    assert measure(claim, results).effects[0].by_seed.tolist() == [0, 0, 0]


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


def difference(
    random: np.random.Generator, truth: float, seeds: int, spread: float = 3.0, items: float = 1.0
) -> Effect:
    """The estimate of a true difference: it varies over seeds, and its mean over draws of 300 items."""
    shared = random.normal(0, items)
    return Effect("", truth + shared + random.normal(0, spread, size=seeds), items**2, 300, "points")


CLAIM = Claim.model_validate(LARGER)


def test_of_twenty_claims_without_truth_one_is_called_in_at_most_five_of_a_hundred_boards() -> None:
    random, false = np.random.default_rng(7), 0
    for _ in range(200):
        board = verdicts([Measured(CLAIM, (difference(random, 0.0, 3),)) for _ in range(20)])
        false += any(finding.verdict != "undecided" for finding in board)
    assert false / 200 <= 0.08  # 0.05 and two standard errors


def test_seeds_that_are_added_where_a_result_is_undecided_need_the_correction() -> None:
    random, wrong = np.random.default_rng(8), {1: 0, 2: 0}
    for _ in range(600):
        five = difference(random, 0.0, 5, items=0.1)
        three = Effect("", five.by_seed[:3], five.items_variance, 300, "points")
        for looks in wrong:
            called = [verdicts([Measured(CLAIM, (e,), looks=looks)])[0].verdict != "undecided" for e in (three, five)]
            wrong[looks] += any(called)
    assert wrong[2] / 600 <= 0.05 < wrong[1] / 600


def test_one_encoder_an_arm_is_one_draw_however_many_seeds_start_from_it() -> None:
    random, wrong, right = np.random.default_rng(9), 0, 0
    for _ in range(400):
        one, own = random.normal(0, 4), random.normal(0, 4, size=5)  # what another encoder would change
        runs = random.normal(0, 1, size=5)
        wrong += verdicts([Measured(CLAIM, (Effect("", one + runs, 0.01, 300, "points"),))])[0].verdict != "undecided"
        right += verdicts([Measured(CLAIM, (Effect("", own + runs, 0.01, 300, "points"),))])[0].verdict != "undecided"
    assert right / 400 <= 0.07
    assert wrong / 400 > 0.5


def test_a_claim_of_the_wrong_unit_or_built_in_is_not_tested_and_costs_the_others_nothing() -> None:
    clear = Effect("", np.array([10.0, 11.0, 10.5]), 0.1, 300, "points")
    encoder = CLAIM.model_copy(update={"unit": "encoder"})
    built_in = CLAIM.model_copy(update={"kind": "built-in"})
    alone = verdicts([Measured(CLAIM, (clear,))])[0]
    findings = verdicts([Measured(encoder, (clear,)), Measured(CLAIM, (clear,)), Measured(built_in, (clear,))])
    assert [f.verdict for f in findings] == ["undecided: wrong unit", "holds", "built-in: not counted"]
    assert [f.p_value for f in findings] == [None, alone.p_value, None]
    own = Measured(encoder, (clear,), units=("run", "encoder"))
    assert verdicts([own])[0].verdict == "holds"


def test_log_likelihoods_decide_where_a_claim_says_so_and_scores_stand_beside() -> None:
    study, random = study_of(), np.random.default_rng(10)
    coarse = (random.random((2, 3, 300)) < 0.1) * 100.0
    fine = np.stack([random.normal(-3.0, 0.5, size=(3, 300)), random.normal(-2.0, 0.5, size=(3, 300))])
    scores, likelihoods = results_of(study, coarse), results_of(study, fine).scores[0]
    nats = replace(likelihoods, measure="nats")
    results = replace(scores, likelihoods=(nats,))
    finding = judge(Claim.model_validate(LARGER | {"metric": "log-likelihood"}), results)
    assert finding.verdict == "holds"
    assert finding.effects[0].mean == pytest.approx(1.0, abs=0.1)
    assert finding.effects[0].measure == "nats"
    assert [effect.measure for effect in finding.measured.beside] == ["points"]
    with pytest.raises(UserError, match=r"no log-likelihoods: set evaluate\.right_answers"):
        judge(Claim.model_validate(LARGER | {"metric": "log-likelihood"}), scores)
