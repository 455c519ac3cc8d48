"""When memory runs out: finds the micro-batch size that fits by trying."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm1.errors import UserError
from mm1.progress import console
from mm1.train.parallel import World


@contextmanager
def explain_out_of_memory(loader: DataLoader[Any], world: World, try_steps: Callable[[Any], None]) -> Iterator[None]:
    """Turn the device's out-of-memory error into a sentence with the micro-batch size that fits.

    A single process halves the first micro-batch until two whole steps succeed. With several ranks nothing is tried,
    since the other ranks wait inside the failed step.

    Args:
        loader: Yields the training's micro-batches.
        world: The ranks.
        try_steps: Makes two optimizer steps of two such micro-batches each, and leaves no gradients. It may change the
            weights, since the training is over.

    Raises:
        UserError: Instead of the device's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # frees the step's activations
        raise UserError(_explanation(loader, world, try_steps)) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device or the process has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _explanation(loader: DataLoader[Any], world: World, try_steps: Callable[[Any], None]) -> str:
    numbers = next(iter(loader.batch_sampler))  # type: ignore[arg-type]  # a BatchSampler
    key, size = "train.micro_batch_size", len(numbers)
    where = f"out of memory on {world.device} with {key} {size}"
    less = "set train.activation_checkpointing: true, lower data.sequence_length, or use a smaller model"
    untried = f"set {key}: {max(1, size // 2)}, or {less}"
    if world.size > 1:
        return f"{where} on each of {world.size} ranks: {untried}"
    console.print(f"out of memory with {size} sequences per forward pass; trying how many fit")
    try:
        while size > 1:
            size //= 2
            if _fits(loader, numbers[:size], try_steps):
                return f"{where}; {size} fits (tried on the run's next sequences): set {key}: {size}"
    except RuntimeError as error:  # after a failed allocation some CPU libraries fail with every batch size
        return f"{where} (trying smaller sizes failed: {error}): {untried}"
    return f"{where}, and not even 1 fits: {less}"


def _fits(loader: DataLoader[Any], numbers: list[int], try_steps: Callable[[Any], None]) -> bool:
    """Return whether steps with these sequences as their micro-batches succeed."""
    try:
        batch = next(iter(DataLoader(loader.dataset, batch_sampler=[numbers], collate_fn=loader.collate_fn)))
        try_steps(batch)
    except (RuntimeError, MemoryError) as error:
        traceback.clear_frames(error.__traceback__)
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True
