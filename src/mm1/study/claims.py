"""Tests a study's claims: estimates each effect with its interval and gives a verdict.

Arms are compared within a seed (the same initial weights, the same order of the data) and on the same items. Two
sources of chance count: the seed and the items. Their variances add up, as for crossed random effects: the variance of
the mean over n seeds is the variance of the n effects divided by n, plus the variance of the mean effect over bootstrap
resamples of the items. The interval is Student's, with Satterthwaite's (1946) degrees of freedom; three seeds give a
wide one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from mm1.confidence import TAILS
from mm1.errors import UserError
from mm1.study.results import Floats, Results, Scores, Unit
from mm1.study.schema import Choice, Claim, chosen

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Effect:
    """A difference between arms, in percentage points, or in nats for training losses.

    Attributes:
        name: The compared arms.
        by_seed: (seeds,) the difference for each seed.
        mean: The mean over seeds.
        interval: The interval at `CONFIDENCE`.
        p_value: Two-sided p value of no difference (or of a difference of the claim's `minimum`).
        unit: The unit of the difference.
    """

    name: str
    by_seed: Floats
    mean: float
    interval: tuple[float, float]
    p_value: float
    unit: Unit

    def text(self, value: float) -> str:
        """Return a difference as text, with the decimals of its unit."""
        return f"{value:+.1f}" if self.unit == "points" else f"{value:+.3f}"


@dataclass(frozen=True)
class Finding:
    """A claim with its effects and verdict."""

    claim: Claim
    effects: tuple[Effect, ...]
    verdict: Verdict


def judge(claim: Claim, results: Results) -> Finding:
    """Test a claim.

    Raises:
        UserError: If a run that the claim needs is missing, or lacks the scores that the claim needs.
    """
    scores = results.select(claim.tasks, claim.shots, claim.metric)
    if claim.alike is not None:
        return _judge_alike(claim, results, scores)
    assert claim.better is not None
    assert claim.worse is not None
    more, less = _larger_first(claim, claim.better, claim.worse)
    name = f"{_name(more)} - {_name(less)}"
    terms = [(_weights(results, more) - _weights(results, less), scores)]
    if claim.worse_shots is not None:
        terms = [
            (_weights(results, more), scores),
            (-_weights(results, less), results.select(claim.tasks, claim.worse_shots)),
        ]
        name = f"{_name(more)} at {claim.shots} shots - {_name(less)} at {claim.worse_shots}"
    if claim.than is not None:
        more, less = _larger_first(claim, claim.than.better, claim.than.worse)
        terms.append((_weights(results, less) - _weights(results, more), scores))
        name = f"({name}) - ({_name(more)} - {_name(less)})"
    effect = estimate(_effect_name(claim, name), terms, claim.minimum)
    low, high = effect.interval
    verdict: Verdict = "holds" if low > claim.minimum else "fails" if high < claim.minimum else "undecided"
    return Finding(claim, (effect,), verdict)


def _effect_name(claim: Claim, comparison: str) -> str:
    return f"loss: {comparison}" if claim.metric == "loss" else comparison


def _larger_first(claim: Claim, better: Choice, worse: Choice) -> tuple[Choice, Choice]:
    """Return the two choices, first the one with the larger quantity if the claim is true (for loss: the worse one)."""
    return (worse, better) if claim.metric == "loss" else (better, worse)


def _judge_alike(claim: Claim, results: Results, scores: tuple[Scores, ...]) -> Finding:
    assert claim.alike is not None
    assert claim.within is not None
    effects = []
    for one, other in itertools.combinations(claim.alike, 2):
        weights = _weights(results, one) - _weights(results, other)
        effects.append(estimate(_effect_name(claim, f"{_name(one)} - {_name(other)}"), [(weights, scores)]))
    within = claim.within
    if all(-within < e.interval[0] and e.interval[1] < within for e in effects):
        verdict: Verdict = "holds"
    elif any(e.interval[0] > within or e.interval[1] < -within for e in effects):
        verdict = "fails"
    else:
        verdict = "undecided"
    return Finding(claim, tuple(effects), verdict)


def estimate(name: str, terms: Sequence[tuple[Floats, Sequence[Scores]]], against: float = 0.0) -> Effect:
    """Estimate a weighted sum of the arms' mean scores.

    Args:
        name: The effect's name.
        terms: The terms of the sum. Each has weights (arms,), such as +1 and -1 for a difference of two arms, and the
            scores to average over.
        against: The value that the p value tests against.

    Raises:
        UserError: If a run with a weight is missing.
    """
    by_seed, resampled, unit = np.zeros(()), np.zeros(()), terms[0][1][0].unit
    for weights, scores in terms:
        used = weights != 0
        points = np.mean([s.points for s in scores], axis=0)
        if np.isnan(points[used]).any():
            raise UserError(f"{name}: a run is missing: make it with `mm1 study run`")
        by_seed = by_seed + weights[used] @ points[used]
        sums = [np.einsum("a,asr->r", weights[used], s.resampled[used]) for s in scores]
        resampled = resampled + np.mean(sums, axis=0) / points.shape[1]
    seeds_part, items_part = by_seed.var(ddof=1) / len(by_seed), resampled.var(ddof=1)
    variance = seeds_part + items_part
    mean = float(by_seed.mean())
    if variance == 0:
        return Effect(name, by_seed, mean, (mean, mean), 1.0 if mean == against else 0.0, unit)
    items = min(s.items for _, scores in terms for s in scores)
    freedom = variance**2 / (seeds_part**2 / (len(by_seed) - 1) + items_part**2 / max(1, items - 1))
    error = np.sqrt(variance)
    reach = float(stats.t.ppf(TAILS[1], freedom) * error)
    p_value = float(2 * stats.t.sf(abs(mean - against) / error, freedom))
    return Effect(name, by_seed, mean, (mean - reach, mean + reach), p_value, unit)


def _weights(results: Results, choice: Choice) -> Floats:
    weights = np.array([chosen(arm, choice) for arm in results.arms], dtype=np.float64)
    return weights / weights.sum()


def _name(choice: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in choice.items())
