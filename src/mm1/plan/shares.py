"""Which rank takes which sequence of a step, so that all ranks do equal work.

Ranks wait for each other in every micro-batch, and the pictures of a sequence decide how long it takes. The gradient of
a step doesn't depend on who takes what: its loss is normalised over the whole step.
"""

from __future__ import annotations

import numpy as np


def share_out(images: np.ndarray, ranks: int, micro_batch_size: int) -> np.ndarray:
    """Divide the sequences of a step among ranks and micro-batches.

    The sequences with the most images come first: those of one micro-batch, over all ranks, have similar numbers. Of
    each, every rank takes as many sequences, always the one with the fewest images so far the next largest. A single
    rank keeps the plan's order, and so do sequences with equal numbers of images.

    Args:
        images: (batch,) number of images in each sequence of the step.
        ranks: The number of ranks.
        micro_batch_size: Sequences per forward pass on one rank; ranks times this divides the batch.

    Returns:
        (micro-batches, ranks, micro_batch_size) int64 numbers of sequences, counted within the step.
    """
    numbers = np.arange(len(images))
    if ranks == 1:
        return numbers.reshape(-1, 1, micro_batch_size)
    order = np.argsort(-images, kind="stable").reshape(-1, micro_batch_size, ranks)
    shared = np.empty((len(order), ranks, micro_batch_size), dtype=np.int64)
    for micro_batch, layers in enumerate(order):
        load = np.zeros(ranks, dtype=np.int64)
        for place, layer in enumerate(layers):
            takers = np.argsort(load, kind="stable")
            shared[micro_batch, takers, place] = layer
            load[takers] += images[layer]
    return shared
