"""Masks: which documents of a split, and which of their parts, a training leaves out, without another copy of the rest.

    train/masks/clean.arrow     what is left out: row, place (-1: the whole document), step, reason; in any order
    train/masks/clean-HASH/     made of it when it is first opened: the rows that stay, and the parts that go

`laion/train@clean` is the split `laion/train` with the mask `clean`: the documents that a cleaned copy would have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm1.data.batches import Batches
from mm1.errors import UserError
from mm1.files import whole_folder, write_json
from mm1.nearest import did_you_mean

FOLDER = "masks"
WHOLE_DOCUMENT = -1
"""Place that stands for a whole document."""
MASK_SCHEMA = pa.schema([("row", pa.int64()), ("place", pa.int32()), ("step", pa.string()), ("reason", pa.string())])
"""Columns of a mask's file. Its metadata has `content_hash` (of the split's documents) and may have more."""

_ROWS_AT_ONCE = 4096
_ROWS, _PARTS, _HASH = "rows.npy", "parts.npy", "mask.json"


@dataclass(frozen=True)
class Mask:
    """A mask that is open.

    Attributes:
        rows: (documents that stay,) int64 their rows, ascending.
        parts: (n, 2) int64 row and place of every part that goes from a document that stays, ascending.
        content_hash: Of the documents that stay.
    """

    rows: np.ndarray
    parts: np.ndarray
    content_hash: str

    def places(self, row: int) -> list[int]:
        """Return the places of the parts that go from a document."""
        start, stop = self.parts[:, 0].searchsorted([row, row + 1])
        return self.parts[start:stop, 1].tolist()


def mask_file(split: Path, name: str) -> Path:
    """Return the file of a mask of a split, which may not be there."""
    return split / FOLDER / f"{name}.arrow"


def open_mask(split: Path, name: str, content_hash: str, rows: int) -> Mask:
    """Open a mask; the arrays that are made of its file are memory-mapped, and kept for the next time.

    Args:
        split: The split's directory.
        name: The mask's name.
        content_hash: Of the split's documents.
        rows: Their number.

    Raises:
        UserError: If there is no such mask, it is of other documents, or it leaves nothing.
    """
    file = mask_file(split, name)
    if not file.is_file():
        there = [other.stem for other in sorted(file.parent.glob("*.arrow"))]
        known = did_you_mean(name, there) if there else "it has none; `mm1 data clean --in-place` makes one"
        raise UserError(f"{split}: the split has no mask '{name}': {known}")
    state = file.stat()
    made_from = hashlib.blake2b(
        f"{state.st_size} {state.st_mtime_ns} {content_hash} {rows}".encode(), digest_size=8
    ).hexdigest()
    folder = file.with_name(f"{name}-{made_from}")
    if not folder.is_dir():
        kept, parts, mask_hash = _read(file, content_hash, rows)
        with suppress(OSError), whole_folder(folder, shared=True) as new:  # others may make it too
            np.save(new / _ROWS, kept)
            np.save(new / _PARTS, parts)
            write_json(new / _HASH, {"content_hash": mask_hash})
        return Mask(kept, parts, mask_hash)
    arrays = [np.asarray(np.load(folder / name, mmap_mode="r")) for name in (_ROWS, _PARTS)]
    return Mask(arrays[0], arrays[1], json.loads((folder / _HASH).read_text())["content_hash"])


def read_mask(file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a mask's file, an Arrow stream or an Arrow file (Feather), with the columns of a mask.

    Raises:
        UserError: If it is neither, or lacks the column `row`.
    """
    try:
        with pa.memory_map(str(file)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            if "row" not in reader.schema.names:
                raise UserError(f"{file}: the mask has no column 'row': write the row of each document that goes")
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            for batch in batches:
                yield _completed(batch)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: the mask can't be read ({error}): make it again") from error


def mask_metadata(file: Path) -> dict[str, str]:
    """Return what a mask's file says of itself; empty if there is no such file."""
    try:
        with pa.memory_map(str(file)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            schema = (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).schema
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}


def _completed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with all columns of a mask; those that are missing say the whole document, and nothing."""
    columns = []
    for column in MASK_SCHEMA:
        if column.name in batch.schema.names:
            columns.append(batch.column(column.name).cast(column.type))
        else:
            default = WHOLE_DOCUMENT if column.name == "place" else ""
            columns.append(pa.array([default] * batch.num_rows, column.type))
    return pa.RecordBatch.from_arrays(columns, schema=MASK_SCHEMA)


def _read(file: Path, content_hash: str, rows: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the rows that stay, the parts that go, and the hash of the documents that stay."""
    if mask_metadata(file).get("content_hash", content_hash) != content_hash:
        raise UserError(f"{file}: the mask was made for other documents: clean the split again")
    gone = np.zeros(rows, dtype=np.bool_)
    found = [np.zeros((0, 2), np.int64)]
    for batch in read_mask(file):
        row, place = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("row", "place"))
        if len(row) and not 0 <= row.min() <= row.max() < rows:
            raise UserError(f"{file}: the mask has the row {row.max()}, the split has {rows:,}: make it for this split")
        gone[row[place < 0]] = True
        found.append(np.stack([row, place], axis=1)[place >= 0])
    parts = np.unique(np.concatenate(found), axis=0).astype(np.int64)
    parts = parts[~gone[parts[:, 0]]]
    kept = np.flatnonzero(~gone)
    if not len(kept):
        raise UserError(f"{file}: the mask leaves no document: clean with other steps")
    digest = hashlib.blake2b(content_hash.encode(), digest_size=16)
    digest.update(np.packbits(gone).tobytes())
    digest.update(parts.tobytes())
    return kept, parts, digest.hexdigest()


def kept_parts(is_picture: Sequence[bool], gone: Collection[int]) -> Iterator[tuple[int, bool]]:
    """Yield the place of every part that stays, and whether a text loses the space between it and a picture that goes.

    Args:
        is_picture: Of every part of a document, whether it is a picture.
        gone: Places of the parts that go.
    """
    after_picture = False
    for place, picture in enumerate(is_picture):
        if place not in gone:
            yield place, not picture and place - 1 in gone and is_picture[place - 1] and not after_picture
            after_picture = picture


class MaskedBatches:
    """The rows of a split that a mask leaves, as `Batches` has them.

    Args:
        batches: All rows.
        mask: The mask.
    """

    def __init__(self, batches: Batches, mask: Mask) -> None:
        self._batches, self._mask = batches, mask

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._mask.rows)

    def row(self, number: int) -> pa.RecordBatch:
        """Return one row as a batch; see `Batches.row`."""
        row = int(self._mask.rows[number])
        return _without(self._batches.row(row), self._mask.places(row))

    def between(self, start: int = 0, stop: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a range in order; see `Batches.between`."""
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, _ROWS_AT_ONCE):
            rows = self._mask.rows[first : min(first + _ROWS_AT_ONCE, stop)]
            begin = int(rows[0])
            for batch in self._batches.between(begin, int(rows[-1]) + 1):
                here = rows[slice(*rows.searchsorted([begin, begin + batch.num_rows]))] - begin
                yield from self._stretches(batch, begin, here)
                begin += batch.num_rows

    def _stretches(self, batch: pa.RecordBatch, begin: int, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Yield the rows that stay of a batch: neighbours as one batch, documents that lose parts alone."""
        of_parts = self._mask.parts[:, 0]
        of_parts = of_parts[slice(*of_parts.searchsorted([begin, begin + batch.num_rows]))]
        changed = np.isin(rows, of_parts - begin)
        border = (np.diff(rows) != 1) | changed[1:] | changed[:-1]
        for stretch in np.split(rows, np.flatnonzero(border) + 1) if len(rows) else ():
            first = int(stretch[0])
            yield _without(batch.slice(first, len(stretch)), self._mask.places(begin + first))


def _without(batch: pa.RecordBatch, places: list[int]) -> pa.RecordBatch:
    """Return a batch; of one document, without the parts at these places."""
    if not places:
        return batch
    row: dict[str, Any] = batch.to_pylist()[0]
    if row["kind"] == "chat":
        raise UserError(f"document '{row['id']}': a mask takes a part from a conversation: let the whole document go")
    parts = []
    for place, loses_space in kept_parts([part["text"] is None for part in row["parts"]], set(places)):
        part = row["parts"][place]
        parts.append({**part, "text": part["text"].removeprefix(" ")} if loses_space else part)
    return pa.RecordBatch.from_pylist([{**row, "parts": parts}], schema=batch.schema)
