"""Batches from stores: what they need is asked for at once, and they are those of files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.data.read_ahead import AT_ONCE, read_documents
from mm1.data.sources import SourceError
from tests.data.sample_sources import picture, write_parquet
from tests.remote.conftest import forget
from tests.remote.server import Request, Store, slow


@contextmanager
def most_at_once(s3: Store, seconds: float = 0.05) -> Iterator[list[int]]:
    """Make every request for contents wait; give the highest number of them that wait together, in a list."""
    lock, now, most = threading.Lock(), [0], [0]

    def rule(request: Request) -> None:
        if request.method == "GET":
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(seconds)
            with lock:
                now[0] -= 1

    s3.rule = rule
    yield most
    s3.rule = lambda request: None


def captions(s3: Store, tmp_path: Path, count: int) -> Split:
    """Return a corpus by reference to pictures that are objects of their own, one of which is no picture."""
    for number in range(count):
        s3.put(f"s3://data/f/{number}.png", picture(number))
        s3.put(f"s3://data/f/{number}.txt", str(number).encode())
    build_from("image-folder", ["s3://data/f"], tmp_path / "c", in_place=True, workers=1)
    forget()
    return Split(tmp_path / "c" / "train")


def test_documents_are_asked_for_at_once_and_come_in_order(s3: Store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MM1_CACHE_SIZE", "0")
    split = captions(s3, tmp_path, 40)
    places = [(split, row) for row in (*range(39, -1, -1), 5, 5)]
    with most_at_once(s3) as most:
        ahead = list(read_documents(places))
    assert ahead == [split[row] for _, row in places]
    assert 2 < most[0] <= AT_ONCE


def test_what_fails_is_the_same_as_one_by_one(s3: Store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MM1_CACHE_SIZE", "0")
    split = captions(s3, tmp_path, 8)
    documents = list(split)
    forget()
    s3.remove("s3://data/f/2.png")
    ahead = list(read_documents((split, row) for row in range(8)))
    for row, document in enumerate(ahead):
        if document != documents[row]:
            with pytest.raises(SourceError) as alone:
                split[row]
            assert str(document) == str(alone.value)
    assert sum(isinstance(document, SourceError) for document in ahead) == 1


def test_documents_wait_for_no_more_than_their_turn_needs(s3: Store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MM1_CACHE_SIZE", "0")
    split = captions(s3, tmp_path, 40)
    s3.requests.clear()
    assert next(read_documents((split, row) for row in range(40))) == split[0]
    assert len({request.path for request in s3.gets("f/")}) <= AT_ONCE


def test_a_row_group_is_read_once_by_all_threads(s3: Store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MM1_CACHE_SIZE", "0")
    write_parquet(tmp_path / "0.parquet", {"jpg": [picture(n) for n in range(20)], "txt": [str(n) for n in range(20)]})
    s3.put("s3://data/0.parquet", (tmp_path / "0.parquet").read_bytes())
    build_from("captions", ["s3://data/0.parquet"], tmp_path / "c", in_place=True, workers=1)
    split = Split(tmp_path / "c" / "train")
    documents = list(split)
    forget()
    s3.requests.clear()
    assert list(read_documents((split, row) for row in range(20))) == documents
    assert len(s3.gets("0.parquet")) < 12  # the columns once; beside them the footer, and its first bytes


def test_ctrl_c_does_not_wait_for_a_store(s3: Store, tmp_path: Path) -> None:
    split = captions(s3, tmp_path, 8)
    s3.rule = slow(30, "f/")
    code = (
        "from pathlib import Path; from mm1.data.corpus import Split; from mm1.data.read_ahead import read_documents\n"
        f"split = Split(Path({str(split.directory)!r})); print(flush=True)\n"
        "list(read_documents((split, row) for row in range(8)))"
    )
    environment = {**os.environ, "MM1_CACHE_SIZE": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    s3.requests.clear()
    while not s3.gets("f/"):
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=25)[1]
    assert time.monotonic() - began < 25
    assert said.strip().endswith("KeyboardInterrupt")
