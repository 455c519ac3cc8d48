"""Files and folders written completely or not at all, and a lock between processes.

A file or folder is written next to its final path under a temporary name, and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mm1.progress import console

PARTIAL = ".partial"
"""Ending of the temporary name of an incomplete file or folder."""


class LockedError(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock until the block ends.

    The lock is released when the process ends, even if it is killed. The lock's file stays.

    Args:
        path: The lock's file, in an existing folder.
        wait: Whether to print a line and wait while another process holds the lock.

    Raises:
        LockedError: If another process holds the lock and `wait` is false.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise LockedError from None
        console.print(f"{path.name}: another process holds this lock; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_file(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file through a temporary path, which is renamed to the file when the block ends.

    Args:
        file: The file; replaced if it exists.
        shared: Whether several processes may write it at the same time. Each then uses its own temporary name.

    Yields:
        The path that the block writes. If the block fails, the file at this path is removed.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}{PARTIAL}" if shared else file.name + PARTIAL)
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a folder under a temporary name, and rename it when the block ends.

    Args:
        folder: The folder; replaced if it exists. If `shared`, an existing folder stays instead.
        shared: As in `whole_file`.

    Yields:
        An empty folder for the block to fill. If the block fails, it is removed.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}{PARTIAL}" if shared else folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if not shared:
            _replace(partial, folder)
        elif not folder.exists():
            _rename_unless_there(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(new: Path, old: Path) -> None:
    aside = old.with_name(f"{old.name}.old{PARTIAL}")  # no name that a user gives a copy, since it is removed
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def _rename_unless_there(new: Path, old: Path) -> None:
    try:
        new.rename(old)
    except OSError:
        if not old.exists():
            raise


def write_text(file: Path, text: str, *, shared: bool = False) -> None:
    """Write a UTF-8 file completely or not at all. Characters that UTF-8 can't encode (lone surrogates) become `?`."""
    with whole_file(file, shared=shared) as partial:
        partial.write_bytes(text.encode("utf-8", "replace"))


def write_json(file: Path, value: Any, *, indent: int | None = 2, shared: bool = False) -> None:
    """Write a JSON file completely or not at all."""
    write_text(file, json.dumps(value, indent=indent, ensure_ascii=False) + "\n", shared=shared)


def link(source: Path | str, target: Path | str) -> None:
    """Make a hard link to a file, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def hash_files(files: Iterable[Path], *, names: bool = True) -> str:
    """Return a hash (32 hexadecimal digits) over files' contents, in order.

    Args:
        files: The files.
        names: Whether the hash includes the files' names (without folders).
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        if names:
            digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
