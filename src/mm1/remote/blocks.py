"""The cache of blocks: what was read of objects, in one folder of bounded size that all processes share.

    CACHE/blocks/3f/3fa9...    8 bytes of hash, then a block of an object

A block's name is a hash of address, size, etag and number, so a changed object has other blocks. A block is written to
a temporary name and renamed: it is whole or absent, whatever kills the process, and no lock is needed. There are 256
folders, each with an equal share of the room. Whoever writes looks into the block's folder now and then, more seldom
the more it holds, and removes what was not read for longest: no process counts for others, or lists the whole cache.

fsspec's own caches don't do: `filecache` and `simplecache` hold whole objects, `blockcache` keeps what it has in a file
that processes overwrite for one another, and none has a bound. `diskcache` has one, and writes to SQLite for each read.
"""

from __future__ import annotations

import os
import random
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import xxhash

from mm1.places import cache_directory, cache_size
from mm1.progress import console

BLOCK = 128 * 1024
"""Bytes of a block. A picture of 60 kB takes 1.5 of them, so reading at random reads about three times its size."""

_FOLDERS = 256
_HASH_BYTES = 8
_KEPT = 0.95
"""Share of a folder's room that is full after it was looked into,"""
_BETWEEN = 0.02
"""and share that is written, on average, before it is again."""


class Blocks:
    """Blocks of objects on disk.

    Args:
        folder: Where they are; made when the first is written.
        size: Bytes that they may take, together with the copies of folders (`mm1.remote.folders`).
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = str(folder), size
        self._writes = True

    def get(self, name: str, length: int) -> bytes | None:
        """Return a block; None if it isn't there, or not whole.

        Args:
            name: 32 hexadecimal digits (see `name_of`).
            length: Its bytes.
        """
        file = self._file(name)
        try:
            with open(file, "rb", buffering=0) as stream:
                content = stream.read(_HASH_BYTES + length + 1)
            data = content[_HASH_BYTES:]
            if len(data) == length and xxhash.xxh3_64_digest(data) == content[:_HASH_BYTES]:
                os.utime(file)
                return data
            os.unlink(file)  # a power cut, or a damaged disk
        except OSError:
            pass
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep a block. If the disk can't take it, a line says so once, and no more are kept by this process."""
        if not self._writes:
            return
        file = self._file(name)
        partial = f"{file}.{secrets.token_hex(4)}"
        try:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            try:
                with open(partial, "wb") as stream:
                    stream.write(xxhash.xxh3_64_digest(data) + data)
                os.replace(partial, file)
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial)
                raise
        except OSError as error:
            self._writes = False
            console.print(
                f"{self._folder}: nothing more is kept in the cache ({error.strerror or error}), and what isn't there "
                "is read from the store each time: free some space, or set MM1_CACHE to another disk"
            )
            return
        if random.random() * _BETWEEN * self._size / _FOLDERS < _HASH_BYTES + len(data):  # noqa: S311
            self._make_room(os.path.dirname(file))

    def _file(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name}"

    def make_room(self) -> None:
        """Remove what was not read for longest where copies of folders have taken the room."""
        with suppress(OSError), os.scandir(self._folder) as folders:
            for folder in folders:
                self._make_room(folder.path)

    def _make_room(self, folder: str) -> None:
        """Remove what was not read for longest from a folder that holds more than its share."""
        with os.scandir(folder) as entries:
            found = []
            for entry in entries:
                with suppress(OSError):  # another process has removed it
                    state = entry.stat()
                    found.append((state.st_mtime_ns, state.st_size, entry.path))
        room = max(0, self._size - copied_bytes()) / _FOLDERS
        surplus = sum(size for _, size, _ in found) - _KEPT * room
        for _, size, path in sorted(found):
            if surplus <= 0:
                return
            with suppress(OSError):
                os.unlink(path)
            surplus -= size


def name_of(*facts: object) -> str:
    """Return a block's name for what tells it from all others."""
    return xxhash.xxh3_128_hexdigest("\n".join(map(str, facts)).encode("utf-8", "surrogateescape"))


def copies_folder() -> Path:
    """Return the folder of the cache that holds copies of folders."""
    return cache_directory() / "folders"


def copied_bytes() -> int:
    """Return how many bytes these copies take; their names say it."""
    with suppress(FileNotFoundError), os.scandir(copies_folder()) as entries:
        sizes = (entry.name.rpartition("-")[2] for entry in entries if entry.is_dir())
        return sum(int(size) for size in sizes if size.isdigit())
    return 0


def blocks() -> Blocks | None:
    """Return the cache of blocks that the environment names; None: nothing is kept.

    Raises:
        UserError: If `$MM1_CACHE_SIZE` is no size.
    """
    size = cache_size()
    return _opened(cache_directory() / "blocks", size) if size else None


@lru_cache(maxsize=4)
def _opened(folder: Path, size: int) -> Blocks:
    return Blocks(folder, size)
