"""Stops a training when too many of its last pictures can't be read.

A corpus of a billion pictures has some broken ones, and a count over the whole run would stop every long training. A
folder that has gone missing, or a damaged disk, makes many of the pictures at hand unreadable. So the share in a window
counts. Megatron-Energon stops after 100 failures in a row instead, which one readable picture in a hundred prevents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mm1.errors import EveryRankError

WINDOW = 10_000
"""Latest pictures that are judged."""
SHARE = 0.01
"""Training stops when more than this share of them can't be read,"""
MINIMUM = 100
"""and at least so many."""


class UnreadableWatch:
    """Counts the pictures of the last steps, and those that can't be read.

    Args:
        counts: (pictures, unreadable ones) of some steps in a row, the latest last: the `counts` of another watch.
    """

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts = deque((int(pictures), int(unreadable)) for pictures, unreadable in counts)

    def add(self, pictures: int, unreadable: int) -> None:
        """Add a step's pictures, over all ranks; `unreadable` of them can't be read.

        Raises:
            EveryRankError: If too many of the last pictures can't be read.
        """
        if pictures == 0:
            return
        if self.counts and self.counts[-1][0] < MINIMUM:  # few entries, however small the steps are
            before = self.counts.pop()
            pictures, unreadable = pictures + before[0], unreadable + before[1]
        self.counts.append((pictures, unreadable))
        while sum(n for n, _ in self.counts) - self.counts[0][0] >= WINDOW:
            self.counts.popleft()
        total, bad = (sum(values) for values in zip(*self.counts, strict=True))
        if bad >= MINIMUM and bad > SHARE * total:
            raise EveryRankError(
                f"{bad:,} of the last {total:,} pictures can't be read (each is named above), more than "
                f"{SHARE:.0%}: check that the corpora's files and what they link to are all there, or rebuild or "
                "clean the corpora; the run then resumes from its last checkpoint"
            )
