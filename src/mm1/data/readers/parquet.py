"""Rows of parquet files, in bounded memory; damage is counted, missing columns are the user's to put right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm1.data.readers.reader import Notes
from mm1.errors import UserError
from mm1.processing.signatures import HEAD_BYTES, what_is

_ROWS_PER_BATCH = 32  # pictures are among the columns


def is_parquet(file: str) -> bool:
    """Whether a file is parquet, by its name or by its first bytes."""
    return file.lower().endswith(".parquet") or _head(file).startswith(b"PAR1")


def read_rows(file: str, name: str, columns: list[str], notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:row` and the row (all columns) of a parquet file.

    Args:
        file: The file.
        name: What to call it.
        columns: Those that must be there; `a|b` stands for any of several.
        notes: Where damage is counted.

    Raises:
        UserError: If a column is missing; the message lists those that are there.
    """
    number = 0
    other = what_is(_head(file))
    if other not in (None, "Parquet"):
        notes.skipped.add(f"file that is no Parquet: it is {other}", name)
        return
    try:
        with pq.ParquetFile(file) as parquet:
            check_columns(file, parquet.schema_arrow.names, columns)
            for batch in parquet.iter_batches(batch_size=_ROWS_PER_BATCH, use_threads=False):
                for row in _rows(batch):
                    if row is None:
                        notes.skipped.add("row with a text that is not UTF-8", f"{name}:{number}")
                    else:
                        yield f"{name}:{number}", row
                    number += 1
            if number == 0 or number != parquet.metadata.num_rows:
                notes.skipped.add("parquet with fewer rows than it says, or none", f"{name} ({number} rows)")
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        notes.skipped.add("damaged parquet: the rest of it could not be read", f"{name} after row {number} ({reason})")


def _head(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    try:
        yield from batch.to_pylist()
    except (UnicodeDecodeError, ValueError, OverflowError):  # one bad value spoils the batch: find it
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except (UnicodeDecodeError, ValueError, OverflowError):
                yield None


def check_columns(source: str, present: list[str], needed: list[str]) -> None:
    """Check that the columns are there; `a|b` stands for any of several.

    Raises:
        UserError: If one is missing; the message lists those that are there.
    """
    for choice in needed:
        if not any(column in present for column in choice.split("|")):
            raise UserError(
                f"{source}: there is no column {choice.replace('|', ' or ')}; it has {', '.join(present) or 'none'}: "
                "choose another format, or name the column with an option"
            )
