"""Tests a study's claims: estimates each effect with its interval and gives a verdict.

Arms are compared within a seed (the same initial weights, the same order of the data) and on the same items. Two
sources of chance count: the seed and the items. Their variances add up, as for crossed random effects: the variance of
the mean over n seeds is the variance of the n effects divided by n, plus the variance of the mean effect over bootstrap
resamples of the items. Each counts with its own degrees of freedom (`mm1.confidence.chance_above`): three seeds that
differ give a wide interval.

    results -> measure: effects of one claim -> verdicts: all claims of a board together (Holm)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from mm1.confidence import SIGNIFICANCE, Error, chance_above, holm, reach
from mm1.errors import UserError
from mm1.study.claim import Choice, Claim, Measure, Unit
from mm1.study.results import Floats, Results, Scores
from mm1.study.schema import chosen

_DECIMALS: dict[Measure, int] = {"points": 1, "nats": 3, "correlation": 2}

Verdict = Literal["holds", "fails", "undecided", "undecided: wrong unit", "built-in: not counted"]


@dataclass(frozen=True)
class Effect:
    """A difference between arms, in percentage points or nats; or a correlation over arms.

    Attributes:
        name: The compared arms.
        by_seed: (seeds,) the difference or correlation for each seed.
        items_variance: The variance of its mean over resamples of the items; 0 without items.
        items: The number of items.
        measure: What it is measured in.
    """

    name: str
    by_seed: Floats
    items_variance: float
    items: int
    measure: Measure

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(self.by_seed.mean())

    @property
    def errors(self) -> tuple[Error, Error]:
        """The errors of the mean, from seeds and from items."""
        seeds = float(self.by_seed.std(ddof=1)) / len(self.by_seed) ** 0.5
        return Error(seeds, len(self.by_seed) - 1), Error(self.items_variance**0.5, max(1, self.items - 1))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The interval at `CONFIDENCE`."""
        half = reach(self.errors)
        return self.mean - half, self.mean + half

    def p_value(self, against: float = 0.0) -> float:
        """Return the two-sided p value of a true difference of `against`."""
        above = self._above(against)
        return 2 * min(above, 1 - above)

    def p_within(self, margin: float) -> float:
        """Return the p value of a true difference of at least the margin, twice the larger of two one-sided ones.

        It is at most `SIGNIFICANCE` where the whole interval lies within the margin.
        """
        return min(1.0, 2 * max(self._above(-margin), 1 - self._above(margin)))

    def p_beyond(self, margin: float) -> float:
        """Return the p value of a true difference of at most the margin, in either direction."""
        return self.p_value(margin if self.mean > 0 else -margin) if abs(self.mean) > margin else 1.0

    def text(self, value: float) -> str:
        """Return a difference or correlation as text, with the decimals of its measure."""
        return f"{value:+.{_DECIMALS[self.measure]}f}"

    def _above(self, value: float) -> float:
        """Return the one-sided p value of a true mean of at most `value`: the chance of one that lies so high."""
        return chance_above(self.mean - value, self.errors)


@dataclass(frozen=True)
class Measured:
    """A claim with its effects, before any verdict.

    Attributes:
        claim: The claim.
        effects: The effects that decide it: one, or one for each pair of `alike`; none if only those beside are known.
        beside: For a claim on log-likelihoods: the effects on scores.
        units: What each seed has of its own.
        looks: How often the results were looked at.
    """

    claim: Claim
    effects: tuple[Effect, ...]
    beside: tuple[Effect, ...] = ()
    units: tuple[Unit, ...] = ("run",)
    looks: int = 1

    @property
    def counts(self) -> bool:
        """Whether the claim is tested: its unit was replicated, and it isn't built in."""
        return bool(self.effects) and self.claim.unit in self.units and self.claim.kind != "built-in"

    @property
    def p_value(self) -> float:
        """The p value of the more likely decision (holds or fails), times the looks (Bonferroni)."""
        claim = self.claim
        if claim.within is None:
            p_value = self.effects[0].p_value(claim.minimum)
        else:
            holds = max(effect.p_within(claim.within) for effect in self.effects)
            fails = min(effect.p_beyond(claim.within) for effect in self.effects) * len(self.effects)
            p_value = min(holds, fails)
        return min(1.0, p_value * self.looks)

    @property
    def points_to(self) -> Literal["holds", "fails"]:
        """The decision that the estimates point to."""
        claim = self.claim
        if claim.within is None:
            return "holds" if self.effects[0].mean > claim.minimum else "fails"
        return "holds" if all(abs(effect.mean) < claim.within for effect in self.effects) else "fails"


@dataclass(frozen=True)
class Finding:
    """A claim with its effects and verdict.

    Attributes:
        measured: The claim and its effects.
        verdict: What the study says of the claim.
        p_value: The p value after Holm's correction; None if the claim doesn't count.
    """

    measured: Measured
    verdict: Verdict
    p_value: float | None

    @property
    def claim(self) -> Claim:
        """The claim."""
        return self.measured.claim

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The effects that decide the claim."""
        return self.measured.effects


def verdicts(measured: Sequence[Measured]) -> list[Finding]:
    """Judge the claims of a board together: Holm's correction over those that count.

    A claim of the wrong unit is undecided, and a built-in one doesn't count; neither is part of the correction.
    """
    counted = [m for m in measured if m.counts]
    corrected = iter(holm([m.p_value for m in counted]))
    findings = []
    for m in measured:
        if not m.counts:
            findings.append(Finding(m, _refused(m), None))
            continue
        p_value = next(corrected)
        findings.append(Finding(m, m.points_to if p_value <= SIGNIFICANCE else "undecided", p_value))
    return findings


def _refused(measured: Measured) -> Verdict:
    """Return the verdict of a claim that isn't tested."""
    if measured.claim.unit not in measured.units:
        return "undecided: wrong unit"
    return "built-in: not counted" if measured.claim.kind == "built-in" else "undecided"


def measure(claim: Claim, results: Results) -> Measured:
    """Estimate a claim's effects.

    Raises:
        UserError: If a run that the claim needs is missing, or lacks the scores that the claim needs.
    """
    beside: tuple[Effect, ...] = ()
    if claim.metric == "log-likelihood":
        beside = _effects(claim.model_copy(update={"metric": "score"}), results)
    return Measured(claim, _effects(claim, results), beside, results.units, results.looks)


def _effects(claim: Claim, results: Results) -> tuple[Effect, ...]:
    scores = results.select(claim.tasks, claim.shots, claim.metric)
    if claim.follows is not None:
        return (correlation(_effect_name(claim, "rank correlation with a low training loss"), scores, results),)
    if claim.alike is not None:
        pairs = itertools.combinations(claim.alike, 2)
        return tuple(
            estimate(_effect_name(claim, f"{_name(a)} - {_name(b)}"), [(_weights(results, a, b), scores)])
            for a, b in pairs
        )
    assert claim.better is not None
    assert claim.worse is not None
    more, less = _larger_first(claim, claim.better, claim.worse)
    name = f"{_name(more)} - {_name(less)}"
    terms = [(_weights(results, more, less), scores)]
    if claim.worse_shots is not None:
        terms = [
            (_weights(results, more), scores),
            (-_weights(results, less), results.select(claim.tasks, claim.worse_shots, claim.metric)),
        ]
        shots, other = (", ".join(map(str, counts or ())) for counts in (claim.shots, claim.worse_shots))
        name = f"{_name(more)} at {shots} shots - {_name(less)} at {other}"
    if claim.than is not None:
        more, less = _larger_first(claim, claim.than.better, claim.than.worse)
        terms.append((-_weights(results, more, less), scores))
        name = f"({name}) - ({_name(more)} - {_name(less)})"
    return (estimate(_effect_name(claim, name), terms),)


def _effect_name(claim: Claim, comparison: str) -> str:
    return comparison if claim.metric == "score" else f"{claim.metric}: {comparison}"


def _larger_first(claim: Claim, better: Choice, worse: Choice) -> tuple[Choice, Choice]:
    """Return the two choices, first the one with the larger quantity if the claim is true (for loss: the worse one)."""
    return (worse, better) if claim.metric == "loss" else (better, worse)


def estimate(name: str, terms: Sequence[tuple[Floats, Sequence[Scores]]]) -> Effect:
    """Estimate a weighted sum of the arms' mean scores.

    Args:
        name: The effect's name.
        terms: The terms of the sum. Each has weights (arms,), such as +1 and -1 for a difference of two arms, and the
            scores to average over.

    Raises:
        UserError: If a run with a weight is missing.
    """
    by_seed, resampled = np.zeros(()), np.zeros(())
    for weights, scores in terms:
        used = weights != 0
        points = np.mean([s.points for s in scores], axis=0)
        if np.isnan(points[used]).any():
            raise UserError(f"{name}: a run is missing: make it with `mm1 study run`")
        by_seed = by_seed + weights[used] @ points[used]
        sums = [np.einsum("a,asr->r", weights[used], s.resampled[used]) for s in scores]
        resampled = resampled + np.mean(sums, axis=0) / points.shape[1]
    every = [s for _, scores in terms for s in scores]
    return Effect(name, by_seed, float(resampled.var(ddof=1)), min(s.items for s in every), every[0].measure)


def correlation(name: str, scores: Sequence[Scores], results: Results) -> Effect:
    """Estimate Spearman's rank correlation, over the arms of a seed, between a low training loss and the mean score.

    Where all arms have one score, nothing follows the loss: the correlation is 0.

    Args:
        name: The effect's name.
        scores: The scores to average over.
        results: Has the losses.

    Raises:
        UserError: If a run is missing.
    """
    from scipy import stats

    points, resampled = (np.mean([getattr(s, what) for s in scores], axis=0) for what in ("points", "resampled"))
    if results.missing:
        raise UserError(f"{name}: a run is missing: make it with `mm1 study run`")

    def of(ranked: Floats, losses: Floats) -> Floats:
        ranks = [stats.rankdata(values, axis=0) for values in (ranked, -losses)]
        x, y = (each - each.mean(0) for each in ranks)
        spread = np.sqrt((x**2).sum(0) * (y**2).sum(0))
        return np.divide((x * y).sum(0), spread, out=np.zeros_like(spread), where=spread > 0)

    by_seed = of(points, results.losses)
    over_items = of(resampled, np.broadcast_to(results.losses[..., None], resampled.shape)).mean(0)
    return Effect(name, by_seed, float(over_items.var(ddof=1)), min(s.items for s in scores), "correlation")


def _weights(results: Results, choice: Choice, less: Choice | None = None) -> Floats:
    """Return the arms' weights: +1 in all for a choice, and -1 in all for `less`."""
    weights = np.array([chosen(arm, choice) for arm in results.arms], dtype=np.float64)
    weights = weights / weights.sum()
    return weights if less is None else weights - _weights(results, less)


def _name(choice: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in choice.items())
