"""The record batches of a split, found without a look into its Arrow files: a split of any size opens at once.

    train/batches.npy    (batches + 1, 3) int64: number of the file, position of the batch in it, first row

The last entry is what would come next: the number of files, 0, the number of rows. The array is memory-mapped, so the
processes of a machine share it. Files are mapped when rows of theirs are read, a limited number at a time. If there
are more, single rows are read without a mapping.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mm1.data.single_rows import OF_OTHERS, read_row
from mm1.errors import UserError
from mm1.files import whole_file
from mm1.progress import track

FILE = "batches.npy"
"""The array's file, beside the Arrow files."""

_OPEN_FILES = 128  # of all splits of a process; each takes a file descriptor
_READ_AHEAD_FROM = 32 * 1024  # bytes of a batch's mean row; below, it takes few page faults


def arrow_files(directory: Path) -> list[str]:
    """Return the Arrow files of a split, in order."""
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".arrow"))
    return [os.path.join(directory, name) for name in names]


def write_batches(directory: Path) -> None:
    """Write the array of a split whose Arrow files are complete."""
    np.save(directory / FILE, _find_batches(arrow_files(directory)))


def open_batches(directory: Path, files: Sequence[str]) -> np.ndarray:
    """Map a split's array; where there is none yet, or one of other files, it is made and, if that can be, written.

    Args:
        directory: The split's directory.
        files: Its Arrow files.
    """
    with suppress(OSError, ValueError, EOFError):
        # A plain array, since `np.memmap` reads single elements slowly.
        table = np.asarray(np.load(directory / FILE, mmap_mode="r"))
        if table.ndim == 2 and table.shape[1] == 3 and len(table) and table[-1, 0] == len(files):
            return table
    table = _find_batches(files)
    # Others may have written it meanwhile; and a corpus that can't be written is read as well.
    with suppress(OSError), whole_file(directory / FILE, shared=True) as partial, partial.open("wb") as stream:
        np.save(stream, table)
    return table


def _find_batches(files: Sequence[str]) -> np.ndarray:
    """Return the array of Arrow files, whose batches are stepped through, not read."""
    found: list[np.ndarray] = []
    row = 0
    for number, file in enumerate(track(files, "find batches") if len(files) > _OPEN_FILES else files):
        of_file = _batches_of(file)
        first_rows = row + np.cumsum([0, *(rows for _, rows in of_file)])
        positions = [position for position, _ in of_file]
        found.append(np.stack([np.full(len(of_file), number), positions, first_rows[:-1]], axis=1))
        row = int(first_rows[-1])
    return np.concatenate([*found, [(len(files), 0, row)]]).astype(np.int64)


def _batches_of(file: str) -> list[tuple[int, int]]:
    """Return the position and the number of rows of every batch of a file.

    Raises:
        UserError: If it is damaged.
    """
    found: list[tuple[int, int]] = []
    try:
        source = pa.BufferReader(_map(file, at_random=True)[1])
        with pa.ipc.open_stream(source) as stream:
            while True:
                position = source.tell()
                try:
                    found.append((position, stream.read_next_batch().num_rows))
                except StopIteration:
                    return found
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(file, error) from error


def damaged(file: str | Path, error: Exception) -> UserError:
    """Return the error to raise for a file or a split of a corpus that can't be read."""
    return UserError(f"{file}: the corpus is damaged ({error}): build it again")


def _map(file: str, *, at_random: bool) -> tuple[mmap.mmap, pa.Buffer]:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    if at_random:  # else the system reads megabytes around each document
        mapped.madvise(mmap.MADV_RANDOM)
    return mapped, pa.py_buffer(mapped)


class _OpenFile:
    """An Arrow file that is mapped to read single rows of it."""

    def __init__(self, mapped: mmap.mmap, content: pa.Buffer) -> None:
        self._mapped, self._buffer = mapped, content
        self._last: tuple[int, pa.RecordBatch | None] = (-1, None)  # neighbours are often read together

    def row(self, position: int, size: int, number: int, schema: pa.Schema) -> pa.RecordBatch:
        """Return one row, as a batch, of the batch of so many bytes at a position."""
        known, batch = self._last
        if batch is None or known != position:
            batch = pa.ipc.read_record_batch(self._buffer.slice(position), schema)
            self._last = position, batch
        if number >= batch.num_rows:
            raise ValueError(OF_OTHERS)
        if size >= _READ_AHEAD_FROM * batch.num_rows:
            self._read_ahead(batch.column("parts"), number)
        return batch.slice(number, 1)

    def _read_ahead(self, parts: pa.ListArray, number: int) -> None:
        """Let the system read the pictures of a row together, which would be read page by page."""
        _, borders, content = parts.values.field("image").buffers()
        if content is None:
            return
        first, end = np.frombuffer(parts.buffers()[1], np.int32, 2, 4 * number).tolist()
        start, stop = np.frombuffer(borders, np.int64)[[first, end]].tolist()
        if start < stop:
            start += content.address - self._buffer.address
            stop += content.address - self._buffer.address
            start -= start % mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_WILLNEED, start, stop - start)


class _Corpus(NamedTuple):
    """A corpus as it is now: which `corpus.json` its folder has, a new one after every build."""

    file: str
    inode: int
    modified: int

    @classmethod
    def at(cls, file: str) -> _Corpus:
        state = os.stat(file)
        return cls(file, state.st_ino, state.st_mtime_ns)


class _ReplacedError(Exception):
    """Another corpus is in the place of the one that was opened."""


@lru_cache(maxsize=_OPEN_FILES)
def _opened(file: str, corpus: _Corpus) -> _OpenFile:
    """Return a file of a corpus, mapped to read single rows of it."""
    return _OpenFile(*_map_of(corpus, file, at_random=True))


def _map_of(corpus: _Corpus, file: str, *, at_random: bool) -> tuple[mmap.mmap, pa.Buffer]:
    try:
        return _map(file, at_random=at_random)
    finally:  # looked at afterwards, so that no file of another corpus passes for one of this
        if _Corpus.at(corpus.file) != corpus:
            raise _ReplacedError


class Batches:
    """The record batches of a split's Arrow files.

    Args:
        directory: The split's directory.
        content_hash: Of its documents.

    Raises:
        UserError: If a file is damaged, where the batches have yet to be found.
    """

    def __init__(self, directory: Path, content_hash: str) -> None:
        self._directory, self._content_hash = directory, content_hash
        self._open()

    def _open(self) -> None:
        self._corpus = _Corpus.at(str(self._directory.parent / "corpus.json"))
        self._files = arrow_files(self._directory)
        self._table = open_batches(self._directory, self._files)
        self._first_rows = self._table[:, 2]
        self._rows = int(self._first_rows[-1])
        # Of so many files, nearly every row lies in one that isn't mapped; but neighbours are often read together.
        self._many, self._last_file = len(self._files) > _OPEN_FILES, -1
        self._schema = self._read_schema()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def row(self, number: int) -> pa.RecordBatch:
        """Return one row as a batch; it is read as rows in any order are.

        Args:
            number: From 0 to the number of rows, exclusively.

        Raises:
            UserError: If its file is damaged, or the corpus has been built anew with other documents.
        """
        batch = self._batch_of(number)
        (file, position, first), (following, end, _) = self._table[batch : batch + 2].tolist()
        size = end - position if following == file else sys.maxsize  # of the last one it isn't known
        try:
            if self._many and file != self._last_file:
                self._last_file = file
                row = self._unmapped_row(file, position, end if following == file else None, number - first)
                if row is not None:
                    return row
            return _opened(self._files[file], self._corpus).row(position, size, number - first, self._schema)
        except _ReplacedError:
            self._open_again()
            return self.row(number)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged(self._files[file], error) from error

    def _unmapped_row(self, file: int, position: int, end: int | None, number: int) -> pa.RecordBatch | None:
        try:
            return read_row(self._files[file], position, end, number, self._schema)
        finally:  # as in `_map_of`
            if _Corpus.at(self._corpus.file) != self._corpus:
                raise _ReplacedError

    def between(self, start: int = 0, stop: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a range in order, as batches of the files or parts of them.

        Args:
            start: The first row.
            stop: The row after the last; None: all that follow.

        Raises:
            UserError: As in `row`.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        opened = content = None
        while start < stop:
            file, position, first = self._table[self._batch_of(start)].tolist()
            try:
                if content is None or file != opened:
                    content, opened = _map_of(self._corpus, self._files[file], at_random=False)[1], file
                batch = pa.ipc.read_record_batch(content.slice(position), self._schema)
            except _ReplacedError:
                self._open_again()
                content = None
                continue
            except (OSError, ValueError, pa.ArrowException) as error:
                raise damaged(self._files[file], error) from error
            if first + batch.num_rows <= start:
                raise damaged(self._files[file], ValueError(OF_OTHERS))
            batch = batch.slice(start - first, stop - start)
            yield batch
            start += batch.num_rows

    def _batch_of(self, row: int) -> int:
        return int(self._first_rows.searchsorted(row, "right")) - 1

    def _read_schema(self) -> pa.Schema:
        if not self._files:
            raise damaged(self._directory, ValueError("its Arrow files are missing"))
        try:
            return pa.ipc.read_schema(pa.BufferReader(_map(self._files[0], at_random=True)[1]))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged(self._files[0], error) from error

    def _open_again(self) -> None:
        """Open the corpus that is now there, if the split has the same documents: others of its splits may be new.

        Raises:
            UserError: If it has other documents.
        """
        splits = json.loads(Path(self._corpus.file).read_text(encoding="utf-8"))["splits"]
        if splits.get(self._directory.name, {}).get("content_hash") != self._content_hash:
            raise UserError(f"{self._directory}: the corpus was built anew while it was read: run the command again")
        self._open()
