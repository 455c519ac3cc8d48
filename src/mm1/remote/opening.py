"""Files and objects by one path: opened for reading from end to end, and what paths are told from paths."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO, Any, cast

from mm1.places import is_address
from mm1.remote.objects import RemoteObject, remote_object


def open_binary(path: str, buffering: int = io.DEFAULT_BUFFER_SIZE) -> IO[bytes]:
    """Open a file, or an object by its address, for reading; it can be sought in.

    Args:
        path: The path or the address.
        buffering: Bytes of the buffer.

    Raises:
        OSError: If a file can't be opened.
        RemoteError: If an object can't, now or when it is read.
    """
    if not is_address(path):
        return open(path, "rb", buffering=buffering)
    return io.BufferedReader(_Stream(source := remote_object(path), source.read_on), buffering)


def stream_of(source: RemoteObject) -> IO[bytes]:
    """Return an object as a stream that is read through the cache, for reading here and there."""
    return io.BufferedReader(_Stream(source, source.read))


def absolute(path: str) -> str:
    """Return an absolute path; an address as it is."""
    return path if is_address(path) else os.path.abspath(path)


def join(folder: str, name: str) -> str:
    """Return the path of a name below a folder or an address, without `.` and `..` in it."""
    if not is_address(folder):
        return os.path.normpath(os.path.join(folder, name))
    if is_address(name):
        return name
    protocol, _, place = folder.partition("://")
    host, _, path = place.partition("/")
    below = os.path.normpath(os.path.join("/", path, name)).lstrip("/")
    return f"{protocol}://{host}/{below}"


class _Stream(io.RawIOBase):
    """An object as a stream of bytes."""

    def __init__(self, source: RemoteObject, read: Callable[[int, int], bytes]) -> None:
        self._source, self._read, self._position = source, read, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.state.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._read(self._position, len(buffer))
        cast("memoryview", buffer)[: len(data)] = data
        self._position += len(data)
        return len(data)
