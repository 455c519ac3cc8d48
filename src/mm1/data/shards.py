"""Corpora made shard by shard: over several processes, and after an interruption only what is missing.

    work(unit, file) -> counts        one pure function, for every unit: a source file, a range of rows, ...

A job's folder holds, for every unit that is done, `000012.arrow`, `000012.digests` and, written last, `000012.json`;
for those under way, what `000012.kept-*` keeps for another try; and `job.json`, which says what the job is: another job
does not go on from it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mm1.data.batches import write_batches
from mm1.data.engines import ENGINES, SomeCall, WorkerDied, run_while_ready
from mm1.data.references import sum_references
from mm1.data.skips import merge_reasons
from mm1.data.writer import content_hash, join_files
from mm1.errors import UserError
from mm1.files import PARTIAL, link, write_json
from mm1.nearest import did_you_mean
from mm1.progress import console, progress_bar

Unit = TypeVar("Unit")
Work = Callable[[Unit, Path], dict[str, Any]]

_SMALL_BYTES = 8 * 2**20  # a unit's file up to this size is joined with its neighbours
_JOINED_BYTES = 64 * 2**20

REASONS = ("skipped", "lost", "changed", "unread")
"""What `corpus.json` counts by reason: records left out, parts that documents lack, what was put right, and files among
the source files that are none."""


def open_job(folder: Path, job: Mapping[str, Any]) -> None:
    """Make a job's folder, or keep it with what is done if it is of the same job."""
    file = folder / "job.json"
    try:
        same = json.loads(file.read_text()) == job
    except (OSError, ValueError):
        same = False
    if not same:
        if folder.is_dir():
            console.print(f"{folder}: left by another job, or by other sources: begun anew")
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        write_json(file, job)


def run_units(
    work: Work[Unit],
    units: Sequence[Unit],
    folder: Path,
    *,
    workers: int | None,
    description: str,
    engine: str = "processes",
) -> list[dict[str, Any]]:
    """Do the work of every unit that isn't done yet, and return what all of them counted, in order.

    Args:
        work: Writes a unit's documents to the file it is given and returns its counts; can be pickled.
        units: What there is to do.
        folder: The job's folder (see `open_job`).
        workers: Processes; default: as many as there are cores. 1 works in this process.
        description: What is being done, for the progress bar.
        engine: One of `mm1.data.engines.ENGINES`.

    Raises:
        UserError: If the work raises it, a process dies, or the disk is full. What is done stays done.
    """
    folder = folder.absolute()
    pending = [number for number in range(len(units)) if not marker_file(folder, number).is_file()]
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(units), completed=len(units) - len(pending), note="")
        do_units(work, units, pending, folder, workers, description, engine, lambda: bar.advance(task))
    return [json.loads(marker_file(folder, number).read_text()) for number in range(len(units))]


def do_units(
    work: Work[Unit],
    units: Sequence[Unit],
    numbers: Sequence[int],
    folder: Path,
    workers: int | None,
    description: str,
    engine: str,
    done: Callable[[], None],
) -> None:
    """Do the work of the units of these numbers; see `run_units`.

    Args:
        work: As of `run_units`.
        units: All of them.
        numbers: Those to be done, done before or not.
        folder: As of `run_units`.
        workers: Likewise.
        description: Likewise.
        engine: Likewise.
        done: Called after each unit.

    Raises:
        UserError: See `run_units`.
    """
    folder = folder.absolute()
    calls = [partial(_do, work, units[number], folder, number) for number in numbers]
    with _one_sentence(folder, description, engine):
        if calls:
            ENGINES[engine](calls, workers, done)


def run_ready(
    next_call: Callable[[], SomeCall | None],
    folder: Path,
    workers: int | None,
    description: str,
    engine: str,
    done: Callable[[SomeCall], None],
) -> None:
    """Run calls of which some can begin only when others are done; see `mm1.data.engines.run_while_ready`.

    Args:
        next_call: As of `run_while_ready`.
        folder: As of `run_units`.
        workers: Likewise.
        description: Likewise.
        engine: Likewise.
        done: As of `run_while_ready`.

    Raises:
        UserError: See `run_units`.
    """
    with _one_sentence(folder, description, engine):
        run_while_ready(engine, next_call, workers, done)


@contextmanager
def _one_sentence(folder: Path, description: str, engine: str) -> Iterator[None]:
    """Raise a `UserError` for what ends a job."""
    if engine not in ENGINES:
        raise UserError(f"no engine is called '{engine}': {did_you_mean(engine, ENGINES)}")
    try:
        yield
    except WorkerDied:
        raise UserError(
            f"{folder}: a process died while it worked ({description}), perhaps for want of memory: run the same "
            "command again with fewer workers, it goes on from what is done (a script of your own needs the guard "
            "`if __name__ == '__main__':`)"
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder}: the work could not be done ({error.strerror or error}): see that the sources can be read and "
            "there is space, then run the same command again, it goes on from what is done"
        ) from error


def _do(work: Work[Unit], unit: Unit, folder: Path, number: int) -> None:
    marker = marker_file(folder, number)
    # Written apart from what another run of the same job may write, and moved when it is whole. One folder for all
    # units of a process: making and removing one takes longer than to read a small source file.
    private = folder / f"process-{os.getpid()}"
    private.mkdir(exist_ok=True)
    info = work(unit, private / f"{marker.stem}.arrow")
    marker.unlink(missing_ok=True)  # of the same unit, done before to another limit
    for file in private.glob(f"{marker.stem}.*"):
        file.replace(folder / file.name)
    write_json(marker, info)
    for file in folder.glob(f"{marker.stem}.kept-*"):
        file.unlink(missing_ok=True)


def unit_file(folder: Path, number: int, suffix: str) -> Path:
    """Return where a unit's file is when it is done."""
    return folder / f"{number:06d}{suffix}"


def marker_file(folder: Path, number: int) -> Path:
    """Return the file that holds what a unit counted; it is there when the unit is done."""
    return unit_file(folder, number, ".json")


def gather_split(folder: Path, infos: Sequence[Mapping[str, Any]], target: Path) -> dict[str, Any]:
    """Link the shards of a finished job into a split's directory; return the split's entry of `corpus.json`.

    Args:
        folder: The job's folder; left as it is.
        infos: What `run_units` returned.
        target: The split's directory, which doesn't exist yet.

    Raises:
        UserError: If there is no document at all.
    """
    counts = sum_units(infos)
    if counts["documents"] == 0:
        raise UserError(f"{target.parent.name.removesuffix(PARTIAL)}/{target.name}: {nothing_left(counts)}")
    target.mkdir(parents=True)
    arrows = (unit_file(folder, number, ".arrow") for number, info in enumerate(infos) if info["documents"])
    for files in _together(arrows):
        if len(files) == 1:
            link(files[0], target / files[0].name)
        else:
            join_files(files, target / files[0].name)
    write_batches(target)
    digests = (unit_file(folder, number, ".digests").read_bytes() for number in range(len(infos)))
    del counts["missing"]
    return {**counts, "content_hash": content_hash(digests)}


def sum_units(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what units have counted together: `documents`, `read`, `skipped`, ...; `missing` as in `Notes`."""
    kinds: Counter[str] = Counter()
    for info in infos:
        kinds.update(info["kinds"])
    names = ("read", "documents", "images", "pictures_left_out", "characters")
    return {
        **{name: sum(info.get(name, 0) for info in infos) for name in names},
        "kinds": dict(sorted(kinds.items())),
        **{name: merge_reasons(info.get(name, {}) for info in infos) for name in REASONS},
        "missing": [missing for info in infos for missing in info.get("missing", ())],
        **sum_references(infos),
    }


def _together(files: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield files, in order, in the groups that become one file of a split: opening costs by the file."""
    group: list[Path] = []
    total = 0
    for file in files:
        size = file.stat().st_size
        if group and (size > _SMALL_BYTES or total + size > _JOINED_BYTES):
            yield group
            group, total = [], 0
        if size > _SMALL_BYTES:
            yield [file]
        else:
            group.append(file)
            total += size
    if group:
        yield group


def nothing_left(counts: Mapping[str, Any]) -> str:
    """Return the message about a split without a document."""
    skipped = counts["skipped"]
    if not skipped:
        return "no document is left, for these reasons: the sources are empty"
    reasons = "; ".join(f"{entry['count']}x {reason}" for reason, entry in skipped.items())
    example = max(skipped.values(), key=lambda entry: entry["count"])["examples"][0]
    return f"no document is left, for these reasons: {reasons}, for example {example}"
