"""The interval of a score: percentile bootstrap over items."""

from __future__ import annotations

import numpy as np

from mm1.confidence import TAILS
from mm1.evaluate.metrics import Metric

ITEM_RESAMPLES = 1000
"""Resamples of the items. With this many, chance changes an interval's ends by about 4 % of its half-width and a
variance by 4.5 %."""
NUMBERS_AT_ONCE = 4_000_000
"""Statistics held in memory at a time, so that large results fit."""


def resampled_scores(metric: Metric, statistics: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the score of each resample of the items, drawn with replacement.

    Args:
        metric: The metric that turns rows into a score.
        statistics: (n, s), one row per item; or (d, n, s), where the score is the mean over d.
        seed: The seed of the resampling. The same seed and n give the same resamples for every metric.
        resamples: The number of resamples.

    Returns:
        (resamples,) float64.
    """
    generator = np.random.default_rng(seed)
    count = statistics.shape[-2]
    chunk = max(1, NUMBERS_AT_ONCE // max(1, statistics.size))
    scores = []
    for start in range(0, resamples, chunk):
        rows = generator.integers(0, count, size=(min(chunk, resamples - start), count))
        drawn = metric.score(statistics[..., rows, :])
        scores.append(drawn.reshape(-1, len(rows)).mean(axis=0))
    return np.concatenate(scores)


def bootstrap_interval(
    metric: Metric, statistics: np.ndarray, *, seed: int = 0, resamples: int = ITEM_RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % interval (`CONFIDENCE`) of the score of resampled items.

    Percentile bootstrap (Efron and Tibshirani 1993, ch. 13). The interval covers the choice of items, not the choice
    of shots or the training run.

    Args:
        metric: The metric that turns rows into a score.
        statistics: (n, s), one row per item, or (d, n, s); n must not be 0.
        seed: The seed of the resampling.
        resamples: The number of resamples.
    """
    scores = resampled_scores(metric, statistics, seed, resamples)
    low, high = np.quantile(scores, TAILS)
    return float(low), float(high)
