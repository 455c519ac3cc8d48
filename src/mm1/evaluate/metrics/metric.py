"""A metric: statistics of each item, and the score of a set of items computed from them.

Most scores are the mean of one number per item. Some (BLEU) are not. Each item therefore gives a row of statistics, and
the score is a function of rows, so that a bootstrap can resample rows for any metric.

Metrics import numpy only when they compute, since a list of tasks needs only their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def mean(statistics: np.ndarray) -> np.ndarray:
    """Return the mean over items of their only statistic: (..., n, 1) to (...)."""
    return statistics[..., 0].mean(axis=-1)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name in tasks.
        title: Its name in tables and reports.
        source: The source of its exact rule.
        statistics: A function from n predictions, their reference answers and, with `reads_options`, the options of
            multiple choice (an empty sequence for an item without options) to an array (n, s) of float64.
        score: A function from statistics (..., n, s) to scores (...).
        maximum: The best possible score.
        reads_options: Whether `statistics` takes options. `measure` takes them for any metric.
    """

    name: str
    title: str
    source: str
    statistics: Callable[..., np.ndarray]
    score: Callable[[np.ndarray], np.ndarray] = mean
    maximum: float = 1.0
    reads_options: bool = False

    def measure(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], options: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """Return the statistics (n, s) of n predictions, whether or not the metric reads their options."""
        more = (options,) if self.reads_options else ()
        return self.statistics(predictions, references, *more)


def per_pair(
    rule: Callable[[str, Sequence[str]], float],
) -> Callable[[Sequence[str], Sequence[Sequence[str]]], np.ndarray]:
    """Turn a rule for one prediction and its references into a metric's `statistics`."""

    def statistics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        import numpy as np

        values = [rule(p, r) for p, r in zip(predictions, references, strict=True)]
        return np.array(values, dtype=np.float64).reshape(-1, 1)

    return statistics


def per_choice(
    rule: Callable[[str, Sequence[str], Sequence[str]], float],
) -> Callable[..., np.ndarray]:
    """Turn a rule for one prediction, its references and its options into a metric's `statistics`."""

    def statistics(
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        options: Sequence[Sequence[str]] | None = None,
    ) -> np.ndarray:
        import numpy as np

        every = options or [()] * len(predictions)
        values = [rule(p, r, o) for p, r, o in zip(predictions, references, every, strict=True)]
        return np.array(values, dtype=np.float64).reshape(-1, 1)

    return statistics
