"""A profile of some steps by torch's profiler: `train.profile`.

Every rank writes a trace to RUN/profile/rankN.json.gz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mm1.progress import console
from mm1.train.parallel import World

_ACTIVITIES = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}


@contextmanager
def profiling(steps: tuple[int, int] | None, directory: Path, world: World) -> Iterator[Callable[[int], None]]:
    """Profile some steps of a training, and write a trace for each rank.

    Args:
        steps: The first step to profile, counted from 1, and how many; None: none.
        directory: The run's directory.
        world: The ranks.

    Yields:
        A function that takes the number of steps done. It begins to profile before the first step to profile (or one
        of the others, if the run resumes there) and writes the trace after the last one. If the block ends before,
        the trace has the steps until then.
    """
    first, count = steps or (0, 0)
    running: list[profile] = []

    def write() -> None:
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        (recorded,) = running
        running.clear()
        recorded.stop()
        folder = directory / "profile"
        folder.mkdir(exist_ok=True)
        partial, file = (folder / f"rank{world.rank}.{ending}" for ending in ("partial.json.gz", "json.gz"))
        recorded.export_chrome_trace(str(partial))
        partial.rename(file)
        console.print(f"profile: {file} (open it on https://ui.perfetto.dev)")

    def after(done: int) -> None:
        if running and done >= first + count - 1:
            write()
        elif not running and done + 1 in range(first, first + count):
            activities = [ProfilerActivity.CPU, *(a for kind, a in _ACTIVITIES.items() if kind == world.device.type)]
            running.append(profile(activities=activities, record_shapes=True))
            running[0].start()

    try:
        yield after
    finally:
        if running:
            write()
