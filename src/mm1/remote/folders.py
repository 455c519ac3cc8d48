"""Folders of stores, copied whole into the cache and used from there: models, runs and corpora.

    CACHE/folders/3fa9...-73400320/demo/    a copy: a hash of what was listed, the bytes, and the folder's own name

They are memory-mapped, and other files are written beside them, so parts of objects would not do. A folder whose
listing (names, sizes, etags) is that of a copy is not downloaded again. When they need room, what was used least
recently goes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mm1.files import hold, whole_folder
from mm1.places import cache_directory, cache_size
from mm1.progress import progress_bar
from mm1.remote.blocks import blocks, copied_bytes, copies_folder, name_of
from mm1.remote.errors import MissingError, RemoteError
from mm1.remote.objects import REQUEST, State, remote_object, states_of
from mm1.remote.search import below
from mm1.remote.store import attempt, file_system

_STEP = 8 * REQUEST


def local_copy(address: str, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Return the folder of this machine that holds what lies below an address; downloaded if it isn't there.

    Args:
        address: Of the folder.
        wanted: Tells of a file's path from the folder whether it is needed.

    Raises:
        MissingError: If nothing that is wanted lies there.
        RemoteError: If it can't be read, or is larger than the cache.
        OSError: If it can't be written.
    """
    top = address.rstrip("/")
    states = _states_below(address, wanted)
    total = sum(state.size for state in states.values())
    key = f"{_hash(states)}-{total}"
    copy = copies_folder() / key / top.rpartition("/")[2]
    if not copy.is_dir():
        copies_folder().mkdir(parents=True, exist_ok=True)
        with hold(copies_folder() / f"{key}.lock", wait=True):
            if not copy.is_dir():
                _make_room(total, address)
                _download(top, states, copy)
        cache = blocks()
        if cache is not None:
            cache.make_room()
    with suppress(OSError):
        os.utime(copy.parent)
    return copy


def remote_hash(address: str, wanted: Callable[[str], bool] = lambda name: True) -> str:
    """Return a hash over names, sizes and etags of what `local_copy` would copy; nothing is downloaded.

    Args:
        address: As of `local_copy`.
        wanted: Likewise.

    Raises:
        MissingError: As of `local_copy`.
        RemoteError: If the store doesn't tell.
    """
    return _hash(_states_below(address, wanted))


def _states_below(address: str, wanted: Callable[[str], bool]) -> dict[str, State]:
    top = address.rstrip("/")
    files = [file for file in below(top) if wanted(file.removeprefix(top + "/"))]
    if not files:
        raise MissingError(f"{address}: nothing is there: check the address")
    return states_of(files)


def _hash(states: dict[str, State]) -> str:
    return name_of(*(f"{file} {state.size} {state.modified}" for file, state in states.items()))


def _make_room(size: int, address: str) -> None:
    """Remove copies, the least recently used first, until another of a size fits into the cache."""
    room = cache_size()
    if size > room:
        raise RemoteError(
            f"{address}: it takes {size / 1e9:,.1f} GB, and the cache in {cache_directory()} may hold "
            f"{room / 1e9:,.1f}: set MM1_CACHE_SIZE to more, or copy it to a folder yourself"
        )
    copies = [entry for entry in copies_folder().iterdir() if re.fullmatch(r"[0-9a-f]{32}-\d+", entry.name)]
    for copy in sorted(copies, key=lambda entry: entry.stat().st_mtime_ns):
        if copied_bytes() + size <= room:
            return
        shutil.rmtree(copy, ignore_errors=True)


def _download(top: str, states: dict[str, State], copy: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    with whole_folder(copy) as partial, progress_bar() as bar:
        total = sum(state.size for state in states.values())
        task = bar.add_task(f"download {copy.name}", total=round(total / 1e6, 1), note="MB")
        done = 0
        for address, state in states.items():
            source = remote_object(address, state)
            file = partial / address.removeprefix(top + "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                for start in range(0, source.state.size, _STEP):
                    done += stream.write(source.read_at_once(start, _STEP))
                    bar.update(task, completed=round(done / 1e6, 1))


def upload(folder: Path, address: str, last: str) -> None:
    """Copy the files of a folder to an address where nothing is.

    Args:
        folder: The folder.
        address: Where they are to be.
        last: The name of the file that is copied last: without it the rest is nothing.

    Raises:
        RemoteError: If something is there, or the store doesn't take them.
    """
    top, store = address.rstrip("/"), file_system(address)
    if attempt(lambda: store.exists(top), top):
        raise RemoteError(f"{address}: something is there already: give another address, or remove it")
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: (file.name == last, file))
    for file in files:
        place = f"{top}/{file.relative_to(folder).as_posix()}"
        # In its own time, since a file may be of many gigabytes.
        attempt(lambda file=file, place=place: store.put_file(str(file), place), place, in_time=False)  # type: ignore[misc]
