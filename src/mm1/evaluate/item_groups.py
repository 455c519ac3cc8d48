"""Items that count as one: a question in several forms is right if every form is answered right."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def lowest_of_groups(statistics: np.ndarray, keys: Sequence[Hashable]) -> np.ndarray:
    """Return one row per group: the lowest values of its items.

    Args:
        statistics: (n, s), one row per item.
        keys: n keys, one per item; items with the same key form a group.

    Returns:
        (k, s), one row per group, in the order in which the keys first appear.
    """
    rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
    lowest = np.full((len(rows), statistics.shape[1]), np.inf)
    np.minimum.at(lowest, [rows[key] for key in keys], statistics)
    return lowest
