"""How sure a score is: percentile bootstrap over items."""

from __future__ import annotations

import numpy as np

from mm1.evaluate.metrics import Metric

RESAMPLES = 1000
_NUMBERS_AT_ONCE = 4_000_000


def resampled_scores(metric: Metric, statistics: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the score of each resample of the items, drawn with replacement.

    Args:
        metric: How rows become a score.
        statistics: (n, s), one row an item; or (d, n, s), where the score is the mean over d.
        seed: Of the draws. The same seed and n give the same draws, whatever the metric.
        resamples: How many.

    Returns:
        (resamples,) float64.
    """
    generator = np.random.default_rng(seed)
    count = statistics.shape[-2]
    chunk = max(1, _NUMBERS_AT_ONCE // max(1, statistics.size))
    scores = []
    for start in range(0, resamples, chunk):
        rows = generator.integers(0, count, size=(min(chunk, resamples - start), count))
        drawn = metric.score(statistics[..., rows, :])
        scores.append(drawn.reshape(-1, len(rows)).mean(axis=0))
    return np.concatenate(scores)


def bootstrap_interval(
    metric: Metric, statistics: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval in which the score of resampled items lies with probability `level`.

    Percentile bootstrap (Efron and Tibshirani 1993, ch. 13). It covers the choice of items, not the choice
    of shots or the training run.

    Args:
        metric: How rows become a score.
        statistics: (n, s), one row an item, or (d, n, s); n must not be 0.
        seed: Of the draws.
        resamples: How many draws.
        level: Share of the resamples inside the interval.
    """
    scores = resampled_scores(metric, statistics, seed, resamples)
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
