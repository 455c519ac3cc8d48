"""A few shapes for all micro-batches: pictures and target positions are padded to sizes that repeat.

Kernels, compiled blocks and buffers are made for shapes, and kept. Micro-batches of ever other shapes make them anew:
on a CPU the library's cache of them then takes gigabytes. Sequences have one length anyway; this module fixes the two
numbers that vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZES = 8
"""Most sizes that the pictures of a micro-batch are padded to; 0 pictures stay 0."""
TARGET_SHARE = 64
"""Target positions are padded to a multiple of the micro-batch's tokens over this number."""


@dataclass(frozen=True)
class Shapes:
    """The sizes that micro-batches are padded to.

    Attributes:
        sequences: Sequences of the micro-batches that the sizes are for; others are not padded.
        images: Numbers of pictures, ascending; the last one is the most that a micro-batch may have.
        targets: Target positions are padded to a multiple of this number.
    """

    sequences: int
    images: tuple[int, ...]
    targets: int

    def padded_images(self, images: int) -> int:
        """Return the number of pictures that so many are padded to."""
        return next((size for size in self.images if size >= images), images) if images else 0

    def padded_targets(self, targets: int) -> int:
        """Return the number of target positions that so many are padded to."""
        return -(-targets // self.targets) * self.targets


def choose_shapes(images: np.ndarray, sequences: int, sequence_length: int, most_images: int) -> Shapes:
    """Choose the sizes that pad the least.

    Of pictures there are at most `SIZES` sizes: the largest number possible, and those numbers of the given
    micro-batches with which the fewest pictures are added.

    Args:
        images: (n,) pictures of some micro-batches of the plan.
        sequences: Sequences per micro-batch.
        sequence_length: Tokens per sequence.
        most_images: The most pictures that a micro-batch may have.
    """
    found = _fewest_added(images[images > 0], SIZES - 1)
    sizes = sorted({*found, most_images} - {0})
    return Shapes(sequences, tuple(sizes), max(1, -(-sequences * sequence_length // TARGET_SHARE)))


def _fewest_added(counts: np.ndarray, sizes: int) -> Sequence[int]:
    """Return at most so many of the counts, the largest included, to which raising all counts adds the least.

    `best[j]` is the least that is added to the counts up to the j-th different one if that is a size.
    """
    values, times = np.unique(counts, return_counts=True)
    if len(values) <= sizes:
        return values.tolist()
    number, total = np.cumsum(times), np.cumsum(times * values)
    # added[i, j]: what raising the counts after the i-th up to the j-th adds; i = 0 stands for none before.
    before_number, before_total = np.append(0, number), np.append(0, total)
    added = (number - before_number[:, None]) * values - (total - before_total[:, None])
    added = np.where(np.arange(len(values) + 1)[:, None] <= np.arange(len(values)), added, np.iinfo(np.int64).max // 4)
    best, chosen = added[0], []
    for _ in range(sizes - 1):
        through = np.append(0, best)[:, None] + added
        chosen.append(through.argmin(0))
        best = through.min(0)
    last, found = len(values), []
    for step in reversed([np.zeros(len(values), np.int64), *chosen]):
        if last:
            found.append(int(values[last - 1]))
            last = int(step[last - 1])
    return found
