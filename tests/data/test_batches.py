"""A split opens from `batches.npy`: the same documents with it and without, whatever is in its place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.data import batches, single_rows
from mm1.data.batches import FILE
from mm1.data.build import build_from
from mm1.data.corpus import Split, write_corpus
from mm1.data.writer import ShardWriter
from mm1.document import Document, Image, Text
from mm1.errors import UserError

FILES, ROWS = 5, 230  # the last batches of files are smaller


def document(number: int) -> Document:
    parts = (Image(bytes([number % 256]) * (40_000 if number % 7 == 0 else 50), "p.jpg"), Text(f" picture {number}"))
    return Document(f"d{number}", "caption", parts[number % 2 :], {"number": number})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of several files without `batches.npy`, as older ones are."""
    directory = tmp_path_factory.mktemp("older") / "corpus"
    write_corpus(directory, {"train": []}, licence="none", sources=[])
    for number in range(FILES):
        writer = ShardWriter(directory / "train" / f"{number:05d}.arrow")
        for row in range(ROWS):
            writer.write(document(number * ROWS + row))
        writer.finish()
    (directory / "train" / FILE).unlink()
    info = json.loads((directory / "corpus.json").read_text())
    info["splits"]["train"]["documents"] = FILES * ROWS
    (directory / "corpus.json").write_text(json.dumps(info))
    return directory


@pytest.fixture(scope="module")
def split(corpus: Path) -> Split:
    return Split(corpus / "train")


def test_an_older_corpus_gets_it_when_it_is_opened(corpus: Path, split: Split) -> None:
    table = np.load(corpus / "train" / FILE)
    assert table[-1].tolist() == [FILES, 0, FILES * ROWS]
    assert table[:, 2].tolist() == [*(n * ROWS + first for n in range(FILES) for first in (0, 200)), FILES * ROWS]
    assert list(split) == [document(number) for number in range(FILES * ROWS)]


def test_a_corpus_that_is_read_only_is_read(corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    shutil.copytree(corpus, tmp_path / "corpus")
    (tmp_path / "corpus" / "train" / FILE).unlink(missing_ok=True)
    monkeypatch.setattr(batches, "whole_file", refuse)
    assert Split(tmp_path / "corpus" / "train")[ROWS] == document(ROWS)
    assert not (tmp_path / "corpus" / "train" / FILE).exists()


@given(st.integers(0, FILES * ROWS), st.integers(0, FILES * ROWS + 9))
@settings(max_examples=60)
def test_ranges_are_those_of_the_rows(split: Split, start: int, stop: int) -> None:
    ids = [id for batch in split.batches(start, stop) for id in batch.column("id").to_pylist()]
    assert ids == [f"d{number}" for number in range(start, min(stop, FILES * ROWS))]
    if start < stop and start < len(split):
        assert split[start] == document(start)


def test_more_files_than_are_open_at_a_time(tmp_path: Path) -> None:
    count = batches._OPEN_FILES + 30
    write_corpus(tmp_path / "many", {"train": [document(0)]}, licence="none", sources=[])
    first = tmp_path / "many" / "train" / "00000.arrow"
    for number in range(1, count):
        os.link(first, first.with_name(f"{number:05d}.arrow"))
    before = len(os.listdir("/dev/fd"))
    split = Split(tmp_path / "many" / "train")
    assert [split[row] for row in range(len(split))] == [document(0)] * count
    assert len(os.listdir("/dev/fd")) <= before + batches._OPEN_FILES + 5


@pytest.mark.parametrize("first_bytes", [4096, 60_000, 1 << 20])
@pytest.mark.parametrize("most_bytes", [0, 1 << 20])
def test_rows_of_files_that_are_not_mapped(
    corpus: Path, first_bytes: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the pictures begin, and whether or not the batch is small enough."""
    monkeypatch.setattr(batches, "_OPEN_FILES", FILES - 1)
    monkeypatch.setattr(single_rows, "_FIRST_BYTES", first_bytes)
    monkeypatch.setattr(single_rows, "_MOST_BYTES", most_bytes)
    mapped: list[str] = []
    opened = batches._opened

    def counted(file: str, corpus: batches._Corpus) -> batches._OpenFile:
        mapped.append(file)
        return opened(file, corpus)

    monkeypatch.setattr(batches, "_opened", counted)
    split = Split(corpus / "train")
    rows = [(number * 431) % (FILES * ROWS) for number in range(FILES * ROWS)]
    for row in rows:
        assert split[row] == document(row)
    assert (len(mapped) > ROWS) == (most_bytes == 0 and first_bytes < 1 << 20)
    mapped.clear()
    assert [split[row] for row in range(ROWS)] == [document(row) for row in range(ROWS)]
    assert len(mapped) >= ROWS - 1, "neighbours are read from a mapping"


def test_an_unmapped_row_reads_its_own_picture_only(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_OPEN_FILES", FILES - 1)
    split, read = Split(corpus / "train"), []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], position: int) -> int:
        read.append(sum(map(len, buffers)))
        return preadv(descriptor, buffers, position)

    monkeypatch.setattr(os, "preadv", counted)
    for row in (3 * ROWS + 1, 4 * ROWS, ROWS + 6):
        read.clear()
        assert split[row] == document(row)
        assert 0 < sum(read) < single_rows._FIRST_BYTES + 60_000
    assert (corpus / "train" / "00001.arrow").stat().st_size > 600_000


def test_every_way_to_write_a_split_writes_it(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    build_from("text", [str(tmp_path / "*.txt")], tmp_path / "built")
    write_corpus(tmp_path / "written", {"train": [document(1)], "none": []}, licence="none", sources=[])
    for directory, rows in (("built/train", 3), ("written/train", 1), ("written/none", 0)):
        assert np.load(tmp_path / directory / FILE)[-1, 2] == rows == len(Split(tmp_path / directory))


def test_a_corpus_with_the_same_documents_in_its_place_is_read_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    build_from("text", [str(tmp_path / "a.txt")], tmp_path / "corpus")
    split = Split(tmp_path / "corpus" / "train")
    build_from("text", [str(tmp_path / "b.txt")], tmp_path / "corpus", split="heldout")
    assert [document.text for document in split] == [split[0].text] == ["text a"]
    batches._opened.cache_clear()  # else the documents of before are still mapped
    opened = Split(tmp_path / "corpus" / "train")
    build_from("text", [str(tmp_path / "b.txt")], tmp_path / "corpus")
    with pytest.raises(UserError, match="corpus/train: the corpus was built anew while it was read"):
        opened[0]


def test_damage_is_told_when_it_is_met(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "corpus"
    shutil.copytree(corpus, directory)
    Split(directory / "train")
    file = directory / "train" / "00001.arrow"
    file.write_bytes(file.read_bytes()[:2000])
    for open_files in (128, 1):
        monkeypatch.setattr(batches, "_OPEN_FILES", open_files)
        split = Split(directory / "train")
        assert split[0] == document(0)
        for read in (lambda split: split[ROWS], list):
            with pytest.raises(UserError, match="00001.arrow: the corpus is damaged"):
                read(split)


@pytest.mark.parametrize("missing", [["00000.arrow"], ["00001.arrow"], ["00000.arrow", "00001.arrow"]])
def test_missing_files_are_no_smaller_corpus(corpus: Path, tmp_path: Path, missing: list[str]) -> None:
    directory = tmp_path / "corpus"
    shutil.copytree(corpus, directory)
    files = {name: (directory / "train" / name).read_bytes() for name in missing}
    for name in missing:
        (directory / "train" / name).unlink()
    with pytest.raises(UserError, match=r"corpus/train: the corpus is damaged \(its Arrow files .*\): build it again"):
        Split(directory / "train")
    for name, content in files.items():
        (directory / "train" / name).write_bytes(content)
    assert list(Split(directory / "train")) == list(Split(corpus / "train"))


def test_an_empty_table_is_made_again(corpus: Path, tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    shutil.copytree(corpus, directory)
    (directory / "train" / FILE).write_bytes(b"")
    assert list(Split(directory / "train")) == list(Split(corpus / "train"))
    assert (directory / "train" / FILE).read_bytes() == (corpus / "train" / FILE).read_bytes()


def test_a_table_of_other_files_is_no_silent_other_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "corpus"
    write_corpus(directory, {"train": [document(n) for n in range(9)]}, licence="none", sources=[])
    other = tmp_path / "other"
    write_corpus(other, {"train": [document(n) for n in range(5)]}, licence="none", sources=[])
    shutil.copy(directory / "train" / FILE, other / "train" / FILE)
    for open_files in (128, 0):
        monkeypatch.setattr(batches, "_OPEN_FILES", open_files)
        split = Split(other / "train")
        for read in (lambda split: split[7], list):
            with pytest.raises(UserError, match=r"damaged \(batches.npy beside it is of other files\)"):
                read(split)
