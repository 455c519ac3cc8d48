"""Items that count only together: a question asked in several forms is right if each of them is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def all_of(statistics: np.ndarray, keys: Sequence[Hashable]) -> np.ndarray:
    """Return one row for all items with the same key: the lowest of theirs.

    Args:
        statistics: (n, s), one row an item.
        keys: n, one an item.

    Returns:
        (k, s), one row a key, in the order in which keys first appear.
    """
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    lowest = np.full((len(places), statistics.shape[1]), np.inf)
    np.minimum.at(lowest, [places[key] for key in keys], statistics)
    return lowest
