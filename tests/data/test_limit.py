"""The first documents and no more: the same whatever the processes, interruptions and sizes of shards."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data import build
from mm1.data.build import build_from as build_any
from mm1.data.build import read_shard
from mm1.data.corpus import Split
from mm1.data.readers import make_reader
from mm1.data.readers.reader import Shard
from mm1.errors import UserError
from tests.data.sample_sources import write_lines

build_from = partial(build_any, max_losses=1)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Eight files of 2, 5, 5, 0, 9, 5, 5, 5 texts; after each text there is a record without one."""
    monkeypatch.setattr(build, "_JOINED_BYTES", 0)
    for number, count in enumerate((2, 5, 5, 0, 9, 5, 5, 5)):
        records = [{"text": f"{number}.{text}"} if half else {} for text in range(count) for half in (1, 0)]
        write_lines(tmp_path / "from" / f"{number}.jsonl", records or [{}])
    return str(tmp_path / "from")


def texts(folder: Path) -> list[str]:
    return [document.text for document in Split(folder / "train")]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 13, 20, 21, 26, 36, 100])
def test_the_first_documents_are_taken_and_nothing_behind_them_is_counted(
    tmp_path: Path, lines: str, limit: int
) -> None:
    whole = build_from("text", [lines], tmp_path / "whole", workers=1)["splits"]["train"]
    info = build_from("text", [lines], tmp_path / "some", workers=1, limit=limit)["splits"]["train"]
    assert texts(tmp_path / "some") == texts(tmp_path / "whole")[:limit]
    assert info["built"]["limit"] == limit
    assert info["documents"] == min(limit, 36)
    assert info["read"] == info["documents"] + sum(reason["count"] for reason in info["skipped"].values())
    if limit <= 36:  # every text but the last has a record without one behind it, and one file has only that
        assert info["read"] == 2 * limit - 1 + (limit > 12)
    else:
        assert {**info, "built": None} == {**whole, "built": None}


@pytest.mark.parametrize("limit", [12, 22])
def test_processes_and_interruptions_make_no_difference(
    tmp_path: Path, lines: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build_from("text", [lines], tmp_path / "one", workers=1, limit=limit)
    if limit == 22:
        two = build_from("text", [lines], tmp_path / "two", workers=2, limit=limit)
        assert two["splits"] == one["splits"]
    for stop in range(1, 9):
        done: list[int] = []

        def stopping(*arguments: Any, stop: int = stop, done: list[int] = done, **more: Any) -> dict[str, Any]:
            if len(done) == stop:
                raise OSError("stopped")
            done.append(1)
            return read_shard(*arguments, **more)

        monkeypatch.setattr(build, "read_shard", stopping)
        target = tmp_path / f"stopped-{stop}"
        try:
            build_from("text", [lines], target, workers=1, limit=limit)
        except UserError:
            monkeypatch.setattr(build, "read_shard", read_shard)
        assert build_from("text", [lines], target, workers=1, limit=limit)["splits"] == one["splits"]


def test_what_is_not_needed_is_not_read(tmp_path: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def watched(reader: Any, shard: Shard, file: Path, most: int | None = None) -> dict[str, Any]:
        read.append(f"{Path(shard.files[0]).stem}:{most}")
        return read_shard(reader, shard, file, most)

    monkeypatch.setattr(build, "read_shard", watched)
    build_from("text", [lines], tmp_path / "two", workers=1, limit=2)
    assert read == ["0:2"]
    read.clear()
    # Of the five that might be needed after the first, the fourth (of nine) turns out to be enough.
    build_from("text", [lines], tmp_path / "some", workers=1, limit=13)
    assert read == ["0:13", "1:11", "2:11", "3:11", "4:11", "5:11", "4:1"]


def test_another_limit_is_another_job(tmp_path: Path, lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "to"
    first = build_from("text", [lines], target, workers=1, limit=4)
    hashes = {first["splits"]["train"]["content_hash"]}
    kept = (target / "corpus.json").stat().st_mtime_ns
    build_from("text", [lines], target, workers=1, limit=4)
    assert (target / "corpus.json").stat().st_mtime_ns == kept
    for limit in (6, None):
        hashes.add(build_from("text", [lines], target, workers=1, limit=limit)["splits"]["train"]["content_hash"])
    assert len(hashes) == 3
    assert len(texts(target)) == 36
    assert "limit" not in json.loads((target / "corpus.json").read_text())["splits"]["train"]["built"]


def test_a_record_of_several_documents_is_cut(tmp_path: Path) -> None:
    from tests.data.sample_sources import picture, write_parquet

    columns = {"image": [picture(1), picture(2)], "caption": [["a", "b", "c"], ["d", "e"]]}
    write_parquet(tmp_path / "a.parquet", columns)
    reader = make_reader("captions", caption_list="all")
    shard = Shard(str(tmp_path), (str(tmp_path / "a.parquet"),))
    (tmp_path / "job").mkdir()
    info = read_shard(reader, shard, tmp_path / "job" / "0.arrow", 2)
    assert (info["documents"], info["read"]) == (2, 2)


def test_the_command_takes_a_limit(tmp_path: Path, lines: str) -> None:
    command = ["data", "build", "--from", "text", lines, "--to", str(tmp_path / "to"), "--limit", "3"]
    command += ["--workers", "1"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len(texts(tmp_path / "to")) == 3
    with pytest.raises(UserError, match="--limit is for --from"):
        CliRunner().invoke(app, ["data", "build", "pages", "--limit", "3"], catch_exceptions=False)
    with pytest.raises(UserError, match="limit is 0"):
        build_from("text", [lines], tmp_path / "to", limit=0)
