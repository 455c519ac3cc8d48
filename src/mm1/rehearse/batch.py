"""Batches without corpora, put together as the loader does it."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch._guards import active_fake_mode
from torch.utils._python_dispatch import _disable_current_modes

from mm1.document import KINDS
from mm1.plan.loader import Batch, PackedSequence, _join
from mm1.recipe import Recipe
from mm1.scaling.workload import recipe_workload


def fullest_batch(recipe: Recipe, tokens_per_image: int, image_size: int, rows: int) -> Batch:
    """Return a micro-batch of the fullest sequences that a recipe allows.

    Args:
        recipe: Gives length and limits.
        tokens_per_image: Image tokens per image.
        image_size: Side of an image in pixels.
        rows: Sequences.

    Returns:
        Sequences with the most images and with every token a target. No sequence has both, so any fits.
    """
    work = recipe_workload(recipe, tokens_per_image)
    return _batch(work.length, [work.most_images] * rows, [work.length] * rows, tokens_per_image, image_size)


def fills(recipe: Recipe, tokens_per_image: int, image_size: int, rows: int) -> dict[str, Batch]:
    """Return micro-batches as different stretches of a plan give them: full of pictures, half full, of text alone."""
    work = recipe_workload(recipe, tokens_per_image)
    named = {"most images": work.most_images, "half": work.most_images // 2, "text": 0}
    return {
        name: _batch(
            work.length, [images] * rows, [work.length - images * tokens_per_image] * rows, tokens_per_image, image_size
        )
        for name, images in named.items()
    }


def without_contents(batch: Batch) -> Batch:
    """Return a batch of fake tensors inside a rehearsal; elsewhere the batch itself."""
    mode = active_fake_mode()
    if mode is None:
        return batch
    fake = {name: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for name, v in batch.items()}
    return cast(Batch, fake)


def shapes(batch: Batch) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a batch's tensors."""
    return {name: tuple(value.shape) for name, value in batch.items() if isinstance(value, torch.Tensor)}


def _batch(length: int, images: list[int], targets: list[int], tokens_per_image: int, image_size: int) -> Batch:
    with _disable_current_modes():  # where documents begin is read from the positions
        sequences = [
            _sequence(length, n * tokens_per_image, m, n, image_size) for n, m in zip(images, targets, strict=True)
        ]
        pixels = torch.zeros((sum(images), 3, image_size, image_size), dtype=torch.uint8)
        return _join(sequences, pixels)


def _sequence(length: int, image_tokens: int, targets: int, images: int, image_size: int) -> PackedSequence:
    first = length // 2
    positions = np.concatenate([np.arange(first), np.arange(length - first)])  # two documents: a packed row
    return PackedSequence(
        input_ids=np.zeros(length, np.int64),
        position_ids=positions,
        pixel_values=np.zeros((images, 3, image_size, image_size), np.uint8),
        image_positions=np.arange(image_tokens),
        target_positions=np.arange(length - targets, length),
        target_ids=np.zeros(targets, np.int64),
        kind=KINDS.index("caption"),
        tokens=length,
    )
