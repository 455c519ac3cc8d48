"""What a metric is: statistics of each item, and the score of a set of items from them.

Most scores are the mean of one number per item. Some (BLEU) are not, which is why an item gives a row of
statistics and the score is a function of rows: a bootstrap can then draw rows for any metric.

Metrics import numpy when they compute: a list of tasks needs only their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def mean(statistics: np.ndarray) -> np.ndarray:
    """Return the mean over items of the one statistic there is: (..., n, 1) to (...)."""
    return statistics[..., 0].mean(axis=-1)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: As tasks name it.
        title: As tables and reports name it.
        source: Where its exact rule comes from.
        statistics: From n predictions, their reference answers and, if it `reads_options`, the options of multiple
            choice (an empty sequence where there are none) to an array (n, s) of float64.
        score: From statistics (..., n, s) to scores (...).
        maximum: The best score possible.
        reads_options: Whether `statistics` takes options. `measure` can be called in any case.
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
