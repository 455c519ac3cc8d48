"""Studies and results made up for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from mm1.study.results import Results, Scores
from mm1.study.schema import Study


def study_of(**changes: Any) -> Study:
    content: dict[str, Any] = {
        "name": "a-study",
        "question": "Is it so?",
        "base": "demo",
        "axes": {"size": {"small": {"train.steps": 100}, "large": {"train.steps": 200}}},
        "seeds": [0, 1, 2],
    }
    return Study.model_validate(content | changes)


def results_of(
    study: Study,
    items: np.ndarray,
    task: str = "easy-vqa",
    shots: int = 0,
    blind: np.ndarray | None = None,
    losses: np.ndarray | None = None,
) -> Results:
    """Return results of a metric that is a mean over items, from the items' scores (arms, seeds, items)."""
    if blind is None:
        blind = np.full(items.shape[:2], np.nan)
    if losses is None:
        losses = np.full(items.shape[:2], 3.0)
    rows = np.random.default_rng(0).integers(0, items.shape[-1], size=(400, items.shape[-1]))
    scores = Scores(task, shots, items.shape[-1], items.mean(-1), items[..., rows].mean(-1), blind)
    return Results(tuple(study.arms()), tuple(study.seeds), (scores,), np.ones(items.shape[:2]), losses)
