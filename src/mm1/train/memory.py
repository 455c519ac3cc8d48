"""When memory runs out: saves the steps done, and finds the micro-batch size that fits by trying."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm1.errors import UserError
from mm1.progress import console
from mm1.train.changes import MICRO_BATCH
from mm1.train.parallel import World


@dataclass(frozen=True)
class Attempts:
    """How a single process finds out what fits, once a step has run out of memory.

    Attributes:
        save: Saves the steps done, if they aren't, and returns the step that the run resumes from.
        try_steps: Makes two optimizer steps of two micro-batches like the given one each, and leaves no gradients. It
            may change the weights, since the training is over.
        fixed_by: Why this run's micro-batches can't change; None: they can.
    """

    save: Callable[[], int]
    try_steps: Callable[[Any], None]
    fixed_by: str | None = None


@contextmanager
def explain_out_of_memory(loader: DataLoader[Any], world: World, attempts: Attempts) -> Iterator[None]:
    """Turn the device's out-of-memory error into a sentence with the micro-batch size that fits.

    A single process saves the steps done, and then halves the first micro-batch until two whole steps succeed. With
    several ranks nothing is saved or tried, since the other ranks wait inside the failed step.

    Args:
        loader: Yields the training's micro-batches.
        world: The ranks.
        attempts: Saves and tries.

    Raises:
        UserError: Instead of the device's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # frees the step's activations
        raise UserError(_explanation(loader, world, attempts)) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device or the process has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _explanation(loader: DataLoader[Any], world: World, attempts: Attempts) -> str:
    numbers = next(iter(loader.batch_sampler))  # type: ignore[arg-type]  # a BatchSampler
    key, size = MICRO_BATCH, len(numbers)
    where = f"out of memory on {world.device} with {key} {size}"
    if world.size > 1:
        where += f" on each of {world.size} ranks"
        resumes = "resumes from its last checkpoint"
    else:
        step = attempts.save()
        resumes = f"resumes from step {step:,}" if step else "begins anew"
    other = "start another run with a shorter data.sequence_length or a smaller model"
    less = f"set train.activation_checkpointing: true (the run then {resumes}), or {other}"
    if attempts.fixed_by is not None:
        return f"{where}, which is fixed because {attempts.fixed_by}: {less}"
    untried = f"set {key}: {max(1, size // 2)}, or {less}"
    if world.size > 1:
        return f"{where}: {untried}"
    console.print(f"out of memory with {size} sequences per forward pass; trying how many fit")
    try:
        while size > 1:
            size //= 2
            if _fits(loader, numbers[:size], attempts.try_steps):
                tried = f"{size} fits (tried on the run's next sequences)"
                return f"{where}; {tried}, and with it the run {resumes}: set {key}: {size}"
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
