"""Files and folders that are whole or not there, and a lock between processes.

What is written lies beside its place under a temporary name until it is complete, and is renamed then.
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
"""Ending of whatever is not complete."""


class LockedError(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock until the block ends. It goes with the process, however that ends; the lock's file stays.

    Args:
        path: The lock's file, in a folder that exists.
        wait: Whether to wait, which is said, while another process holds the lock.

    Raises:
        LockedError: If another process holds it, unless told to wait.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise LockedError from None
        console.print(f"{path.name}: held by another process; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_file(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a block the temporary path of a file, which takes the file's place when the block is through.

    Args:
        file: The file; replaced if it exists.
        shared: Whether several processes may write it at the same time: each then has a temporary name of its own.

    Yields:
        Where the block is to write. What it leaves there is removed if it fails.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}{PARTIAL}" if shared else file.name + PARTIAL)
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a block an empty folder, which takes a folder's place when the block is through.

    Args:
        folder: The folder; replaced if it exists. If it is `shared`, one that another process has put there stays.
        shared: As of `whole_file`.

    Yields:
        The folder to fill. It is removed if the block fails.
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
    aside = old.with_name(old.name + ".old")
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
    """Write a UTF-8 file, whole or not at all; what UTF-8 can't hold (of odd file names, say) becomes `?`."""
    with whole_file(file, shared=shared) as partial:
        partial.write_bytes(text.encode("utf-8", "replace"))


def write_json(file: Path, value: Any, *, indent: int | None = 2, shared: bool = False) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(file, json.dumps(value, indent=indent, ensure_ascii=False) + "\n", shared=shared)


def link(source: Path | str, target: Path | str) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def hash_files(files: Iterable[Path], *, names: bool = True) -> str:
    """Return a hash (32 hexadecimal digits) over files' contents, in order.

    Args:
        files: The files.
        names: Whether their names, without their folders, count too.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        if names:
            digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
