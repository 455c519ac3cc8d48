"""Documents in order; pictures and texts that lie in stores are asked for ahead of their turn, several at once.

A store answers after tens of milliseconds, whatever it is asked for. Whoever waits for each picture in turn waits for
the sum.
"""

from __future__ import annotations

import atexit
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import Any

from mm1.data.corpus import Split
from mm1.data.schema import AT, document_of, from_part
from mm1.data.sources import SourceError
from mm1.document import Document, Part
from mm1.places import is_address

AT_ONCE = 16
"""Parts that a process reads at once. Documents before their turn have fewer than so many parts, or are one."""

_threads: dict[int, ThreadPool] = {}


def read_documents(places: Iterable[tuple[Split, int]]) -> Iterator[Document | SourceError]:
    """Yield documents in order; those of splits that are remote are read ahead.

    Args:
        places: The split and the row of each.

    Yields:
        The document, or the error of the first of its parts that can't be read.

    Raises:
        UserError: See `Split`.
    """
    begun: deque[_Begun] = deque()
    waiting = 0
    for split, row in places:
        begun.append(_Begun(split, row))
        waiting += begun[-1].requests
        while begun and (waiting >= AT_ONCE or not begun[0].requests):
            waiting -= begun[0].requests
            yield begun.popleft().document()
    while begun:
        yield begun.popleft().document()


class _Begun:
    """A document whose parts in stores are being read.

    Attributes:
        requests: The number of these parts.
    """

    def __init__(self, split: Split, row: int) -> None:
        self._split, self._row = split, row
        self._columns: dict[str, Any] = {}
        self._parts: list[AsyncResult[Part] | None] = []
        self.requests = 0
        if split.is_remote:
            self._columns = split.columns(row)
            self._parts = [self._begin(part) for part in self._columns["parts"]]
            self.requests = sum(part is not None for part in self._parts)

    def _begin(self, part: Mapping[str, Any]) -> AsyncResult[Part] | None:
        if part.get(AT) is None or not is_address(part[AT]["file"]):
            return None
        return _pool().apply_async(from_part, (part, self._split.directory.parent))

    def document(self) -> Document | SourceError:
        """Wait for the parts."""
        try:
            if not self.requests:
                return self._split[self._row]
            corpus = self._split.directory.parent
            parts = zip(self._parts, self._columns["parts"], strict=True)
            return document_of(
                self._columns, [from_part(part, corpus) if waits is None else waits.get() for waits, part in parts]
            )
        except SourceError as error:
            return error


def _pool() -> ThreadPool:
    """Return this process's threads, which end with it: those of an executor would let Ctrl-C wait for a store."""
    # What a forked process has from its parent stays, unused: its threads are not there.
    process = os.getpid()
    if process not in _threads:
        _threads[process] = ThreadPool(AT_ONCE)
        atexit.register(_threads[process].terminate)
    return _threads[process]
