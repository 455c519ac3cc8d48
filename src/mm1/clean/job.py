"""The cleaning job: parallel passes over ranges of rows, one pass for every global step and one that writes.

Every pass applies the steps before it again, starting from the source. A step is a pure function, so only the facts and
the decisions of global steps are stored. Memory holds a range of rows, never the corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm1.clean.database import decide_in_database, open_database
from mm1.clean.step import PICTURE, Apply, Dropped, GlobalStep, Step, plain_options
from mm1.data.build import publish
from mm1.data.corpus import Split, shared_split
from mm1.data.masks import WHOLE_DOCUMENT
from mm1.data.place import check_origin, check_place, read_info
from mm1.data.shards import open_job, run_units
from mm1.data.skips import merge_reasons
from mm1.data.writer import ShardWriter
from mm1.document import Document
from mm1.errors import UserError
from mm1.files import write_json

ROWS_PER_UNIT = 2000
# Raised when a step gives other results for the same options; incomplete jobs then start again.
CLEAN_VERSION = 2
FAILED = "failed.json"


@dataclass(frozen=True)
class NamedStep:
    """A step with its name."""

    name: str
    step: Step


@dataclass(frozen=True)
class Resources:
    """The resources of a job.

    Attributes:
        workers: Processes; None: one per core.
        memory: Memory limit of DuckDB.
        engine: One of `mm1.data.engines.ENGINES`.
    """

    workers: int | None
    memory: str
    engine: str


def clean_splits(
    source: Path,
    target: Path,
    steps: Sequence[NamedStep],
    *,
    splits: Sequence[str] | None,
    resources: Resources,
) -> dict[str, Any]:
    """Clean splits of a corpus into a new one (see `mm1.clean.clean`)."""
    info, opened = open_splits(source, splits)
    jobs = {name: job_of(split, steps) for name, split in opened.items()}
    present = read_info(target)
    if present and {name: split.get("cleaned") for name, split in present["splits"].items()} == jobs:
        return present
    check_place(target)
    check_origin(target, "cleaned_from", "made by cleaning")
    made = {}
    for name, split in opened.items():
        folder = target.with_name(f"{target.name}.cleaning-{name}")
        open_job(folder, jobs[name])
        write = partial(clean_rows, in_place=target.absolute()) if "located" in split.info else clean_rows
        infos = clean_split(split, steps, folder, resources, write)
        made[name] = (folder, infos, {"cleaned": jobs[name], **account(split, steps, infos)})
    return publish(
        target,
        made,
        keep={},
        licence=info["licence"],
        sources=info["sources"],
        derived=info["derived"],
        options={"cleaned_from": str(source), "steps": config_of(steps)},
    )


def open_splits(source: Path, splits: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, Split]]:
    """Return the content of a corpus's `corpus.json`, and its splits of these names (None: all).

    Raises:
        UserError: If it is no corpus, or a split is missing.
    """
    info = read_info(source)
    if info is None:
        raise UserError(f"{source}: not a corpus (it has no corpus.json): name the directory of a corpus")
    return info, {name: Split(source / name) for name in splits or info["splits"]}


def config_of(steps: Sequence[NamedStep]) -> list[dict[str, Any]]:
    """Return steps as JSON values: name -> options."""
    return [{named.name: plain_options(named.step)} for named in steps]


def job_of(split: Split, steps: Sequence[NamedStep]) -> dict[str, Any]:
    """Return what decides what steps leave of a split, as JSON values."""
    inputs = {name: hash_ for named in steps for name, hash_ in named.step.inputs().items()}
    source = {"source": split.content_hash, "steps": config_of(steps)}
    return {**source, "inputs": inputs, "clean_version": CLEAN_VERSION}


def account(split: Split, steps: Sequence[NamedStep], infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a clean split says of where it came from and of what each step dropped."""
    counts = [_sum_counts(info["steps"][number] for info in infos) for number in range(len(steps))]
    cleaning = [{"step": named.name, **count} for named, count in zip(steps, counts, strict=True)]
    origin = {"split": split.name} | {key: split.info[key] for key in ("documents", "images", "content_hash")}
    return {"cleaned_from": origin, "cleaning": cleaning}


def clean_split(
    split: Split,
    steps: Sequence[NamedStep],
    folder: Path,
    resources: Resources,
    write: Callable[[Path, Sequence[NamedStep], Path, range, Path], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Decide the global steps, then write what the steps leave of every range of rows.

    Args:
        split: The documents.
        steps: The steps, in order.
        folder: The job's folder.
        resources: Of the job.
        write: `clean_rows`, or another function with its arguments; it can be pickled.

    Returns:
        The results of `write`, in order.
    """
    starts = range(0, len(split), ROWS_PER_UNIT)
    units = [range(start, min(start + ROWS_PER_UNIT, len(split))) for start in starts]
    run = partial(run_units, workers=resources.workers, engine=resources.engine)
    directory, folder = split.directory.absolute(), folder.absolute()
    for number, named in enumerate(steps):
        own = step_folder(folder, number)
        if (own / "done").is_file():
            continue
        own.mkdir(exist_ok=True)
        named.step.prepare(own)
        if isinstance(named.step, GlobalStep):
            gather = partial(gather_facts, directory, tuple(steps[:number]), named.step, folder)
            (own / "facts").mkdir(exist_ok=True)
            gathered = run(gather, units, own / "facts", description=f"{named.name}: read {split.name}")
            write_json(own / FAILED, {row: why for info in gathered for row, why in info["failed"].items()})
            with open_database(own, own / "facts", resources.memory, resources.workers) as database:
                decide_in_database(named.step.decide(database), own / "decision.parquet", database)
            shutil.rmtree(own / "facts")
            for left in own.glob("work.duckdb*"):
                left.unlink()
            shutil.rmtree(own / "spill", ignore_errors=True)
        (own / "done").touch()
    work = partial(write, directory, tuple(steps), folder)
    return run(work, units, folder, description=f"clean {split.name}")


def step_folder(folder: Path, number: int) -> Path:
    """Return the folder of a step's prepared files and decisions."""
    return folder / f"step-{number:02d}"


def replay(
    directory: Path,
    steps: Sequence[NamedStep],
    folder: Path,
    rows: range,
    counts: Sequence[Dropped],
    record: Callable[[int, int, str, str], None] | None = None,
) -> Iterator[tuple[int, Document]]:
    """Yield (row, document) for the documents that steps keep of a range of rows.

    Args:
        directory: The split's directory.
        steps: The steps.
        folder: The job's folder.
        rows: The rows.
        counts: Of every step, what it drops.
        record: Called for everything that goes, with its row, its place among the document's parts
            (`WHOLE_DOCUMENT`: all of it), the step and the reason.
    """
    split = shared_split(directory)
    appliers = [_guarded(named.step, step_folder(folder, n), rows) for n, named in enumerate(steps)]
    for row in rows:
        whole = split[row]
        document: Document | None = whole
        places = list(range(len(whole.parts)))  # of the parts that are left, in the split
        for named, apply, dropped in zip(steps, appliers, counts, strict=True):
            if document is None:
                break
            dropped.last = {}
            document = apply(row, document, dropped)
            if dropped.last and record is not None:
                for place, reason in dropped.last.items():
                    record(row, place if place == WHOLE_DOCUMENT else places[place], named.name, reason)
                places = [place for number, place in enumerate(places) if number not in dropped.last]
        if document is not None:
            yield row, document


def _guarded(step: Step, folder: Path, rows: range) -> Apply:
    """Return a step's function, which drops and counts the documents that the step fails on."""
    apply = step.applier(folder, rows)
    failed = json.loads((folder / FAILED).read_text()) if (folder / FAILED).is_file() else {}

    def guarded(row: int, document: Document, dropped: Dropped) -> Document | None:
        if str(row) in failed:
            return dropped.drop(failed[str(row)], document)
        try:
            return apply(row, document, dropped)
        except Exception as error:
            return dropped.drop(_failure(error), document)

    return guarded


def _failure(error: Exception) -> str:
    return f"the step fails on it ({type(error).__name__})"


def gather_facts(
    directory: Path, before: Sequence[NamedStep], step: GlobalStep, folder: Path, rows: range, file: Path
) -> dict[str, Any]:
    """Write a global step's facts on a range of rows, after the steps before it, to Parquet next to `file`.

    Returns:
        Under `failed`, the reason for each row that the step failed on, which has no facts.
    """
    with pq.ParquetWriter(file.with_suffix(".parquet"), step.schema) as writer:
        facts: list[tuple[Any, ...]] = []
        failed: dict[int, str] = {}

        def flush() -> None:
            columns = zip(*facts, strict=True) if facts else [()] * len(step.schema)
            arrays = [pa.array(values, type_) for values, type_ in zip(columns, step.schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=step.schema))
            facts.clear()

        for row, document in replay(directory, before, folder, rows, [Dropped() for _ in before]):
            try:
                facts.extend(list(step.facts(row, document)))
            except Exception as error:
                failed[row] = _failure(error)
            if len(facts) >= 50_000:
                flush()
        flush()
    return {"failed": failed}


def clean_rows(
    directory: Path, steps: Sequence[NamedStep], folder: Path, rows: range, file: Path, in_place: Path | None = None
) -> dict[str, Any]:
    """Write the documents that the steps keep of a range of rows; return counts like `read_shard`, and per step."""
    writer = ShardWriter(file, in_place)
    counts = [Dropped() for _ in steps]
    for _, document in replay(directory, steps, folder, rows, counts):
        writer.write(document)
    info = writer.finish()
    file.with_suffix(".digests").write_bytes(writer.digests)
    reasons = [
        (f"{named.name}: {reason}", entry, reason.startswith(PICTURE))
        for named, count in zip(steps, counts, strict=True)
        for reason, entry in count.reasons.as_dict().items()
    ]
    return {
        **info,
        "read": len(rows),
        "skipped": {reason: entry for reason, entry, of_picture in reasons if not of_picture},
        "lost": {reason: entry for reason, entry, of_picture in reasons if of_picture},
        "steps": [count.as_dict() for count in counts],
    }


def _sum_counts(counts: Any) -> dict[str, Any]:
    counts = list(counts)
    return {
        "documents": sum(count["documents"] for count in counts),
        "images": sum(count["images"] for count in counts),
        "reasons": merge_reasons(count["reasons"] for count in counts),
    }
