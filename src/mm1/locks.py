"""A lock between processes: a file that one of them holds.

The lock goes with the process, however that ends, and forked workers don't inherit it (POSIX record locks). On
Windows there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mm1.progress import console


class LockedError(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock until the block ends; its file is removed then.

    Where the file system can't lock, that is said, and the block is entered all the same.

    Args:
        path: The lock's file, in a folder that exists.
        wait: Whether to wait, which is said, while another process holds the lock.

    Raises:
        LockedError: If another process holds it, unless told to wait.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    while True:
        with path.open("w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                if not wait:
                    raise LockedError from None
                console.print(f"{path.name}: held by another process; waiting for it")
                fcntl.lockf(file, fcntl.LOCK_EX)
            except OSError as error:
                console.print(f"{path} can't be locked ({error.strerror}): see to it that nothing else writes there")
            # The process that held the lock a moment ago may have removed the file that was opened here.
            if not _is_still(path, file.fileno()):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
