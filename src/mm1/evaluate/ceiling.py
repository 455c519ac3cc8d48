"""The score of a perfect model, for metrics where it isn't the metric's maximum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mm1.evaluate.metrics import METRICS


def perfect_score(metric: str, references: Sequence[Sequence[str]]) -> float | None:
    """Return the score of a model that answers every item with its best reference; None for shares.

    CIDEr-D weighs words by their rarity among the items, and captions of fewer than four words lack the longer
    n-grams, so even the references themselves don't reach 10.

    Args:
        metric: The metric's name.
        references: The references of each item.
    """
    measured = METRICS[metric]
    if measured.maximum == 1.0 or not references:
        return None
    most = max(map(len, references))
    each = [
        measured.measure(
            [several[min(number, len(several) - 1)] for several in references], references, [()] * len(references)
        )
        for number in range(most)
    ]
    return float(measured.score(np.max(each, axis=0)))
