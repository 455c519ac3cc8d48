"""When memory runs out: how many sequences would have fitted, found out by trying."""

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
def out_of_memory_explained(loader: DataLoader[Any], world: World, try_steps: Callable[[Any], None]) -> Iterator[None]:
    """Turn the device's running out of memory into a sentence with the micro-batch size that fits.

    One process tries: it halves the first micro-batch until two whole steps go through. Among several ranks the
    others wait inside the step that failed, so none can try.

    Args:
        loader: Gives the training's micro-batches.
        world: The ranks.
        try_steps: Makes two optimizer steps of two such micro-batches each, and leaves no gradients. The weights may
            change: the training is over.

    Raises:
        UserError: In place of the device's own error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the step's activations
        raise UserError(_sentence(loader, world, try_steps)) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the process, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _sentence(loader: DataLoader[Any], world: World, try_steps: Callable[[Any], None]) -> str:
    numbers = next(iter(loader.batch_sampler))  # type: ignore[arg-type]  # a BatchSampler
    key, size = "train.micro_batch_size", len(numbers)
    where = f"out of memory on {world.device} with {key} {size}"
    less = "set train.activation_checkpointing: true, shorten data.sequence_length, or take a smaller model"
    untried = f"set {key}: {max(1, size // 2)}, or {less}"
    if world.size > 1:
        return f"{where} on each of {world.size} ranks: {untried}"
    console.print(f"out of memory with {size} sequences at a time: trying how many fit")
    try:
        while size > 1:
            size //= 2
            if _fits(loader, numbers[:size], try_steps):
                return f"{where}; {size} fits (tried on the run's next sequences): set {key}: {size}"
    except RuntimeError as error:  # after a refusal some libraries of the CPU stay broken, however small the batch
        return f"{where} (trying how many fit ended in: {error}): {untried}"
    return f"{where}, and not even 1 fits: {less}"


def _fits(loader: DataLoader[Any], numbers: list[int], try_steps: Callable[[Any], None]) -> bool:
    """Say whether steps with these sequences as their micro-batches go through."""
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
