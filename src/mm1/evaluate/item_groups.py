"""Items that count only together: a question asked in several forms is right if each of them is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def lowest_of_groups(statistics: np.ndarray, keys: Sequence[Hashable]) -> np.ndarray:
    """Return one row for all items of a group: the lowest of theirs.

    Args:
        statistics: (n, s), one row an item.
        keys: n, one an item: what its group is called.

    Returns:
        (k, s), one row a group, in the order in which the keys first appear.
    """
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    lowest = np.full((len(places), statistics.shape[1]), np.inf)
    np.minimum.at(lowest, [places[key] for key in keys], statistics)
    return lowest
