"""The micro-batches of a step, on the device when they are needed.

    loader --> host, pinned --copy, one micro-batch ahead, on a stream of its own--> device

A copy from pinned memory runs beside the computation. So the next micro-batch is on its way while the device computes
on this one, and the first of the next step while it ends this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from mm1.plan.loader import TrainingBatch


class Copier(Protocol):
    """Copies batches to a device beside the computation."""

    def begin(self, batch: TrainingBatch) -> Any:
        """Begin to copy a batch; the host doesn't wait."""
        ...

    def end(self, copy: Any) -> TrainingBatch:
        """Have the computation wait for a copy that has begun; the host doesn't wait."""
        ...


class StepBatches:
    """The micro-batches of one step after the other.

    Args:
        batches: The micro-batches in the host's memory.
        count: Micro-batches per step.
        copier: Copies them to the device; None: they are computed on where they are.
    """

    def __init__(self, batches: Iterator[TrainingBatch], count: int, copier: Copier | None = None) -> None:
        self._batches, self._count, self._copier = batches, count, copier
        self._group: list[TrainingBatch] = []
        self._copies: deque[Any] = deque()

    def take(self) -> list[TrainingBatch]:
        """Return the next step's micro-batches in the host's memory."""
        group, self._group = self._group or self._fetch(), []
        return group

    def on_device(self, group: list[TrainingBatch]) -> Iterator[TrainingBatch]:
        """Yield a step's micro-batches on the device, each when the copy of the next one has begun."""
        if self._copier is None:
            yield from group
            return
        for number in range(len(group)):
            while len(self._copies) < min(2, len(group) - number):
                self._copies.append(self._copier.begin(group[number + len(self._copies)]))
            yield self._copier.end(self._copies.popleft())

    def look_ahead(self) -> None:
        """Begin to copy the first micro-batch of the next step; does nothing where nothing is copied."""
        if self._copier is not None and not self._group:
            self._group = self._fetch()
            if self._group:
                self._copies.append(self._copier.begin(self._group[0]))

    def _fetch(self) -> list[TrainingBatch]:
        """Return the next micro-batches; none at the end of the training."""
        group = []
        for _ in range(self._count):
            if (batch := next(self._batches, None)) is not None:
                group.append(batch)
        return group


class CudaCopier:
    """Copies batches on a CUDA stream of its own.

    Args:
        device: The device to copy to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def begin(self, batch: TrainingBatch) -> tuple[TrainingBatch, torch.cuda.Event]:
        """Begin to copy a batch from pinned memory."""
        with torch.cuda.stream(self._stream):
            return to_device(batch, self._device), self._stream.record_event()

    def end(self, copy: tuple[TrainingBatch, torch.cuda.Event]) -> TrainingBatch:
        """Have the current stream wait for a copy that has begun."""
        batch, copied = copy
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.record_stream(current)  # its memory is not given away before the computation has ended
        return batch


def step_batches(batches: Iterator[TrainingBatch], count: int, device: torch.device) -> StepBatches:
    """Return the micro-batches of one step after the other, copied ahead if the device is a CUDA GPU."""
    return StepBatches(batches, count, CudaCopier(device) if device.type == "cuda" else None)


def to_device(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    """Return a batch with its tensors on a device; the host doesn't wait for tensors in pinned memory."""
    if device.type == "cpu":
        return batch
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    return moved  # type: ignore[return-value]  # the same keys, in a plain dict
