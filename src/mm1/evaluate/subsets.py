"""Scores of parts of a task's items: how a score differs over kinds of items that one task mixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mm1.evaluate.bootstrap import bootstrap_interval
from mm1.evaluate.metrics import Metric
from mm1.evaluate.tasks.item import Item, field
from mm1.evaluate.tasks.task import Task


def score_subsets(
    task: Task, items: Sequence[Item], statistics: np.ndarray, metric: Metric, seed: int
) -> dict[str, Any]:
    """Return the scores of a task's subsets under the key `subsets`; nothing if the task names none.

    Args:
        task: The task; its `subsets` say which items belong together.
        items: n items.
        statistics: (draws, n, s), the metric's statistics of the items.
        metric: The metric.
        seed: The seed of the resamples.

    Returns:
        `{"score", "interval", "items"}` by the subset's name; the first two are None where no item belongs to it.

    Raises:
        UserError: If an item lacks a field that a subset names.
    """
    if not task.subsets:
        return {}
    scores: dict[str, Any] = {}
    for name, values in task.subsets.items():
        rows = [row for row, item in enumerate(items) if _belongs(item, values, task.data.title)]
        own = statistics[:, rows]
        score = float(np.mean(metric.score(own))) if rows else None
        interval = list(bootstrap_interval(metric, own, seed=seed)) if rows else None
        scores[name] = {"score": score, "interval": interval, "items": len(rows)}
    return {"subsets": scores}


def _belongs(item: Item, values: Mapping[str, Sequence[Any]], source: str) -> bool:
    return all(field(item, name, source) in some for name, some in values.items())
