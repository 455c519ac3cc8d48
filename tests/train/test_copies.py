"""Micro-batches come to the device one ahead, in order; a stand-in takes the place of the CUDA stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mm1.train.copies import StepBatches


class Recorder:
    """Notes when copies begin and end, without a device."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def begin(self, batch: Any) -> Any:
        self.log.append(f"begin {batch}")
        return batch

    def end(self, copy: Any) -> Any:
        self.log.append(f"end {copy}")
        return copy


def batches(count: int, log: list[str]) -> Iterator[Any]:
    for number in range(count):
        log.append(f"load {number}")
        yield number


def played(steps: int, size: int, copier: Recorder | None, log: list[str]) -> list[str]:
    ahead = StepBatches(batches(steps * size, log), size, copier)
    for step in range(steps):
        group: list[Any] = ahead.take()
        assert group == list(range(step * size, (step + 1) * size))
        for batch in ahead.on_device(group):
            log.append(f"compute {batch}")
        log.append(f"optimizer {step}")
        ahead.look_ahead()
    return log


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_next_copy_begins_before_the_device_has_computed(size: int) -> None:
    copier = Recorder()
    log = played(4, size, copier, copier.log)
    assert [line for line in log if line.startswith("compute")] == [f"compute {i}" for i in range(4 * size)]
    for number in range(4 * size):
        assert log.index(f"begin {number}") < log.index(f"end {number}") < log.index(f"compute {number}")
        if number % size:  # beside the one before it, in the same step
            assert log.index(f"begin {number}") < log.index(f"compute {number - 1}")
        elif number:  # beside the end of the step before
            assert log.index(f"optimizer {number // size - 1}") < log.index(f"begin {number}")
            assert log.index(f"begin {number}") + 1 <= log.index(f"end {number}")
    begun = 0
    for line in log:  # never more than two micro-batches on the device
        begun += line.startswith("begin") - line.startswith("compute")
        assert begun <= 2
    assert sum(line.startswith("begin") for line in log) == 4 * size


def test_without_a_copy_nothing_is_taken_ahead() -> None:
    log = played(2, 2, None, [])
    assert log == [
        *("load 0", "load 1", "compute 0", "compute 1", "optimizer 0"),
        *("load 2", "load 3", "compute 2", "compute 3", "optimizer 1"),
    ]
