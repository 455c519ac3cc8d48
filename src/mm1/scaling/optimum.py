"""The best learning rate of one size: the vertex of a parabola in the logarithm of the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mm1.errors import UserError
from mm1.scaling.points import Measure, Point

NEIGHBOURS = 2
"""Rates on either side of the best that the fit uses; farther away the curve is no parabola."""


@dataclass(frozen=True)
class Optimum:
    """The best learning rate of a size.

    Attributes:
        size: The law's N.
        learning_rate: The learning rate at the vertex.
        error: Standard error of its logarithm, by the delta method; None if the points leave no residual.
        value: Score or loss at the vertex; None if the file gives the optimum.
        parabola: Coefficients over ln(rate), highest power first; empty if the file gives the optimum.
        rates: Rates that the parabola is fitted to.
    """

    size: float
    learning_rate: float
    error: float | None = None
    value: float | None = None
    parabola: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()


class NoOptimumError(UserError):
    """A sweep without a clear optimum."""


def find_optimum(points: Sequence[Point], measure: Measure) -> Optimum:
    """Return the best learning rate of one size.

    The parabola is the least-squares fit to the points of the best rate (by the mean over seeds) and of its two
    neighbours on either side.

    Args:
        points: All points of one size.
        measure: `score` is maximised, `loss` minimised.

    Raises:
        NoOptimumError: If there are fewer than three rates, the best one is at the edge of the sweep, or the parabola
            has no vertex between the rates.
    """
    size = points[0].size
    sign = 1.0 if measure == "score" else -1.0
    by_rate: dict[float, list[float]] = {}
    for point in sorted(points, key=lambda p: p.learning_rate):
        by_rate.setdefault(point.learning_rate, []).append(sign * float(point.value or 0.0))
    rates = list(by_rate)
    if len(rates) < 3:
        raise NoOptimumError(
            f"size {size:.3g}: a parabola needs three learning rates, and the sweep has {len(rates)}: train with more"
        )
    best = int(np.argmax([np.mean(values) for values in by_rate.values()]))
    if best in (0, len(rates) - 1):
        edge, direction = ("lowest", "lower") if best == 0 else ("highest", "higher")
        raise NoOptimumError(
            f"size {size:.3g}: the best learning rate {rates[best]:.3g} is the {edge} of the sweep, so the optimum "
            f"may be {direction}: train with {direction} ones too"
        )
    near = rates[max(0, best - NEIGHBOURS) : best + NEIGHBOURS + 1]
    x = np.array([math.log(rate) for rate in near for _ in by_rate[rate]])
    y = np.array([value for rate in near for value in by_rate[rate]])
    centre = x.mean()  # for the fit's conditioning
    square, linear, constant = (float(c) for c in np.polyfit(x - centre, y, 2))
    vertex = -linear / (2 * square) + centre if square else math.inf
    if square >= 0 or not math.log(near[0]) <= vertex <= math.log(near[-1]):
        raise NoOptimumError(
            f"size {size:.3g}: the parabola through the points around {rates[best]:.3g} has no optimum between them: "
            "train with more learning rates or seeds"
        )
    shifted = (square, linear - 2 * square * centre, constant - linear * centre + square * centre**2)
    return Optimum(
        size=size,
        learning_rate=math.exp(vertex),
        error=_vertex_error(x - centre, y, square, linear),
        value=sign * (constant - linear**2 / (4 * square)),
        parabola=tuple(sign * c for c in shifted),
        rates=tuple(near),
    )


def _vertex_error(x: np.ndarray, y: np.ndarray, square: float, linear: float) -> float | None:
    """Return the standard error of -linear / (2 square) from the residuals; None if there are none."""
    design = np.stack([x**2, x, np.ones_like(x)], axis=1)
    degrees = len(x) - 3
    if degrees < 1:
        return None
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = float(np.square(y - design @ coefficients).sum()) / degrees
    covariance = variance * np.linalg.inv(design.T @ design)
    gradient = np.array([linear / (2 * square**2), -1 / (2 * square), 0.0])
    return math.sqrt(max(0.0, float(gradient @ covariance @ gradient)))
