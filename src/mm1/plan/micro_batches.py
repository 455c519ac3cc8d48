"""Which sequences of a plan each rank takes in each micro-batch, and the shapes that micro-batches are padded to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from mm1.plan.plan import Plan
from mm1.plan.shapes import Shapes, choose_shapes
from mm1.plan.shares import share_out

_SAMPLE = 1024
"""Micro-batches, from the plan's beginning, whose pictures the sizes of all are chosen for; mixtures are even."""


class MicroBatches:
    """The numbers of the sequences in every micro-batch of one rank, starting at a step.

    Args:
        plan: The plan.
        first_step: The step to begin with.
        micro_batch_size: Sequences per forward pass on one rank.
        rank: The rank.
        ranks: The number of processes that share a step.
    """

    def __init__(self, plan: Plan, first_step: int, micro_batch_size: int, rank: int, ranks: int) -> None:
        self.plan, self.batch_size = plan, plan.info["batch_size"]
        self.steps = range(first_step, plan.info["steps"])
        self.micro_batch_size = micro_batch_size
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return len(self.steps) * (self.batch_size // (self.micro_batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for shared in step_shares(self.plan, step, self.ranks, self.micro_batch_size)[:, self.rank]:
                yield shared.tolist()


def step_shares(plan: Plan, step: int, ranks: int, micro_batch_size: int) -> np.ndarray:
    """Return which sequences of a step each rank takes, micro-batch by micro-batch.

    Args:
        plan: The plan.
        step: The step, counted from 0.
        ranks: The number of processes that share a step.
        micro_batch_size: Sequences per forward pass on one rank.

    Returns:
        (micro-batches, ranks, micro_batch_size) int64 numbers of sequences in the plan.
    """
    first, batch_size = step * plan.info["batch_size"], plan.info["batch_size"]
    return first + share_out(plan.images_of(first, first + batch_size), ranks, micro_batch_size)


def image_rounds(plan: Plan, step: int, ranks: int, micro_batch_size: int) -> np.ndarray:
    """Return in which micro-batches of a step some rank has images, (micro-batches,) bool."""
    shares = step_shares(plan, step, ranks, micro_batch_size)
    first, batch_size = step * plan.info["batch_size"], plan.info["batch_size"]
    images: np.ndarray = plan.images_of(first, first + batch_size)[shares - first]
    return images.sum(axis=(1, 2)) > 0


def fixed_shapes(plan: Plan, micro_batch_size: int, ranks: int = 1) -> Shapes:
    """Return the sizes that the plan's micro-batches are padded to; the same on every rank.

    Args:
        plan: The plan.
        micro_batch_size: Sequences per forward pass on one rank.
        ranks: The number of processes that share a step.
    """
    batches = [MicroBatches(plan, 0, micro_batch_size, rank, ranks) for rank in range(ranks)]
    sample = [numbers for own in batches for numbers in islice(own, max(1, _SAMPLE // ranks))]
    images = [sum(plan.count_images(number, number + 1) for number in numbers) for numbers in sample]
    most = max(kind["images_per_sequence"] for kind in plan.info["kinds"].values())
    return choose_shapes(np.array(images), micro_batch_size, plan.info["sequence_length"], int(most) * micro_batch_size)
