"""Fit the learning-rate law to a sweep: optimum per size, line in log space, how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from mm1.confidence import SIGNIFICANCE, TAILS
from mm1.errors import UserError
from mm1.scaling.law import Law
from mm1.scaling.optimum import NoOptimumError, Optimum, find_optimum
from mm1.scaling.points import Measure, Point, read_points

LEAST_SIZES = 3


@dataclass(frozen=True)
class LeftOut:
    """What the law says about a size when it is fitted without it.

    Attributes:
        predicted: Learning rate from the other sizes.
        ratio: Predicted over found.
        outlier: Whether the size lies farther from the others' law than their scatter explains: its externally
            studentised residual is beyond Student's t at 5 %, shared out over the sizes (Bonferroni). Never for fewer
            than four sizes, which leave no scatter.
    """

    predicted: float
    ratio: float
    outlier: bool


@dataclass(frozen=True)
class Fit:
    """A law fitted to optima.

    Attributes:
        law: The line.
        optima: What it was fitted to, by size.
        slope_error: Half-width of the slope's 95 % interval.
        scatter: Standard deviation of the optima's ln(rate) around the line.
        left_out: For each optimum, the law without it.
        refused: Sentences on sizes that were left out for want of an optimum.
        points: The sweep.
        measure: What the optima were found by; None if they were given.
    """

    law: Law
    optima: tuple[Optimum, ...]
    slope_error: float
    scatter: float
    left_out: tuple[LeftOut, ...]
    refused: tuple[str, ...]
    points: tuple[Point, ...]
    measure: Measure | None

    def band(self, size: float) -> tuple[float, float]:
        """Return the 95 % confidence band of the line at a size (one more optimum would scatter around it)."""
        x = np.log([o.size for o in self.optima])
        n = len(x)
        spread = math.sqrt(1 / n + (math.log(size) - x.mean()) ** 2 / np.square(x - x.mean()).sum())
        half = float(stats.t.ppf(TAILS[1], n - 2)) * self.scatter * spread
        return self.law(size) * math.exp(-half), self.law(size) * math.exp(half)


def fit_file(path: Path, leave_out: bool = False) -> Fit:
    """Fit the law to a file of points; see `mm1.scaling.points` for its form.

    Args:
        path: The file.
        leave_out: Go on without the sizes whose optimum can't be told, instead of refusing.

    Raises:
        UserError: If the file is wrong, a size's optimum can't be told, or too few sizes are left.
    """
    points, measure = read_points(path)
    by_size: dict[float, list[Point]] = {}
    for point in sorted(points, key=lambda p: p.size):
        by_size.setdefault(point.size, []).append(point)
    optima: list[Optimum] = []
    refused: list[str] = []
    for size, own in by_size.items():
        if measure is None:
            if len(own) > 1:
                raise UserError(
                    f"{path}: size {size:.3g} has {len(own)} learning rates and neither score nor loss to choose by"
                )
            optima.append(Optimum(size, own[0].learning_rate))
            continue
        try:
            optima.append(find_optimum(own, measure))
        except NoOptimumError as error:
            if not leave_out:
                raise UserError(f"{path}: {error}, or leave such sizes out with --leave-out") from None
            refused.append(str(error))
    if len(optima) < LEAST_SIZES:
        raise UserError(
            f"{path}: a law with its uncertainty needs {LEAST_SIZES} sizes with an optimum, there are {len(optima)}: "
            "sweep more sizes"
        )
    return _fit(optima, refused, points, measure)


def _fit(optima: list[Optimum], refused: list[str], points: Sequence[Point], measure: Measure | None) -> Fit:
    x, y = np.log([o.size for o in optima]), np.log([o.learning_rate for o in optima])
    law, scatter = _line(x, y)
    slope_error = float(stats.t.ppf(TAILS[1], len(x) - 2)) * scatter / math.sqrt(np.square(x - x.mean()).sum())
    return Fit(
        law=law,
        optima=tuple(optima),
        slope_error=slope_error,
        scatter=scatter,
        left_out=tuple(_leave_out(x, y, i) for i in range(len(x))),
        refused=tuple(refused),
        points=tuple(points),
        measure=measure,
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[Law, float]:
    """Return the least-squares line and the residuals' standard deviation (0 for two points)."""
    slope, at_mean = np.polyfit(x - x.mean(), y, 1)
    residuals = y - at_mean - slope * (x - x.mean())
    scatter = math.sqrt(float(np.square(residuals).sum()) / (len(x) - 2)) if len(x) > 2 else 0.0
    return Law(float(slope), float(at_mean - slope * x.mean())), scatter


def _leave_out(x: np.ndarray, y: np.ndarray, i: int) -> LeftOut:
    rest = np.arange(len(x)) != i
    law, scatter = _line(x[rest], y[rest])
    predicted = law(math.exp(x[i]))
    gap = math.log(predicted) - float(y[i])
    outlier = False
    if len(x) > LEAST_SIZES:
        own = x[rest]
        spread = math.sqrt(1 + 1 / len(own) + (x[i] - own.mean()) ** 2 / np.square(own - own.mean()).sum())
        limit = float(stats.t.ppf(1 - SIGNIFICANCE / 2 / len(x), len(own) - 2)) * scatter * spread
        outlier = abs(gap) > max(limit, 1e-9)  # points on a line are no outliers for the rounding of floats
    return LeftOut(predicted, math.exp(gap), outlier)
