"""The source files of a corpus by reference: read where they lie, and never silently other bytes than were built.

A file that is gone, or that has another size or time of change than when the corpus was built, is a `SourceError`. A
process looks at that whenever it opens a file; some are kept open. Objects of stores (`s3://`) are read through the
cache (`mm1.remote`): what is in it is read without asking the store, and is what the corpus was built from.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from threading import Lock
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm1.data.located import Location
from mm1.errors import UserError
from mm1.places import is_address
from mm1.remote.errors import ChangedError, MissingError, RemoteError
from mm1.remote.objects import State, difference, remote_object, states_of
from mm1.remote.opening import stream_of

_OPEN_FILES = 128  # of a process
_PARQUET = b"PAR1"
_locks: dict[int, Lock] = {}
"""By process. Row groups can be large: threads read one at a time, and find what another has just read."""


class SourceError(UserError):
    """A source file is gone, has changed, or can't be read."""


def check_sources(states: Mapping[str, State]) -> None:
    """Check that files and objects are as they were.

    Args:
        states: Their states when a corpus was built that refers to them.

    Raises:
        SourceError: If one is gone or has changed.
    """
    for file, now in _states_of(states).items():
        _compare(file, now, states[file])


def _states_of(files: Iterable[str]) -> dict[str, State]:
    try:
        return states_of(files)
    except OSError as error:
        raise _gone(str(error.filename), str(error.strerror)) from error
    except RemoteError as error:
        raise SourceError(f"{error}; a corpus refers to it") from error


def _compare(file: str, now: State, then: State) -> None:
    if now != then:
        raise _changed(file, difference(now, then, "etag" if is_address(file) else "time of change"))


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
        data = source.read(location.offset, location.length)
        if len(data) != location.length:
            raise ValueError("it ends before")
        return data if location.column is None else _value(json.loads(data), json.loads(location.column))
    except SourceError:
        raise
    except ChangedError as error:
        raise _changed(location.file, str(error).removeprefix(f"{location.file}: ")) from error
    except MissingError as error:
        raise _gone(location.file, "nothing is there") from error
    except RemoteError as error:
        raise SourceError(f"{error}; a corpus refers to it") from error
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise _unreadable(location, str(error)) from error


def _value(value: Any, path: list[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _gone(file: str, reason: str) -> SourceError:
    return SourceError(
        f"{file}: a corpus refers to this file, and it can't be opened ({reason}): put it back, or build the corpus "
        "again from files that are there"
    )


def _changed(file: str, difference: str) -> SourceError:
    return SourceError(
        f"{file}: the file has changed since a corpus was built that refers to it ({difference}): put the older file "
        "back, or build the corpus again"
    )


def _unreadable(location: Location, reason: str) -> SourceError:
    return SourceError(
        f"{location.file}: a corpus refers to this file, and the place {location.offset} can't be read ({reason}): "
        "build the corpus again"
    )


class _Source(ABC):
    """A source file that is open, in the state that is expected."""

    def __init__(self, file: str, state: State) -> None:
        self.file, self.state = file, state

    @abstractmethod
    def read(self, start: int, length: int) -> bytes:
        """Return a range, cut off at the end."""

    @abstractmethod
    def stream(self) -> IO[bytes]:
        """Return the whole of it as a stream that can be sought in."""

    @abstractmethod
    def check(self) -> None:
        """Check that what was read since is of the state.

        Raises:
            SourceError: If it isn't.
        """

    @cached_property
    def is_parquet(self) -> bool:
        """Whether it is a parquet file."""
        return self.read(0, len(_PARQUET)) == _PARQUET

    def cell(self, row: int, column: str) -> Any:
        """Return the value of a row in the column that a path begins with."""
        name = json.loads(column)[0]
        with _locks.setdefault(os.getpid(), Lock()):  # a forked process has its own
            group = int(self._first_rows.searchsorted(row, "right")) - 1
            return _row_group(self.file, self.state, group).column(name)[row - int(self._first_rows[group])].as_py()

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        """The metadata of a parquet file."""
        with self.stream() as stream:
            return pq.read_metadata(stream)

    @cached_property
    def _first_rows(self) -> np.ndarray:
        rows = [self.metadata.row_group(number).num_rows for number in range(self.metadata.num_row_groups)]
        return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])[:-1]


class _File(_Source):
    """A file.

    Raises:
        SourceError: If it is gone, or not in the state.
    """

    def __init__(self, file: str, state: State) -> None:
        super().__init__(file, state)
        self._descriptor = -1
        try:
            self._descriptor = os.open(file, os.O_RDONLY)
        except OSError as error:
            raise _gone(file, str(error.strerror)) from error
        self.check()
        if hasattr(os, "posix_fadvise"):  # else the system reads ahead of what is asked for; macOS hasn't it
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, start)

    def stream(self) -> IO[bytes]:
        return open(self.file, "rb")

    def check(self) -> None:
        _compare(self.file, _states_of([self.file])[self.file], self.state)


class _Object(_Source):
    """An object of a store, of which nothing is read until it is needed."""

    def __init__(self, file: str, state: State) -> None:
        super().__init__(file, state)
        self._object = remote_object(file, state)

    def read(self, start: int, length: int) -> bytes:
        return self._object.read(start, length)

    def stream(self) -> IO[bytes]:
        return stream_of(self._object)

    def check(self) -> None:
        """Do nothing: each read is checked."""


@lru_cache(maxsize=_OPEN_FILES)
def _opened(file: str, state: State) -> _Source:
    return (_Object if is_address(file) else _File)(file, state)


@lru_cache(maxsize=1)
def _row_group(file: str, state: State, number: int) -> _RowGroup:
    """Return a row group; the last one is kept, since its documents are often read together."""
    return _RowGroup(_opened(file, state), number)


class _RowGroup:
    """A row group of a parquet file, whose columns are read when they are needed."""

    def __init__(self, source: _Source, number: int) -> None:
        self._source, self._number = source, number
        self._columns: dict[str, pa.ChunkedArray] = {}

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column."""
        if name not in self._columns:
            with self._source.stream() as stream, pq.ParquetFile(stream, metadata=self._source.metadata) as parquet:
                self._columns[name] = parquet.read_row_group(self._number, [name], use_threads=False).column(name)
            self._source.check()
        return self._columns[name]
