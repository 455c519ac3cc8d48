"""Pictures that pages name by web addresses, fetched while the pages before them are read.

Dead links are everyday: a picture that can't be had is a loss of its page, counted with its reason. When the network
itself is gone, reading stops instead, and goes on later with what was fetched kept.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mm1.data.readers.picture_folder import NotFetched, is_web_address
from mm1.data.readers.pictures import PictureError, picture_size
from mm1.errors import UserError
from mm1.fetch.web import NotFetchedError, Web
from mm1.progress import console

THREADS = 32
"""Addresses that a process asks at once. Many more is what overloads resolvers (img2dataset issues 360, 361)."""

_AHEAD = 4 * THREADS  # addresses
_ROWS_AHEAD = 256
_MOST_IN_A_ROW = 300
_SECONDS_BETWEEN_LINES = 60

Row = tuple[str, dict[str, Any]]


class Kept:
    """What was fetched for a shard, in files beside its own, until the shard is done.

    Args:
        beside: How the files' paths begin; empty: nothing is kept.
    """

    def __init__(self, beside: str) -> None:
        self._places: dict[str, tuple[Path, int, int] | str] = {}
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        if beside:
            path = Path(beside)
            for file in sorted(path.parent.glob(f"{path.name}.kept-*")):
                self._read_index(file)
            # A file of its own: another process may be at the same shard.
            self._file = open(f"{beside}.kept-{secrets.token_hex(4)}", "xb")  # noqa: SIM115 - closed by `close`

    def find(self, address: str) -> bytes | NotFetched | None:
        """Return what is known of an address; None if it has not been asked."""
        place = self._places.get(address)
        if place is None:
            return None
        if isinstance(place, str):
            return NotFetched(address, place)
        file, start, size = place
        with file.open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def add(self, address: str, found: bytes | NotFetched) -> None:
        """Keep what was found at an address."""
        if self._file is None:
            return
        known = {"reason": found.reason} if isinstance(found, NotFetched) else {"bytes": len(found)}
        head = json.dumps({"address": address, **known}).encode() + b"\n"
        with self._lock:
            if not self._file.closed:
                self._file.write(head + (b"" if isinstance(found, NotFetched) else found))
                self._file.flush()

    def close(self) -> None:
        """Close the file that is written."""
        if self._file is not None:
            with self._lock:
                self._file.close()

    def _read_index(self, file: Path) -> None:
        whole = file.stat().st_size
        with file.open("rb") as stream:
            while line := stream.readline():
                try:
                    head = json.loads(line)
                except ValueError:  # its end was not written
                    return
                if "reason" in head:
                    self._places[head["address"]] = head["reason"]
                    continue
                start = stream.tell()
                if start + head["bytes"] > whole:
                    return
                self._places[head["address"]] = (file, start, head["bytes"])
                stream.seek(head["bytes"], os.SEEK_CUR)


@dataclass
class _Count:
    """How fetching goes.

    Attributes:
        asked: Addresses whose turn has come.
        failed: Those that gave no picture.
        in_a_row: Failures of the network since the last address that answered.
        told: When that was last said.
    """

    asked: int = 0
    failed: int = 0
    in_a_row: int = 0
    told: float = field(default_factory=time.monotonic)


def with_pictures(rows: Iterator[Row], web: Web, beside: str, label: str) -> Iterator[Row]:
    """Yield rows, in order, whose `images` hold pictures in the place of web addresses, or `NotFetched`.

    Args:
        rows: Name and columns of each.
        web: What fetches.
        beside: See `Kept`.
        label: What is read, for messages.

    Raises:
        UserError: If no address answers any more.
    """
    kept, count = Kept(beside), _Count()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mm1-fetch")
    waiting: deque[tuple[str, dict[str, Any], dict[int, Future[_Found]]]] = deque()
    ahead = 0
    try:
        for name, row in rows:
            asked = {number: pool.submit(_fetch, web, kept, address) for number, address in _addresses(row)}
            waiting.append((name, row, asked))
            ahead += len(asked)
            while ahead > _AHEAD or len(waiting) > _ROWS_AHEAD:
                ahead -= len(waiting[0][2])
                yield _filled(*waiting.popleft(), count, label)
        while waiting:
            yield _filled(*waiting.popleft(), count, label)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        kept.close()


def _addresses(row: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the web addresses among a page's pictures, and their places."""
    pictures = row.get("images")
    if not isinstance(pictures, list):
        return []
    return [(number, one) for number, one in enumerate(pictures) if isinstance(one, str) and is_web_address(one)]


@dataclass(frozen=True)
class _Found:
    picture: bytes | NotFetched
    is_of_network: bool = False


def _fetch(web: Web, kept: Kept, address: str) -> _Found:
    known = kept.find(address)
    if known is not None:
        return _Found(known)
    try:
        data = web.get(address)
        picture_size(data)
    except NotFetchedError as error:
        found = _Found(NotFetched(address, error.reason), error.is_of_network)
    except PictureError as error:
        found = _Found(NotFetched(address, str(error)))
    else:
        found = _Found(data)
    if not found.is_of_network:  # else it is asked again after an interruption
        kept.add(address, found.picture)
    return found


def _filled(name: str, row: dict[str, Any], asked: Mapping[int, Future[_Found]], count: _Count, label: str) -> Row:
    """Return a row with what was found at its addresses."""
    if not asked:
        return name, row
    pictures = list(row["images"])
    for number, future in asked.items():
        found = future.result()
        address = pictures[number]
        failed = isinstance(found.picture, NotFetched)
        pictures[number] = found.picture if failed else {"bytes": found.picture, "path": address}
        count.asked += 1
        count.failed += failed
        count.in_a_row = count.in_a_row + 1 if found.is_of_network else 0
        if count.in_a_row >= _MOST_IN_A_ROW:
            raise UserError(
                f"{label}: the last {_MOST_IN_A_ROW} addresses of pictures gave no answer: check the network and its "
                "name servers (with many processes a resolver of your own helps), then run the same command again, it "
                "goes on from what is fetched"
            )
    if time.monotonic() - count.told > _SECONDS_BETWEEN_LINES:
        count.told = time.monotonic()
        console.print(f"{label}: {count.asked:,} pictures asked for, {count.failed:,} not to be had")
    return name, {**row, "images": pictures}
