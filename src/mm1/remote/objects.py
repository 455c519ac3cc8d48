"""Objects of stores, read by ranges: through the cache of blocks, and never other bytes than those of a known state.

An object that is read has the state (size, and a hash of its etag) that the reader knows of it. The library is asked
for its ranges on that condition (s3fs sends `If-Match`, gcsfs the generation); where a store has no such condition, the
state is looked at when the object is opened.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import xxhash

from mm1.places import is_address
from mm1.remote.blocks import BLOCK, Blocks, blocks, name_of
from mm1.remote.errors import ChangedError, RemoteError, may_pass
from mm1.remote.store import attempt, file_system

REQUEST = 8 * 2**20
"""Bytes of the largest request, and of what is read ahead where an object is read from end to end."""

_AT_ONCE = 32  # states that are asked for; requests of one read
_OPEN_OBJECTS = 256  # of a process
_MARKS = ("ETag", "etag", "generation", "blob_id", "md5Hash", "Content-MD5", "Last-Modified", "mtime", "created")
"""Names under which libraries tell what changes with an object, the surest first."""


class State(NamedTuple):
    """What tells a file from a later one.

    Attributes:
        size: Bytes.
        modified: The time of change in nanoseconds; of an object, a hash of its etag (int64; 0: it has none).
    """

    size: int
    modified: int

    @classmethod
    def of(cls, file: str) -> State:
        """Return the state of a file, or of an object, as it is now.

        Raises:
            OSError: If a file is not there.
            RemoteError: If an object is not there, or its store doesn't tell.
        """
        if not is_address(file):
            found = os.stat(file)
            return cls(found.st_size, found.st_mtime_ns)
        return state_of(attempt(lambda: file_system(file).info(file), file), file)


def states_of(files: Iterable[str]) -> dict[str, State]:
    """Return the states of files and objects, many of which are asked for at once.

    Raises:
        OSError: As of `State.of`.
        RemoteError: Likewise.
    """
    files = list(files)
    if not any(map(is_address, files)):
        return {file: State.of(file) for file in files}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(files, pool.map(State.of, files), strict=True))


def state_of(info: Mapping[str, Any], address: str) -> State:
    """Return the state of an object that fsspec tells of.

    Raises:
        RemoteError: If it has no size, or is no object.
    """
    if info.get("type") == "directory":
        raise RemoteError(f"{address}: a folder is there and no object: check the address")
    if info.get("size") is None:
        raise RemoteError(f"{address}: the server doesn't tell its size, so parts can't be read: download it first")
    mark = next((info[name] for name in _MARKS if info.get(name)), None)
    return State(int(info["size"]), 0 if mark is None else xxhash.xxh3_64_intdigest(str(mark).encode()) - 2**63)


_ahead: deque[tuple[RemoteObject, int, bytes]] = deque(maxlen=4)
"""What this process has read last from end to end. Objects outlive their reading, so none keeps its own."""


class RemoteObject:
    """An object in a known state.

    Args:
        address: Where it lies.
        state: Its state. The store is asked for nothing until something isn't in the cache.
    """

    def __init__(self, address: str, state: State) -> None:
        self.address, self.state = address, state
        self._files: dict[int, Any] = {}  # a forked process opens its own, and leaves its parent's alone

    def read(self, start: int, length: int) -> bytes:
        """Return a range, cut off at the object's end; from the cache, or into it.

        Raises:
            RemoteError: If it can't be read.
            ChangedError: If the object isn't in the state any more.
        """
        stop = min(start + length, self.state.size)
        if (ready := self._ready(start, stop)) is not None:
            return ready
        cache = blocks()
        if cache is None:
            return self._fetch(start, stop)
        first = start // BLOCK
        found = self._blocks(cache, range(first, (stop - 1) // BLOCK + 1))
        return b"".join(found)[start - first * BLOCK : stop - first * BLOCK]

    def read_on(self, start: int, length: int) -> bytes:
        """Return a range as `read` does, for reading from end to end: what follows is read too, and nothing cached.

        What was read last stays in memory, for whoever reads it again.
        """
        stop = min(start + length, self.state.size)
        if (ready := self._ready(start, stop)) is not None:
            return ready
        content = self._fetch(start, min(max(stop, start + REQUEST), self.state.size))
        _ahead.append((self, start, content))
        return content[: stop - start]

    def read_at_once(self, start: int, length: int) -> bytes:
        """Return a range as `read` does, for copying: neither cached nor kept."""
        return self._fetch(start, min(start + length, self.state.size))

    def _ready(self, start: int, stop: int) -> bytes | None:
        """Return a range that takes no reading: none of the object, or one that was read ahead."""
        if start >= stop:
            return b""
        for source, place, content in tuple(_ahead):
            if source is self and place <= start and stop <= place + len(content):
                return content[start - place : stop - place]
        return None

    def _blocks(self, cache: Blocks, numbers: range) -> list[bytes]:
        names = {number: name_of(self.address, *self.state, number) for number in numbers}
        lengths = {number: min(BLOCK, self.state.size - number * BLOCK) for number in numbers}
        found = {number: cache.get(names[number], lengths[number]) for number in numbers}
        # Neighbours that are missing are one request.
        for is_missing, run in groupby(numbers, key=lambda number: found[number] is None):
            if not is_missing:
                continue
            together = list(run)
            start = together[0] * BLOCK
            content = self._fetch(start, together[-1] * BLOCK + lengths[together[-1]])
            for number in together:
                block = content[number * BLOCK - start :][: lengths[number]]
                found[number] = block
                cache.put(names[number], block)
        return [data for number in numbers if (data := found[number]) is not None]

    def _fetch(self, start: int, stop: int) -> bytes:
        """Return a range from the store, by requests that are not too large, several at once."""
        ranges = [(at, min(at + REQUEST, stop)) for at in range(start, stop, REQUEST)]
        if len(ranges) == 1:
            return self._request(*ranges[0])
        with ThreadPoolExecutor(min(_AT_ONCE, len(ranges))) as pool:
            return b"".join(pool.map(lambda one: self._request(*one), ranges))

    def _request(self, start: int, stop: int) -> bytes:
        def ask() -> bytes:
            # What fsspec's files read by; `read` would keep a position, which threads can't share.
            data = bytes(self._file()._fetch_range(start, stop))
            if len(data) != stop - start:
                raise OSError(f"{len(data)} of {stop - start} bytes came")
            return data

        try:
            return attempt(ask, self.address)
        except ChangedError:
            raise
        except RemoteError as error:
            if isinstance(error.__cause__, Exception) and not may_pass(error.__cause__):
                self._check(State.of(self.address))  # libraries have names of their own for an object that has changed
            raise

    def _file(self) -> Any:
        process = os.getpid()
        if process not in self._files:
            store = file_system(self.address)
            file = store.open(self.address, "rb", cache_type="none")
            known = any(file.details.get(name) for name in _MARKS)
            self._check(state_of(file.details if known else store.info(self.address), self.address))
            self._files[process] = file
        return self._files[process]

    def _check(self, now: State) -> None:
        if now != self.state:
            raise ChangedError(f"{self.address}: {difference(now, self.state, 'etag')}")


def difference(now: State, then: State, mark: str = "time of change") -> str:
    """Return in what a state differs from an earlier one, in a few words."""
    return f"{now.size:,} bytes, {then.size:,} then" if now.size != then.size else f"another {mark}"


def remote_object(address: str, state: State | None = None) -> RemoteObject:
    """Return an object, once in this process for all that read it.

    Args:
        address: Where it lies.
        state: The state that it must have; None: the one that it has now.

    Raises:
        RemoteError: If it isn't there.
    """
    return _shared(address, state or State.of(address))


@lru_cache(maxsize=_OPEN_OBJECTS)
def _shared(address: str, state: State) -> RemoteObject:
    return RemoteObject(address, state)
