"""Fits the learning-rate law to a sweep: the optimum of each size, a line in log space, and its uncertainty."""

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
    """The prediction for a size by the law that is fitted without it.

    Attributes:
        predicted: The learning rate predicted from the other sizes.
        ratio: The predicted learning rate over the optimum.
        outlier: Whether the size is farther from the others' law than their scatter explains: its externally
            studentised residual exceeds Student's t at 5 %, divided by the number of sizes (Bonferroni). Always false
            for fewer than four sizes, which leave no scatter.
    """

    predicted: float
    ratio: float
    outlier: bool


@dataclass(frozen=True)
class Fit:
    """A law fitted to optima.

    Attributes:
        law: The line.
        optima: The optima that it is fitted to, by size.
        slope_error: Half-width of the slope's 95 % interval.
        scatter: Standard deviation of the optima's ln(rate) around the line.
        left_out: For each optimum, the prediction without it.
        refused: Sentences on sizes that were left out because they have no optimum.
        points: The points of the sweep.
        measure: The quantity that defines the optima; None if the file gives the optima.
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
        """Return the 95 % confidence band of the line at a size (a further optimum would scatter around the line)."""
        x = np.log([o.size for o in self.optima])
        n = len(x)
        spread = math.sqrt(1 / n + (math.log(size) - x.mean()) ** 2 / np.square(x - x.mean()).sum())
        half = float(stats.t.ppf(TAILS[1], n - 2)) * self.scatter * spread
        return self.law(size) * math.exp(-half), self.law(size) * math.exp(half)


def fit_file(path: Path, leave_out: bool = False) -> Fit:
    """Fit the law to a file of points; see `mm1.scaling.points` for its format.

    Args:
        path: The file.
        leave_out: Whether to leave sizes without a clear optimum out, instead of raising an error.

    Raises:
        UserError: If the file is wrong, a size has no clear optimum, or too few sizes are left.
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
                    f"{path}: size {size:.3g} has {len(own)} learning rates, but no score or loss to choose by: add a "
                    "column score or loss, or keep one row per size"
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
            f"{path}: a law with its uncertainty needs {LEAST_SIZES} sizes with an optimum, and the file has "
            f"{len(optima)}: sweep more sizes"
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
        outlier = abs(gap) > max(limit, 1e-9)  # rounding must not make outliers of points on a line
    return LeftOut(predicted, math.exp(gap), outlier)
