"""Python's garbage collection at fixed steps, on all ranks together.

A collection takes hundredths of a second to seconds. If every rank has its own at a step of its own, all ranks wait for
each of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEPS_BETWEEN = 50
"""Steps between two collections (as in torchtitan)."""


@contextmanager
def garbage_collection() -> Iterator[Callable[[int, bool], None]]:
    """Collect garbage only where the block says so; what is there before it is left alone, so collections are short.

    Yields:
        A function that takes the number of steps done, and whether to collect in any case. It collects at every
        `STEPS_BETWEEN`-th step.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()

    def collect(step: int, now: bool) -> None:
        if now or step % STEPS_BETWEEN == 0:
            gc.collect()

    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
