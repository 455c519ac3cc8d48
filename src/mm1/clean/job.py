"""The cleaning job: parallel passes over ranges of rows, one pass for every global step and one that writes.

Every pass applies the steps before it again, starting from the source. A step is a pure function, so only the facts and
the decisions of global steps are stored. Memory holds a range of rows, never the corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm1.clean.database import decide_in_database, open_database
from mm1.clean.step import PICTURE, Apply, Dropped, GlobalStep, Step, plain_options
from mm1.data.build import publish, read_info
from mm1.data.corpus import Split, shared_split
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
    info = read_info(source)
    if info is None:
        raise UserError(f"{source}: not a corpus (it has no corpus.json): name the directory of a corpus")
    names = list(splits or info["splits"])
    opened = {name: Split(source / name) for name in names}
    config = [{named.name: plain_options(named.step)} for named in steps]
    inputs = {name: hash_ for named in steps for name, hash_ in named.step.inputs().items()}
    jobs = {
        name: {"source": split.content_hash, "steps": config, "inputs": inputs, "clean_version": CLEAN_VERSION}
        for name, split in opened.items()
    }
    present = read_info(target)
    if present and {name: split.get("cleaned") for name, split in present["splits"].items()} == jobs:
        return present
    made = {}
    for name, split in opened.items():
        folder = target.with_name(f"{target.name}.cleaning-{name}")
        open_job(folder, jobs[name])
        infos = _clean_split(split, steps, folder, resources, target.absolute() if "located" in split.info else None)
        counts = [_sum_counts(info["steps"][number] for info in infos) for number in range(len(steps))]
        cleaning = [{"step": named.name, **count} for named, count in zip(steps, counts, strict=True)]
        origin = {"split": split.name} | {key: split.info[key] for key in ("documents", "images", "content_hash")}
        made[name] = (folder, infos, {"cleaned": jobs[name], "cleaned_from": origin, "cleaning": cleaning})
    return publish(
        target,
        made,
        keep={},
        licence=info["licence"],
        sources=info["sources"],
        derived=info["derived"],
        options={"cleaned_from": str(source), "steps": config},
    )


def _clean_split(
    split: Split, steps: Sequence[NamedStep], folder: Path, resources: Resources, in_place: Path | None
) -> list[dict[str, Any]]:
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
    work = partial(clean_rows, directory, tuple(steps), folder, in_place=in_place)
    return run(work, units, folder, description=f"clean {split.name}")


def step_folder(folder: Path, number: int) -> Path:
    """Return the folder of a step's prepared files and decisions."""
    return folder / f"step-{number:02d}"


def replay(
    directory: Path, steps: Sequence[NamedStep], folder: Path, rows: range, counts: Sequence[Dropped]
) -> Iterator[tuple[int, Document]]:
    """Yield (row, document) for the documents that steps keep of a range of rows; `counts` counts what each drops."""
    split = shared_split(directory)
    appliers = [_guarded(named.step, step_folder(folder, n), rows) for n, named in enumerate(steps)]
    for row in rows:
        document: Document | None = split[row]
        for apply, dropped in zip(appliers, counts, strict=True):
            if document is not None:
                document = apply(row, document, dropped)
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
