"""Relaxed accuracy: a number may be off by 5 %, any other answer must match.

Methani et al., "PlotQA" (WACV 2020) and Masry et al., "ChartQA" (ACL Findings 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_pair

TOLERANCE = 0.05


def relaxed_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the answer is within 5 % of a reference number or equals a reference ignoring case, else 0.0.

    An empty answer is never right.
    """
    return float(
        bool(prediction.strip())
        and any(_relaxed_match(prediction.strip(), reference.strip()) for reference in references)
    )


def _relaxed_match(given: str, truth: str) -> bool:
    number, target = _number(given), _number(truth)
    if number is not None and target:
        return abs(number - target) <= TOLERANCE * abs(target)
    return given.lower() == truth.lower()


def _number(text: str) -> float | None:
    """Return a text's number, or None if it is not a number. A percent sign divides by 100, as in ChartQA's rule."""
    try:
        return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        return None


RELAXED_ACCURACY = Metric(
    "relaxed_accuracy",
    "relaxed accuracy",
    "5 % tolerance (Methani et al. 2020, Masry et al. 2022)",
    per_pair(relaxed_accuracy),
)
