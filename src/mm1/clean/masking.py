"""Cleaning in place: a mask beside each split says what goes. Nothing is copied; steps can be switched off later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm1.clean.job import NamedStep, Resources, account, clean_split, job_of, open_splits, replay
from mm1.clean.step import Dropped
from mm1.data.corpus import Split
from mm1.data.masks import MASK_SCHEMA, mask_file, mask_metadata, read_mask
from mm1.data.shards import open_job, unit_file
from mm1.errors import UserError
from mm1.files import whole_file
from mm1.nearest import did_you_mean

_RECORDS_AT_ONCE = 10_000


def mask_splits(
    source: Path,
    steps: Sequence[NamedStep],
    name: str,
    *,
    splits: Sequence[str] | None,
    resources: Resources,
) -> dict[str, Any]:
    """Write masks of splits of a corpus; one that is there from the same steps is kept.

    Args:
        source: The corpus.
        steps: The steps, in order.
        name: The masks' name.
        splits: Names of the splits; None: all.
        resources: Of the job.

    Returns:
        What `mm1.look.cleaning.cleaning_table` shows.

    Raises:
        UserError: If the source is no corpus, or a mask would leave no document.
    """
    _, opened = open_splits(source, splits)
    accounts: dict[str, Any] = {}
    for split_name, split in opened.items():
        file = mask_file(split.directory, name)
        job = json.dumps(job_of(split, steps))
        present = mask_metadata(file)
        if present.get("job") == job:
            accounts[split_name] = json.loads(present["account"])
            continue
        folder = source.with_name(f"{source.name}.masking-{split_name}-{name}")
        open_job(folder, job_of(split, steps))
        infos = clean_split(split, steps, folder, resources, mask_rows)
        left = {key: sum(info[key] for info in infos) for key in ("documents", "images")}
        accounts[split_name] = {**left, **account(split, steps, infos)}
        if not left["documents"]:
            raise UserError(f"{split.name}: the steps leave no document: clean with other steps or limits")
        metadata = {"content_hash": split.content_hash, "job": job, "account": json.dumps(accounts[split_name])}
        units = (unit_file(folder, number, ".arrow") for number in range(len(infos)))
        _write(file, (batch for unit in units for batch in read_mask(unit)), metadata)
        shutil.rmtree(folder)
    return {"name": f"{source.name}@{name}", "splits": accounts}


def mask_rows(directory: Path, steps: Sequence[NamedStep], folder: Path, rows: range, file: Path) -> dict[str, Any]:
    """Write what the steps drop of a range of rows to an Arrow file; return counts of what is left, and per step."""
    counts = [Dropped() for _ in steps]
    records: list[tuple[int, int, str, str]] = []
    documents = images = 0
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, MASK_SCHEMA) as stream:

        def flush() -> None:
            columns = zip(*records, strict=True) if records else [()] * len(MASK_SCHEMA)
            arrays = [pa.array(values, kind) for values, kind in zip(columns, MASK_SCHEMA.types, strict=True)]
            stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=MASK_SCHEMA))
            records.clear()

        for _, document in replay(directory, steps, folder, rows, counts, lambda *record: records.append(record)):
            documents += 1
            images += len(document.images)
            if len(records) >= _RECORDS_AT_ONCE:
                flush()
        flush()
    return {"documents": documents, "images": images, "steps": [count.as_dict() for count in counts]}


def without_steps(source: Path, name: str, steps: Sequence[str], splits: Sequence[str] | None) -> dict[str, str]:
    """Write masks without what some steps dropped, from masks that are there; no document is read.

    A document that comes back has not been seen by the steps behind the one that dropped it.

    Args:
        source: The corpus.
        name: The name of the masks that are there.
        steps: The steps.
        splits: Names of the splits; None: all that have the mask.

    Returns:
        By split, how the new mask is named in recipes.

    Raises:
        UserError: If there is no such mask, or it has no such step.
    """
    _, opened = open_splits(source, splits)
    having = {key: split for key, split in opened.items() if splits or mask_file(split.directory, name).is_file()}
    if not having:
        raise UserError(f"{source}: no split has a mask '{name}': make it with `mm1 data clean --in-place` first")
    new = "-without-".join([name, *steps])
    return {key: _without_steps(split, name, steps, new) for key, split in having.items()}


def _without_steps(split: Split, name: str, steps: Sequence[str], new: str) -> str:
    file = mask_file(split.directory, name)
    metadata = mask_metadata(file)
    of_job = [next(iter(step)) for step in json.loads(metadata["job"])["steps"]] if "job" in metadata else None
    known = of_job if of_job is not None else {step for b in read_mask(file) for step in b.column("step").to_pylist()}
    for step in steps:
        if step not in known:
            raise UserError(f"{file}: the mask has no step '{step}': {did_you_mean(step, sorted(known))}")
    off = pa.array(list(steps))
    kept = (batch.filter(pc.invert(pc.is_in(batch.column("step"), off))) for batch in read_mask(file))
    _write(
        mask_file(split.directory, new),
        kept,
        {key: value for key, value in metadata.items() if key == "content_hash"},
    )
    return f"{split.name}@{new}"


def _write(file: Path, batches: Iterable[pa.RecordBatch], metadata: dict[str, str]) -> None:
    file.parent.mkdir(exist_ok=True)
    schema = MASK_SCHEMA.with_metadata(metadata)
    try:
        with (
            whole_file(file) as partial,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as stream,
        ):
            for batch in batches:
                stream.write_batch(batch.replace_schema_metadata(metadata))
    except OSError as error:
        raise UserError(f"{file}: the mask can't be written ({error}): free some space") from error
