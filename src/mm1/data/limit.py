"""The first documents of a job's units, and no more read than it takes.

Units are taken in their order until there are enough documents. The first is done alone; from then on as many at once
as are sure to be needed, if no unit holds more than the largest so far; the last one is read to the document at which
the limit falls. What is taken depends on the units alone: it is the same whatever the number of workers and
interruptions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mm1.data.shards import Unit, do_units, marker_file
from mm1.progress import progress_bar

Contra = TypeVar("Contra", contravariant=True)


class LimitedWork(Protocol[Contra]):
    """Work (see `mm1.data.shards.Work`) that stops after so many documents."""

    def __call__(self, unit: Contra, file: Path, most: int | None = None) -> dict[str, Any]:
        """Write at most so many documents of a unit to a file, and return the counts."""


def run_until(
    work: LimitedWork[Unit],
    units: Sequence[Unit],
    folder: Path,
    limit: int,
    *,
    workers: int | None,
    description: str,
    engine: str = "processes",
) -> list[dict[str, Any]]:
    """Do the work of the first units, until they have so many documents together; return what each counted.

    Args:
        work: Also takes `most`, and returns it among its counts.
        units: See `mm1.data.shards.run_units`.
        folder: Likewise.
        limit: Documents that are wanted. There are fewer if the units have fewer.
        workers: As `units`.
        description: Likewise.
        engine: Likewise.

    Raises:
        UserError: See `run_units`.
    """
    taken: list[dict[str, Any]] = []
    left, largest = limit, 0
    with progress_bar() as bar:
        task = bar.add_task(description, total=limit, note="documents")

        def do(numbers: Sequence[int], most: int) -> None:
            limited: Callable[[Unit, Path], dict[str, Any]] = partial(work, most=most)
            do_units(limited, units, numbers, folder, workers, description, engine, lambda: None)

        while left > 0 and len(taken) < len(units):
            needed = max(1, (left - 1) // largest) if largest else 1
            numbers = range(len(taken), min(len(taken) + needed, len(units)))
            do([number for number in numbers if not _is_done(folder, number, left)], left)
            for number in numbers:
                info = _counts(folder, number)
                if info["documents"] >= left and info["most"] != left:  # a larger unit than those before
                    do([number], left)
                    info = _counts(folder, number)
                taken.append(info)
                left -= info["documents"]
                largest = max(largest, info["documents"])
                bar.update(task, completed=limit - left)
                if left == 0:
                    break
    return taken


def _counts(folder: Path, number: int) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(marker_file(folder.absolute(), number).read_text())
    return info


def _is_done(folder: Path, number: int, most: int) -> bool:
    """Whether a unit is done as it would be now: read to this limit, or to its end below it."""
    if not marker_file(folder.absolute(), number).is_file():
        return False
    info = _counts(folder, number)
    return bool(info["most"] == most or info["documents"] < min(most, info["most"]))
