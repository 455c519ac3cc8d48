"""The source files of a corpus by reference: read where they lie, and never silently other bytes than were built.

A file that is gone, or that has another size or time of change than when the corpus was built, is a `SourceError`. A
process looks at that whenever it opens a file; some are kept open.
"""

from __future__ import annotations

import json
import os
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm1.data.located import Location
from mm1.errors import UserError

_OPEN_FILES = 128  # of a process
_PARQUET = b"PAR1"


class SourceError(UserError):
    """A source file is gone, has changed, or can't be read."""


class State(NamedTuple):
    """What tells a source file from a later one: its size in bytes and its time of change in nanoseconds."""

    size: int
    modified: int

    @classmethod
    def of(cls, file: str) -> State:
        """Return the state of a file as it is now.

        Raises:
            SourceError: If it is gone.
        """
        try:
            found = os.stat(file)
        except OSError as error:
            raise _gone(file, error) from error
        return cls(found.st_size, found.st_mtime_ns)


def check_source(file: str, state: State) -> None:
    """Check that a file is as it was.

    Raises:
        SourceError: If it is gone or has changed.
    """
    now = State.of(file)
    if now != state:
        what = f"{now.size:,} bytes, {state.size:,} then" if now.size != state.size else "another time of change"
        raise SourceError(
            f"{file}: the file has changed since a corpus was built that refers to it ({what}): put the older file "
            "back, or build the corpus again"
        )


def read_bytes(location: Location, state: State) -> bytes:
    """Return the bytes of a place.

    Args:
        location: The place.
        state: That of the file when the corpus was built.

    Raises:
        SourceError: If the file is gone, has changed or can't be read, or no bytes are there.
    """
    value = _read(location, state)
    if not isinstance(value, bytes):
        raise _unreadable(location, "no bytes are there")
    return value


def read_text(location: Location, state: State) -> str:
    """Return the text of a place; see `read_bytes`."""
    value = _read(location, state)
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise _unreadable(location, str(error)) from error
    if not isinstance(text, str):
        raise _unreadable(location, "no text is there")
    return text


def _read(location: Location, state: State) -> Any:
    try:
        source = _opened(location.file, state)
        if location.column is not None and source.is_parquet:
            return _value(source.cell(location.offset, location.column), json.loads(location.column)[1:])
        data = os.pread(source.descriptor, location.length, location.offset)
        if len(data) != location.length:
            raise ValueError("it ends before")
        return data if location.column is None else _value(json.loads(data), json.loads(location.column))
    except SourceError:
        raise
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise _unreadable(location, str(error)) from error


def _value(value: Any, path: list[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _gone(file: str, error: OSError) -> SourceError:
    return SourceError(
        f"{file}: a corpus refers to this file, and it can't be opened ({error.strerror}): put it back, or build the "
        "corpus again from files that are there"
    )


def _unreadable(location: Location, reason: str) -> SourceError:
    return SourceError(
        f"{location.file}: a corpus refers to this file, and the place {location.offset} can't be read ({reason}): "
        "build the corpus again"
    )


@lru_cache(maxsize=_OPEN_FILES)
def _opened(file: str, state: State) -> _Source:
    return _Source(file, state)


class _Source:
    """A source file that is open.

    Raises:
        SourceError: If it is not in the state that is expected.
    """

    def __init__(self, file: str, state: State) -> None:
        self.file, self.state = file, state
        self.descriptor = -1
        try:
            self.descriptor = os.open(file, os.O_RDONLY)
        except OSError as error:
            raise _gone(file, error) from error
        check_source(file, state)
        if hasattr(os, "posix_fadvise"):  # else the system reads ahead of what is asked for; macOS hasn't it
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        self.is_parquet = os.pread(self.descriptor, len(_PARQUET), 0) == _PARQUET

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def cell(self, row: int, column: str) -> Any:
        """Return the value of a row in the column that a path begins with."""
        group = int(self._first_rows.searchsorted(row, "right")) - 1
        name = json.loads(column)[0]
        return _row_group(self.file, self.state, group).column(name)[row - int(self._first_rows[group])].as_py()

    @cached_property
    def _first_rows(self) -> np.ndarray:
        metadata = pq.read_metadata(self.file)
        rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])[:-1]


@lru_cache(maxsize=1)
def _row_group(file: str, state: State, number: int) -> _RowGroup:
    """Return a row group; the last one is kept, since its documents are often read together."""
    return _RowGroup(file, state, number)


class _RowGroup:
    """A row group of a parquet file, whose columns are read when they are needed."""

    def __init__(self, file: str, state: State, number: int) -> None:
        self._file, self._state, self._number = file, state, number
        self._columns: dict[str, pa.ChunkedArray] = {}

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column."""
        if name not in self._columns:
            with pq.ParquetFile(self._file) as parquet:
                self._columns[name] = parquet.read_row_group(self._number, [name], use_threads=False).column(name)
            check_source(self._file, self._state)
        return self._columns[name]
