"""Rows of parquet files, in bounded memory; damage is counted, missing columns are the user's to put right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm1.data.located import SHORTEST_TEXT, Located, LocatedText, Location
from mm1.data.readers.opening import why_unreadable
from mm1.data.readers.reader import Notes
from mm1.data.readers.values import Unreadable
from mm1.errors import UserError
from mm1.processing.signatures import HEAD_BYTES, what_is
from mm1.remote.opening import absolute, open_binary

_MAGIC, _MAGIC_ENCRYPTED = b"PAR1", b"PARE"
_ROWS_PER_BATCH = 32  # pictures are among the columns


def is_parquet(file: str) -> bool:
    """Whether a file is parquet, by its name or by its first bytes."""
    return file.lower().endswith(".parquet") or _head(file).startswith(_MAGIC)


def read_rows(
    file: str, name: str, columns: list[str], notes: Notes, text: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:row` and the row (all columns) of a parquet file; bytes in it are located.

    Args:
        file: The file.
        name: What to call it.
        columns: Those that must be there; `a|b` stands for any of several.
        notes: Where damage is counted.
        text: A column whose long texts are located too.

    Raises:
        UserError: If a column is missing; the message lists those that are there.
    """
    number = rows = 0
    path = absolute(file)

    def left_out(reason: str, detail: str) -> None:
        notes.skipped.add(reason, f"{name} ({detail})", max(1, rows - number))

    head = _head(file)
    if head and not head.startswith((_MAGIC, _MAGIC_ENCRYPTED)):
        other = what_is(head)
        left_out("file that is no Parquet" + (f": it is {other}" if other else ""), "no row is read")
        return
    try:
        with open_binary(file) as raw, pq.ParquetFile(raw) as parquet:
            rows = _row_count(parquet.metadata)
            check_columns(file, parquet.schema_arrow.names, columns)
            with_bytes = [column.name for column in parquet.schema_arrow if _holds_bytes(column.type)]
            for batch in parquet.iter_batches(batch_size=_ROWS_PER_BATCH, use_threads=False):
                for row in rows_of_batch(batch):
                    for column in with_bytes:
                        row[column] = _located(row[column], path, number, (column,))
                    if text is not None and type(row.get(text)) is str and len(row[text]) >= SHORTEST_TEXT:
                        place = Location(path, number, len(row[text]), json.dumps([text]))
                        row[text] = LocatedText(row[text], place)
                    yield f"{name}:{number}", row
                    number += 1
            if number != rows:
                left_out("parquet with other rows than it says", f"{number} rows")
            elif rows == 0:
                left_out("parquet without rows", "0 rows")
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        damaged = why_unreadable(error, "damaged parquet: the rest of it could not be read")
        left_out(damaged, f"after row {number}: {reason}")


def _holds_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.StructType | pa.ListType | pa.LargeListType):
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _located(value: Any, file: str, row: int, path: tuple[str | int, ...]) -> Any:
    """Return a value of a row with the bytes in it located."""
    if isinstance(value, bytes):
        return Located(value, Location(file, row, len(value), json.dumps(path)))
    if isinstance(value, dict):
        return {key: _located(one, file, row, (*path, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [_located(one, file, row, (*path, number)) for number, one in enumerate(value)]
    return value


def _head(file: str) -> bytes:
    try:
        with open_binary(file) as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


def _row_count(metadata: pq.FileMetaData) -> int:
    """Return how many rows a file says it has; 0 if it is damaged and says different numbers."""
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return metadata.num_rows if sum(groups) == metadata.num_rows and min(groups, default=0) >= 0 else 0


def rows_of_batch(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch; a value that Python can't hold is `Unreadable` and costs nothing else."""
    try:
        yield from batch.to_pylist()
    except Exception:  # one bad value spoils the batch: find it (errors of dates and time zones have no common base)
        columns = [_values(batch.column(number)) for number in range(batch.num_columns)]
        for values in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, values, strict=True))


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except Exception:
        return [_value(column[number]) for number in range(len(column))]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except Exception as error:
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(scalar[name]) for name in scalar}
        if isinstance(scalar, pa.ListScalar) and not isinstance(scalar, pa.MapScalar):
            return [_value(one) for one in scalar.values]
        is_text = isinstance(error, UnicodeDecodeError)
        return Unreadable("text that is not UTF-8" if is_text else "value that Python can't hold")


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
